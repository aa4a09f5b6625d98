package deliver_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// live lives one random life and answers what was wrong with it.
func live(t *testing.T, seed uint64, steps int, wrap func(*chaos, deliver.Store) deliver.Store) (wrong []string) {
	synctest.Test(t, func(t *testing.T) {
		c := newChaos(t, seed, wrap)
		c.populate()
		for range steps {
			c.step()
			c.revive()
		}
		c.mu.Lock()
		c.countdown = 0
		c.mu.Unlock()
		c.revive()
		c.heal()
		c.audit()
		c.w.stop()
		wrong = c.wrong
		if wrap == nil {
			t.Logf("%d events, %d taken by %d subscriptions, %d lives", len(c.events), len(c.took), len(c.subs), c.life+1)
		}
	})
	return wrong
}

// Random lives keep the promises: everything due is taken, or dead, discarded, erased, or told of as gone; in order
// where that is asked for; nothing twice but what was in flight when the power was cut. EVENTHOSE_SEED is the first
// seed, EVENTHOSE_LIVES how many.
func TestRandomLives(t *testing.T) {
	seed := number(t, "EVENTHOSE_SEED", rand.Uint64()>>1)
	for i := range number(t, "EVENTHOSE_LIVES", 3) {
		t.Run(fmt.Sprintf("EVENTHOSE_SEED=%d", seed+i), func(t *testing.T) {
			for _, w := range live(t, seed+i, 150, nil) {
				t.Error(w)
			}
		})
	}
}

// faulty changes what the engine commits.
type faulty struct {
	deliver.Store
	c      *chaos
	commit func(*faulty, context.Context, store.Progress) error
}

func (f *faulty) Commit(ctx context.Context, p store.Progress) error { return f.commit(f, ctx, p) }

// The audit is seen red on stores that break the one atomic write in each of these ways.
func TestAuditSeesFaults(t *testing.T) {
	for name, commit := range map[string]func(*faulty, context.Context, store.Progress) error{
		"parked apart from the cursor": func(f *faulty, ctx context.Context, p store.Progress) error {
			apart := store.Progress{}
			for i := range p.Lanes {
				if l := &p.Lanes[i]; len(l.Park) > 0 {
					apart.Lanes = append(apart.Lanes, store.LaneChange{Lane: l.Lane, Park: l.Park})
					l.Park = nil
				}
			}
			err := f.Store.Commit(ctx, p)
			if err != nil || len(apart.Lanes) == 0 {
				return err
			}
			f.c.mu.Lock()
			if f.c.countdown > 0 {
				f.c.countdown = 0
				f.c.cut()
			}
			f.c.mu.Unlock()
			return f.Store.Commit(ctx, apart)
		},
		"unpark dropped": func(f *faulty, ctx context.Context, p store.Progress) error {
			for i := range p.Lanes {
				p.Lanes[i].Unpark = nil
			}
			return f.Store.Commit(ctx, p)
		},
		"matched too far": func(f *faulty, ctx context.Context, p store.Progress) error {
			head, err := f.Head(ctx, tenant)
			if err != nil {
				return err
			}
			p.Matched = []store.Tail{{Tenant: tenant, Matched: head.Last}}
			return f.Store.Commit(ctx, p)
		},
		"settled dropped": func(f *faulty, ctx context.Context, p store.Progress) error {
			for i := range p.Lanes {
				p.Lanes[i].Lane.Settled = nil
			}
			return f.Store.Commit(ctx, p)
		},
		"blocked keys dropped": func(f *faulty, ctx context.Context, p store.Progress) error {
			for i := range p.Lanes {
				p.Lanes[i].Block = nil
			}
			return f.Store.Commit(ctx, p)
		},
		"cursor ahead": func(f *faulty, ctx context.Context, p store.Progress) error {
			for i := range p.Lanes {
				if l := &p.Lanes[i].Lane; l.Behind && len(l.Settled) > 0 {
					l.Cursor, l.Settled = max(l.Cursor, l.Settled[len(l.Settled)-1]), []eventhose.Sequence{}
				}
			}
			return f.Store.Commit(ctx, p)
		},
	} {
		seesFault(t, name, func(c *chaos, s deliver.Store) deliver.Store { return &faulty{s, c, commit} })
	}
}

func seesFault(t *testing.T, name string, plant func(*chaos, deliver.Store) deliver.Store) {
	t.Run(name, func(t *testing.T) {
		for seed := range uint64(20) {
			if wrong := live(t, 100+seed, 100, plant); len(wrong) > 0 {
				t.Logf("seen with seed %d: %s", 100+seed, wrong[0])
				return
			}
		}
		t.Error("not seen in 20 lives")
	})
}

// The audit is seen red on batches that go wrong in each of these ways.
func TestAuditSeesFaultyBatches(t *testing.T) {
	for name, lose := range map[string]func(*sink.Batch) *sink.Batch{
		"settles more than was sent": func(b *sink.Batch) *sink.Batch {
			less := *b
			if n := len(b.Items); n > 1 && b.Kind != eventhose.AttemptTest {
				less.Items = b.Items[:n-1]
				less.ID = batchID(&less) // the id alone would tell
			}
			return &less
		},
		"out of order": func(b *sink.Batch) *sink.Batch {
			other := *b
			other.Items = slices.Clone(b.Items)
			slices.Reverse(other.Items)
			return &other
		},
		"another id": func(b *sink.Batch) *sink.Batch {
			other := *b
			if len(b.Items) > 1 {
				other.ID += "x"
			}
			return &other
		},
	} {
		seesFault(t, name, func(c *chaos, s deliver.Store) deliver.Store { c.lose = lose; return s })
	}
	for name, misread := range map[string]func(sink.Result) sink.Result{
		"takes a part for the whole": func(r sink.Result) sink.Result {
			if r.Reason == eventhose.ReasonPartly {
				return taken()
			}
			return r
		},
		"tries again what was taken": func(r sink.Result) sink.Result {
			if r.Reason == eventhose.ReasonPartly {
				r.Reason, r.Failed = eventhose.ReasonStatus, nil
			}
			return r
		},
	} {
		seesFault(t, name, func(c *chaos, s deliver.Store) deliver.Store { c.misread = misread; return s })
	}
}
