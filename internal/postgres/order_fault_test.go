package postgres_test

// The checker and the model of TestOrderUnderDelay, seen red on planted faults.

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// serial is a log as it is often made: a table whose bigserial is the order. wait is called before an append commits.
type serial struct {
	store.Log
	pool *pgxpool.Pool
	wait func(first token)
}

func (s *serial) Append(ctx context.Context, group []store.Append) ([]store.AppendResult, error) {
	results := make([]store.AppendResult, len(group))
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		for i, entry := range group {
			for _, e := range entry.Events {
				var p eventhose.Placement
				if err := tx.QueryRow(ctx, "INSERT INTO log (data) VALUES ($1) RETURNING seq", e.Event.Data).Scan(&p.Sequence); err != nil {
					return err
				}
				results[i].Placements = append(results[i].Placements, p)
			}
		}
		s.wait(tokenOf(group[0].Events[0].Event.Data))
		return nil
	})
	return results, err
}

func (s *serial) Read(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence, limit store.ReadLimit) ([]*eventhose.Event, error) {
	rows, err := s.pool.Query(ctx, "SELECT seq, data FROM log WHERE seq > $1 ORDER BY seq LIMIT $2", uint64(after), limit.Events)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (*eventhose.Event, error) {
		e := &eventhose.Event{Tenant: tenant}
		return e, r.Scan(&e.Sequence, &e.Data)
	})
}

func (s *serial) Head(ctx context.Context, _ eventhose.TenantID) (h eventhose.Head, err error) {
	err = s.pool.QueryRow(ctx, "SELECT coalesce(max(seq), 0) FROM log").Scan(&h.Last)
	return h, err
}

// one is a group of one event.
func one(k token) []store.Append {
	return []store.Append{{Tenant: orderHot, Events: []store.NewEvent{{Event: eventhose.Event{Data: k.data()}}}}}
}

// A bigserial lets a reader see 2 before 1, and pass over 1: the checker says so, and so does the model.
func TestOrderOfSerial(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(t.Context(), "CREATE TABLE log (seq bigserial PRIMARY KEY, data bytea)"); err != nil {
		t.Fatal(err)
	}
	inserted, go1 := make(chan struct{}), make(chan struct{})
	st := &serial{pool: pool, wait: func(first token) {
		if first == 1 {
			close(inserted)
			<-go1
		}
	}}
	h := newHistory()
	late := make(chan error, 1)
	go func() { late <- new(appender).appendGroup(t.Context(), st, h, one(1), false) }()
	<-inserted
	if err := new(appender).appendGroup(t.Context(), st, h, one(2), false); err != nil {
		t.Fatal(err)
	}
	r := reader{rng: rand.New(rand.NewPCG(1, 1)), at: map[eventhose.TenantID]eventhose.Sequence{}}
	read := func() {
		if _, err := r.turn(t.Context(), st, h, []eventhose.TenantID{orderHot}); err != nil {
			t.Fatal(err)
		}
	}
	read()
	close(go1)
	if err := <-late; err != nil {
		t.Fatal(err)
	}
	read()
	logs, err := readAll(t.Context(), st, []eventhose.TenantID{orderHot})
	if err != nil {
		t.Fatal(err)
	}
	ops := h.operations(logs, nil)
	faults := strings.Join(h.check(logs, nil), "\n")
	if want := "gap: hot/2 was read where hot/1 is to be"; !strings.Contains(faults, want) {
		t.Errorf("%q is not said, but %q", want, faults)
	}
	if err := checkModel(ops); err == nil {
		t.Error("the model takes it")
	}
}

// wrong is a store that does something wrong.
type wrong struct {
	*postgres.Store
	read     func(page []*eventhose.Event) []*eventhose.Event
	answer   func(results []store.AppendResult)
	unplaced func(list []store.Unplaced) []store.Unplaced
	place    func(st *postgres.Store, entries []store.Append) []store.Append
}

func (w *wrong) Read(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence, limit store.ReadLimit) ([]*eventhose.Event, error) {
	page, err := w.Store.Read(ctx, tenant, after, limit)
	if w.read != nil {
		page = w.read(page)
	}
	return page, err
}

