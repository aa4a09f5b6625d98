package storetest

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// fullLane is a change that sets every field of a lane's row.
func fullLane(sub eventhose.SubscriptionID) store.LaneChange {
	c := newLane(acme, sub)
	c.Lane = store.Lane{LaneRef: c.Lane.LaneRef, Cursor: 7, Previous: 6, Began: 2, Settled: []eventhose.Sequence{9, 11, 1 << 40}, Behind: true, Due: epoch,
		Retrying: 1, Dead: 2, Waiting: 3, FailingSince: epoch.Add(time.Second), Run: 4, Open: true, Probes: 5, LastSuccess: epoch.Add(-time.Second),
		Replays: []eventhose.Replay{{ID: "r", From: 1, To: math.MaxUint64, Types: []string{"a", "b.*"}, Status: "dead", At: 3, Sent: 4, Created: epoch}}}
	return c
}

func laneCases() []Case {
	return []Case{
		{"lanes/row", "a lane's row comes back whole, and each change replaces it", func(t *trial) {
			c := fullLane(subA)
			t.change(c)
			for range 2 {
				got, _ := t.lane(acme, subA)
				t.same("row", got, c.Lane)
				t.reopen()
			}
			bare := newLane(acme, subA)
			bare.Create = false
			t.change(bare)
			for range 2 {
				got, _ := t.lane(acme, subA)
				t.same("row", got, bare.Lane)
				t.reopen()
			}
		}},
		{"lanes/absent", "a change to a lane that does not exist is left out, what came with it too, and others stand", func(t *trial) {
			t.fill(acme, 2, 1)
			c := fullLane(subA)
			c.Create, c.Park, c.Block = false, []store.Parked{parkedRow(1, eventhose.ParkedDead)}, []store.BlockedKey{{Key: "k"}}
			c.Attempts = []eventhose.Attempt{attempt(acme, subA, 1, 1)}
			t.commit(store.Progress{Lanes: []store.LaneChange{c, newLane(acme, subB)}, Matched: []store.Tail{{Tenant: acme, Matched: 1}}})
			t.noLane(acme, subA)
			t.lane(acme, subB)
			t.same("parked", len(t.parked(acme, subA, store.ParkedQuery{Limit: 10})), 0)
			t.same("attempts", t.attempts(acme, store.AttemptQuery{Sequence: 1, Limit: 10}), []string{})
			t.same("tails", t.tails(), []store.Tail{{Tenant: acme, Matched: 1, Last: 2}})
		}},
		{"lanes/again", "progress that is committed again, because nobody knew whether it had been, is as if it had been once", func(t *trial) {
			t.fill(acme, 3, 1)
			c := fullLane(subA)
			c.Park, c.Block = []store.Parked{parkedRow(1, eventhose.ParkedDead)}, []store.BlockedKey{{Key: "k", Head: 1}}
			c.Attempts = []eventhose.Attempt{attempt(acme, subA, 1, 1), attempt(acme, subA, 2, 2, 3)}
			p := store.Progress{Lanes: []store.LaneChange{c}, Matched: []store.Tail{{Tenant: acme, Matched: 2}}}
			t.commit(p)
			next := fullLane(subA)
			next.Create, next.Unpark, next.Unblock = false, []eventhose.Sequence{1}, []string{"k"}
			next.Attempts = []eventhose.Attempt{attempt(acme, subA, 3, 1)}
			for range 2 {
				t.commit(p)
				t.same("parked", len(t.parked(acme, subA, store.ParkedQuery{Limit: 10})), 1)
				t.same("attempts", len(t.attempts(acme, store.AttemptQuery{Subscription: subA, Limit: 10})), 2)
				t.same("attempts at one", len(t.attempts(acme, store.AttemptQuery{Subscription: subA, Sequence: 1, Limit: 10})), 1)
				t.same("tails", t.tails(), []store.Tail{{Tenant: acme, Matched: 2, Last: 3}})
				t.reopen()
			}
			for range 2 {
				t.change(next)
				t.same("parked", len(t.parked(acme, subA, store.ParkedQuery{Limit: 10})), 0)
				t.same("attempts", len(t.attempts(acme, store.AttemptQuery{Subscription: subA, Limit: 10})), 3)
				_, keys := t.lane(acme, subA)
				t.same("keys", len(keys), 0)
			}
		}},
		{"lanes/delete", "a deleted lane takes everything with it, and one made anew begins empty", func(t *trial) {
			t.fill(acme, 2, 1)
			c := fullLane(subA)
			c.Park, c.Block = []store.Parked{parkedRow(1, eventhose.ParkedDead)}, []store.BlockedKey{{Key: "k"}}
			c.Attempts = []eventhose.Attempt{attempt(acme, subA, 1, 1)}
			keep := newLane(acme, subB)
			keep.Attempts = []eventhose.Attempt{attempt(acme, subB, 2, 1)}
			t.commit(store.Progress{Lanes: []store.LaneChange{c, keep}})
			t.change(store.LaneChange{Lane: c.Lane, Delete: true})
			for range 2 {
				t.noLane(acme, subA)
				t.same("work", len(t.work()), 0)
				t.same("attempts", t.attempts(acme, store.AttemptQuery{Sequence: 1, Limit: 10}), []string{keep.Attempts[0].ID})
				t.reopen()
			}
			again := newLane(acme, subA)
			t.change(again)
			row, keys := t.lane(acme, subA)
			t.same("row", row, again.Lane)
			t.same("blocked keys", keys, []store.BlockedKey{})
			t.same("parked", len(t.parked(acme, subA, store.ParkedQuery{Limit: 10})), 0)
			t.same("attempts", t.attempts(acme, store.AttemptQuery{Subscription: subA, Limit: 10}), []string{})
		}},
		{"lanes/tenants", "the same subscription id in two tenants is two lanes", func(t *trial) {
			a, b := newLane(acme, subA), newLane(other, subA)
			a.Lane.Cursor, b.Lane.Cursor = 1, 2
			t.commit(store.Progress{Lanes: []store.LaneChange{a, b}})
			t.change(store.LaneChange{Lane: a.Lane, Delete: true})
			t.noLane(acme, subA)
			row, _ := t.lane(other, subA)
			t.same("row", row, b.Lane)
		}},
		{"lanes/blocked", "blocked keys are added, replaced and removed one by one", func(t *trial) {
			c := newLane(acme, subA)
			c.Block = []store.BlockedKey{{Key: "a", Head: 1, First: 2, Last: 1 << 40, Count: 100_000, Previous: 1}, {Key: "b", Head: 5}, {Key: "a/ü", Head: 7}}
			t.change(c)
			t.change(store.LaneChange{Lane: c.Lane, Block: []store.BlockedKey{{Key: "b", First: 6, Last: 9, Count: 3, Previous: 5}}, Unblock: []string{"a/ü", "absent"}})
			for range 2 {
				_, keys := t.lane(acme, subA)
				got := map[string]store.BlockedKey{}
				for _, k := range keys {
					got[k.Key] = k
				}
				t.same("blocked keys", sortedValues(got), []store.BlockedKey{c.Block[0], {Key: "b", First: 6, Last: 9, Count: 3, Previous: 5}})
				t.same("how many", len(keys), 2)
				t.reopen()
			}
		}},
	}
}

