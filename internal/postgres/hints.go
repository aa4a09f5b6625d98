package postgres

// Nodes tell one another what to look at again, by LISTEN and NOTIFY. A hint carries no data and may be lost; a poll stands behind each. That
// a log has grown is told after its append has committed and many at once, since a transaction that notifies holds up all others that
// do when it commits.

import (
	"context"
	"crypto/rand"
	"errors"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// channel is the one that nodes listen to.
const channel = "eventhose"

const (
	// gather is how long hints that a log has grown are gathered.
	gather = 5 * time.Millisecond
	// maxPayload is what one notification takes, in bytes (PostgreSQL 15, NOTIFY).
	maxPayload = 7900
	// listenCheck is how often a listening connection that hears nothing is asked whether it is still there.
	listenCheck = 15 * time.Second
	// maxRelisten is the longest wait before listening is tried again.
	maxRelisten = 2 * time.Second
)

// HintKind says what a Hint is about.
type HintKind int

const (
	// HintAppended: Tenant's log has grown.
	HintAppended HintKind = iota
	// HintErased: the data of Tenant's event at Sequence was removed.
	HintErased
	// HintRecord: the record ID of kind Record of Tenant was changed.
	HintRecord
	// HintFreed: leases were given back.
	HintFreed
	// HintUnplaced: an application has appended something in its own transaction.
	HintUnplaced
	// HintInterrupted: hints may have been lost; everything is to be looked at again.
	HintInterrupted
)

// Hint is something that another node did.
type Hint struct {
	Kind     HintKind
	Tenant   tenantID
	Record   string
	ID       string
	Sequence sequence
}

// How hints are written: node, letter, tenant and what else there is, with tabs between. Of grown logs there may be several.
const (
	hintAppended = "a"
	hintErased   = "e"
	hintRecord   = "r"
	hintFreed    = "f"
	unplacedText = "unplaced" // written by eventhose.append
)

type hint struct {
	kind       string
	tenant     tenantID
	record, id string
	sequence   sequence
}

func (h hint) text(node string) string {
	switch h.kind {
	case hintErased:
		return strings.Join([]string{node, h.kind, string(h.tenant), strconv.FormatUint(uint64(h.sequence), 10)}, "\t")
	case hintRecord:
		return strings.Join([]string{node, h.kind, string(h.tenant), h.record, h.id}, "\t")
	}
	return strings.Join([]string{node, h.kind, string(h.tenant)}, "\t")
}

// parseHints reads a notification. What it does not know it passes over, since other nodes may be newer.
func parseHints(payload string) (node string, all []Hint) {
	if payload == unplacedText {
		return "", []Hint{{Kind: HintUnplaced}}
	}
	f := strings.Split(payload, "\t")
	if len(f) < 3 {
		return "", nil
	}
	switch f[1] {
	case hintAppended:
		for _, t := range f[2:] {
			all = append(all, Hint{Kind: HintAppended, Tenant: tenantID(t)})
		}
	case hintErased:
		if n, err := strconv.ParseUint(f[len(f)-1], 10, 64); err == nil && len(f) == 4 {
			all = []Hint{{Kind: HintErased, Tenant: tenantID(f[2]), Sequence: sequence(n)}}
		}
	case hintRecord:
		if len(f) >= 5 {
			all = []Hint{{Kind: HintRecord, Tenant: tenantID(f[2]), Record: f[3], ID: strings.Join(f[4:], "\t")}}
		}
	case hintFreed:
		all = []Hint{{Kind: HintFreed}}
	}
	return f[0], all
}

// hints are those to tell.
type hints struct {
	node string
	mu   sync.Mutex
	// grown are the logs to tell of, other whole payloads.
	grown map[tenantID]struct{}
	other []string
	wake  chan struct{}
}

// maxHints bounds what waits to be told; what is beyond is left to the others' polls.
const maxHints = 10_000

func (h *hints) init() {
	h.node = rand.Text()
	h.grown = map[tenantID]struct{}{}
	h.wake = make(chan struct{}, 1)
}

// appended tells of the logs that a plan has appended to.
func (s *Store) appended(p *plan) {
	if !s.several.Load() {
		return
	}
	s.hints.mu.Lock()
	for i, n := range p.counts {
		if n > 0 && len(s.hints.grown) < maxHints {
			s.hints.grown[tenantID(p.heads[i])] = struct{}{}
		}
	}
	s.hints.mu.Unlock()
	s.hints.poke()
}

func (s *Store) tell(h hint) {
	s.hints.mu.Lock()
	if len(s.hints.other) < maxHints {
		s.hints.other = append(s.hints.other, h.text(s.hints.node))
	}
	s.hints.mu.Unlock()
	s.hints.poke()
}

func (h *hints) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// take answers the payloads of what is to be told.
func (h *hints) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	payloads := h.other
	h.other = nil
	begin := h.node + "\t" + hintAppended
	payload := []byte(begin)
	for t := range h.grown {
		if len(payload)+1+len(t) > maxPayload {
			payloads, payload = append(payloads, string(payload)), []byte(begin)
		}
		payload = append(append(payload, '\t'), t...)
	}
	if len(payload) > len(begin) {
		payloads = append(payloads, string(payload))
	}
	clear(h.grown)
	return payloads
}

