package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/eventhose/eventhose"
)

// Reading: what a thousand streams cost those who append, and how fast a log is read back.

const (
	streamsPerSecond = 50
	streamsType      = "order.streamed"
)

// streams appends beside many streams of mixed kinds on one tenant, in turns with none.
func (b *bench) streams(ctx context.Context, r *Result) (err error) {
	if b.round() > longestRound {
		return eventhose.Invalid("--rounds", "must be so many that a round of streams is at most %v", longestRound)
	}
	g, err := b.rig(ctx)
	if err != nil {
		return err
	}
	p, err := b.startPart(ctx, partReaders)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	o := g.order(0, 0)
	o.Connections, o.Batch, o.Types, o.Rate = 4, 1, []string{streamsType}, streamsPerSecond
	latency := &histogram{}
	var memory []float64
	r.Baseline = "without-them"
	err = b.rounds(ctx, r,
		func(ctx context.Context, d time.Duration) (*side, error) { return g.appends(ctx, o, d) },
		func(ctx context.Context, d time.Duration) (*side, error) {
			before, err := g.server.quiet(ctx, 3*time.Second)
			if err != nil {
				return nil, err
			}
			s, got, err := g.streamed(ctx, p, o, d)
			if err != nil {
				return nil, err
			}
			latency.merge(got.Latency)
			after, err := g.server.gauges(ctx)
			memory = append(memory, float64(after.rss-before.rss)/float64(b.Streams))
			if err == nil {
				err = p.call(ctx, readersOrder{Do: "close"}, &struct{}{})
			}
			return s, err
		})
	if err != nil {
		return err
	}
	r.PeakRSS = g.server.peak
	r.more("sends_per_s", r.EventsPerS*float64(b.Streams))
	r.more("stream_p50_ms", milliseconds(latency.quantile(.5)))
	r.more("stream_p99_ms", milliseconds(latency.quantile(.99)))
	most := 0.0
	for _, m := range memory {
		most = max(most, m)
	}
	r.more("rss_per_stream_bytes", most)
	r.more("rss_per_stream_first_round_bytes", memory[0])
	r.goal("every stream gets every event, RSS grows by ≤ 64 KiB per stream, p99 of appends ≤ 2 × that without streams",
		r.Lost == 0 && r.Duplicates == 0 && most <= 64<<10 && r.P99 <= 2*r.BaselineP99)
	return nil
}

// streamed opens the streams, appends and waits until every stream has every event. The latencies are those of the appends.
func (g *rig) streamed(ctx context.Context, p *part, o loadOrder, d time.Duration) (*side, *readersStats, error) {
	open := readersOrder{Do: "open", URL: g.server.url, Key: string(g.server.key), Type: streamsType, Streams: g.b.Streams, First: g.next}
	for _, k := range streamKinds {
		open.Kinds = append(open.Kinds, k.name)
	}
	var began, s readersStats
	if err := p.call(ctx, open, &began); err != nil {
		return nil, nil, err
	}
	first := g.next
	out, err := g.appends(ctx, o, d)
	if err != nil {
		return nil, nil, err
	}
	want := (g.next - first) * int64(g.b.Streams)
	latency := &histogram{}
	for deadline := time.Now().Add(30 * time.Second); ; {
		if err := p.call(ctx, readersOrder{Do: "stats"}, &s); err != nil {
			return nil, nil, err
		}
		latency.merge(s.Latency)
		if s.Events >= want || time.Now().After(deadline) {
			break // what is missing is lost
		}
		if !pause(ctx, 20*time.Millisecond) {
			return nil, nil, ctx.Err()
		}
	}
	s.Latency = latency
	out.lost, out.duplicates = want-s.Events, s.Duplicates
	out.cpu["readers"] = s.CPU - began.CPU
	return out, &s, nil
}

// readBack reads a log from its beginning, over each door, in turns with the log itself without a door.
func (b *bench) readBack(ctx context.Context, r *Result) (err error) {
	if b.Preload == 0 {
		return fmt.Errorf("nothing to read back: --preload is 0")
	}
	dir, err := b.temporary()
	if err != nil {
		return err
	}
	g := &rig{b: b, dir: dir}
	defer func() { err = errors.Join(err, g.close()) }()
	log, err := b.startPart(ctx, partInProcess)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.close()) }()
	p, err := b.startPart(ctx, partReaders)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	var opened inProcessOpened
	if err := log.call(ctx, inProcessOrder{Do: "open", Dir: dir}, &opened); err != nil {
		return err
	}
	b.tell("preloading", 0, b.Preload)
	var res partResult
	if err := log.call(ctx, inProcessOrder{Do: "run", Producers: 16, Batch: 100, Bytes: eventBytes, Events: int64(b.Preload), Nanos: int64(time.Hour)}, &res); err != nil {
		return err
	}
	events := res.Events
	r.Baseline = "store-read"
	store := func(ctx context.Context, _ time.Duration) (*side, error) {
		var res partResult
		err := log.call(ctx, inProcessOrder{Do: "read", Events: events}, &res)
		return &side{perSecond: res.perSecond(), events: res.Events, latency: &histogram{}, cpu: map[string]int64{"store": res.CPU}, lost: events - res.Events}, err
	}
	fastEnough := true
	for _, k := range streamKinds {
		door := Result{}
		err := b.rounds(ctx, &door, store, func(ctx context.Context, _ time.Duration) (*side, error) {
			var s readersStats
			err := p.call(ctx, readersOrder{Do: "read", URL: opened.URL, Key: opened.Key, Type: "order.*", Kinds: []string{k.name}, Events: events}, &s)
			return &side{perSecond: float64(s.Events) / time.Duration(s.Nanos).Seconds(), events: s.Events, latency: &histogram{},
				cpu: map[string]int64{"reader": s.CPU}, lost: events - s.Events, duplicates: s.Duplicates}, err
		})
		if err != nil {
			return err
		}
		door.more(k.name+"_per_s", door.EventsPerS)
		door.more(k.name+"_ratio", door.Ratio)
		for name, value := range r.More {
			door.more(name, value)
		}
		door.Name, door.Baseline, door.Lost, door.Duplicates = r.Name, r.Baseline, door.Lost+r.Lost, door.Duplicates+r.Duplicates
		fastEnough = fastEnough && door.EventsPerS >= k.goal
		*r = door
	}
	r.goal("NDJSON and gRPC ≥ 100,000 events/s", fastEnough)
	return nil
}