func parkedCases() []Case {
	return []Case{
		{"parked/rows", "parked rows come back whole, by sequence, and are replaced and removed by sequence", func(t *trial) {
			t.fill(acme, 20, 1)
			c := newLane(acme, subA)
			full := store.Parked{Previous: 1, Tries: 4, Replay: "r1", Redriven: true, Parked: eventhose.Parked{Event: "e2", Sequence: 2, Type: "a.b", Key: "k",
				State: eventhose.ParkedRetrying, Attempts: 3, Since: epoch, Due: epoch.Add(time.Hour), Status: 503, Reason: eventhose.ReasonStatus, Message: "no", Blocks: true, Batch: "bat_1"}}
			c.Park = []store.Parked{parkedRow(9, eventhose.ParkedDead), full, parkedRow(5, eventhose.ParkedDead)}
			t.change(c)
			t.change(store.LaneChange{Lane: c.Lane, Park: []store.Parked{parkedRow(9, eventhose.ParkedRetrying), parkedRow(11, eventhose.ParkedDead)}, Unpark: []eventhose.Sequence{5, 6}})
			for range 2 {
				t.same("rows", t.parked(acme, subA, store.ParkedQuery{Limit: 10}),
					[]store.Parked{full, parkedRow(9, eventhose.ParkedRetrying), parkedRow(11, eventhose.ParkedDead)})
				t.same("another lane's", len(t.parked(acme, subB, store.ParkedQuery{Limit: 10})), 0)
				t.reopen()
			}
		}},
		{"parked/pages", "pages go by sequence and state and miss nothing", func(t *trial) {
			t.fill(acme, 30, 1)
			c := newLane(acme, subA)
			for seq := eventhose.Sequence(1); seq <= 30; seq++ {
				c.Park = append(c.Park, parkedRow(seq, []eventhose.ParkedState{eventhose.ParkedDead, eventhose.ParkedRetrying, eventhose.ParkedWaiting}[seq%3]))
			}
			t.change(c)
			for state, want := range map[eventhose.ParkedState]int{"": 30, eventhose.ParkedDead: 10, eventhose.ParkedRetrying: 10, eventhose.ParkedWaiting: 10, eventhose.ParkedLeased: 0} {
				n := 0
				for after := eventhose.Sequence(0); ; {
					page := t.parked(acme, subA, store.ParkedQuery{State: state, After: after, Limit: 4})
					if len(page) == 0 {
						break
					}
					for _, p := range page {
						if p.Sequence <= after || state != "" && p.State != state {
							t.fatalf("%s after %d answered %+v", state, after, p)
						}
						after = p.Sequence
						n++
					}
				}
				t.same(fmt.Sprintf("rows of state %q", state), n, want)
			}
		}},
	}
}

