package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
	"github.com/eventhose/eventhose/internal/storetest"
)

var copied = store.Source{ID: "0000000a", Commits: 7}

func openImport(t *testing.T, url string) *postgres.Import {
	t.Helper()
	im, err := postgres.OpenImport(t.Context(), url, copied, postgres.Options{PartitionSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	return im
}

func storedEvent(tenant eventhose.TenantID, seq eventhose.Sequence, data string) store.StoredEvent {
	at := time.Date(2026, 1, 1, 0, 0, int(seq), 0, time.UTC)
	return store.StoredEvent{Event: &eventhose.Event{Tenant: tenant, Sequence: seq, ID: fmt.Sprintf("e%d", seq), Type: "a", Time: at, Appended: at, Data: []byte(data)}}
}

func logHead(tenant eventhose.TenantID, first, last eventhose.Sequence) store.LogHead {
	return store.LogHead{Tenant: tenant, Bytes: int64(last-first+1) * 5, Head: eventhose.Head{Incarnation: 10, First: first, Last: last}}
}

// A part that cannot be written leaves nothing behind, and the copy where it was.
func TestImportIsAtomic(t *testing.T) {
	url := pgtest.Database(t)
	im := openImport(t, url)
	good := &store.Part{Position: []byte("1"), Logs: []store.LogHead{logHead("t", 1, 3)}, Events: []store.StoredEvent{storedEvent("t", 1, "hello")}}
	if err := im.Write(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	bad := &store.Part{Position: []byte("2"), Events: []store.StoredEvent{storedEvent("t", 2, "hello")}, Records: []store.Record{{Kind: "a", ID: "b"}, {Kind: "a", ID: "b"}}}
	if err := im.Write(t.Context(), bad); err == nil {
		t.Fatal("one record was written twice")
	}
	for range 2 {
		if string(im.Position()) != "1" || im.Events() != 1 {
			t.Errorf("it is at %q with %d events", im.Position(), im.Events())
		}
		if page, err := im.Read(t.Context(), "t", 0, store.ReadLimit{Events: 10, Bytes: 1000}); err != nil || len(page) != 1 {
			t.Errorf("%d events, %v", len(page), err)
		}
		if err := im.Close(); err != nil {
			t.Fatal(err)
		}
		im = openImport(t, url)
	}
	bad.Records = nil
	if err := im.Write(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	if page, err := im.Read(t.Context(), "t", 1, store.ReadLimit{Events: 10, Bytes: 1000}); err != nil || len(page) != 1 { // in the next partition
		t.Errorf("%d events, %v", len(page), err)
	}
}

// The data of a parked place in a parent's log, which the embedded store keeps, outlives the event that it stands for, counts among
// what is kept, and goes when that event is erased.
func TestImportKeepsPlaces(t *testing.T) {
	url := pgtest.Database(t)
	im := openImport(t, url)
	place := func(seq, of eventhose.Sequence, data string) store.StoredEvent {
		s := storedEvent("platform", seq, data)
		s.Event.ID, s.Event.Origin = fmt.Sprintf("child/e%d", of), eventhose.Origin{Tenant: "child", Sequence: of}
		return s
	}
	erased := place(5, 5, "") // in the parent's log alone
	erased.Event.Erased = true
	lane := store.LaneChange{Create: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: "platform", Subscription: "s"}, Dead: 3}}
	for seq := eventhose.Sequence(1); seq <= 3; seq++ {
		lane.Park = append(lane.Park, store.Parked{Parked: eventhose.Parked{Sequence: seq, State: eventhose.ParkedDead}})
	}
	if err := im.Write(t.Context(), &store.Part{Position: []byte("1"),
		Logs:   []store.LogHead{logHead("child", 2, 5), logHead("platform", 4, 5)},
		Events: []store.StoredEvent{storedEvent("child", 2, "two"), storedEvent("child", 3, "three"), storedEvent("child", 4, "four"), storedEvent("child", 5, "five"), place(4, 4, ""), erased},
		Kept:   []store.StoredEvent{place(1, 1, "one"), place(2, 2, "two"), place(3, 3, "")},
		Lanes:  []store.LaneChange{lane}}); err != nil {
		t.Fatal(err)
	}
	if err := im.Finish(t.Context(), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := im.Close(); err != nil {
		t.Fatal(err)
	}
	var d databases
	st := d.open(t, url)
	is := func(seq eventhose.Sequence, id, data string, erased bool) {
		t.Helper()
		for _, ref := range []store.Ref{{Sequence: seq}, {ID: id}} {
			e, err := st.Lookup(t.Context(), "platform", ref)
			if err != nil || string(e.Data) != data || e.Erased != erased || e.ID != id || e.Sequence != seq {
				t.Errorf("%+v is %+v, %v, want %q, %q, %v", ref, e, err, id, data, erased)
			}
		}
	}
	is(1, "child/e1", "one", false) // which its own log has no more
	is(2, "child/e2", "two", false)
	is(3, "child/e3", "", false)
	is(4, "child/e4", "four", false)
	is(5, "child/e5", "", true)
	if e, err := st.Lookup(t.Context(), "child", store.Ref{Sequence: 5}); err != nil || string(e.Data) != "five" {
		t.Errorf("in its own log %+v, %v", e, err)
	}
	if err := st.Erase(t.Context(), "child", 2); err != nil {
		t.Fatal(err)
	}
	is(2, "child/e2", "", true)
	if _, err := st.Trim(t.Context(), "child", store.Trim{Bytes: 1}); err != nil {
		t.Fatal(err)
	}
	is(3, "child/e3", "", false) // it is empty, not gone
	trimmed, err := storetest.TrimAll(t.Context(), st, "platform", store.Trim{Keep: 2})
	if err != nil || len(trimmed.Lost) != 1 || trimmed.Lost[0].Sequence != 1 {
		t.Errorf("of 3 bytes 2 were to be kept: %+v, %v", trimmed, err)
	}
}

// Of several events with one id the newest is found by it, in whatever order they come; and a kept one does not take away what is
// remembered.
func TestImportFindsTheNewest(t *testing.T) {
	url := pgtest.Database(t)
	im := openImport(t, url)
	named := func(tenant eventhose.TenantID, seq, of eventhose.Sequence, id string) store.StoredEvent {
		s := storedEvent(tenant, seq, "data")
		if s.Event.ID = id; of > 0 {
			s.Event.Origin = eventhose.Origin{Tenant: "child", Sequence: of}
		}
		return s
	}
	lane := func(tenant eventhose.TenantID) store.LaneChange {
		return store.LaneChange{Create: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: tenant, Subscription: "s"}},
			Park: []store.Parked{{Parked: eventhose.Parked{Sequence: 1, State: eventhose.ParkedDead}}}}
	}
	for i, p := range []store.Part{
		{Logs: []store.LogHead{logHead("child", 2, 3), logHead("platform", 2, 3)}},
		{Events: []store.StoredEvent{named("child", 2, 0, "x"), named("child", 3, 0, "y")}},
		{Events: []store.StoredEvent{named("platform", 2, 2, "child/x")}},
		{Events: []store.StoredEvent{named("platform", 3, 3, "child/x")}},
		{IDs: []store.RememberedID{{Tenant: "child", ID: "x", Sequence: 2, Digest: [16]byte{1}}, {Tenant: "child", ID: "y", Sequence: 3, Digest: [16]byte{2}}}},
		{Kept: []store.StoredEvent{named("child", 1, 0, "x"), named("platform", 1, 1, "child/x")}},
		{Lanes: []store.LaneChange{lane("child"), lane("platform")}},
	} {
		p.Position = []byte{byte(i)}
		if err := im.Write(t.Context(), &p); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		tenant eventhose.TenantID
		id     string
		want   eventhose.Sequence
	}{{"child", "x", 2}, {"child", "y", 3}, {"platform", "child/x", 3}} {
		if e, err := im.Lookup(t.Context(), c.tenant, store.Ref{ID: c.id}); err != nil || e.Sequence != c.want {
			t.Errorf("%s of %s is %+v, %v, want %d", c.id, c.tenant, e, err, c.want)
		}
		if e, err := im.Lookup(t.Context(), c.tenant, store.Ref{Sequence: 1}); err != nil || e.Sequence != 1 {
			t.Errorf("what %s keeps: %+v, %v", c.tenant, e, err)
		}
	}
	ids := []store.RememberedID{{Tenant: "child", ID: "x"}, {Tenant: "child", ID: "none"}, {Tenant: "child", ID: "y"}}
	got, err := im.Remembered(t.Context(), ids)
	if err != nil || got[0].Digest != [16]byte{1} || got[0].Sequence != 2 || got[1].Sequence != 0 || got[2].Digest != [16]byte{2} {
		t.Errorf("%+v, %v", got, err)
	}
}
