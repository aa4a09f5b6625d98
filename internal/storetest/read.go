package storetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

func readCases() []Case {
	return []Case{
		{"read/limits", "a page holds at most its limit of events and about its bytes, and at least one event if there is one", func(t *trial) {
			t.fill(acme, 20, 1000)
			page, err := t.s.Read(t.ctx, acme, 3, store.ReadLimit{Events: 5, Bytes: 1 << 20})
			t.ok("read", err)
			if len(page) != 5 || page[0].Sequence != 4 || page[4].Sequence != 8 {
				t.fatalf("page of 5 after 3 is %d events", len(page))
			}
			page, err = t.s.Read(t.ctx, acme, 3, store.ReadLimit{Events: 100, Bytes: 3000})
			t.ok("read", err)
			if len(page) < 1 || len(page) > 5 {
				t.fatalf("page of 3000 bytes holds %d events of 1000", len(page))
			}
			page, err = t.s.Read(t.ctx, acme, 3, store.ReadLimit{Events: 100, Bytes: 1})
			t.ok("read", err)
			if len(page) != 1 || page[0].Sequence != 4 {
				t.fatalf("page of one byte holds %d events", len(page))
			}
		}},
		{"read/limits of what is beside the data", "what an event has beside its data counts as much as data", func(t *trial) {
			value := strings.Repeat("v", eventhose.MaxAttribute)
			for i := range 8 {
				e := event(strings.Repeat(fmt.Sprint(i), eventhose.MaxEventID), "1", 1)
				e.Event.Attributes = map[string]string{}
				for n := range eventhose.MaxAttributes {
					e.Event.Attributes[fmt.Sprint("a", n)] = value
				}
				t.append(acme, e)
			}
			for range 2 {
				page, err := t.s.Read(t.ctx, acme, 2, store.ReadLimit{Events: 100, Bytes: 3 * 34 << 10})
				t.ok("read", err)
				if len(page) != 3 {
					t.fatalf("page of %d bytes holds %d events of 33 KiB", 3*34<<10, len(page))
				}
				page, err = t.s.Read(t.ctx, acme, 2, store.ReadLimit{Events: 100, Bytes: 1})
				t.ok("read", err)
				if len(page) != 1 {
					t.fatalf("page of one byte holds %d events", len(page))
				}
				t.reopen()
			}
		}},
		{"read/limits of a parent's log", "the data that a place in a parent's log refers to counts there, too", func(t *trial) {
			data := strings.Repeat("d", 100_000)
			for i := range 12 {
				t.group(store.Append{Tenant: []eventhose.TenantID{acme, other}[i%2], Parent: platform, Events: []store.NewEvent{event(fmt.Sprint("e", i), data, 1)}})
			}
			for range 2 {
				read, pages := eventhose.Sequence(0), 0
				for ; read < 12; pages++ {
					page, err := t.s.Read(t.ctx, platform, read, store.ReadLimit{Events: 100, Bytes: 350_000})
					t.ok("read", err)
					if len(page) < 1 || len(page) > 4 {
						t.fatalf("page of 350,000 bytes holds %d events of 100,000", len(page))
					}
					for _, e := range page {
						if read++; e.Sequence != read || len(e.Data) != len(data) {
							t.fatalf("place %d reads as %d with %d bytes", read, e.Sequence, len(e.Data))
						}
					}
				}
				page, err := t.s.Read(t.ctx, platform, 0, store.ReadLimit{Events: 100, Bytes: 1})
				t.ok("read", err)
				if len(page) != 1 || len(page[0].Data) != len(data) {
					t.fatalf("page of one byte holds %d events", len(page))
				}
				t.reopen()
			}
		}},
		{"read/times", "what an older version took reads as the nearest time that can be written down", func(t *trial) {
			last := time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
			times := map[time.Time]time.Time{last: last, last.Add(1): last, last.Add(time.Hour): last, time.Time{}.Add(1): time.Time{}.Add(1), time.Time{}.Add(-1): {}, time.Time{}.Add(-time.Hour): {}}
			want := map[string]time.Time{}
			for at, reads := range times {
				e := event(fmt.Sprint("e", len(want)), "1", 1)
				e.Event.Time = at
				t.group(store.Append{Tenant: acme, Parent: platform, Events: []store.NewEvent{e}})
				want[e.Event.ID] = reads
			}
			t.reopen()
			for _, e := range append(t.read(acme, 0), t.read(platform, 0)...) {
				id := strings.TrimPrefix(e.ID, string(acme)+"/")
				if !e.Time.Equal(want[id]) || !t.lookup(e.Tenant, store.Ref{Sequence: e.Sequence}).Time.Equal(want[id]) {
					t.fatalf("time of %s reads as %v, want %v", e.ID, e.Time, want[id])
				}
			}
		}},
		{"read/end", "reading ends at the head, and an unknown log is empty", func(t *trial) {
			t.fill(acme, 3, 1)
			for _, q := range []struct {
				tenant eventhose.TenantID
				after  eventhose.Sequence
			}{{acme, 3}, {acme, 1000}, {other, 0}} {
				page, err := t.s.Read(t.ctx, q.tenant, q.after, store.ReadLimit{Events: 10, Bytes: 1 << 20})
				t.ok("read", err)
				if len(page) != 0 {
					t.fatalf("read of %s after %d answered %d events", q.tenant, q.after, len(page))
				}
			}
		}},
		{"read/tenants", "a tenant reads its own log only, also when names begin alike", func(t *trial) {
			names := []eventhose.TenantID{"a", "aa", "a-", "a_b", "b", eventhose.TenantID("a" + strings.Repeat("z", 63))}
			for i, name := range names {
				for range i + 1 {
					t.append(name, event("id", string(name), 1), event("", string(name), 1))
				}
			}
			for range 2 {
				for i, name := range names {
					events := t.read(name, 0)
					if len(events) != i+2 {
						t.fatalf("%s has %d events, want %d", name, len(events), i+2)
					}
					for _, e := range events {
						if string(e.Data) != string(name) {
							t.fatalf("%s read an event of %s", name, e.Data)
						}
					}
				}
				t.reopen()
			}
		}},
	}
}