func attemptCases() []Case {
	return []Case{
		{"attempts/whole", "an attempt comes back whole, also one of a test, which has no place in the log", func(t *trial) {
			t.fill(acme, 2, 1)
			full := attempt(acme, subA, 7, 1, 2)
			full.Kind, full.Number, full.Outcome, full.Reason, full.Message, full.Status = eventhose.AttemptRetry, 3, eventhose.OutcomeFailed, eventhose.ReasonTLS, "why", 0
			full.Duration, full.Phases = 5, eventhose.Phases{DNS: 1, Connect: 2, TLS: 3, Wait: 4}
			full.URL, full.Address, full.ResponseHeaders = "https://example.com", "192.0.2.1:443", map[string]string{"A": "b"}
			full.ResponseBody, full.Next, full.Replay = "body\x00\xff"[:5], epoch.Add(time.Hour), "r"
			full.Batch, full.Failed, full.Previous = "bat_1", []eventhose.Sequence{2}, []eventhose.Sequence{0, 1}
			test := attempt(acme, subA, 8)
			test.Kind, test.Events = eventhose.AttemptTest, []string{"test"}
			c := newLane(acme, subA)
			c.Attempts = []eventhose.Attempt{full, test}
			t.change(c)
			for range 2 {
				got, err := t.s.Attempts(t.ctx, acme, store.AttemptQuery{Subscription: subA, Limit: 10})
				t.ok("attempts", err)
				t.same("attempts", got, []eventhose.Attempt{test, full})
				t.reopen()
			}
		}},
		{"attempts/pages", "attempts are listed newest first, by subscription, by event, and by both", func(t *trial) {
			t.fill(acme, 3, 1)
			a, b := newLane(acme, subA), newLane(acme, subB)
			for n := 1; n <= 12; n++ {
				a.Attempts = append(a.Attempts, attempt(acme, subA, 2*n, eventhose.Sequence(1+n%3)))
				b.Attempts = append(b.Attempts, attempt(acme, subB, 2*n+1, eventhose.Sequence(1+n%3), eventhose.Sequence(1+(n+1)%3)))
			}
			for i := range 12 { // one by one, so that they do not only lie in order because they came in one write
				t.commit(store.Progress{Lanes: []store.LaneChange{
					{Lane: a.Lane, Create: true, Attempts: a.Attempts[i : i+1]}, {Lane: b.Lane, Create: true, Attempts: b.Attempts[i : i+1]}}})
			}
			for range 2 {
				for _, q := range []store.AttemptQuery{{}, {Subscription: subA}, {Subscription: subB}, {Sequence: 1}, {Sequence: 2}, {Subscription: subA, Sequence: 3}, {Subscription: subB, Sequence: 3},
					{Sequence: 1, Through: 2}, {Sequence: 3, Through: 1}, {Subscription: subA, Sequence: 2, Through: 3}, {Subscription: subB, Sequence: 1, Through: 70}} {
					var want []string
					for n := 12; n >= 1; n-- {
						for _, x := range []eventhose.Attempt{b.Attempts[n-1], a.Attempts[n-1]} {
							about := func(seq eventhose.Sequence) bool { return seq >= q.Sequence && seq <= max(q.Sequence, q.Through) }
							if (q.Sequence == 0 || slices.ContainsFunc(x.Sequences, about)) && (q.Subscription == "" || x.Subscription == q.Subscription) {
								want = append(want, x.ID)
							}
						}
					}
					var got []string
					for q.Limit = 5; ; {
						page := t.attempts(acme, q)
						if len(page) == 0 || len(got) > 50 {
							break
						}
						got = append(got, page...)
						q.Before = page[len(page)-1]
					}
					t.same(fmt.Sprintf("attempts of %+v", q), got, want)
				}
				t.reopen()
			}
		}},
		{"attempts/ranges", "the attempts at events in a row are listed newest first, each once, however many of the events it is at and however far these are apart", func(t *trial) {
			t.fill(acme, 200, 1)
			a, b := newLane(acme, subA), newLane(acme, subB)
			var hundred []eventhose.Sequence
			for seq := eventhose.Sequence(30); seq < 130; seq++ {
				hundred = append(hundred, seq)
			}
			b.Attempts = []eventhose.Attempt{attempt(acme, subB, 1, 40), attempt(acme, subB, 2, hundred...)}
			a.Attempts = []eventhose.Attempt{attempt(acme, subA, 3, 5, 150)}
			for n := 1; n <= 60; n++ {
				a.Attempts = append(a.Attempts, attempt(acme, subA, 3+n, eventhose.Sequence(3*n)))
			}
			a.Attempts = append(a.Attempts, attempt(acme, subA, 70, hundred...), attempt(acme, subA, 71, 5, 6), attempt(acme, subA, 72, 199))
			t.change(a)
			t.change(b)
			for range 2 {
				for _, q := range []store.AttemptQuery{{Sequence: 1, Through: 64}, {Sequence: 5, Through: 6}, {Sequence: 65, Through: 128}, {Sequence: 129, Through: 199}, {Sequence: 150}, {Sequence: 200, Through: 300}, {Sequence: 1, Through: 200}} {
					about := func(seq eventhose.Sequence) bool { return seq >= q.Sequence && seq <= max(q.Sequence, q.Through) }
					var want []string
					for _, x := range slices.Backward(a.Attempts) {
						if slices.ContainsFunc(x.Sequences, about) {
							want = append(want, x.ID)
						}
					}
					if q.Subscription, q.Limit = subA, 1000; want == nil {
						want = []string{}
					}
					t.same(fmt.Sprintf("attempts of %+v", q), t.attempts(acme, q), want)
				}
				t.reopen()
			}
		}},
	}
}

