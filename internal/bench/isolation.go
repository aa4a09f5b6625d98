package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/eventhose/eventhose"
)

// Isolation: whether a subscriber's trouble, or a tenant's zeal, is its own.

// hangOne has ten subscriptions of everything, one of which hangs, against the nine alone.
func (b *bench) hangOne(ctx context.Context, r *Result) error {
	g, err := b.rig(ctx)
	if err != nil {
		return err
	}
	groups := g.groups(9)
	var all []eventhose.SubscriptionID
	for _, group := range groups {
		id, err := g.subscribe(ctx, "default", to(endpoint(g.receiverURL, group), "order.hang"))
		if err != nil {
			return err
		}
		all = append(all, id)
	}
	hanging := to(g.silentURL, "order.hang")
	hanging.Retry.Timeout = eventhose.MaxTimeout
	hung, err := g.subscribe(ctx, "default", hanging)
	if err != nil {
		return err
	}
	o := g.order(0, 0)
	o.Connections, o.Types, o.Window = 8, []string{"order.hang"}, window/9
	log := g.server.client.Tenant("default")
	r.Baseline = "nine-alone"
	nine := func(ctx context.Context, d time.Duration) (*side, error) {
		return g.measure(ctx, flow{order: o, groups: groups, fanout: 9}, d)
	}
	err = b.rounds(ctx, r,
		func(ctx context.Context, d time.Duration) (*side, error) {
			if _, err := log.Pause(ctx, hung); err != nil {
				return nil, err
			}
			return nine(ctx, d)
		},
		func(ctx context.Context, d time.Duration) (*side, error) {
			if _, err := log.Resume(ctx, hung); err != nil {
				return nil, err
			}
			return nine(ctx, d)
		})
	r.goal("ratio ≥ 0.95 and p99 ≤ 1.25 × that of nine alone", r.Ratio >= .95 && r.P99 <= 1.25*r.BaselineP99)
	return errors.Join(err, g.unsubscribe(ctx, "default", append(all, hung)))
}

const (
	deadDestinations = 1000
	deadBacklog      = 100_000
	healthyPerSecond = 200
)

// deadThousand has a thousand destinations that refuse, never answer or swallow connections, with a backlog, beside one
// that is well.
func (b *bench) deadThousand(ctx context.Context, r *Result) (err error) {
	g, err := b.newRig(ctx, b.Preload)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	hole, err := newBlackHole()
	if err != nil {
		return err
	}
	defer hole.close()
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	refusing.Close() // nobody listens there any more
	urls := []string{"http://" + refusing.Addr().String(), g.silentURL, "http://" + hole.listener.Addr().String()}
	dead := make([]eventhose.SubscriptionID, deadDestinations)
	b.tell("subscribing the dead", 0, 0)
	err = inParallel(ctx, deadDestinations, func(ctx context.Context, i int) (err error) {
		dead[i], err = g.subscribe(ctx, "default", to(fmt.Sprintf("%s/%d", urls[i%3], i), "order.dead"))
		return err
	})
	if err != nil {
		return err
	}
	log := g.server.client.Tenant("default")
	all := func(ctx context.Context, what func(context.Context, eventhose.SubscriptionID) error) error {
		return inParallel(ctx, deadDestinations, func(ctx context.Context, i int) error { return what(ctx, dead[i]) })
	}
	pauseAll := func(ctx context.Context, id eventhose.SubscriptionID) error {
		_, err := log.Pause(ctx, id)
		return err
	}
	resumeAll := func(ctx context.Context, id eventhose.SubscriptionID) error {
		_, err := log.Resume(ctx, id)
		return err
	}
	if err := all(ctx, pauseAll); err != nil {
		return err
	}
	b.tell("appending their backlog", 0, 0)
	backlog := g.order(deadBacklog, time.Hour)
	backlog.Types = []string{"order.dead"}
	if _, err := g.append(ctx, backlog); err != nil {
		return err
	}
	groups := g.groups(1)
	if _, err := g.subscribe(ctx, "default", to(endpoint(g.receiverURL, groups[0]), "order.healthy")); err != nil {
		return err
	}
	o := g.order(0, 0)
	o.Connections, o.Batch, o.Types, o.Rate = 8, 1, []string{"order.healthy"}, healthyPerSecond
	var first, last gauges
	r.Baseline = "without-them"
	err = b.rounds(ctx, r,
		func(ctx context.Context, d time.Duration) (*side, error) {
			if err := all(ctx, pauseAll); err != nil {
				return nil, err
			}
			return g.measure(ctx, flow{order: o, groups: groups, fanout: 1}, d)
		},
		func(ctx context.Context, d time.Duration) (*side, error) {
			if err := all(ctx, resumeAll); err != nil {
				return nil, err
			}
			s, err := g.measure(ctx, flow{order: o, groups: groups, fanout: 1}, d)
			if err != nil {
				return nil, err
			}
			last, err = g.server.gauges(ctx)
			if first.rss == 0 {
				first = last
			}
			return s, err
		})
	r.PeakRSS = g.server.peak
	r.more("goroutines_first_round", float64(first.goroutines))
	r.more("goroutines_last_round", float64(last.goroutines))
	r.more("rss_first_round_bytes", float64(first.rss))
	r.more("rss_last_round_bytes", float64(last.rss))
	r.goal("p99 ≤ 1.25 × that without them, and ≤ 20 ms more", r.P99 <= 1.25*r.BaselineP99 && r.P99 <= r.BaselineP99+20)
	return err
}

