package bench

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The receiver is one plain net/http server for both sides of every comparison. A path is /r/GROUP, with anything behind
// it; GROUP says where the event is counted. /hang/… never answers within a minute, /count?groups=1,2 tells how many different
// events some groups got, which is what the load paces itself by. Beside it, at an address of its own, something accepts
// connections and never answers.

type receiverOrder struct {
	Do     string `json:"do"` // url, stats or reset
	Groups []int  `json:"groups"`
}

type receiverStats struct {
	URL string `json:"url,omitempty"`
	// Silent is where connections are accepted and nothing is answered.
	Silent string `json:"silent,omitempty"`
	// Events are different ones, Duplicates what came again, Requests how many requests they came in.
	Events     int64      `json:"events"`
	Duplicates int64      `json:"duplicates"`
	Requests   int64      `json:"requests"`
	Latency    *histogram `json:"latency,omitempty"`
	CPU        int64      `json:"cpu_us"`
}

// maxGroups bounds the groups, hence memory.
const maxGroups = 2000

type receiver struct{ groups [maxGroups]receiverGroup }

type receiverGroup struct {
	mu         sync.Mutex
	seen       []uint64 // a bit for each event's number
	events     int64
	duplicates int64
	requests   int64
	latency    *histogram
}

func receive(ctx context.Context, o *orders) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	rc := &receiver{}
	server := &http.Server{Handler: rc, ReadHeaderTimeout: time.Minute, BaseContext: func(net.Listener) context.Context { return ctx }}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	defer func() { server.Close(); <-served }()
	quiet, err := listenSilently()
	if err != nil {
		return err
	}
	defer quiet.close()
	url, silent := "http://"+listener.Addr().String(), "http://"+quiet.listener.Addr().String()
	return each(o, func(order receiverOrder) (any, error) {
		s := receiverStats{URL: url, Silent: silent, CPU: ownCPU().Microseconds()}
		switch order.Do {
		case "reset":
			for i := range rc.groups {
				rc.groups[i].reset()
			}
		case "stats":
			s.Latency = &histogram{}
			for _, g := range order.Groups {
				rc.groups[g].addTo(&s)
			}
		}
		return s, nil
	})
}

func (g *receiverGroup) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen, g.events, g.duplicates, g.requests, g.latency = nil, 0, 0, 0, nil
}

// addTo adds what the group got; its latencies are those since the last time.
func (g *receiverGroup) addTo(s *receiverStats) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.Events += g.events
	s.Duplicates += g.duplicates
	s.Requests += g.requests
	if g.latency != nil {
		s.Latency.merge(g.latency)
		g.latency = nil
	}
}

// plainPath is where the least that anybody could do answers: it reads the body, and says 200.
const plainPath = "/plain"

var bodies = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if rest, ok := strings.CutPrefix(r.URL.Path, "/r/"); ok {
		name, _, _ := strings.Cut(rest, "/")
		if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < maxGroups {
			rc.take(&rc.groups[n], w, r)
			return
		}
	}
	switch r.URL.Path {
	case plainPath:
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	case "/count":
		total := int64(0)
		for name := range strings.SplitSeq(r.URL.Query().Get("groups"), ",") {
			if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < maxGroups {
				rc.groups[n].mu.Lock()
				total += rc.groups[n].events
				rc.groups[n].mu.Unlock()
			}
		}
		_, _ = io.WriteString(w, strconv.FormatInt(total, 10))
	default:
		http.NotFound(w, r)
	}
}

// take counts a request's events and answers 204.
func (rc *receiver) take(g *receiverGroup, w http.ResponseWriter, r *http.Request) {
	buffer := bodies.Get().(*[]byte)
	defer bodies.Put(buffer)
	body := *buffer
	if n := int(r.ContentLength); n > cap(body) {
		body = make([]byte, 0, n)
	}
	body = body[:cap(body)]
	if r.ContentLength >= 0 {
		body = body[:r.ContentLength]
	}
	n, err := io.ReadFull(r.Body, body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	*buffer = body[:0]
	now := time.Now()
	g.mu.Lock()
	g.requests++
	if g.latency == nil {
		g.latency = &histogram{}
	}
	stamps(body[:n], func(number int64, sent time.Time) {
		word, bit := int(number/64), uint64(1)<<(number%64)
		if word >= len(g.seen) {
			g.seen = append(g.seen, make([]uint64, max(1024, word+1-len(g.seen), len(g.seen)/2))...)
		}
		if g.seen[word]&bit != 0 {
			g.duplicates++
			return
		}
		g.seen[word] |= bit
		g.events++
		g.latency.add(now.Sub(sent))
	})
	g.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

// silence accepts connections and keeps them.
type silence struct {
	listener net.Listener
	accepted sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

func listenSilently() (*silence, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &silence{listener: l}
	s.accepted.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
		}
	})
	return s, nil
}

func (s *silence) close() {
	s.listener.Close()
	s.accepted.Wait()
	for _, c := range s.conns {
		c.Close()
	}
}
