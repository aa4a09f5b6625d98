package embedded

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

var ctx = context.Background()

// moment is an append time with microseconds, i seconds after some date.
func moment(i int) time.Time {
	return time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC).Add(time.Duration(i) * time.Second)
}

func event(i int, id string) store.NewEvent {
	e := eventhose.Event{ID: id, Type: "order.paid", Key: fmt.Sprintf("k%d", i%3), Time: moment(i), Appended: moment(i),
		Data: fmt.Appendf(nil, `{"n":%d}`, i)}
	return store.NewEvent{Event: e, Digest: [16]byte{byte(i), byte(i >> 8)}}
}

func mustOpen(t testing.TB, fs vfs.FS, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func mustAppend(t testing.TB, s *Store, tenant eventhose.TenantID, events ...store.NewEvent) []eventhose.Placement {
	t.Helper()
	res, err := s.Append(ctx, []store.Append{{Tenant: tenant, Events: events}})
	if err != nil {
		t.Fatal(err)
	}
	if res[0].Err != nil {
		t.Fatal(res[0].Err)
	}
	return res[0].Placements
}

var wide = store.ReadLimit{Events: 1 << 20, Bytes: 1 << 30}

func mustRead(t testing.TB, s *Store, tenant eventhose.TenantID, after eventhose.Sequence) []*eventhose.Event {
	t.Helper()
	events, err := s.Read(ctx, tenant, after, wide)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func TestAppendReadReopen(t *testing.T) {
	leavesNothing(t)
	fs := vfs.NewMem()
	s := mustOpen(t, fs, "data")
	var want []eventhose.Event
	for i := range 300 {
		id := ""
		if i%2 == 0 {
			id = fmt.Sprintf("id-%d", i)
		}
		e := event(i, id)
		e.Event.Attributes = map[string]string{"a": fmt.Sprint(i)}
		p := mustAppend(t, s, "t", e)
		if p[0].Sequence != eventhose.Sequence(i+1) || p[0].Duplicate {
			t.Fatalf("placement %+v", p)
		}
		e.Event.ID, e.Event.Sequence, e.Event.Tenant = p[0].ID, p[0].Sequence, "t"
		want = append(want, e.Event)
	}
	check := func(s *Store) {
		t.Helper()
		got := mustRead(t, s, "t", 0)
		if len(got) != len(want) {
			t.Fatalf("read %d, want %d", len(got), len(want))
		}
		for i, e := range got {
			if !reflect.DeepEqual(*e, want[i]) {
				t.Fatalf("got %+v\nwant %+v", *e, want[i])
			}
			found, err := s.Lookup(ctx, "t", store.Ref{ID: want[i].ID})
			if err != nil || found.Sequence != want[i].Sequence {
				t.Fatalf("lookup %s: %v %v", want[i].ID, found, err)
			}
		}
	}
	check(s)
	head, _ := s.Head(ctx, "t")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal("second close:", err)
	}
	if _, err := s.Head(ctx, "t"); !errors.Is(err, store.ErrUnavailable) {
		t.Fatal("closed store answered", err)
	}
	s = mustOpen(t, fs, "data")
	check(s)
	if again, _ := s.Head(ctx, "t"); !reflect.DeepEqual(head, again) {
		t.Fatalf("head %+v, was %+v", again, head)
	}
	p := mustAppend(t, s, "t", event(0, "id-0"))
	if !p[0].Duplicate || p[0].Sequence != 1 {
		t.Fatalf("%+v", p)
	}
	res, err := s.Append(ctx, []store.Append{{Tenant: "t", Events: []store.NewEvent{event(999, ""), event(1, "id-0")}}})
	if err != nil || !errors.Is(res[0].Err, store.ErrDifferent) || res[0].Index != 1 {
		t.Fatalf("%+v %v", res, err)
	}
}
