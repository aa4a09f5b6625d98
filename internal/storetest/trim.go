package storetest

import (
	"context"
	"fmt"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// keepAll is a quota that no case fills.
const keepAll = 1 << 30

// trimTo trims by age what fill appended before a sequence, and expects to come as far.
func (t *trial) trimTo(tenant eventhose.TenantID, first eventhose.Sequence) store.Trimmed {
	return t.trim(tenant, first, store.Trim{Before: epoch.Add(time.Duration(first) * time.Second), Keep: keepAll})
}

func (t *trial) trim(tenant eventhose.TenantID, first eventhose.Sequence, trim store.Trim) store.Trimmed {
	got, err := TrimAll(t.ctx, t.s, tenant, trim)
	t.ok("trim", err)
	if h := t.head(tenant); got.First != first || h.First != first {
		t.fatalf("first left is %d, and by the head %d, want %d", got.First, h.First, first)
	}
	return got
}

// TrimAll trims until nothing is over the quota, giving up what is as if it had been told of.
func TrimAll(ctx context.Context, s store.Log, tenant eventhose.TenantID, trim store.Trim) (sum store.Trimmed, err error) {
	for {
		got, err := s.Trim(ctx, tenant, trim)
		if err != nil {
			return sum, err
		}
		sum.First, sum.Removed, sum.Bytes = got.First, sum.Removed+got.Removed, sum.Bytes+got.Bytes
		if sum.Lost = append(sum.Lost, got.Lost...); len(got.Over) == 0 {
			return sum, nil
		}
		trim.Lose = got.Over
	}
}

func trimCases() []Case {
	return []Case{
		{"trim/age", "retention by age removes what was appended before a time, and never the newest event", func(t *trial) {
			t.fill(acme, 6, 10)
			t.fill(other, 6, 10)
			got := t.trimTo(acme, 4)
			t.same("removed", []int64{int64(got.Removed), got.Bytes}, []int64{3, 30})
			for range 2 {
				t.same("events left", len(t.read(acme, 3)), 3)
				for _, after := range []eventhose.Sequence{0, 1, 2} {
					_, err := t.s.Read(t.ctx, acme, after, store.ReadLimit{Events: 10, Bytes: 1 << 20})
					t.is("read of what was trimmed", err, store.ErrTrimmed)
				}
				for i := range 3 {
					t.noLookup(acme, store.Ref{Sequence: eventhose.Sequence(i + 1)})
					t.noLookup(acme, store.Ref{ID: fmt.Sprintf("e%d", i+1)})
				}
				t.same("another tenant's", len(t.read(other, 0)), 6)
				t.reopen()
			}
			got = t.trim(acme, 6, store.Trim{Before: farAway})
			t.same("removed", got.Removed, 2)
			got = t.trim(acme, 6, store.Trim{Before: farAway})
			t.same("removed again", got, store.Trimmed{First: 6})
		}},
		{"trim/ahead", "retention by age removes what a clock that was ahead has stamped with what was appended after it, and not before", func(t *trial) {
			ahead := func(id string) store.NewEvent {
				e := event(id, "data", 1)
				e.Event.Appended = farAway
				return e
			}
			t.append(acme, event("e1", "data", 1), ahead("e2"), ahead("e3"), event("e4", "data", 4), ahead("e5"), event("e6", "data", 6))
			t.same("removed", t.trimTo(acme, 1).Removed, 0)
			t.same("removed", t.trim(acme, 2, store.Trim{Before: epoch.Add(3 * time.Second), Keep: keepAll}).Removed, 1)
			t.same("events left", len(t.read(acme, 1)), 5)
			t.same("removed", t.trimTo(acme, 5).Removed, 3)
			t.same("removed", t.trim(acme, 5, store.Trim{Before: epoch.Add(6 * time.Second), Bytes: 8, Keep: keepAll}).Removed, 0)
			t.same("events left", len(t.read(acme, 4)), 2)
			t.same("removed", t.trim(acme, 6, store.Trim{Bytes: 4, Keep: keepAll}).Removed, 1)
		}},
		{"trim/bytes", "retention by size keeps the newest events that fit", func(t *trial) {
			t.fill(acme, 10, 1000)
			t.trim(acme, 1, store.Trim{Bytes: 10_000, Keep: keepAll})
			t.trim(acme, 6, store.Trim{Bytes: 5_500, Keep: keepAll})
			t.reopen()
			t.trim(acme, 10, store.Trim{Bytes: 1, Keep: keepAll})
			t.same("events left", len(t.read(acme, 9)), 1)
		}},
		{"trim/none", "no bound removes nothing, and an empty log has nothing to remove", func(t *trial) {
			t.fill(acme, 3, 10)
			t.same("trimmed", t.trim(acme, 1, store.Trim{Keep: keepAll}), store.Trimmed{First: 1})
			t.same("trimmed", t.trim(other, 1, store.Trim{Before: farAway, Bytes: 1}), store.Trimmed{First: 1})
		}},
		{"trim/mixed", "one batch of events is trimmed as far as its events say", func(t *trial) {
			var events []store.NewEvent
			for i := range 10 {
				events = append(events, event(fmt.Sprintf("e%d", i+1), "0123456789", i+1))
			}
			t.append(acme, events...)
			t.trimTo(acme, 4)
			t.same("first read", t.read(acme, 3)[0].ID, "e4")
			t.noLookup(acme, store.Ref{Sequence: 3})
		}},
		{"trim/parked", "events of parked sequences outlive retention until they are unparked or their lane is deleted", func(t *trial) {
			t.fill(acme, 6, 10)
			a, b := newLane(acme, subA), newLane(acme, subB)
			a.Park = []store.Parked{parkedRow(1, eventhose.ParkedDead), parkedRow(2, eventhose.ParkedRetrying), parkedRow(6, eventhose.ParkedDead)}
			b.Park = []store.Parked{parkedRow(2, eventhose.ParkedDead), parkedRow(3, eventhose.ParkedDead)}
			t.commit(store.Progress{Lanes: []store.LaneChange{a, b}})
			if got := t.trimTo(acme, 5); len(got.Lost) > 0 || got.Removed != 4 {
				t.fatalf("trimmed %+v", got)
			}
			kept := func(seqs ...eventhose.Sequence) {
				want := map[eventhose.Sequence]bool{}
				for _, seq := range seqs {
					want[seq] = true
				}
				for seq := eventhose.Sequence(1); seq <= 4; seq++ {
					id := fmt.Sprintf("e%d", seq)
					if !want[seq] {
						t.noLookup(acme, store.Ref{Sequence: seq})
						t.noLookup(acme, store.Ref{ID: id})
						continue
					}
					data := event(id, fmt.Sprintf("%010d", seq), int(seq)).Event
					data.Tenant, data.Sequence = acme, seq
					t.ok("kept, by place", SameEvent(t.lookup(acme, store.Ref{Sequence: seq}), &data))
					t.ok("kept, by id", SameEvent(t.lookup(acme, store.Ref{ID: id}), &data))
				}
			}
			for range 2 {
				kept(1, 2, 3)
				t.same("read goes on", len(t.read(acme, 4)), 2)
				t.reopen()
			}
			// Parking it again is not unparking it.
			again := parkedRow(1, eventhose.ParkedRetrying)
			t.change(store.LaneChange{Lane: a.Lane, Park: []store.Parked{again}, Unpark: []eventhose.Sequence{2}})
			kept(1, 2, 3)
			t.change(store.LaneChange{Lane: a.Lane, Unpark: []eventhose.Sequence{1}})
			kept(2, 3)
			t.change(store.LaneChange{Lane: b.Lane, Delete: true})
			for range 2 {
				kept()
				t.reopen()
			}
		}},
		{"trim/quota", "of parked events the newest are kept, within the quota; which were lost is said once, and their rows are gone", func(t *trial) {
			t.fill(acme, 8, 100)
			a, b := newLane(acme, subA), newLane(acme, subB)
			a.Lane.Dead, b.Lane.Dead, b.Lane.Retrying = 4, 1, 1
			a.Park = []store.Parked{parkedRow(1, eventhose.ParkedDead), parkedRow(2, eventhose.ParkedDead), parkedRow(3, eventhose.ParkedDead), parkedRow(7, eventhose.ParkedDead)}
			b.Park = []store.Parked{parkedRow(2, eventhose.ParkedRetrying)}
			t.commit(store.Progress{Lanes: []store.LaneChange{a, b}})
			before := epoch.Add(4 * time.Second)
			got := t.trim(acme, 4, store.Trim{Before: before, Keep: 250})
			t.same("lost", got.Lost, []store.LostParked{{Subscription: subA, Sequence: 1}})
			t.lookup(acme, store.Ref{Sequence: 2})
			t.lookup(acme, store.Ref{Sequence: 3})
			t.same("rows", len(t.parked(acme, subA, store.ParkedQuery{Limit: 10})), 3)
			row, _ := t.lane(acme, subA)
			t.same("dead ones that the lane counts", row.Dead, 3)
			// The quota counts what was kept before, too, and a smaller one takes effect.
			got = t.trim(acme, 4, store.Trim{Before: before, Keep: 150})
			if len(got.Lost) != 2 || got.Lost[0].Sequence != 2 || got.Lost[1].Sequence != 2 {
				t.fatalf("lost %+v, want sequence 2 of both", got.Lost)
			}
			row, _ = t.lane(acme, subB)
			t.same("parked ones that the lane counts", []int{row.Dead, row.Retrying}, []int{1, 0})
			got = t.trim(acme, 8, store.Trim{Before: farAway, Keep: 150})
			t.same("lost", got.Lost, []store.LostParked{{Subscription: subA, Sequence: 3}})
			for range 2 {
				t.lookup(acme, store.Ref{Sequence: 7})
				t.noLookup(acme, store.Ref{Sequence: 3})
				t.noLookup(acme, store.Ref{ID: "e1"})
				t.same("rows", len(t.parked(acme, subA, store.ParkedQuery{Limit: 10})), 1)
				t.same("rows", len(t.parked(acme, subB, store.ParkedQuery{Limit: 10})), 0)
				t.reopen()
			}
			got = t.trim(acme, 8, store.Trim{Before: farAway})
			t.same("lost", got.Lost, []store.LostParked{{Subscription: subA, Sequence: 7}})
		}},
		{"trim/told", "what is over the quota stays until it is given up, and only what was given up goes", func(t *trial) {
			t.fill(acme, 6, 100)
			a, b := newLane(acme, subA), newLane(acme, subB)
			a.Lane.Dead, b.Lane.Retrying = 3, 1
			for seq := range eventhose.Sequence(3) {
				a.Park = append(a.Park, parkedRow(seq+1, eventhose.ParkedDead))
			}
			b.Park = []store.Parked{parkedRow(2, eventhose.ParkedRetrying)}
			t.commit(store.Progress{Lanes: []store.LaneChange{a, b}})
			trim := store.Trim{Before: epoch.Add(5 * time.Second), Keep: 150}
			over := []store.LostParked{{Subscription: subA, Sequence: 1}, {Subscription: subA, Sequence: 2}, {Subscription: subB, Sequence: 2}}
			for range 2 {
				got, err := t.s.Trim(t.ctx, acme, trim)
				t.ok("trim", err)
				t.same("over the quota", got.Over, over)
				t.same("lost", len(got.Lost), 0)
				for seq := range eventhose.Sequence(3) {
					t.same("data kept", len(t.lookup(acme, store.Ref{Sequence: seq + 1}).Data), 100)
				}
				t.reopen()
			}
			// One is settled meanwhile, one is parked by another lane, and one is not below the first left.
			a.Park, a.Unpark, a.Lane.Dead = nil, []eventhose.Sequence{1}, 2
			b.Park, b.Lane.Retrying = []store.Parked{parkedRow(3, eventhose.ParkedRetrying)}, 2
			t.change(a)
			t.change(b)
			trim.Lose = append(over[:2:2], store.LostParked{Subscription: subA, Sequence: 3}, store.LostParked{Subscription: subB, Sequence: 6})
			trim.Keep = keepAll
			got, err := t.s.Trim(t.ctx, acme, trim)
			t.ok("trim", err)
			t.same("lost", got.Lost, []store.LostParked{{Subscription: subA, Sequence: 2}, {Subscription: subA, Sequence: 3}})
			t.same("over the quota", len(got.Over), 0)
			for range 2 {
				t.noLookup(acme, store.Ref{Sequence: 1})
				t.lookup(acme, store.Ref{Sequence: 2})
				t.lookup(acme, store.Ref{Sequence: 3})
				t.same("rows", len(t.parked(acme, subA, store.ParkedQuery{Limit: 10})), 0)
				t.same("rows", len(t.parked(acme, subB, store.ParkedQuery{Limit: 10})), 2)
				row, _ := t.lane(acme, subA)
				t.same("dead ones that the lane counts", row.Dead, 0)
				work, err := t.s.Work(t.ctx, store.LaneRef{}, 10)
				t.ok("work", err)
				t.same("lanes with work", len(work), 1)
				t.same("the lane that has lost some", work[0], row)
				t.same("its time", row.Due, store.LongDue)
				row, _ = t.lane(acme, subB)
				t.same("retrying ones that the lane counts", row.Retrying, 2)
				t.reopen()
			}
		}},
		{"trim/late", "what is parked once the log has lost its event is over any quota", func(t *trial) {
			t.fill(acme, 4, 100)
			t.trimTo(acme, 3)
			c := newLane(acme, subA)
			c.Lane.Dead = 1
			c.Park = []store.Parked{parkedRow(1, eventhose.ParkedDead)}
			t.change(c)
			got := t.trim(acme, 3, store.Trim{Keep: keepAll})
			if len(got.Lost) == 0 { // the store still has it
				t.same("data", len(t.lookup(acme, store.Ref{Sequence: 1}).Data), 100)
				return
			}
			t.same("lost", got.Lost, []store.LostParked{{Subscription: subA, Sequence: 1}})
			t.same("rows", len(t.parked(acme, subA, store.ParkedQuery{Limit: 10})), 0)
			t.same("lost", len(t.trim(acme, 3, store.Trim{Keep: keepAll}).Lost), 0)
		}},
		{"trim/attempts", "attempts go with the events that they are about", func(t *trial) {
			t.fill(acme, 6, 10)
			c := newLane(acme, subA)
			c.Attempts = []eventhose.Attempt{attempt(acme, subA, 1, 1), attempt(acme, subA, 2, 2), attempt(acme, subA, 3, 5), attempt(acme, subA, 4, 6)}
			t.change(c)
			t.trimTo(acme, 4)
			for range 2 {
				t.same("attempts", t.attempts(acme, store.AttemptQuery{Subscription: subA, Limit: 10}), []string{c.Attempts[3].ID, c.Attempts[2].ID})
				t.same("of a trimmed event", t.attempts(acme, store.AttemptQuery{Sequence: 1, Limit: 10}), []string{})
				t.reopen()
			}
		}},
	}
}

func eraseCases() []Case {
	return []Case{
		{"erase/data", "erasing removes an event's data and nothing else, and doing it again is no error", func(t *trial) {
			t.fill(acme, 3, 100)
			want := event("e2", "", 2).Event
			want.Tenant, want.Sequence, want.Erased = acme, 2, true
			for range 2 {
				t.ok("erase", t.s.Erase(t.ctx, acme, 2))
				t.ok("read", SameEvent(t.read(acme, 0)[1], &want))
				t.ok("by place", SameEvent(t.lookup(acme, store.Ref{Sequence: 2}), &want))
				t.ok("by id", SameEvent(t.lookup(acme, store.Ref{ID: "e2"}), &want))
				for _, i := range []int{0, 2} {
					t.same("its neighbour", len(t.read(acme, 0)[i].Data), 100)
				}
				t.reopen()
			}
		}},
		{"erase/absent", "what is not there cannot be erased", func(t *trial) {
			t.fill(acme, 3, 10)
			t.trimTo(acme, 2)
			t.is("erase of a trimmed event", t.s.Erase(t.ctx, acme, 1), store.ErrNotFound)
			t.is("erase beyond the head", t.s.Erase(t.ctx, acme, 4), store.ErrNotFound)
			t.is("erase in no log", t.s.Erase(t.ctx, other, 1), store.ErrNotFound)
		}},
		{"erase/kept", "the data of a kept parked event can be erased, too", func(t *trial) {
			t.fill(acme, 3, 10)
			c := newLane(acme, subA)
			c.Park = []store.Parked{parkedRow(1, eventhose.ParkedDead)}
			t.change(c)
			t.trimTo(acme, 3)
			t.ok("erase", t.s.Erase(t.ctx, acme, 1))
			for range 2 {
				if e := t.lookup(acme, store.Ref{Sequence: 1}); !e.Erased || len(e.Data) > 0 {
					t.fatalf("it still has its data: %+v", e)
				}
				t.reopen()
			}
		}},
	}
}

func parentCases() []Case {
	connected := func(t *trial) {
		t.group(store.Append{Tenant: acme, Parent: platform, Events: []store.NewEvent{event("a", "1", 1), event("", "2", 1)}},
			store.Append{Tenant: platform, Events: []store.NewEvent{event("own", "3", 1)}},
			store.Append{Tenant: other, Parent: platform, Events: []store.NewEvent{event("a", "4", 2)}},
			store.Append{Tenant: acme, Parent: platform, Events: []store.NewEvent{event("a", "1", 2), event("c", "5", 2)}})
	}
	return []Case{
		{"parent/places", "a connected tenant's events have a place in its parent's log, once, under tenant/id", func(t *trial) {
			connected(t)
			for range 2 {
				events := t.read(platform, 0)
				if len(events) != 5 {
					t.fatalf("the parent's log has %d events, want 5", len(events))
				}
				for i, want := range []struct {
					id     string
					origin eventhose.Origin
				}{{"acme/a", eventhose.Origin{Tenant: acme, Sequence: 1}}, {"acme/" + t.read(acme, 0)[1].ID, eventhose.Origin{Tenant: acme, Sequence: 2}},
					{"own", eventhose.Origin{}}, {"other/a", eventhose.Origin{Tenant: other, Sequence: 1}}, {"acme/c", eventhose.Origin{Tenant: acme, Sequence: 3}}} {
					e := events[i]
					if e.ID != want.id || e.Origin != want.origin || string(e.Data) != fmt.Sprint(i+1) || e.Type != "order.paid" || e.Key != "k" || e.Attributes["region"] != "eu" {
						t.fatalf("place %d of the parent's log is %+v, want %+v", i+1, e, want)
					}
					t.ok("lookup by place", SameEvent(t.lookup(platform, store.Ref{Sequence: e.Sequence}), e))
					t.ok("lookup by id", SameEvent(t.lookup(platform, store.Ref{ID: e.ID}), e))
				}
				t.reopen()
			}
		}},
		{"parent/refused", "an entry that is refused has no place in the parent's log either", func(t *trial) {
			connected(t)
			r := t.results(store.Append{Tenant: acme, Parent: platform, Events: []store.NewEvent{event("d", "6", 3), event("a", "different", 3)}})
			t.is("append", r[0].Err, store.ErrDifferent)
			t.same("last of the parent", t.head(platform).Last, eventhose.Sequence(5))
		}},
		{"parent/erase", "data that is erased where it comes from is erased in the parent's log", func(t *trial) {
			connected(t)
			t.read(platform, 0)
			t.ok("erase", t.s.Erase(t.ctx, acme, 1))
			for range 2 {
				for _, e := range []*eventhose.Event{t.read(platform, 0)[0], t.lookup(platform, store.Ref{ID: "acme/a"}), t.lookup(platform, store.Ref{Sequence: 1})} {
					if !e.Erased || len(e.Data) > 0 {
						t.fatalf("the parent still has the data: %+v", e)
					}
				}
				t.same("its neighbour", string(t.read(platform, 0)[1].Data), "2")
				t.reopen()
			}
		}},
		{"parent/erase-place", "data that is erased in the parent's log is there where it comes from, and is gone from the place for good, also when that is parked and trimmed", func(t *trial) {
			for i := range 4 {
				t.group(store.Append{Tenant: acme, Parent: platform, Events: []store.NewEvent{event(fmt.Sprint("e", i+1), fmt.Sprintf("%01000d", i), i+1)}})
			}
			c := newLane(platform, subA)
			for seq := range eventhose.Sequence(3) {
				c.Park = append(c.Park, parkedRow(seq+1, eventhose.ParkedDead))
			}
			t.change(c)
			before := t.read(acme, 0)
			erased := map[eventhose.Sequence]bool{}
			erase := func(seq eventhose.Sequence) {
				erased[seq] = true
				for range 2 {
					t.ok("erase", t.s.Erase(t.ctx, platform, seq))
				}
			}
			check := func(after eventhose.Sequence) {
				for range 2 {
					for i, e := range t.read(acme, 0) {
						t.ok("in its own log", SameEvent(e, before[i]))
						t.ok("in its own log, by id", SameEvent(t.lookup(acme, store.Ref{ID: e.ID}), before[i]))
					}
					var places []*eventhose.Event
					for seq := eventhose.Sequence(1); seq <= 4; seq++ {
						places = append(places, t.lookup(platform, store.Ref{Sequence: seq}), t.lookup(platform, store.Ref{ID: fmt.Sprint("acme/e", seq)}))
					}
					for _, e := range append(places, t.read(platform, after)...) {
						if e.Erased != erased[e.Sequence] || (len(e.Data) == 0) != e.Erased {
							t.fatalf("place %d has %d bytes of data, erased: %v", e.Sequence, len(e.Data), e.Erased)
						}
					}
					t.reopen()
				}
			}
			erase(1)
			erase(4)
			check(0)
			t.trimTo(platform, 4)
			check(3)
			erase(2) // which is only kept
			check(3)
			if got := t.trim(platform, 4, store.Trim{Keep: 1000}); len(got.Lost) != 0 {
				t.fatalf("of 1000 bytes that are kept are lost %+v", got.Lost)
			}
		}},
		{"parent/parked", "what is parked of a parent's log outlives its own event, once it is trimmed there, and is erased with it", func(t *trial) {
			for i := range 4 {
				t.group(store.Append{Tenant: acme, Parent: platform, Events: []store.NewEvent{event(fmt.Sprint("e", i+1), fmt.Sprintf("%01000d", i), i+1)}})
			}
			c := newLane(platform, subA)
			c.Park = []store.Parked{parkedRow(1, eventhose.ParkedDead), parkedRow(2, eventhose.ParkedDead)}
			t.change(c)
			if got := t.trimTo(platform, 3); len(got.Lost) > 0 {
				t.fatalf("trimmed %+v", got)
			}
			t.ok("erase", t.s.Erase(t.ctx, acme, 1))
			t.trimTo(acme, 4)
			for range 2 {
				for seq, size := range map[eventhose.Sequence]int{1: 0, 2: 1000} {
					for _, ref := range []store.Ref{{Sequence: seq}, {ID: fmt.Sprint("acme/e", seq)}} {
						if e := t.lookup(platform, ref); len(e.Data) != size || e.Erased != (size == 0) || e.Sequence != seq {
							t.fatalf("parked place %d, looked up by %+v, has %d bytes of data, erased: %v", seq, ref, len(e.Data), e.Erased)
						}
					}
				}
				t.reopen()
			}
			got := t.trim(platform, 3, store.Trim{Keep: 999})
			t.same("lost", len(got.Lost), 2)
			t.noLookup(platform, store.Ref{Sequence: 2})
		}},
		{"parent/trimmed", "a place in a parent's log stays when its event is trimmed, and reads as erased; each log is trimmed by itself", func(t *trial) {
			for i := range 4 {
				t.group(store.Append{Tenant: acme, Parent: platform, Events: []store.NewEvent{event("", fmt.Sprintf("%01000d", i), i+1)}})
			}
			t.trimTo(acme, 3)
			for range 2 {
				events := t.read(platform, 0)
				t.same("places", len(events), 4)
				for i, e := range events {
					if i < 2 && (!e.Erased || len(e.Data) > 0) || i >= 2 && (e.Erased || len(e.Data) != 1000) {
						t.fatalf("place %d has %d bytes of data, erased: %v", i+1, len(e.Data), e.Erased)
					}
				}
				t.reopen()
			}
			t.trim(platform, 1, store.Trim{Bytes: 1})
			t.trimTo(platform, 4)
			t.same("events of the child", len(t.read(acme, 2)), 2)
		}},
		{"parent/kept", "a parked place that its log has trimmed keeps its data: it outlives the event that it stands for, counts among what is kept, and goes when that is erased", func(t *trial) {
			for i := range 4 {
				t.group(store.Append{Tenant: acme, Parent: platform, Events: []store.NewEvent{event(fmt.Sprintf("e%d", i+1), fmt.Sprintf("%01000d", i), i+1)}})
			}
			c := newLane(platform, subA)
			for seq := range eventhose.Sequence(3) {
				c.Park = append(c.Park, parkedRow(seq+1, eventhose.ParkedDead))
			}
			t.change(c)
			t.trimTo(platform, 4)
			t.ok("erase", t.s.Erase(t.ctx, acme, 2))
			t.trimTo(acme, 4)
			for range 2 {
				for seq, size := range []int{1000, 0, 1000} {
					for _, ref := range []store.Ref{{Sequence: eventhose.Sequence(seq + 1)}, {ID: fmt.Sprintf("acme/e%d", seq+1)}} {
						if e := t.lookup(platform, ref); len(e.Data) != size || e.Erased != (size == 0) {
							t.fatalf("%+v has %d bytes of data, erased: %v", ref, len(e.Data), e.Erased)
						}
					}
				}
				t.reopen()
			}
			got := t.trim(platform, 4, store.Trim{Keep: 1500})
			if len(got.Lost) != 1 || got.Lost[0].Sequence != 1 {
				t.fatalf("of two times 1000 bytes 1500 are kept, and lost is %+v", got.Lost)
			}
		}},
	}
}