func (w *wrong) Append(ctx context.Context, group []store.Append) ([]store.AppendResult, error) {
	results, err := w.Store.Append(ctx, group)
	if w.answer != nil && err == nil {
		w.answer(results)
	}
	return results, err
}

func (w *wrong) Unplaced(ctx context.Context, tenant eventhose.TenantID, limit int) ([]store.Unplaced, error) {
	list, err := w.Store.Unplaced(ctx, tenant, limit)
	if w.unplaced != nil {
		list = w.unplaced(list)
	}
	return list, err
}

func (w *wrong) Place(ctx context.Context, entries []store.Append, rows []int64) ([]store.AppendResult, bool, error) {
	if w.place == nil {
		return w.Store.Place(ctx, entries, rows)
	}
	results, done, err := w.Store.Place(ctx, w.place(w.Store, entries), rows)
	return append(results, make([]store.AppendResult, max(0, len(entries)-len(results)))...), done, err
}

func TestOrderChecker(t *testing.T) {
	for _, c := range []struct {
		name  string
		plant wrong
		want  string
		model bool // refuses it, too
	}{
		{name: "nothing wrong", model: true},
		{name: "an event left out of a page", want: "gap: ", model: true, plant: wrong{read: func(page []*eventhose.Event) []*eventhose.Event {
			if len(page) < 9 {
				return page
			}
			return slices.Delete(slices.Clone(page), 4, 5)
		}}},
		{name: "one left out, and those behind it moved up", want: "changed: ", model: true, plant: wrong{read: func(page []*eventhose.Event) []*eventhose.Event {
			if len(page) < 9 {
				return page
			}
			page = slices.Delete(slices.Clone(page), 4, 5)
			for i := 4; i < len(page); i++ {
				e := *page[i]
				e.Sequence--
				page[i] = &e
			}
			return page
		}}},
		{name: "a node that is behind", want: "hidden: ", model: true, plant: wrong{read: func(page []*eventhose.Event) []*eventhose.Event {
			if len(page) > 0 && page[0].Sequence > 1 && page[0].Sequence%3 == 0 {
				return nil
			}
			return page
		}}},
		{name: "an append told the place behind its own", want: "was told for event", model: true, plant: wrong{answer: func(results []store.AppendResult) {
			for i := range results[0].Placements {
				results[0].Placements[i].Sequence++
			}
		}}},
		{name: "two events in each other's places", want: "changed: ", model: true, plant: wrong{read: func(page []*eventhose.Event) []*eventhose.Event {
			if len(page) < 2 || page[0].Sequence != 1 {
				return page
			}
			first, second := *page[0], *page[1]
			first.Sequence, second.Sequence = 2, 1
			return append([]*eventhose.Event{&second, &first}, page[2:]...)
		}}},
		{name: "placed twice", want: "twice: ", plant: wrong{place: func(st *postgres.Store, entries []store.Append) []store.Append {
			again := slices.Clone(entries)
			for i := range again {
				again[i].Events = slices.Clone(again[i].Events)
				again[i].Events[0].Event.ID = ""
			}
			if _, err := st.Append(context.Background(), again); err != nil {
				return nil
			}
			return entries
		}}},
		{name: "placed backwards", want: "inversion: ", plant: wrong{unplaced: func(list []store.Unplaced) []store.Unplaced {
			slices.Reverse(list)
			return list
		}}},
		{name: "one not placed", want: "of a committed transaction is not in the log", plant: wrong{place: func(_ *postgres.Store, entries []store.Append) []store.Append {
			return entries[min(1, len(entries)-1):]
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, logs := shortHistory(t, c.plant)
			ops := h.operations(logs, orderParents)
			switch faults := strings.Join(h.check(logs, orderParents), "\n"); {
			case c.want == "" && faults != "":
				t.Error(faults)
			case !strings.Contains(faults, c.want):
				t.Errorf("%q is not said, but %q", c.want, faults)
			}
			if err := checkModel(ops); c.model && (err != nil) != (c.want != "") {
				t.Errorf("the model says %v", err)
			}
		})
	}
}

// What is in the logs in the end, seen wrong.
func TestOrderCheckerOfLogs(t *testing.T) {
	h, logs := shortHistory(t, wrong{})
	for _, c := range []struct {
		name  string
		plant func(logs map[eventhose.TenantID][]*eventhose.Event)
		want  string
	}{
		{name: "a log that ends early", want: "lost: ", plant: func(logs map[eventhose.TenantID][]*eventhose.Event) { logs[orderHot] = logs[orderHot][:3] }},
		{name: "a parent's log without an event", want: "stands for c1/2 where 1 is to be", plant: func(logs map[eventhose.TenantID][]*eventhose.Event) {
			n := slices.IndexFunc(logs[orderParent], func(e *eventhose.Event) bool { return e.Origin.Tenant == "c1" })
			logs[orderParent] = slices.Delete(logs[orderParent], n, n+1)
		}},
		{name: "a parent's log with another's data", want: "does not hold what", plant: func(logs map[eventhose.TenantID][]*eventhose.Event) {
			e := *logs[orderParent][0]
			e.Data = token(77).data()
			logs[orderParent][0] = &e
		}},
		{name: "an event that nobody appended", want: "which nobody appended", plant: func(logs map[eventhose.TenantID][]*eventhose.Event) {
			logs["t0"] = append(logs["t0"], &eventhose.Event{Sequence: eventhose.Sequence(len(logs["t0"]) + 1), Data: token(77).data()})
		}},
		{name: "a transaction that was rolled back", want: "rolled back: ", plant: func(map[eventhose.TenantID][]*eventhose.Event) {
			for i := range h.transactions {
				h.transactions[i].committed = false
			}
		}},
	} {
		doctored := maps.Clone(logs)
		for tenant, log := range doctored {
			doctored[tenant] = slices.Clone(log)
		}
		c.plant(doctored)
		h.faults = nil
		if faults := fmt.Sprint(h.check(doctored, orderParents)); !strings.Contains(faults, c.want) {
			t.Errorf("%s: %q is not said, but %s", c.name, c.want, faults)
		}
	}
}

// shortHistory does a little of what TestOrderUnderDelay does, one thing after the other.
func shortHistory(t *testing.T, st wrong) (*history, map[eventhose.TenantID][]*eventhose.Event) {
	t.Helper()
	url := pgtest.Database(t)
	var err error
	if st.Store, err = postgres.Open(t.Context(), url, postgres.Options{MaxConns: 4, Upkeep: -1}); err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	if err := makeTenants(t.Context(), st.Store, everyLog...); err != nil {
		t.Fatal(err)
	}
	h := newHistory()
	a := appender{number: 1, rng: rand.New(rand.NewPCG(1, 1))}
	r := reader{rng: rand.New(rand.NewPCG(1, 2)), at: map[eventhose.TenantID]eventhose.Sequence{}}
	app := application{appender: appender{number: 2, rng: rand.New(rand.NewPCG(1, 3))}, conn: db, held: new(atomic.Int64)}
	for range 12 {
		if err := app.transact(t.Context(), h, func(context.Context, int) {}); err != nil {
			t.Fatal(err)
		}
	}
	log := eventlog.New(st.Store, tenants(everyLog), eventlog.Options{})
	defer log.Close()
	placing, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	placed := make(chan struct{})
	go func() {
		defer close(placed)
		log.RunPlacing(placing, &st, time.Millisecond)
	}()
	if !until(placing, func() bool {
		left, err := st.UnplacedTenants(placing, "", 1)
		return err == nil && len(left) == 0
	}) {
		t.Fatal("events never got their places")
	}
	cancel()
	<-placed
	for range 15 {
		if err := a.appendTo(t.Context(), &st, h); err != nil {
			t.Fatal(err)
		}
		if _, err := r.turn(t.Context(), &st, h, everyLog); err != nil {
			t.Fatal(err)
		}
	}
	for found := true; found; {
		if found, err = r.turn(t.Context(), &st, h, everyLog); err != nil {
			t.Fatal(err)
		}
	}
	logs, err := readAll(t.Context(), st.Store, everyLog)
	if err != nil {
		t.Fatal(err)
	}
	return h, logs
}
