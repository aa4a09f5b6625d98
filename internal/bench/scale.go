package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/eventhose/eventhose"
)

// Scale: too much load, a million subscriptions, a million events behind a crash.

const (
	overloadTimes = 3
	overloadBatch = 100
)

// overload sends three times what the server can take, whatever it answers.
func (b *bench) overload(ctx context.Context, r *Result) (err error) {
	g, err := b.newRig(ctx, b.Preload)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	before, err := g.head(ctx)
	if err != nil {
		return err
	}
	closed := g.appendLoad(overloadBatch)
	var perSecond, basePerSecond, ratios []float64
	refusals, accepted, after := &histogram{}, &histogram{}, &histogram{}
	appended, refused := int64(0), int64(0)
	serverCPU, loadCPU, events := int64(0), int64(0), int64(0)
	for round := range b.Rounds {
		b.tell("measuring", round, b.Rounds)
		closed.Nanos, closed.First = int64(b.round()), g.next
		most, err := g.append(ctx, closed)
		if err != nil {
			return err
		}
		cpu, err := g.server.gauges(ctx)
		if err != nil {
			return err
		}
		open := closed
		open.Connections, open.Rate, open.First = 256, overloadTimes*most.perSecond(), g.next
		got, err := g.append(ctx, open)
		if err != nil {
			return err
		}
		busy, err := g.server.gauges(ctx)
		if err != nil {
			return err
		}
		serverCPU += (busy.cpu - cpu.cpu).Microseconds()
		loadCPU += got.CPU
		events += got.Events
		// Within five seconds all must be as ever.
		if !pause(ctx, 4*time.Second) {
			return ctx.Err()
		}
		normal := g.appendLoad(1)
		normal.Connections, normal.Rate, normal.Nanos, normal.First = 4, 50, int64(2*time.Second), g.next
		calm, err := g.append(ctx, normal)
		if err != nil {
			return err
		}
		perSecond, basePerSecond, ratios = append(perSecond, got.perSecond()), append(basePerSecond, most.perSecond()), append(ratios, got.perSecond()/most.perSecond())
		refusals.merge(got.Refusals)
		accepted.merge(got.Latency)
		after.merge(calm.Latency)
		appended += most.Events + got.Events + calm.Events
		refused += got.Refused
		r.more("late_requests", float64(got.Late)+r.More["late_requests"])
	}
	r.Baseline, r.Rounds = "maximum", b.Rounds
	r.EventsPerS, r.BaselinePerS, r.Ratio = median(perSecond), median(basePerSecond), median(ratios)
	r.RatioLow, r.RatioHigh = interval(ratios)
	accepted.into(r)
	r.CPU = float64(serverCPU) / float64(max(1, events))
	r.CPUOf = map[string]float64{"server": r.CPU, "load": float64(loadCPU) / float64(max(1, events))}
	r.more("refused_requests", float64(refused))
	r.more("refusal_p99_ms", float64(refusals.quantile(.99).Microseconds())/1000)
	r.more("after_p99_ms", float64(after.quantile(.99).Microseconds())/1000)
	end, err := g.head(ctx)
	if err != nil {
		return err
	}
	r.Lost = max(0, appended-int64(end-before-1))
	gauges, err := g.server.gauges(ctx)
	r.PeakRSS = max(g.server.peak, gauges.rss)
	r.goal("goodput ≥ 0.9 × the maximum, refusals within 50 ms at p99", r.Ratio >= .9 && refusals.quantile(.99) <= 50*time.Millisecond)
	return err
}

// head appends one event and answers where it is: the log reaches up to there.
func (g *rig) head(ctx context.Context) (eventhose.Sequence, error) {
	placed, err := g.server.client.Tenant("default").Append(ctx, eventhose.Event{Type: "bench.mark", Data: []byte("{}")})
	if err != nil {
		return 0, err
	}
	return placed[0].Sequence, nil
}

