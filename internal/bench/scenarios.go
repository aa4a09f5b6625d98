package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/eventhose/eventhose"
)

// Throughput: what the server does on its own cores' worth of work, each against the least that anybody could do.

const (
	basePlain = "plain-loop"
	baseFile  = "bare-file"
	basePgx   = "pgx-loop"
)

// window is how many events may be on their way between append and delivery while throughput is measured.
const window = 10_000

func (b *bench) plainLoop(ctx context.Context, r *Result) error {
	g, err := b.rig(ctx)
	if err != nil {
		return err
	}
	r.Baseline = basePlain
	if err := b.rounds(ctx, r, g.plain, g.plain); err != nil {
		return err
	}
	r.CPU = r.CPUOf["plain-loop"]
	return nil
}

// appendLoad is what the scenarios that append in batches send.
func (g *rig) appendLoad(batch int) loadOrder {
	o := g.order(0, 0)
	o.Connections, o.Batch, o.Types = producers, batch, []string{"nobody.wants"}
	return o
}

func (b *bench) appendBatch(ctx context.Context, r *Result) error {
	return b.appendsAgainstFile(ctx, r, 100, 0.3)
}

func (b *bench) appendSingle(ctx context.Context, r *Result) error {
	return b.appendsAgainstFile(ctx, r, 1, 0)
}

func (b *bench) appendsAgainstFile(ctx context.Context, r *Result, batch int, goal float64) error {
	g, err := b.rig(ctx)
	if err != nil {
		return err
	}
	r.Baseline = baseFile
	if g.database != nil {
		r.Baseline, goal = basePgx, goal*5/3 // 0.5
	}
	wrote := &tally{}
	err = b.rounds(ctx, r,
		func(ctx context.Context, d time.Duration) (*side, error) { return g.bare(ctx, d, batch) },
		g.counting(wrote, func(ctx context.Context, d time.Duration) (*side, error) {
			return g.appends(ctx, g.appendLoad(batch), d)
		}))
	wrote.into(r)
	if goal > 0 {
		r.goal(fmt.Sprintf("ratio ≥ %.1f", goal), r.Ratio >= goal)
	}
	return err
}

// appendEmbedded appends without HTTP.
func (b *bench) appendEmbedded(ctx context.Context, r *Result) (err error) {
	dir, err := b.temporary()
	if err != nil {
		return err
	}
	g := &rig{b: b, dir: dir}
	defer func() { err = errors.Join(err, g.close()) }()
	if g.bareFile, err = b.startPart(ctx, partBareFile); err != nil {
		return err
	}
	log, err := b.startPart(ctx, partInProcess)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.close()) }()
	if err := log.call(ctx, inProcessOrder{Do: "open", Dir: dir}, &struct{}{}); err != nil {
		return err
	}
	run := func(ctx context.Context, o inProcessOrder) (*side, error) {
		var res partResult
		o.Do, o.Producers, o.Batch, o.Bytes = "run", producers, 100, eventBytes
		if err := log.call(ctx, o, &res); err != nil {
			return nil, err
		}
		if res.Failed > 0 {
			return nil, errors.New(res.Failure)
		}
		return &side{perSecond: res.perSecond(), events: res.Events, latency: res.Latency, cpu: map[string]int64{"server": res.CPU}}, nil
	}
	b.tell("preloading", 0, b.Preload)
	if _, err := run(ctx, inProcessOrder{Events: int64(b.Preload), Nanos: int64(time.Hour)}); err != nil {
		return err
	}
	r.Baseline = baseFile
	err = b.rounds(ctx, r,
		func(ctx context.Context, d time.Duration) (*side, error) { return g.bare(ctx, d, 100) },
		func(ctx context.Context, d time.Duration) (*side, error) {
			return run(ctx, inProcessOrder{Nanos: int64(d)})
		})
	r.goal("ratio ≥ 0.6", r.Ratio >= 0.6)
	return err
}