func lookupCases() []Case {
	return []Case{
		{"lookup/place", "an event is found by its place, by a client's id and by a made id", func(t *trial) {
			made := t.append(acme, event("", "1", 1), event("mine", "2", 1))[0].ID
			for range 2 {
				for _, ref := range []store.Ref{{Sequence: 1}, {ID: made}} {
					t.same("data", string(t.lookup(acme, ref).Data), "1")
				}
				for _, ref := range []store.Ref{{Sequence: 2}, {ID: "mine"}} {
					t.same("data", string(t.lookup(acme, ref).Data), "2")
				}
				for _, ref := range []store.Ref{{Sequence: 3}, {ID: "MINE"}, {ID: "min"}, {Scope: "s", ID: "mine"}, {Scope: "s", ID: made}, {ID: eventhose.EventID(1, 1)}} {
					t.noLookup(acme, ref)
				}
				t.noLookup(other, store.Ref{ID: made})
				t.noLookup(other, store.Ref{ID: "mine"})
				t.reopen()
			}
		}},
		{"lookup/lookalike", "a client's id that looks like a made one is found by index, and hides nobody else's event", func(t *trial) {
			fake := eventhose.EventID(2, 77)
			t.append(acme, event("", "1", 1), event("", "2", 1), event(fake, "3", 1))
			for range 2 {
				t.same("data", string(t.lookup(acme, store.Ref{ID: fake}).Data), "3")
				t.same("placement", t.append(acme, event(fake, "3", 1))[0], eventhose.Placement{ID: fake, Sequence: 3, Duplicate: true})
				t.reopen()
			}
		}},
		{"lookup/boundaries", "scope and id do not run into each other", func(t *trial) {
			for i, pair := range [][2]string{{"ab", "c"}, {"a", "bc"}, {"", "abc"}, {"abc/", "d"}, {"abc", "/d"}} {
				e := event(pair[1], fmt.Sprint(i), 1)
				e.Event.Scope = pair[0]
				t.append(acme, e)
			}
			for i, pair := range [][2]string{{"ab", "c"}, {"a", "bc"}, {"", "abc"}, {"abc/", "d"}, {"abc", "/d"}} {
				t.same("data", string(t.lookup(acme, store.Ref{Scope: pair[0], ID: pair[1]}).Data), fmt.Sprint(i))
			}
		}},
	}
}