// idleMillion makes very many subscriptions that have nothing to do, and then wakes one in ten.
func (b *bench) idleMillion(ctx context.Context, r *Result) (err error) {
	g, err := b.newRig(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	empty, err := g.server.quiet(ctx, 10*time.Second)
	if err != nil {
		return err
	}
	group := g.groups(1)
	const each = 100
	tenants := max(1, b.Subscriptions/each)
	name := func(i int) eventhose.TenantID { return eventhose.TenantID(fmt.Sprintf("idle-%d", i)) }
	began := time.Now()
	done := make(chan struct{}, tenants)
	err = inParallel(ctx, tenants, func(ctx context.Context, i int) error {
		if _, err := g.server.client.PutTenant(ctx, eventhose.Tenant{ID: name(i)}); err != nil {
			return err
		}
		for n := range each {
			if _, err := g.subscribe(ctx, name(i), to(fmt.Sprintf("%s/%d/%d", endpoint(g.receiverURL, group[0]), i, n), fmt.Sprintf("t.%d", n))); err != nil {
				return err
			}
		}
		done <- struct{}{}
		b.tell("subscribing", len(done)*each, tenants*each)
		return nil
	})
	if err != nil {
		return err
	}
	r.more("subscribe_per_s", float64(tenants*each)/time.Since(began).Seconds())
	b.tell("starting again", 0, 0)
	took, err := g.restart(ctx, g.server.stop)
	if err != nil {
		return err
	}
	r.more("start_to_first_append_ms", float64(took.Microseconds())/1000)
	idle, err := g.server.quiet(ctx, 20*time.Second)
	if err != nil {
		return err
	}
	perSubscription := float64(idle.rss-empty.rss) / float64(tenants*each)
	r.more("rss_empty_bytes", float64(empty.rss))
	r.more("rss_idle_bytes", float64(idle.rss))
	r.more("rss_per_subscription_bytes", perSubscription)
	r.more("goroutines_idle", float64(idle.goroutines))

	// One append for each tenant wakes one in ten of its subscriptions.
	b.tell("waking one in ten", 0, tenants*each/10)
	g.server.peak = 0
	o := g.order(0, 0)
	o.Connections, o.Batch, o.Types, o.Tenants = tenants, each/10, nil, nil
	for n := range each / 10 {
		o.Types = append(o.Types, fmt.Sprintf("t.%d", n))
	}
	before, err := g.stats(ctx, group)
	if err != nil {
		return err
	}
	wake := time.Now()
	for from := 0; from < tenants; from += 500 {
		o.Tenants = o.Tenants[:0]
		for i := from; i < min(from+500, tenants); i++ {
			o.Tenants = append(o.Tenants, string(name(i)))
		}
		o.Connections, o.Events, o.Nanos, o.First = len(o.Tenants), int64(len(o.Tenants)*o.Batch), int64(time.Minute), g.next
		if _, err := g.append(ctx, o); err != nil {
			return err
		}
	}
	want := int64(tenants * o.Batch)
	end, err := g.arrived(ctx, group, before.Events+want)
	if err != nil {
		return err
	}
	r.EventsPerS = float64(end.Events-before.Events) / time.Since(wake).Seconds()
	r.Lost, r.Duplicates = want-(end.Events-before.Events), end.Duplicates
	end.Latency.into(r)
	awake, err := g.server.gauges(ctx)
	r.PeakRSS = max(g.server.peak, awake.rss)
	r.more("rss_awake_bytes", float64(awake.rss))
	r.goal("RSS ≤ 1 KB a subscription beyond an empty server, first append ≤ 2 s after the start, all woken are delivered", perSubscription <= 1024 && took <= 2*time.Second && r.Lost == 0)
	return err
}

// restart ends the server, starts it at the same place and answers how long it took until the first append was taken.
func (g *rig) restart(ctx context.Context, end func() error) (time.Duration, error) {
	if err := end(); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := g.server.start(ctx); err != nil {
		return 0, err
	}
	o := g.appendLoad(1)
	p, err := (&loadRun{loadOrder: o}).prepare(0)
	if err != nil {
		return 0, err
	}
	p.update(0, time.Now())
	c := &rawConn{address: host(g.server.url)}
	defer c.close()
	status, err := c.exchange(p.request)
	if err != nil || status != http.StatusAccepted {
		return 0, errors.Join(fmt.Errorf("the first append after the start is answered %d", status), err)
	}
	took := time.Since(began)
	g.server.client.Close() // its connections were to the one before
	return took, nil
}

// recoverMillion kills a server that has very many events to deliver, and starts it again.
func (b *bench) recoverMillion(ctx context.Context, r *Result) (err error) {
	g, err := b.newRig(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	group := g.groups(1)
	if _, err := g.subscribe(ctx, "default", to(endpoint(g.receiverURL, group[0]), "order.pending")); err != nil {
		return err
	}
	b.tell("appending", 0, 0)
	first := g.next
	for {
		o := g.order(min(100_000, 5*b.Pending), time.Hour)
		o.Connections, o.Types = 16, []string{"order.pending"}
		if _, err := g.append(ctx, o); err != nil {
			return err
		}
		s, err := g.stats(ctx, group)
		if err != nil {
			return err
		}
		pending := g.next - first - s.Events
		b.tell("appending", int(pending), b.Pending)
		if pending >= int64(b.Pending) {
			break
		}
	}
	var before receiverStats
	took, err := g.restart(ctx, func() error {
		err := g.server.kill()
		if err == nil {
			before, err = g.stats(ctx, group)
		}
		return err
	})
	if err != nil {
		return err
	}
	r.more("start_to_first_append_ms", float64(took.Microseconds())/1000)
	redelivery := took
	for began := time.Now(); ; {
		s, err := g.stats(ctx, group)
		if err != nil {
			return err
		}
		if s.Requests > before.Requests {
			break
		}
		if redelivery = took + time.Since(began); redelivery > time.Minute || !pause(ctx, time.Millisecond) {
			return errors.Join(errors.New("nothing is delivered after the start"), ctx.Err())
		}
	}
	r.more("start_to_first_delivery_ms", float64(redelivery.Microseconds())/1000)
	pending := g.next - first - before.Events
	r.more("pending_events", float64(pending))
	b.tell("delivering", 0, int(pending))
	began := time.Now()
	end, err := g.arrived(ctx, group, g.next-first)
	if err != nil {
		return err
	}
	r.EventsPerS = float64(end.Events-before.Events) / time.Since(began).Seconds()
	r.Lost, r.Duplicates = g.next-first-end.Events, end.Duplicates
	_, err = g.server.gauges(ctx)
	r.PeakRSS = g.server.peak
	r.goal("first append ≤ 1 s and first delivery ≤ 2 s after the start, nothing lost", took <= time.Second && redelivery <= 2*time.Second && r.Lost == 0)
	return err
}