// tellLoop tells until ctx ends.
func (s *Store) tellLoop(ctx context.Context) {
	timer := time.NewTimer(math.MaxInt64)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.hints.wake:
		}
		timer.Reset(gather)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		payloads := s.hints.take()
		if len(payloads) == 0 {
			continue
		}
		s.notify(ctx, payloads...)
	}
}

// notify tells at once.
func (s *Store) notify(ctx context.Context, payloads ...string) {
	telling, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// It need not be on disk: whoever listens has heard it by then.
	_, err := s.pool.Exec(telling, "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, p) FROM unnest($2::text[]) p", channel, payloads)
	if err != nil && ctx.Err() == nil {
		s.logger.Debug("other nodes could not be told, they will find out by themselves", "error", err)
	}
}

// Listen calls f for what other nodes do, from its own goroutine, until ctx ends; f must not block for long. After each time
// that the connection was made, HintInterrupted comes first. It returns when ctx has ended.
func (s *Store) Listen(ctx context.Context, f func(Hint)) {
	for wait := 50 * time.Millisecond; ; {
		began := time.Now()
		err := s.listen(ctx, f)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			wait = 50 * time.Millisecond
		}
		s.logger.Warn("the database is not listened to, connecting again", "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = min(2*wait, maxRelisten)
	}
}

func (s *Store) listen(ctx context.Context, f func(Hint)) error {
	connecting, cancel := context.WithTimeout(ctx, 2*connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(connecting, s.pool.Config().ConnConfig)
	if err != nil {
		return failure("connect to the database", err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing) // the connection is given up either way
	}()
	if _, err := conn.Exec(connecting, "LISTEN "+channel); err != nil {
		return failure("listen", err)
	}
	f(Hint{Kind: HintInterrupted})
	for {
		waiting, cancel := context.WithTimeout(ctx, listenCheck)
		n, err := conn.WaitForNotification(waiting)
		quiet := errors.Is(waiting.Err(), context.DeadlineExceeded)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			if node, all := parseHints(n.Payload); node != s.hints.node {
				for _, h := range all {
					if h.Kind == HintErased {
						s.recent.leave(h.Tenant)
					}
					f(h)
				}
			}
		case quiet && !conn.IsClosed():
			pinging, cancel := context.WithTimeout(ctx, connectTimeout)
			err := conn.Ping(pinging)
			cancel()
			if err != nil {
				return failure("listen", err)
			}
		default:
			return failure("listen", err)
		}
	}
}
