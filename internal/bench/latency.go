package bench

import (
	"context"
	"errors"
	"time"

	"github.com/eventhose/eventhose"
)

// latency measures from the append's being sent to its arrival, at a low rate and at half of what the server can do, and
// beside it, at the same time, how long an fsync takes.
func (b *bench) latency(ctx context.Context, r *Result) error {
	g, err := b.rig(ctx)
	if err != nil {
		return err
	}
	groups := g.groups(1)
	id, err := g.subscribe(ctx, "default", to(endpoint(g.receiverURL, groups[0]), "order.timed"))
	if err != nil {
		return err
	}
	o := g.order(0, 0)
	o.Batch, o.Types, o.Window = 1, []string{"order.timed"}, window
	b.tell("finding the maximum", 0, 0)
	most, err := g.measure(ctx, flow{order: o, groups: groups, fanout: 1}, max(b.round(), time.Second))
	if err != nil {
		return err
	}
	o.Window = 0
	at := func(rate float64, into *Result) error {
		latency, fsync := &histogram{}, &histogram{}
		for round := range b.Rounds {
			b.tell("measuring", round, b.Rounds)
			o.Rate = rate
			s, err := g.timed(ctx, flow{order: o, groups: groups, fanout: 1}, b.round())
			if err != nil {
				return err
			}
			latency.merge(s.latency)
			fsync.merge(s.fsync)
			into.Lost, into.Duplicates = into.Lost+s.lost, into.Duplicates+s.duplicates
		}
		latency.into(into)
		into.EventsPerS = rate
		into.FsyncP50, into.FsyncP99 = milliseconds(fsync.quantile(.5)), milliseconds(fsync.quantile(.99))
		return nil
	}
	var half Result
	if err := errors.Join(at(50, r), at(most.perSecond/2, &half)); err != nil {
		return err
	}
	r.Rounds = b.Rounds
	r.Lost, r.Duplicates = r.Lost+half.Lost, r.Duplicates+half.Duplicates
	r.more("half_per_s", half.EventsPerS)
	r.more("half_p50_ms", half.P50)
	r.more("half_p99_ms", half.P99)
	r.more("half_fsync_p50_ms", half.FsyncP50)
	r.more("half_fsync_p99_ms", half.FsyncP99)
	met := true
	for _, x := range []*Result{r, &half} {
		met = met && x.P50-x.FsyncP50 <= 2 && x.P99-x.FsyncP99 <= 20
	}
	r.goal("p50 ≤ 2 ms and p99 ≤ 20 ms beyond the fsync, at both rates", met)
	return g.unsubscribe(ctx, "default", []eventhose.SubscriptionID{id})
}

// timed is measure with a probe of the disk beside it.
func (g *rig) timed(ctx context.Context, f flow, d time.Duration) (*side, error) {
	dir := g.dir
	if dir == "" {
		dir = g.b.Dir
	}
	p, err := startProbe(ctx, dir)
	if err != nil {
		return nil, err
	}
	s, err := g.measure(ctx, f, d)
	fsync, failed := p.close()
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	s.fsync = fsync
	return s, nil
}