func headCases() []Case {
	return []Case{
		{"head/empty", "an unknown tenant has an empty log", func(t *trial) {
			if h := t.head(acme); h.Last != 0 || h.First != 1 {
				t.fatalf("head is %+v", h)
			}
		}},
		{"head/empty incarnation", "a cursor of an empty log names the log's incarnation, so that retention does not overtake its reader in silence", func(t *trial) {
			empty := t.head(acme)
			if empty.Incarnation == 0 {
				t.fatalf("head is %+v", empty)
			}
			t.same("head asked for again", t.head(acme), empty)
			t.reopen()
			t.same("head after opening again", t.head(acme), empty)
			t.fill(acme, 5, 1)
			full := t.head(acme)
			t.same("incarnation", full.Incarnation, empty.Incarnation)
			seq, err := full.Resolve(empty.Cursor(0))
			t.ok("resolve", err)
			t.same("place", seq, eventhose.Sequence(0))
			t.trimTo(acme, 3)
			trimmed := t.head(acme)
			if _, err := trimmed.Resolve(empty.Cursor(0)); eventhose.CodeOf(err) != eventhose.CodeCursorGone {
				t.fatalf("the cursor that retention has overtaken: %v", err)
			}
			seq, err = trimmed.Resolve(eventhose.Cursor{})
			t.ok("resolve the beginning", err)
			t.same("beginning", seq, eventhose.Sequence(2))
		}},
		{"head/incarnation", "an incarnation is never 0 and stays as long as no numbers are issued again", func(t *trial) {
			t.append(acme, event("", "1", 1))
			before := t.head(acme)
			if before.Incarnation == 0 || before.First != 1 || before.Last != 1 {
				t.fatalf("head is %+v", before)
			}
			for range 2 {
				t.reopen()
				t.same("head", t.head(acme), before)
			}
			t.append(acme, event("", "2", 1))
			before.Last = 2
			t.same("head", t.head(acme), before)
		}},
		{"head/own incarnation", "a cursor of one log is not taken for one of another", func(t *trial) {
			cursors := map[eventhose.TenantID][]eventhose.Cursor{}
			for _, tenant := range []eventhose.TenantID{acme, other, platform} {
				cursors[tenant] = append(cursors[tenant], t.head(tenant).Cursor(0))
			}
			for _, tenant := range []eventhose.TenantID{acme, other} {
				t.append(tenant, event("", "1", 1), event("", "2", 1))
				cursors[tenant] = append(cursors[tenant], t.head(tenant).Cursor(1))
			}
			for range 2 {
				for of, list := range cursors {
					for tenant := range cursors {
						for _, cursor := range list {
							_, err := t.head(tenant).Resolve(cursor)
							if of == tenant {
								t.ok("resolve a cursor of "+string(of), err)
							} else if eventhose.CodeOf(err) != eventhose.CodeCursorGone {
								t.fatalf("cursor %v of %s in the log of %s: %v", cursor, of, tenant, err)
							}
						}
					}
				}
				t.reopen()
			}
		}},
		{"head/trimmed", "sequences go on after a trim and after opening again; none is issued twice", func(t *trial) {
			t.fill(acme, 5, 1)
			t.trimTo(acme, 5)
			t.reopen()
			if h := t.head(acme); h.First != 5 || h.Last != 5 {
				t.fatalf("head is %+v", h)
			}
			t.same("next", t.append(acme, event("", "x", 9))[0].Sequence, eventhose.Sequence(6))
		}},
	}
}
