package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// flow is what the events of a measurement go through: a load, and the groups of the receiver where they arrive.
type flow struct {
	order  loadOrder
	groups []int
	fanout int64 // how often each event arrives
	warm   time.Duration
}

// measure runs a flow and answers what arrived within d, after a moment to get going. It ends when all that was appended has
// arrived and the server is quiet, and counts what that cost.
func (r *rig) measure(ctx context.Context, f flow, d time.Duration) (*side, error) {
	before, err := r.stats(ctx, f.groups)
	if err != nil {
		return nil, err
	}
	cpuBefore, err := r.server.gauges(ctx)
	if err != nil {
		return nil, err
	}
	if f.warm == 0 {
		f.warm = min(time.Second, d/4)
	}
	f.order.Groups, f.order.Fanout, f.order.First = f.groups, f.fanout, r.next
	f.order.Nanos = int64(f.warm + d + 50*time.Millisecond)
	loaded := make(chan error, 1)
	var res *partResult
	go func() {
		var err error
		res, err = r.append(ctx, f.order)
		loaded <- err
	}()
	ok := pause(ctx, f.warm)
	start := time.Now()
	first, err := r.stats(ctx, f.groups)
	ok = ok && pause(ctx, d)
	last, err2 := r.stats(ctx, f.groups)
	// A machine that stands still for longer than the round has a rate nevertheless.
	for end := time.Now().Add(patience); err2 == nil && last.Events == first.Events && time.Now().Before(end) && pause(ctx, 10*time.Millisecond); {
		last, err2 = r.stats(ctx, f.groups)
	}
	took := time.Since(start)
	err = errors.Join(err, err2, <-loaded)
	if err != nil || !ok {
		return nil, errors.Join(err, ctx.Err())
	}
	want := res.Events * f.fanout
	end, err := r.arrived(ctx, f.groups, before.Events+want)
	if err != nil {
		return nil, err
	}
	cpuAfter, err := r.server.quiet(ctx, 3*time.Second)
	if err != nil {
		return nil, err
	}
	delivered := end.Events - before.Events
	return &side{perSecond: float64(last.Events-first.Events) / took.Seconds(), events: delivered, latency: last.Latency,
		cpu:    map[string]int64{"server": (cpuAfter.cpu - cpuBefore.cpu).Microseconds(), "receiver": end.CPU - before.CPU, "load": res.CPU},
		fsyncs: cpuAfter.fsyncs - cpuBefore.fsyncs, lost: want - delivered, duplicates: end.Duplicates - before.Duplicates, appends: res.Latency, refused: res.Refused}, nil
}

// patience is how long is waited for something to arrive.
const patience = 30 * time.Second

// arrived waits until so many events have arrived, as long as some still do. Latencies are those since the last call of stats.
func (r *rig) arrived(ctx context.Context, groups []int, want int64) (receiverStats, error) {
	seen, since := int64(-1), time.Now()
	latency := &histogram{}
	for {
		s, err := r.stats(ctx, groups)
		if err == nil {
			latency.merge(s.Latency)
			s.Latency = latency
		}
		if err != nil || s.Events >= want {
			return s, err
		}
		if s.Events != seen {
			seen, since = s.Events, time.Now()
		}
		if time.Since(since) > patience {
			return s, nil // what is missing is counted as lost
		}
		if !pause(ctx, 5*time.Millisecond) {
			return s, ctx.Err()
		}
	}
}

// appends measures appending alone: what was acknowledged within d.
func (r *rig) appends(ctx context.Context, o loadOrder, d time.Duration) (*side, error) {
	before, err := r.server.gauges(ctx)
	if err != nil {
		return nil, err
	}
	o.Nanos, o.First = int64(d), r.next
	res, err := r.append(ctx, o)
	if err != nil {
		return nil, err
	}
	after, err := r.server.quiet(ctx, 3*time.Second)
	if err != nil {
		return nil, err
	}
	return &side{perSecond: res.perSecond(), events: res.Events, latency: res.Latency, fsyncs: after.fsyncs - before.fsyncs,
		cpu: map[string]int64{"server": (after.cpu - before.cpu).Microseconds(), "load": res.CPU}}, nil
}

// probe syncs a file of its own beside the server's data, again and again, and measures how long that takes.
type probe struct {
	mu      sync.Mutex
	latency *histogram
	stop    context.CancelFunc
	stopped sync.WaitGroup
	err     error
}

const (
	probeInterval = 50 * time.Millisecond
	probeBytes    = 1200
)

func startProbe(ctx context.Context, dir string) (*probe, error) {
	f, err := os.Create(filepath.Join(dir, "fsync-probe"))
	if err != nil {
		return nil, fmt.Errorf("measure how long an fsync takes: %w", err)
	}
	p := &probe{latency: &histogram{}}
	ctx, p.stop = context.WithCancel(ctx)
	p.stopped.Go(func() {
		defer os.Remove(f.Name())
		defer f.Close()
		body := make([]byte, probeBytes)
		for pause(ctx, probeInterval) {
			began := time.Now()
			_, err := f.Write(body)
			if err == nil {
				err = f.Sync()
			}
			took := time.Since(began)
			p.mu.Lock()
			if p.latency.add(took); err != nil {
				p.err = err
			}
			p.mu.Unlock()
		}
	})
	return p, nil
}

func (p *probe) close() (*histogram, error) {
	p.stop()
	p.stopped.Wait()
	return p.latency, p.err
}