// everywhereCases are lists over all of a tenant's lanes.
func everywhereCases() []Case {
	return []Case{
		{"everywhere/attempts", "the attempts of all subscriptions are merged newest first, miss nothing, and are those of no deleted one and no other tenant", func(t *trial) {
			t.fill(acme, 40, 1)
			t.fill(other, 1, 1)
			subs := []eventhose.SubscriptionID{subA, subB, "sub_0000000000000000000000000c"}
			var want []string
			for n := 1; n <= 120; { // several in one write, of subscriptions by turns, whose times overlap
				p := store.Progress{}
				for i, sub := range subs {
					c := newLane(acme, sub)
					for k := range 1 + n%3*4 {
						a := attempt(acme, sub, n+3*k+i, eventhose.Sequence(1+(n+k)%40))
						if c.Attempts = append(c.Attempts, a); i < 2 {
							want = append(want, a.ID)
						}
					}
					p.Lanes = append(p.Lanes, c)
				}
				t.commit(p)
				n += 3 * (1 + n%3*4)
			}
			c := newLane(other, subA)
			c.Attempts = []eventhose.Attempt{attempt(other, subA, 50, 1)}
			t.change(c)
			gone := newLane(acme, subs[2])
			gone.Create, gone.Delete = false, true
			t.change(gone)
			slices.Sort(want)
			slices.Reverse(want)
			for range 2 {
				for _, limit := range []int{1, 7, 1000} {
					var got []string
					for q := (store.AttemptQuery{Limit: limit}); ; {
						page, err := t.s.Attempts(t.ctx, acme, q)
						t.ok("attempts", err)
						for _, a := range page {
							if q.Before = a.ID; a.Subscription != "" {
								got = append(got, a.ID)
							}
						}
						if len(page) < limit || len(got) > 1000 {
							break
						}
					}
					t.same(fmt.Sprintf("all attempts by %d", limit), got, want)
				}
				t.reopen()
			}
		}},
		{"everywhere/parked", "what all subscriptions have parked is listed by sequence and subscription, miss nothing, of one state too", func(t *trial) {
			t.fill(acme, 12, 1)
			states := []eventhose.ParkedState{eventhose.ParkedDead, eventhose.ParkedRetrying, eventhose.ParkedLeased}
			var all []store.Parked
			for i, sub := range []eventhose.SubscriptionID{subA, subB} {
				c := newLane(acme, sub)
				for seq := eventhose.Sequence(1); seq <= 12; seq += eventhose.Sequence(1 + i) {
					p := parkedRow(seq, states[(int(seq)+i)%3])
					c.Park = append(c.Park, p)
					p.Subscription = sub
					all = append(all, p)
				}
				t.change(c)
			}
			elsewhere := newLane(other, subA)
			elsewhere.Park = []store.Parked{parkedRow(1, eventhose.ParkedDead)}
			t.fill(other, 1, 1)
			t.change(elsewhere)
			slices.SortFunc(all, func(a, b store.Parked) int {
				return cmp.Or(cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Subscription, b.Subscription))
			})
			for range 2 {
				for _, state := range append(states, "") {
					for limit := 1; limit <= 100; limit *= 10 {
						var got []store.Parked
						for q := (store.ParkedQuery{State: state, Limit: limit}); ; {
							page := t.parked(acme, "", q)
							if len(page) == 0 || len(got) > len(all) {
								break
							}
							got = append(got, page...)
							last := page[len(page)-1]
							q.After, q.AfterSubscription = last.Sequence, last.Subscription
						}
						want := slices.DeleteFunc(slices.Clone(all), func(p store.Parked) bool { return state != "" && p.State != state })
						t.same(fmt.Sprintf("all parked %q by %d", state, limit), got, want)
					}
				}
				t.same("after a sequence", len(t.parked(acme, "", store.ParkedQuery{After: 11, Limit: 10})), 1)
				t.reopen()
			}
		}},
	}
}

