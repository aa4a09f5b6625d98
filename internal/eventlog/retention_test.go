package eventlog_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/store"
)

// failing is a store whose appends or trims fail when they are told to.
type failing struct {
	*embedded.Store
	appends func() error
	trims   func(store.Trim) error
}

func (f *failing) Append(ctx context.Context, group []store.Append) ([]store.AppendResult, error) {
	if f.appends != nil {
		if err := f.appends(); err != nil {
			return nil, err
		}
	}
	return f.Store.Append(ctx, group)
}

func (f *failing) Trim(ctx context.Context, tenant eventhose.TenantID, t store.Trim) (store.Trimmed, error) {
	if f.trims != nil {
		if err := f.trims(t); err != nil {
			return store.Trimmed{}, err
		}
	}
	return f.Store.Trim(ctx, tenant, t)
}

// What the quota of parked events has no room for is told of before it is lost, once, whatever fails in between, and what can
// be trimmed is trimmed all the same.
func TestLostIsToldFirst(t *testing.T) {
	known := tenants{"acme": {ID: "acme", Retention: eventhose.Retention{Bytes: 1, DeadBytes: 25}}}
	st := &failing{}
	var err error
	if st.Store, err = embedded.Open("data", embedded.Options{FS: vfs.NewMem(), MinFree: -1}); err != nil {
		t.Fatal(err)
	}
	lost := 0
	log := eventlog.New(st, known, eventlog.Options{Lost: func(_ eventhose.TenantID, all []store.LostParked) { lost += len(all) }})
	defer closeAll(t, log, st.Store)
	ctx := t.Context()
	ref := store.LaneRef{Tenant: "acme", Subscription: "sub_x"}
	c := store.LaneChange{Create: true, Lane: store.Lane{LaneRef: ref, Dead: 1500}}
	for range 2 { // 1500 are told of in two events, and taken in one step of retention
		events := make([]eventhose.Event, 1000)
		for i := range events {
			events[i] = eventhose.Event{Type: "order.paid", Data: []byte(`"0123456789"`)}
		}
		placed, err := log.Append(ctx, "acme", events...)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range placed[:750] {
			c.Park = append(c.Park, store.Parked{Parked: eventhose.Parked{Sequence: p.Sequence, State: eventhose.ParkedDead, Since: time.Now()}})
		}
	}
	if err := st.Commit(ctx, store.Progress{Lanes: []store.LaneChange{c}}); err != nil {
		t.Fatal(err)
	}
	parked := func() int {
		t.Helper()
		rows, err := st.Parked(ctx, "acme", "sub_x", store.ParkedQuery{Limit: 2000})
		if err != nil {
			t.Fatal(err)
		}
		return len(rows)
	}
	broken := errors.New("planted")
	left := 1
	st.appends = func() error { // the second of the system events
		if left--; left < 0 {
			return broken
		}
		return nil
	}
	if err := log.Retain(ctx); err == nil || parked() != 1500 || lost != 0 {
		t.Fatalf("%d of 1500 are parked though not all were told of, %d are said to be lost, %v", parked(), lost, err)
	}
	if h, err := log.Head(ctx, "acme"); err != nil || h.First < 2000 {
		t.Errorf("the log was not trimmed since its owner could not be told: %+v, %v", h, err)
	}
	st.appends = nil
	st.trims = func(t store.Trim) error { // after all was told of
		if len(t.Lose) > 0 {
			return broken
		}
		return nil
	}
	if err := log.Retain(ctx); err == nil || parked() != 1500 || lost != 0 {
		t.Fatalf("%d of 1500 are parked after a trim that failed, %d are said to be lost, %v", parked(), lost, err)
	}
	st.trims = nil
	known["acme"] = eventhose.Tenant{ID: "acme", Retention: eventhose.Retention{Age: eventhose.Duration(time.Hour), DeadBytes: 25}} // what was told stays to be read
	if err := log.Retain(ctx); err != nil || parked() != 2 || lost != 1498 {
		t.Fatalf("%d are parked and %d lost, %v", parked(), lost, err)
	}
	var told []string
	head, err := log.Head(ctx, "acme")
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range log.Read(ctx, "acme", head.First-1, eventhose.Filter{Types: []string{eventlog.ParkedLost}}) {
		if err != nil {
			t.Fatal(err)
		}
		var body struct {
			Count  int
			Parked []store.LostParked
		}
		if err := json.Unmarshal(e.Data, &body); err != nil || len(body.Parked) != body.Count {
			t.Errorf("%s, %v", e.Data, err)
		}
		told = append(told, fmt.Sprint(body.Count))
	}
	if want := []string{"1000", "498"}; !slices.Equal(told, want) {
		t.Errorf("told of %v, want %v", told, want)
	}
}

// trimming is a store whose log is trimmed to its newest event right before its nth page is read.
type trimming struct {
	*embedded.Store
	nth int
}

func (s *trimming) Read(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence, limit store.ReadLimit) ([]*eventhose.Event, error) {
	if s.nth--; s.nth == 0 {
		if _, err := s.Trim(ctx, tenant, store.Trim{Bytes: 1}); err != nil {
			return nil, err
		}
	}
	return s.Store.Read(ctx, tenant, after, limit)
}

// Retention that goes on while a page is read takes the beginning of the log from nobody, nor what was read before it did.
func TestTrimmedWhileAPageIsRead(t *testing.T) {
	const n = 1200
	for nth, want := range map[int][]eventhose.Sequence{1: {n}, 2: {1, 2, 3}} {
		st, err := embedded.Open("data", embedded.Options{FS: vfs.NewMem(), MinFree: -1})
		if err != nil {
			t.Fatal(err)
		}
		log := eventlog.New(&trimming{Store: st, nth: nth}, acme, eventlog.Options{})
		defer closeAll(t, log, st)
		events := make([]eventhose.Event, n)
		for i := range events {
			if events[i] = event(i); i >= 3 && i < n-1 {
				events[i].Type = "order.sent"
			}
		}
		if _, err := log.Append(t.Context(), "acme", events[:1000]...); err != nil {
			t.Fatal(err)
		}
		if _, err := log.Append(t.Context(), "acme", events[1000:]...); err != nil {
			t.Fatal(err)
		}
		page, err := log.Page(t.Context(), "acme", eventhose.Cursor{}, eventhose.Filter{Types: []string{"order.paid"}}, eventhose.PageLimit{Events: 100})
		var got []eventhose.Sequence
		for _, e := range page.Events {
			got = append(got, e.Sequence)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("trimmed before page %d of the store is read: %v, %v, want %v", nth, got, err, want)
		}
		if nth == 1 {
			continue
		}
		if _, err := log.Page(t.Context(), "acme", page.Cursor, eventhose.Filter{}, eventhose.PageLimit{Events: 100}); eventhose.CodeOf(err) != eventhose.CodeCursorGone {
			t.Errorf("going on: %v", err)
		}
	}
}
