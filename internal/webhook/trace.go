package webhook

import (
	"crypto/tls"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
)

// trace notes when each part of an exchange began and ended. The transport calls its hooks from goroutines of its own,
// also after the exchange has ended.
type trace struct {
	mu      sync.Mutex
	started time.Time
	now     string // the stage under way
	address string

	dns, connect, tls, wait span
}

type span struct{ start, end time.Time }

func (s span) duration() eventhose.Duration {
	if s.start.IsZero() || s.end.IsZero() {
		return 0
	}
	return eventhose.Duration(max(0, s.end.Sub(s.start))) // an early answer ends what it waited for before it began
}

// The stages, as they stand in "time-out after 15s while …".
const (
	stageStart   = "waiting for a connection"
	stageDNS     = "resolving the name"
	stageConnect = "connecting"
	stageTLS     = "shaking hands over TLS"
	stageSend    = "sending the request"
	stageWait    = "waiting for the answer"
	stageRead    = "reading the answer"
)

func (t *trace) hooks() *httptrace.ClientTrace {
	t.started = time.Now()
	t.now = stageStart
	begin := func(s *span, stage string) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if s.start.IsZero() {
			s.start = time.Now()
		}
		t.now = stage
	}
	end := func(s *span) {
		t.mu.Lock()
		defer t.mu.Unlock()
		s.end = time.Now()
	}
	return &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { begin(&t.dns, stageDNS) },
		DNSDone:  func(httptrace.DNSDoneInfo) { end(&t.dns); t.reached(stageConnect) },
		// Looking up a name connects too, to a name server: that is none of the receiver's.
		ConnectStart: func(_, address string) {
			if t.stage() != stageDNS {
				begin(&t.connect, stageConnect)
				t.at(address)
			}
		},
		ConnectDone: func(_, _ string, _ error) {
			if t.stage() != stageDNS {
				end(&t.connect)
			}
		},
		TLSHandshakeStart: func() { begin(&t.tls, stageTLS) },
		TLSHandshakeDone:  func(tls.ConnectionState, error) { end(&t.tls) },
		GotConn: func(info httptrace.GotConnInfo) {
			t.at(info.Conn.RemoteAddr().String())
			t.reached(stageSend)
		},
		WroteRequest:         func(httptrace.WroteRequestInfo) { begin(&t.wait, stageWait) },
		GotFirstResponseByte: func() { end(&t.wait) },
	}
}

func (t *trace) at(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.address = address
}

func (t *trace) reached(stage string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now = stage
}

func (t *trace) stage() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// answered reports whether a byte of an answer came.
func (t *trace) answered() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.wait.end.IsZero()
}

func (t *trace) elapsed() time.Duration { return time.Since(t.started) }

func (t *trace) outcome() (eventhose.Phases, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return eventhose.Phases{DNS: t.dns.duration(), Connect: t.connect.duration(), TLS: t.tls.duration(), Wait: t.wait.duration()}, t.address
}
