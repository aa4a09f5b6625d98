package storetest

import (
	"context"
	"errors"
	"strings"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

func appendCases() []Case {
	return []Case{
		{"append/sequences", "an append gives its events the next sequences of its tenant, in order, and they stay as they came", func(t *trial) {
			first := t.append(acme, event("", "1", 1), event("mine", "2", 1))
			second := t.append(acme, event("", "3", 2))
			if first[0].Sequence != 1 || first[1] != (eventhose.Placement{ID: "mine", Sequence: 2}) || second[0].Sequence != 3 {
				t.fatalf("placements are %+v and %+v", first, second)
			}
			for range 2 {
				for i, e := range t.read(acme, 0) {
					want := []store.NewEvent{event(first[0].ID, "1", 1), event("mine", "2", 1), event(second[0].ID, "3", 2)}[i].Event
					want.Tenant, want.Sequence = acme, eventhose.Sequence(i+1)
					t.ok("read", SameEvent(e, &want))
				}
				t.reopen()
			}
		}},
		{"append/bytes", "data, ids, keys and attributes come back byte for byte, whatever they hold", func(t *trial) {
			odd := event("id /ü\u2028", "\x00\xff{ \"a\" :1.0 }\n", 1)
			odd.Event.Key, odd.Event.Scope, odd.Event.ContentType = "Schlüssel/1", "https://example.com/ü", "application/octet-stream"
			odd.Event.Attributes = map[string]string{"-": "", "a": strings.Repeat("x", eventhose.MaxAttribute)}
			empty := event("empty", "", 1)
			empty.Event.Attributes, empty.Event.Key, empty.Event.Version = nil, "", ""
			t.append(acme, odd, empty)
			t.reopen()
			for i, want := range []eventhose.Event{odd.Event, empty.Event} {
				want.Tenant, want.Sequence = acme, eventhose.Sequence(i+1)
				t.ok("read", SameEvent(t.read(acme, 0)[i], &want))
				t.ok("lookup", SameEvent(t.lookup(acme, store.Ref{Scope: want.Scope, ID: want.ID}), &want))
			}
		}},
		{"append/group", "a group's entries are placed in order, each tenant in its own log", func(t *trial) {
			r := t.group(
				store.Append{Tenant: acme, Events: []store.NewEvent{event("a", "1", 1), event("b", "2", 1)}},
				store.Append{Tenant: other, Events: []store.NewEvent{event("a", "3", 1)}},
				store.Append{Tenant: acme, Events: []store.NewEvent{event("c", "4", 1)}})
			t.same("sequences", []eventhose.Sequence{r[0].Placements[0].Sequence, r[0].Placements[1].Sequence, r[1].Placements[0].Sequence, r[2].Placements[0].Sequence},
				[]eventhose.Sequence{1, 2, 1, 3})
			t.same("heads", []eventhose.Sequence{t.head(acme).Last, t.head(other).Last}, []eventhose.Sequence{3, 1})
		}},
		{"append/owner", "a store keeps nothing of the slices that it was given", func(t *trial) {
			e := event("a", "before", 1)
			events := []store.NewEvent{e}
			t.append(acme, events...)
			copy(e.Event.Data, "AFTER!")
			events[0].Event.ID = "changed"
			e.Event.Attributes["region"] = "us"
			if got := t.read(acme, 0)[0]; string(got.Data) != "before" || got.ID != "a" || got.Attributes["region"] != "eu" {
				t.fatalf("the stored event changed with the caller's: %+v", got)
			}
		}},
		{"append/context", "a context that has ended before the call stores nothing", func(t *trial) {
			ended, cancel := context.WithCancel(t.ctx)
			cancel()
			if _, err := t.s.Append(ended, []store.Append{{Tenant: acme, Events: []store.NewEvent{event("a", "1", 1)}}}); !errors.Is(err, context.Canceled) {
				t.fatalf("append answered %v", err)
			}
			t.is("commit", t.s.Commit(ended, store.Progress{Lanes: []store.LaneChange{newLane(acme, subA)}}), context.Canceled)
			t.is("save", t.s.Save(ended, []store.RecordChange{{Record: store.Record{Kind: "key", ID: "1", Value: []byte("x")}}}, nil), context.Canceled)
			for range 2 {
				if h := t.head(acme); h.Last != 0 {
					t.fatalf("head is %+v", h)
				}
				t.noLane(acme, subA)
				_, err := t.s.Record(t.ctx, "", "key", "1")
				t.is("record", err, store.ErrNotFound)
				t.reopen()
			}
		}},
	}
}

func dedupeCases() []Case {
	refused := func(t *trial, r store.AppendResult, index int) {
		if !errors.Is(r.Err, store.ErrDifferent) || r.Index != index {
			t.fatalf("answered %v at %d, want ErrDifferent at %d", r.Err, r.Index, index)
		}
	}
	return []Case{
		{"dedupe/same", "the same event twice is one event, also after opening again, also when its data was erased", func(t *trial) {
			t.append(acme, event("a", "1", 1))
			for range 2 {
				p := t.append(acme, event("a", "1", 2), event("b", "1", 2))
				t.same("placement", p[0], eventhose.Placement{ID: "a", Sequence: 1, Duplicate: true})
				t.reopen()
			}
			t.ok("erase", t.s.Erase(t.ctx, acme, 1))
			t.same("placement", t.append(acme, event("a", "1", 2))[0], eventhose.Placement{ID: "a", Sequence: 1, Duplicate: true})
			t.same("last", t.head(acme).Last, eventhose.Sequence(2))
		}},
		{"dedupe/different", "the same id with another digest is refused, and nothing of its append is stored", func(t *trial) {
			t.append(acme, event("a", "1", 1))
			for range 2 {
				r := t.results(
					store.Append{Tenant: acme, Events: []store.NewEvent{event("x", "1", 2), event("a", "2", 2), event("y", "1", 2)}},
					store.Append{Tenant: acme, Events: []store.NewEvent{event("a", "1", 2)}})
				refused(t, r[0], 1)
				t.ok("its neighbour", r[1].Err)
				t.same("last", t.head(acme).Last, eventhose.Sequence(1))
				t.noLookup(acme, store.Ref{ID: "x"})
				t.reopen()
			}
			t.same("placement", t.append(acme, event("x", "other", 3))[0], eventhose.Placement{ID: "x", Sequence: 2})
		}},
		{"dedupe/group", "an id given twice in a group counts as remembered from its first on", func(t *trial) {
			r := t.results(
				store.Append{Tenant: acme, Events: []store.NewEvent{event("a", "1", 1), event("a", "1", 1)}},
				store.Append{Tenant: acme, Events: []store.NewEvent{event("a", "1", 1)}},
				store.Append{Tenant: acme, Events: []store.NewEvent{event("b", "1", 1), event("a", "2", 1)}},
				store.Append{Tenant: acme, Events: []store.NewEvent{event("b", "2", 1)}}, // the refused one's id is not remembered
				store.Append{Tenant: acme, Events: []store.NewEvent{event("c", "1", 1), event("c", "2", 1)}})
			t.same("first", r[0].Placements, []eventhose.Placement{{ID: "a", Sequence: 1}, {ID: "a", Sequence: 1, Duplicate: true}})
			t.same("second", r[1].Placements, []eventhose.Placement{{ID: "a", Sequence: 1, Duplicate: true}})
			refused(t, r[2], 1)
			t.same("fourth", r[3].Placements, []eventhose.Placement{{ID: "b", Sequence: 2}})
			refused(t, r[4], 1)
			t.same("last", t.head(acme).Last, eventhose.Sequence(2))
		}},
		{"dedupe/scope", "an id is unique within its tenant and scope only", func(t *trial) {
			scoped := event("a", "2", 1)
			scoped.Event.Scope = "https://example.com"
			t.append(acme, event("a", "1", 1), scoped)
			t.append(other, event("a", "3", 1))
			t.same("last", t.head(acme).Last, eventhose.Sequence(2))
			for range 2 {
				t.same("data", []string{string(t.lookup(acme, store.Ref{ID: "a"}).Data), string(t.lookup(acme, store.Ref{Scope: "https://example.com", ID: "a"}).Data),
					string(t.lookup(other, store.Ref{ID: "a"}).Data)}, []string{"1", "2", "3"})
				t.reopen()
			}
		}},
		{"dedupe/none", "events without an id are never the same", func(t *trial) {
			p := t.append(acme, event("", "1", 1), event("", "1", 1))
			if p[0].ID == p[1].ID || p[1].Sequence != 2 || p[1].Duplicate {
				t.fatalf("placements are %+v", p)
			}
		}},
		{"dedupe/trimmed", "an id is remembered as long as its event is there, and no longer", func(t *trial) {
			t.fill(acme, 3, 1)
			t.trimTo(acme, 3)
			p := t.append(acme, event("e1", "another", 9))
			t.same("placement", p[0], eventhose.Placement{ID: "e1", Sequence: 4})
			t.same("data", string(t.lookup(acme, store.Ref{ID: "e1"}).Data), "another")
			t.reopen()
			t.same("placement", t.append(acme, event("e1", "another", 9))[0], eventhose.Placement{ID: "e1", Sequence: 4, Duplicate: true})
		}},
	}
}
