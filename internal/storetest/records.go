package storetest

import (
	"fmt"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

func record(tenant eventhose.TenantID, kind, id string, version uint64, value string) store.RecordChange {
	return store.RecordChange{Record: store.Record{Tenant: tenant, Kind: kind, ID: id, Version: version, Value: []byte(value)}}
}

func (t *trial) save(records ...store.RecordChange) { t.ok("save", t.s.Save(t.ctx, records, nil)) }

func (t *trial) list(tenant eventhose.TenantID, kind, after string, limit int) (ids []string) {
	page, err := t.s.List(t.ctx, tenant, kind, after, limit)
	t.ok("list", err)
	for _, r := range page {
		ids = append(ids, r.ID)
	}
	return ids
}

func recordCases() []Case {
	return []Case{
		{"records/versions", "a record is stored only over the version that was read, and with the next one", func(t *trial) {
			t.save(record(acme, "key", "1", 0, "a"))
			t.is("a second creation", t.s.Save(t.ctx, []store.RecordChange{record(acme, "key", "1", 0, "b")}, nil), store.ErrVersion)
			t.is("a change of what is not there", t.s.Save(t.ctx, []store.RecordChange{record(acme, "key", "2", 1, "b")}, nil), store.ErrVersion)
			t.save(record(acme, "key", "1", 1, "c"))
			t.is("a change of an old version", t.s.Save(t.ctx, []store.RecordChange{record(acme, "key", "1", 1, "d")}, nil), store.ErrVersion)
			t.is("deletion of an old version", t.s.Save(t.ctx, []store.RecordChange{{Delete: true, Record: record(acme, "key", "1", 1, "").Record}}, nil), store.ErrVersion)
			for range 2 {
				got, err := t.s.Record(t.ctx, acme, "key", "1")
				t.ok("record", err)
				t.same("record", got, record(acme, "key", "1", 2, "c").Record)
				t.reopen()
			}
			t.save(store.RecordChange{Delete: true, Record: record(acme, "key", "1", 2, "").Record})
			for range 2 {
				_, err := t.s.Record(t.ctx, acme, "key", "1")
				t.is("record", err, store.ErrNotFound)
				t.reopen()
			}
			t.save(record(acme, "key", "1", 0, "again"))
		}},
		{"records/atomic", "records and lanes are saved together or not at all", func(t *trial) {
			t.save(record(acme, "key", "1", 0, "a"))
			err := t.s.Save(t.ctx, []store.RecordChange{record(acme, "key", "2", 0, "b"), record(acme, "key", "1", 7, "b")}, []store.LaneChange{newLane(acme, subA)})
			t.is("save", err, store.ErrVersion)
			t.same("records", t.list(acme, "key", "", 10), []string{"1"})
			t.noLane(acme, subA)
			t.ok("save", t.s.Save(t.ctx, []store.RecordChange{record(acme, "key", "2", 0, "b"), record("", "tenant", "acme", 0, "c")}, []store.LaneChange{newLane(acme, subA)}))
			for range 2 {
				t.same("records", t.list(acme, "key", "", 10), []string{"1", "2"})
				t.same("records", t.list("", "tenant", "", 10), []string{"acme"})
				t.lane(acme, subA)
				t.reopen()
			}
			gone := store.RecordChange{Delete: true, Record: record(acme, "key", "2", 1, "").Record}
			t.ok("save", t.s.Save(t.ctx, []store.RecordChange{gone}, []store.LaneChange{{Lane: newLane(acme, subA).Lane, Delete: true}}))
			t.noLane(acme, subA)
		}},
		{"records/list", "a list holds one tenant's records of one kind, by id, page by page", func(t *trial) {
			for i, tenant := range []eventhose.TenantID{"", "a", "aa", "a-b"} {
				for _, kind := range []string{"k", "ka", "kk"} {
					for j := range 4 {
						t.save(record(tenant, kind, fmt.Sprintf("%c/%d", 'a'+j, i), 0, "v"))
					}
				}
			}
			for range 2 {
				for i, tenant := range []eventhose.TenantID{"", "a", "aa", "a-b"} {
					var got []string
					for after := ""; ; {
						page := t.list(tenant, "k", after, 3)
						if len(page) == 0 || len(got) > 20 {
							break
						}
						got = append(got, page...)
						after = page[len(page)-1]
					}
					t.same(fmt.Sprintf("records of %q", tenant), got, []string{fmt.Sprintf("a/%d", i), fmt.Sprintf("b/%d", i), fmt.Sprintf("c/%d", i), fmt.Sprintf("d/%d", i)})
				}
				t.reopen()
			}
			t.same("after one between two", t.list("a", "k", "b/0", 1), []string{"b/1"})
			t.same("of a kind that is not there", len(t.list("a", "kb", "", 10)), 0)
		}},
		{"records/expiry", "what has expired is as if it were not there, and what has not stays", func(t *trial) {
			past, future := record(acme, "answer", "past", 0, "a"), record(acme, "answer", "future", 0, "b")
			past.Expires, future.Expires = time.Now().Add(-time.Hour), time.Now().Add(time.Hour).Round(time.Microsecond)
			t.save(past, future)
			for range 2 {
				t.same("list", t.list(acme, "answer", "", 10), []string{"future"})
				_, err := t.s.Record(t.ctx, acme, "answer", "past")
				t.is("an expired record", err, store.ErrNotFound)
				got, err := t.s.Record(t.ctx, acme, "answer", "future")
				t.ok("record", err)
				future.Record.Version = 1
				t.same("record", got, future.Record)
				t.reopen()
			}
			past.Expires = time.Time{}
			t.save(past)
			t.same("list", t.list(acme, "answer", "", 10), []string{"future", "past"})
		}},
		{"records/text", "nothing has an id that is no text", func(t *trial) {
			t.save(record(acme, "key", "1", 0, "a"))
			t.append(acme, event("mine", "1", 1))
			for _, id := range []string{"\x00", "1\x00", "\xff", "1\xc3"} {
				_, err := t.s.Record(t.ctx, acme, "key", id)
				t.is(fmt.Sprintf("record %q", id), err, store.ErrNotFound)
				_, err = t.s.Record(t.ctx, eventhose.TenantID(id), "key", "1")
				t.is(fmt.Sprintf("record of %q", id), err, store.ErrNotFound)
				t.noLookup(acme, store.Ref{ID: id})
				t.noLookup(acme, store.Ref{Scope: id, ID: "mine"})
			}
		}},
		{"records/owner", "a store keeps nothing of the value that it was given", func(t *trial) {
			c := record(acme, "key", "1", 0, "before")
			t.save(c)
			copy(c.Value, "AFTER!")
			got, err := t.s.Record(t.ctx, acme, "key", "1")
			t.ok("record", err)
			t.same("value", string(got.Value), "before")
		}},
	}
}