// appendIDs gives events ids of the client's while the log remembers ever more of them.
func (b *bench) appendIDs(ctx context.Context, r *Result) (err error) {
	g, err := b.newRig(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	run := func(prefix string) func(context.Context, time.Duration) (*side, error) {
		return func(ctx context.Context, d time.Duration) (*side, error) {
			o := g.appendLoad(100)
			o.IDs = prefix
			return g.appends(ctx, o, d)
		}
	}
	r.Baseline = "append-batch"
	filled, flat := 0, []float64{}
	for _, level := range []int{b.IDs / 100, b.IDs / 10, b.IDs} {
		for filled < level {
			b.tell("remembering ids", filled, b.IDs)
			o := g.order(min(200_000, level-filled), time.Hour)
			o.Connections, o.Batch, o.Bytes, o.IDs, o.Types = 8, min(500, level), 64, "order-", []string{"preload"}
			res, err := g.append(ctx, o)
			if err != nil {
				return err
			}
			if res.Events == 0 {
				break
			}
			filled += int(res.Events)
		}
		if _, err := g.server.quiet(ctx, 30*time.Second); err != nil {
			return err
		}
		at := Result{}
		if err := b.rounds(ctx, &at, run(""), run("order-")); err != nil {
			return err
		}
		r.more(fmt.Sprintf("ratio_at_%d", level), at.Ratio)
		flat = append(flat, at.EventsPerS)
		at.Name, at.Baseline, at.More = r.Name, r.Baseline, r.More
		*r = at
	}
	r.more("rate_last_to_first", flat[len(flat)-1]/flat[0])
	gauges, err := g.server.gauges(ctx)
	r.PeakRSS = max(g.server.peak, gauges.rss)
	r.goal("ratio ≥ 0.7 at the most ids", r.Ratio >= 0.7)
	return err
}

func (b *bench) deliver(ctx context.Context, r *Result) error {
	if err := b.delivers(ctx, r, 1, 100); err != nil {
		return err
	}
	if b.DatabaseURL != "" {
		r.goal("ratio ≥ 0.5", r.Ratio >= 0.5)
		return nil
	}
	r.goal("ratio ≥ 1.2, and the server's CPU per event ≤ the plain loop's per request", r.Ratio >= 1.2 && r.CPU <= r.CPUOf["plain-loop"])
	return nil
}

// deliverThousand spreads the events over a thousand subscriptions.
func (b *bench) deliverThousand(ctx context.Context, r *Result) error {
	return b.delivers(ctx, r, 1000, 100)
}

func (b *bench) deliverSingle(ctx context.Context, r *Result) error {
	if err := b.delivers(ctx, r, 1, 1); err != nil {
		return err
	}
	r.goal("ratio ≥ 0.5", r.Ratio >= 0.5)
	return nil
}

// delivers appends in requests of batch events, each of which one of n subscriptions wants, and counts what arrives one by one.
func (b *bench) delivers(ctx context.Context, r *Result, n, batch int) error {
	g, err := b.rig(ctx)
	if err != nil {
		return err
	}
	groups := g.groups(n)
	o := g.order(0, 0)
	o.Connections, o.Batch, o.Types, o.Window = 256, batch, nil, window
	if batch > 1 {
		o.Connections = 8
	}
	var made []eventhose.SubscriptionID
	for i, group := range groups {
		typ := fmt.Sprintf("order.%s.%d", b.scenario, i)
		id, err := g.subscribe(ctx, "default", to(endpoint(g.receiverURL, group), typ))
		if err != nil {
			return err
		}
		made, o.Types = append(made, id), append(o.Types, typ)
	}
	r.Baseline = basePlain
	wrote := &tally{}
	err = b.rounds(ctx, r, g.plain, g.counting(wrote, func(ctx context.Context, d time.Duration) (*side, error) {
		return g.measure(ctx, flow{order: o, groups: groups, fanout: 1}, d)
	}))
	wrote.into(r)
	r.PeakRSS = g.server.peak
	return errors.Join(err, g.unsubscribe(ctx, "default", made))
}

func (g *rig) unsubscribe(ctx context.Context, tenant eventhose.TenantID, ids []eventhose.SubscriptionID) error {
	for _, id := range ids {
		if err := g.server.client.Tenant(tenant).DeleteSubscription(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// deliverBatch appends in batches and delivers in batches of a hundred.
func (b *bench) deliverBatch(ctx context.Context, r *Result) error {
	g, err := b.rig(ctx)
	if err != nil {
		return err
	}
	groups := g.groups(1)
	s := to(endpoint(g.receiverURL, groups[0]), "order.in-batches")
	s.Batch = eventhose.BatchPolicy{MaxEvents: 100}
	id, err := g.subscribe(ctx, "default", s)
	if err != nil {
		return err
	}
	o := g.order(0, 0)
	o.Connections, o.Types, o.Window = 16, []string{"order.in-batches"}, 5*window
	r.Baseline = basePlain
	err = b.rounds(ctx, r, g.plain, func(ctx context.Context, d time.Duration) (*side, error) {
		return g.measure(ctx, flow{order: o, groups: groups, fanout: 1}, d)
	})
	r.PeakRSS = g.server.peak
	r.goal("ratio ≥ 5, in events", r.Ratio >= 5)
	return errors.Join(err, g.unsubscribe(ctx, "default", []eventhose.SubscriptionID{id}))
}