func (t *trial) work() []store.Lane {
	lanes, err := t.s.Work(t.ctx, store.LaneRef{}, 1000)
	t.ok("work", err)
	return lanes
}

func (t *trial) tails() []store.Tail {
	tails, err := t.s.Tails(t.ctx, "", 1000)
	t.ok("tails", err)
	return tails
}

func workCases() []Case {
	return []Case{
		{"work/lanes", "the lanes with something to do are listed in order, page by page, and no others", func(t *trial) {
			var want []store.Lane
			for _, tenant := range []eventhose.TenantID{"a", "a-b", "aa", "b"} {
				for i := range 4 {
					c := newLane(tenant, eventhose.SubscriptionID(fmt.Sprintf("sub_%026d", i)))
					c.Lane.Behind, c.Lane.Cursor = i == 1, 5
					if i == 2 {
						c.Lane.Due = epoch
					}
					t.change(c)
					if i == 1 || i == 2 {
						want = append(want, c.Lane)
					}
				}
			}
			for range 2 {
				var got []store.Lane
				for after := (store.LaneRef{}); ; {
					page, err := t.s.Work(t.ctx, after, 3)
					t.ok("work", err)
					if len(page) == 0 || len(got) > 50 {
						break
					}
					got = append(got, page...)
					after = page[len(page)-1].LaneRef
				}
				t.same("work", got, want)
				t.reopen()
			}
			idle := want[0]
			idle.Behind = false
			t.change(store.LaneChange{Lane: idle})
			t.same("work", t.work(), want[1:])
		}},
		{"work/tails", "the logs that were not matched to their heads are listed, and matching only moves forward", func(t *trial) {
			t.fill("a", 3, 1)
			t.fill("b", 2, 1)
			t.fill("c", 1, 1)
			t.commit(store.Progress{Matched: []store.Tail{{Tenant: "a", Matched: 2}, {Tenant: "b", Matched: 2}}})
			t.commit(store.Progress{Matched: []store.Tail{{Tenant: "a", Matched: 1}}})
			for range 2 {
				t.same("tails", t.tails(), []store.Tail{{Tenant: "a", Matched: 2, Last: 3}, {Tenant: "c", Matched: 0, Last: 1}})
				page, err := t.s.Tails(t.ctx, "a", 1)
				t.ok("tails", err)
				t.same("page", page, []store.Tail{{Tenant: "c", Last: 1}})
				t.reopen()
			}
			t.append("b", event("", "x", 1))
			t.same("tails", len(t.tails()), 3)
		}},
	}
}
