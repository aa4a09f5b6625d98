package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

func concurrencyCases() []Case {
	return []Case{
		{"concurrency/order", "many appenders and readers: no gap, no inversion, nothing beyond the head, nothing that was answered missing", func(t *trial) {
			t.appendersAndReaders(8, 4, 60)
		}},
		{"concurrency/same", "the same event appended by many at once is one event, and all are told its place", func(t *trial) {
			const many, rounds = 8, 20
			for round := range rounds {
				places := make([]eventhose.Placement, many)
				t.together(many, func(ctx context.Context, i int) error {
					r, err := t.s.Append(ctx, []store.Append{{Tenant: acme, Events: []store.NewEvent{event(fmt.Sprint(round), "x", 1)}}})
					if err == nil && r[0].Err == nil {
						places[i] = r[0].Placements[0]
						err = t.visible(ctx, acme, places[i].Sequence)
					}
					return err
				})
				firsts := 0
				for _, p := range places {
					if p.Sequence != eventhose.Sequence(round+1) {
						t.fatalf("round %d was placed at %+v", round, places)
					}
					if !p.Duplicate {
						firsts++
					}
				}
				t.same("how many were told to be first", firsts, 1)
			}
			t.same("events", len(t.read(acme, 0)), rounds)
		}},
		{"concurrency/parent", "what many connected tenants append at once is whole in the parent's log as soon as it can be read there", func(t *trial) {
			const many, rounds = 6, 30
			t.together(many+2, func(ctx context.Context, i int) error {
				if i < many {
					for n := range rounds {
						e := event("", fmt.Sprint(i, n), n)
						if _, err := t.s.Append(ctx, []store.Append{{Tenant: eventhose.TenantID(fmt.Sprint("c", i)), Parent: platform, Events: []store.NewEvent{e}}}); err != nil {
							return err
						}
					}
					return nil
				}
				for after := eventhose.Sequence(0); after < many*rounds && ctx.Err() == nil; {
					page, err := t.s.Read(ctx, platform, after, store.ReadLimit{Events: 100, Bytes: 1 << 20})
					if err != nil {
						return err
					}
					for _, e := range page {
						if after++; e.Sequence != after || e.Erased || len(e.Data) == 0 {
							return fmt.Errorf("place %d of the parent's log is %+v", after, e)
						}
					}
				}
				return nil
			})
		}},
		{"concurrency/versions", "of many who save over the same version one wins", func(t *trial) {
			const many = 8
			for version := range uint64(20) {
				var won atomic.Int32
				t.together(many, func(ctx context.Context, i int) error {
					err := t.s.Save(ctx, []store.RecordChange{record(acme, "key", "1", version, fmt.Sprint(i))}, nil)
					if err == nil {
						won.Add(1)
					} else if !errors.Is(err, store.ErrVersion) {
						return err
					}
					return nil
				})
				t.same("winners", won.Load(), int32(1))
			}
		}},
		{"concurrency/progress", "progress of many lanes at once is all kept, while the logs grow and are trimmed", func(t *trial) {
			const many, rounds = 8, 30
			t.together(many, func(ctx context.Context, i int) error {
				sub := eventhose.SubscriptionID(fmt.Sprintf("sub_%026d", i))
				for n := 1; n <= rounds; n++ {
					if _, err := t.s.Append(ctx, []store.Append{{Tenant: acme, Events: []store.NewEvent{event("", "x", n)}}}); err != nil {
						return err
					}
					c := newLane(acme, sub)
					c.Lane.Cursor = eventhose.Sequence(n)
					h, err := t.s.Head(ctx, acme)
					if err != nil {
						return err
					}
					c.Attempts = []eventhose.Attempt{attempt(acme, sub, n, h.Last)}
					if err := t.s.Commit(ctx, store.Progress{Matched: []store.Tail{{Tenant: acme, Matched: h.Last}}, Lanes: []store.LaneChange{c}}); err != nil {
						return err
					}
					row, _, err := t.s.Lane(ctx, acme, sub)
					if err != nil || row.Cursor != c.Lane.Cursor {
						return fmt.Errorf("lane is at %d right after %d was committed: %w", row.Cursor, n, err)
					}
					if i == 0 && n%10 == 0 {
						if _, err := t.s.Trim(ctx, acme, store.Trim{Bytes: 50, Keep: keepAll}); err != nil {
							return err
						}
					}
				}
				return nil
			})
			t.reopen()
			for i := range many {
				row, _ := t.lane(acme, eventhose.SubscriptionID(fmt.Sprintf("sub_%026d", i)))
				t.same("cursor", row.Cursor, eventhose.Sequence(rounds))
			}
			t.same("last", t.head(acme).Last, eventhose.Sequence(many*rounds))
			t.same("tails", len(t.tails()), 0)
		}},
		{"concurrency/close", "closing waits for calls under way: what they answered is there afterwards, and later calls answer errors", func(t *trial) {
			const many = 6
			var acked [many]int
			var started sync.WaitGroup
			started.Add(many)
			closed := make(chan error, 1)
			go func() {
				started.Wait()
				closed <- t.s.Close()
			}()
			t.together(many, func(ctx context.Context, i int) error {
				for n := 1; ; n++ {
					_, err := t.s.Append(ctx, []store.Append{{Tenant: eventhose.TenantID(fmt.Sprint(i)), Events: []store.NewEvent{event("", "x", 1)}}})
					if n == 1 {
						started.Done()
					}
					if err != nil {
						return nil //nolint:nilerr // it goes on until the store is closed
					}
					acked[i] = n
				}
			})
			t.ok("close", <-closed)
			t.ok("close again", t.s.Close())
			t.reopen()
			for i, n := range acked {
				if last := t.head(eventhose.TenantID(fmt.Sprint(i))).Last; last < eventhose.Sequence(n) {
					t.fatalf("%d appends were answered, %d are there", n, last)
				}
			}
		}},
	}
}