// inParallel calls do for each number below n, a few at a time.
func inParallel(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(32)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

const (
	quietTenants   = 10
	quietPerSecond = 20
	noisyTimes     = 100
)

// noisyTenant has ten tenants with a little load each, alone and beside one with a hundred times that.
func (b *bench) noisyTenant(ctx context.Context, r *Result) (err error) {
	g, err := b.rig(ctx)
	if err != nil {
		return err
	}
	noise, err := b.startPart(ctx, partLoad)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, noise.close()) }()
	groups := g.groups(2)
	o := g.order(0, 0)
	o.Connections, o.Batch, o.Types, o.Rate, o.Tenants = quietTenants, 1, []string{"order.quiet"}, quietTenants*quietPerSecond, nil
	for i := range quietTenants {
		o.Tenants = append(o.Tenants, fmt.Sprintf("quiet-%d", i))
	}
	for _, tenant := range append(o.Tenants, "noisy") {
		id := eventhose.TenantID(tenant)
		if _, err := g.server.client.PutTenant(ctx, eventhose.Tenant{ID: id}); err != nil {
			return err
		}
		group := groups[0]
		if tenant == "noisy" {
			group = groups[1]
		}
		if _, err := g.subscribe(ctx, id, to(endpoint(g.receiverURL, group), "order.*")); err != nil {
			return err
		}
	}
	loud := o
	loud.Connections, loud.Tenants, loud.Rate, loud.First = 32, []string{"noisy"}, quietPerSecond*noisyTimes, 1
	r.Baseline = "quiet-alone"
	quiet := func(ctx context.Context, d time.Duration) (*side, error) {
		return g.measure(ctx, flow{order: o, groups: groups[:1], fanout: 1}, d)
	}
	err = b.rounds(ctx, r, quiet, func(ctx context.Context, d time.Duration) (*side, error) {
		done := make(chan error, 1)
		var res partResult
		loud.Nanos = int64(d + d/4 + 2*time.Second)
		go func() { done <- noise.call(ctx, loud, &res) }()
		s, err := quiet(ctx, d)
		if err = errors.Join(err, <-done); err != nil {
			return nil, err
		}
		loud.First = res.Next
		arrived, err := g.arrived(ctx, groups[1:], loud.First-1)
		s.lost, s.duplicates = s.lost+loud.First-1-arrived.Events, s.duplicates+arrived.Duplicates
		r.more("noisy_appended_per_s", res.perSecond())
		return s, err
	})
	r.goal("p99 ≤ 2 × that of the quiet ones alone", r.P99 <= 2*r.BaselineP99)
	return err
}
