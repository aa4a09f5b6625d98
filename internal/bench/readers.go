package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// The readers hold many streams open at once and count what comes. They work on the same cores, so they are as light as can
// be: what comes is not parsed, an event's number is found by the fixed places in its data, and on Linux one thread waits
// for all connections (readers_linux.go).

type readersOrder struct {
	// Do is open, stats, close, or read: from the log's beginning until so many Events have come, by one stream.
	Do     string `json:"do"`
	URL    string `json:"url"`
	Key    string `json:"key"`
	Type   string `json:"type"`
	Events int64  `json:"events"`
	// Kinds are given to the Streams in turns; First is the number of the first event that they will get.
	Kinds   []string `json:"kinds"`
	Streams int      `json:"streams"`
	First   int64    `json:"first"`
}

type readersStats struct {
	// Events are different ones at each stream, Duplicates what came again; of all streams together.
	Events     int64      `json:"events"`
	Duplicates int64      `json:"duplicates"`
	Latency    *histogram `json:"latency,omitempty"`
	CPU        int64      `json:"cpu_us"`
	Nanos      int64      `json:"nanos"`
}

// reader is one stream.
type reader struct {
	conn net.Conn
	// rest is what came last and may be the beginning of an event's number.
	rest []byte

	mu              sync.Mutex
	first           int64
	seen            []uint64
	events, doubles int64
	latency         *histogram
}

// take counts the events in what came.
func (r *reader) take(b []byte) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.latency == nil {
		r.latency = &histogram{}
	}
	stamps(b, func(number int64, sent time.Time) {
		at := number - r.first
		if at < 0 {
			return
		}
		word, bit := int(at/64), uint64(1)<<(at%64)
		if word >= len(r.seen) {
			r.seen = append(r.seen, make([]uint64, max(32, word+1-len(r.seen), len(r.seen)/2))...)
		}
		if r.seen[word]&bit != 0 {
			r.doubles++
			return
		}
		r.seen[word] |= bit
		r.events++
		r.latency.add(now.Sub(sent))
	})
}

// part counts the events in a part of a stream, which may begin and end anywhere.
func (r *reader) part(b []byte) {
	if len(r.rest) > 0 {
		b = append(r.rest, b...)
	}
	kept := 0
	if at := bytes.LastIndexByte(b, marker[0]); at >= 0 && len(b)-at < dataHead {
		kept = len(b) - at
	}
	r.take(b[:len(b)-kept])
	r.rest = append(r.rest[:0], b[len(b)-kept:]...)
}

// readers are the streams that are open.
type readers struct {
	all    []*reader
	cancel context.CancelFunc
	crew   sync.WaitGroup
	failed atomic.Pointer[error]
}

func read(ctx context.Context, o *orders) error {
	var rs *readers
	defer func() { rs.close() }()
	return each(o, func(order readersOrder) (any, error) {
		switch order.Do {
		case "open":
			rs.close()
			rs = &readers{}
			return readersStats{CPU: ownCPU().Microseconds()}, rs.open(ctx, &order)
		case "stats":
			return rs.stats()
		case "read":
			return readBack(ctx, &order)
		case "close":
			rs.close()
			rs = nil
			return nil, nil
		}
		return nil, fmt.Errorf("no such order: %s", order.Do)
	})
}

func (rs *readers) open(ctx context.Context, o *readersOrder) error {
	ctx, rs.cancel = context.WithCancel(ctx)
	rs.all = make([]*reader, o.Streams)
	err := inParallel(ctx, o.Streams, func(ctx context.Context, i int) error {
		k, err := kindOf(o.Kinds[i%len(o.Kinds)])
		if err != nil {
			return err
		}
		conn, came, err := k.dial(ctx, o, "now")
		if err != nil {
			return err
		}
		rs.all[i] = &reader{conn: conn, first: o.First}
		rs.all[i].part(came)
		return nil
	})
	if err != nil {
		return err
	}
	rs.crew.Go(func() {
		if err := takeAll(ctx, rs.all); err != nil && ctx.Err() == nil {
			err = fmt.Errorf("a stream ended: %w", err)
			rs.failed.Store(&err)
		}
	})
	return nil
}

func (rs *readers) stats() (*readersStats, error) {
	if rs == nil {
		return nil, errors.New("no streams are open")
	}
	if err := rs.failed.Load(); err != nil {
		return nil, *err
	}
	s := &readersStats{Latency: &histogram{}, CPU: ownCPU().Microseconds()}
	for _, r := range rs.all {
		r.mu.Lock()
		s.Events += r.events
		s.Duplicates += r.doubles
		if r.latency != nil {
			s.Latency.merge(r.latency)
			r.latency = nil
		}
		r.mu.Unlock()
	}
	return s, nil
}

func (rs *readers) close() {
	if rs == nil || rs.cancel == nil {
		return
	}
	rs.cancel()
	rs.crew.Wait()
	for _, r := range rs.all {
		if r != nil {
			r.conn.Close()
		}
	}
}

// readBack reads so many events by one stream of the first kind.
func readBack(ctx context.Context, o *readersOrder) (*readersStats, error) {
	k, err := kindOf(o.Kinds[0])
	if err != nil {
		return nil, err
	}
	r := &reader{}
	cpu, began := ownCPU(), time.Now()
	if k.readBack == nil {
		err = r.readBack(ctx, k, o)
	} else {
		err = k.readBack(ctx, o, r)
	}
	if err != nil {
		return nil, fmt.Errorf("read back by %s: %w", k.name, err)
	}
	return &readersStats{Events: r.events, Duplicates: r.doubles, Nanos: int64(time.Since(began)), CPU: (ownCPU() - cpu).Microseconds()}, nil
}

// readBack reads until enough has come.
func (r *reader) readBack(ctx context.Context, k streamKind, o *readersOrder) error {
	conn, came, err := k.dial(ctx, o, "0")
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	r.part(came)
	buffer := make([]byte, 256<<10)
	for granted := r.events; r.events < o.Events; {
		if k.grants && r.events-granted > maxGrant/2 {
			granted += maxGrant / 2
			if _, err := conn.Write(grantFrame(maxGrant / 2)); err != nil {
				return err
			}
		}
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := conn.Read(buffer)
		if err != nil && !errors.Is(err, io.EOF) || n == 0 {
			return fmt.Errorf("after %d events: %w", r.events, err)
		}
		r.part(buffer[:n])
	}
	return nil
}