// together runs f n times at once and stops the case at the first error.
func (t *trial) together(n int, f func(ctx context.Context, i int) error) {
	ctx, cancel := context.WithCancelCause(t.ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := f(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	t.ok("together", context.Cause(ctx))
}

// visible answers an error unless a place that was told can be read.
func (t *trial) visible(ctx context.Context, tenant eventhose.TenantID, seq eventhose.Sequence) error {
	page, err := t.s.Read(ctx, tenant, seq-1, store.ReadLimit{Events: 1, Bytes: 1 << 20})
	if err == nil && (len(page) == 0 || page[0].Sequence != seq) {
		err = fmt.Errorf("place %d was told and cannot be read", seq)
	}
	return err
}

// appendersAndReaders lets writers append to one log while readers follow it. Each reader sees each place once and in
// order, never one beyond a head that was asked for afterwards, and what it can read it can look up.
func (t *trial) appendersAndReaders(writers, readers, rounds int) {
	var left atomic.Int32
	left.Store(int32(writers))
	total := eventhose.Sequence(0)
	for n := range rounds {
		total += eventhose.Sequence(writers * (1 + n%3))
	}
	t.together(writers+readers, func(ctx context.Context, i int) error {
		if i < writers {
			defer left.Add(-1)
			return t.appender(ctx, i, rounds)
		}
		return t.follower(ctx, total, func() bool { return left.Load() == 0 })
	})
	t.same("events", len(t.read(acme, 0)), int(total))
	t.reopen()
	t.same("events after opening again", len(t.read(acme, 0)), int(total))
}

func (t *trial) appender(ctx context.Context, i, rounds int) error {
	for n := range rounds {
		var events []store.NewEvent
		for j := range 1 + n%3 {
			id := ""
			if n%2 == 0 {
				id = fmt.Sprintf("%d-%d-%d", i, n, j)
			}
			events = append(events, event(id, fmt.Sprintf("%d-%d-%d", i, n, j), n))
		}
		r, err := t.s.Append(ctx, []store.Append{{Tenant: acme, Events: events}})
		if err != nil {
			return err
		}
		if r[0].Err != nil {
			return r[0].Err
		}
		for j, p := range r[0].Placements {
			if p.Sequence != r[0].Placements[0].Sequence+eventhose.Sequence(j) {
				return fmt.Errorf("one append was placed at %+v", r[0].Placements)
			}
		}
		last := r[0].Placements[len(events)-1]
		if err := t.visible(ctx, acme, last.Sequence); err != nil {
			return err
		}
		e, err := t.s.Lookup(ctx, acme, store.Ref{ID: last.ID})
		if err != nil || string(e.Data) != string(events[len(events)-1].Event.Data) {
			return fmt.Errorf("%s was appended and is not found: %w", last.ID, err)
		}
	}
	return nil
}

func (t *trial) follower(ctx context.Context, total eventhose.Sequence, done func() bool) error {
	seen := map[string]eventhose.Sequence{}
	for after := eventhose.Sequence(0); after < total; {
		last := done()
		before, err := t.s.Head(ctx, acme)
		if err != nil {
			return err
		}
		page, err := t.s.Read(ctx, acme, after, store.ReadLimit{Events: 7, Bytes: 1 << 20})
		if err != nil {
			return err
		}
		head, err := t.s.Head(ctx, acme)
		if err != nil {
			return err
		}
		if len(page) == 0 && before.Last > after {
			return fmt.Errorf("head says %d, reading ends at %d", before.Last, after)
		}
		for _, e := range page {
			after++
			if e.Sequence != after {
				return fmt.Errorf("read place %d where %d comes next", e.Sequence, after)
			}
			if e.Sequence > head.Last {
				return fmt.Errorf("read place %d, the head says %d afterwards", e.Sequence, head.Last)
			}
			if at, twice := seen[string(e.Data)]; twice {
				return fmt.Errorf("%s is at %d and at %d", e.Data, at, e.Sequence)
			}
			seen[string(e.Data)] = e.Sequence
		}
		if len(page) > 0 {
			e := page[len(page)-1]
			if found, err := t.s.Lookup(ctx, acme, store.Ref{ID: e.ID}); err != nil || found.Sequence != e.Sequence {
				return fmt.Errorf("%s was read and is not found: %w", e.ID, err)
			}
		}
		if len(page) == 0 && last {
			return fmt.Errorf("all appends were answered, and reading ends at %d of %d", after, total)
		}
	}
	return nil
}
