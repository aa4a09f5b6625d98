package deliver

// Hints may be lost between nodes, and a node that appended may die before it tells. So what there is to do is looked for
// every now and then, and for a shard that has come to this node at once.

import (
	"context"
	"errors"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// scanPage is how many lanes or logs are listed at once.
const scanPage = 1000

// findWork queues the tenants that have lanes with something to do, of the shards that are wanted; nil wants all.
func (e *Engine) findWork(ctx context.Context, wanted *[store.Shards]bool) error {
	for after := (store.LaneRef{}); ; {
		work, err := e.store.Work(ctx, after, scanPage)
		if err != nil {
			return err
		}
		last := eventhose.TenantID("")
		for i := range work {
			if after = work[i].LaneRef; after.Tenant != last && (wanted == nil || wanted[store.ShardOf(after.Tenant)]) {
				e.Appended(after.Tenant)
			}
			last = after.Tenant
		}
		if len(work) < scanPage {
			return nil
		}
	}
}

// findTails queues the tenants whose logs are not matched to their end.
func (e *Engine) findTails(ctx context.Context) error {
	for after := eventhose.TenantID(""); ; {
		tails, err := e.store.Tails(ctx, after, scanPage)
		if err != nil {
			return err
		}
		for _, t := range tails {
			after = t.Tenant
			e.Appended(after)
		}
		if len(tails) < scanPage {
			return nil
		}
	}
}

// pollLoop looks for what there is to do, seldom enough that it costs at most a twentieth of a processor's time.
func (e *Engine) pollLoop() {
	timer := time.NewTimer(e.opts.Poll)
	defer timer.Stop()
	fails := 0
	for {
		select {
		case <-timer.C:
		case <-e.leases.look:
		case <-e.reading.Done():
			return
		}
		began := time.Now()
		err := e.poll(e.reading)
		wait := max(e.opts.Poll, 20*time.Since(began))
		switch {
		case err == nil:
			fails = 0
		case e.reading.Err() != nil:
			return
		case errors.Is(err, store.ErrFailed):
			e.opts.Fatal(err)
			return
		default:
			wait = min(e.opts.Poll, e.jittered(100*time.Millisecond<<min(fails, 6)))
			fails++
			e.logger.Error("cannot look for deliveries to go on with, trying again", "error", err)
		}
		timer.Reset(wait)
	}
}

// poll looks once: for lanes of the shards that were gained, or of all if a node came or went, and for logs.
func (e *Engine) poll(ctx context.Context) error {
	e.mu.Lock()
	gained, all := e.leases.gained, e.leases.again
	e.leases.gained, e.leases.again = [store.Shards]bool{}, false
	e.mu.Unlock()
	var err error
	switch {
	case all:
		err = e.findWork(ctx, nil)
	case gained != [store.Shards]bool{}:
		err = e.findWork(ctx, &gained)
	}
	if err == nil {
		err = e.findTails(ctx)
	}
	if err != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		for shard, is := range gained {
			e.leases.gained[shard] = e.leases.gained[shard] || is
		}
		e.leases.again = e.leases.again || all
	}
	return err
}
