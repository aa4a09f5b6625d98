package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// shop is a store with a tenant, and a connection of somebody else's.
type shop struct {
	*testing.T
	url  string
	st   *postgres.Store
	conn *pgx.Conn
}

func newShop(t *testing.T) *shop {
	a := &shop{T: t, url: pgtest.Database(t)}
	var err error
	if a.st, err = postgres.Open(t.Context(), a.url, postgres.Options{Upkeep: -1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.st.Close() })
	a.conn = a.connect("")
	if err := a.st.Save(t.Context(), []store.RecordChange{{Record: store.Record{Kind: "tenant", ID: "acme", Value: []byte("{}")}}}, nil); err != nil {
		t.Fatal(err)
	}
	return a
}

// connect connects as a role, "" is the owner.
func (a *shop) connect(role string) *pgx.Conn {
	a.Helper()
	conn, err := pgx.Connect(a.Context(), a.url)
	if err != nil {
		a.Fatal(err)
	}
	a.Cleanup(func() { conn.Close(context.Background()) })
	if role != "" {
		a.exec(conn, "SET ROLE "+role)
	}
	return conn
}

func (a *shop) exec(conn *pgx.Conn, sql string, args ...any) {
	a.Helper()
	if _, err := conn.Exec(a.Context(), sql, args...); err != nil {
		a.Fatalf("%s: %v", sql, err)
	}
}

// place gives what is unplaced its places, as eventlog does, and answers the log.
func (a *shop) place() []*eventhose.Event {
	a.Helper()
	list, err := a.st.Unplaced(a.Context(), "acme", 1000)
	if err != nil {
		a.Fatal(err)
	}
	var entries []store.Append
	var rows []int64
	for _, u := range list {
		entries, rows = append(entries, store.Append{Tenant: "acme", Events: []store.NewEvent{{Event: u.Event}}}), append(rows, u.Row)
	}
	if len(rows) > 0 {
		if _, done, err := a.st.Place(a.Context(), entries, rows); err != nil || !done {
			a.Fatal(done, err)
		}
	}
	events, err := a.st.Read(a.Context(), "acme", 0, store.ReadLimit{Events: 1000, Bytes: 1 << 20})
	if err != nil {
		a.Fatal(err)
	}
	return events
}

// What an application appends is there if its transaction commits, byte for byte and in its order, and else it is not.
func TestAppendWithinATransaction(t *testing.T) {
	a := newShop(t)
	const data = "{ \"b\" : 1,\n \"a\":\t[1.50, 1e400, \"\\u00e9é\"], \"b\": 2 }"
	for _, end := range []string{"COMMIT", "ROLLBACK", "COMMIT"} {
		a.exec(a.conn, "BEGIN")
		a.exec(a.conn, "SELECT eventhose.append('acme', 'order.paid', $1, key => 'k', attributes => '{\"region\": \"eu\"}', version => '2', event_time => '2026-01-02T03:04:05.000006Z')", data)
		a.exec(a.conn, "SELECT eventhose.append('acme', 'order.shipped', '{}', id => 'order-1 '||clock_timestamp())")
		if n := len(a.place()); n%2 != 0 {
			t.Fatalf("%d events of a transaction that is open", n)
		}
		a.exec(a.conn, end)
	}
	events := a.place()
	if len(events) != 4 {
		t.Fatalf("%d events of two transactions that have committed", len(events))
	}
	for i, e := range events {
		if want := []string{"order.paid", "order.shipped"}[i%2]; e.Type != want || e.Sequence != eventhose.Sequence(i+1) {
			t.Errorf("place %d has %s at %d, want %s", i+1, e.Type, e.Sequence, want)
		}
	}
	e := events[0]
	if string(e.Data) != data || e.Key != "k" || e.Attributes["region"] != "eu" || e.Version != "2" || !e.Time.Equal(time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)) {
		t.Errorf("it came as %+v %s", e, e.Data)
	}
}

// A transaction that is open for long holds up nobody: appends to the same log, and their places.
func TestAnOpenTransactionHoldsUpNobody(t *testing.T) {
	a := newShop(t)
	a.exec(a.conn, "BEGIN")
	a.exec(a.conn, "SELECT eventhose.append('acme', 'slow', '{}')")
	for i := range 10 {
		if _, err := a.st.Append(t.Context(), []store.Append{{Tenant: "acme", Events: []store.NewEvent{idEvent("")}}}); err != nil {
			t.Fatal(err)
		}
		other := a.connect("")
		a.exec(other, "SELECT eventhose.append('acme', 'quick', '{}')")
		if n := len(a.place()); n != 2*(i+1) {
			t.Fatalf("%d events after %d of each", n, i+1)
		}
	}
	a.exec(a.conn, "COMMIT")
	if events := a.place(); len(events) != 21 || events[20].Type != "slow" {
		t.Errorf("%d events at the end", len(events))
	}
}

// Each argument is checked, and the error names it.
func TestAppendRefusesBadArguments(t *testing.T) {
	a := newShop(t)
	long := strings.Repeat("x", 300)
	for call, field := range map[string]string{
		"'absent', 'a', '{}'":          "tenant",
		"NULL, 'a', '{}'":              "tenant",
		"'acme', '', '{}'":             "type",
		"'acme', NULL, '{}'":           "type",
		"'acme', 'a..b', '{}'":         "type",
		"'acme', 'a.b.', '{}'":         "type",
		"'acme', 'a b', '{}'":          "type",
		"'acme', E'a\\nb', '{}'":       "type",
		"'acme', E'a\\n', '{}'":        "type",
		"'acme', '" + long + "', '{}'": "type",
		"'acme', 'eventhose.x', '{}'":  "type",
		"'acme', 'a', NULL":            "data",
		"'acme', 'a', ('\"' || repeat('x', 1048576) || '\"')::json":                                              "data",
		"'acme', 'a', '{}', key => '" + long + "'":                                                               "key",
		"'acme', 'a', '{}', key => E'a\\nb'":                                                                     "key",
		"'acme', 'a', '{}', id => '" + long + "'":                                                                "id",
		"'acme', 'a', '{}', id => E'\\u0085'":                                                                    "id",
		"'acme', 'a', '{}', version => '" + long + "'":                                                           "version",
		"'acme', 'a', '{}', event_time => 'infinity'":                                                            "event_time",
		"'acme', 'a', '{}', event_time => '0044-03-15 BC'":                                                       "event_time",
		"'acme', 'a', '{}', attributes => '[]'":                                                                  "attributes",
		"'acme', 'a', '{}', attributes => '{\"a b\": \"c\"}'":                                                    "attributes",
		"'acme', 'a', '{}', attributes => '{\"a\": 1}'":                                                          "attributes",
		"'acme', 'a', '{}', attributes => '{\"a\": \"\\n\"}'":                                                    "attributes",
		"'acme', 'a', '{}', attributes => (SELECT jsonb_object_agg('a' || n, '') FROM generate_series(1, 33) n)": "attributes",
	} {
		_, err := a.conn.Exec(t.Context(), "SELECT eventhose.append("+call+")")
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "22023" || !strings.HasPrefix(refused.Message, field+": ") {
			t.Errorf("append(%s) answered %v, want 22023 about %s", call, err, field)
		}
	}
	for _, call := range []string{"'acme', 'a', 'null'", "'acme', 'a/b:c-d_e.F', '1', key => NULL, id => NULL, version => NULL, attributes => '{}'", "'acme', 'a', '\"é\"', key => 'é'"} {
		a.exec(a.conn, "SELECT eventhose.append("+call+")")
	}
	if n := len(a.place()); n != 3 {
		t.Errorf("%d events, want the 3 good ones", n)
	}
	for _, e := range a.place() {
		if err := e.Validate(); err != nil {
			t.Errorf("what the function took the log would refuse: %v", err)
		}
	}
}

// An application's role may append, and do nothing else.
func TestAnApplicationsRole(t *testing.T) {
	a := newShop(t)
	role := fmt.Sprintf("shop_%d", rand.Uint32())
	a.exec(a.conn, "CREATE ROLE "+role)
	t.Cleanup(func() {
		_, err := a.conn.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role)
		if err != nil {
			t.Error(err)
		}
	})
	a.exec(a.conn, "GRANT USAGE ON SCHEMA eventhose TO "+role)
	asRole := a.connect(role)
	denied := func(sql string) {
		t.Helper()
		var refused *pgconn.PgError
		if _, err := asRole.Exec(t.Context(), sql); !errors.As(err, &refused) || refused.Code != "42501" {
			t.Errorf("%s answered %v, want insufficient_privilege", sql, err)
		}
	}
	denied("SELECT eventhose.append('acme', 'a', '{}')")
	a.exec(a.conn, "GRANT EXECUTE ON FUNCTION eventhose.append TO "+role)
	a.exec(asRole, "SELECT eventhose.append('acme', 'a', '{}')")
	for _, sql := range []string{"SELECT * FROM eventhose.unplaced", "SELECT * FROM eventhose.events", "SELECT * FROM eventhose.webhook_events", "SELECT * FROM eventhose.records",
		"INSERT INTO eventhose.unplaced (tenant, event_id, type, key, version, data) VALUES ('acme', '', 'eventhose.x', '', '', '')", "SELECT eventhose.fork()",
		"SELECT eventhose._erase('acme', 1)", "SELECT eventhose._make_logs('{x}', '{1}')", "UPDATE eventhose.leases SET epoch = 0"} {
		denied(sql)
	}
	if n := len(a.place()); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

// Ids that SQL shows are those that everybody else knows.
func TestEventIDInSQL(t *testing.T) {
	a := newShop(t)
	for range 200 {
		seq, random := eventhose.Sequence(rand.Uint64()>>rand.IntN(64)), rand.Uint64()
		var got string
		if err := a.conn.QueryRow(t.Context(), "SELECT eventhose.event_id($1, $2)", int64(seq), int64(random)).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if want := eventhose.EventID(seq, random); got != want {
			t.Fatalf("event_id(%d, %d) is %s, want %s", seq, random, got, want)
		}
	}
}

// The view tells what became of each event.
func TestWebhookEvents(t *testing.T) {
	a := newShop(t)
	var events []store.NewEvent
	for i := range 6 {
		e := idEvent(fmt.Sprintf("e%d", i+1))
		e.Event.Type = "stripe.payment_intent.succeeded"
		events = append(events, e)
	}
	events[5].Event.Data, events[5].Event.ID, events[5].Event.Type = []byte{0xff, 0}, "", "plain"
	if _, err := a.st.Append(t.Context(), []store.Append{{Tenant: "acme", Parent: "platform", Events: events}}); err != nil {
		t.Fatal(err)
	}
	c := store.LaneChange{Create: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: "acme", Subscription: "s"}, Dead: 1, Retrying: 1}}
	c.Park = []store.Parked{{Parked: eventhose.Parked{Sequence: 2, State: eventhose.ParkedDead}}, {Parked: eventhose.Parked{Sequence: 3, State: eventhose.ParkedRetrying}}}
	at := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	attempt := func(id string, outcome eventhose.Outcome, seqs ...eventhose.Sequence) eventhose.Attempt {
		return eventhose.Attempt{ID: id, Tenant: "acme", Subscription: "s", Sequences: seqs, Events: make([]string, len(seqs)), Outcome: outcome, Started: at}
	}
	c.Attempts = []eventhose.Attempt{attempt("att_1", eventhose.OutcomeTaken, 1), attempt("att_2", eventhose.OutcomeFailed, 2), attempt("att_3", eventhose.OutcomeFailed, 3, 4), attempt("att_4", eventhose.OutcomeTaken, 5)}
	if err := a.st.Commit(t.Context(), store.Progress{Lanes: []store.LaneChange{c}}); err != nil {
		t.Fatal(err)
	}
	if err := a.st.Erase(t.Context(), "acme", 5); err != nil {
		t.Fatal(err)
	}
	type line struct {
		id, provider, topic, payload, status string
		processed                            bool
	}
	look := func(tenant string) []line {
		rows, err := a.conn.Query(t.Context(), `SELECT event_id, provider, topic, payload, status, processed_at IS NOT NULL AND processed_at = $2 FROM eventhose.webhook_events WHERE tenant = $1 ORDER BY sequence`, tenant, at)
		if err != nil {
			t.Fatal(err)
		}
		all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (l line, err error) {
			return l, r.Scan(&l.id, &l.provider, &l.topic, &l.payload, &l.status, &l.processed)
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	const data = `{"a":1}`
	want := []line{{"e1", "stripe", "payment_intent.succeeded", data, "processed", true}, {"e2", "stripe", "payment_intent.succeeded", data, "dead", false},
		{"e3", "stripe", "payment_intent.succeeded", data, "failed", false}, {"e4", "stripe", "payment_intent.succeeded", data, "pending", false},
		{"e5", "stripe", "payment_intent.succeeded", "", "processed", true}, {"", "plain", "plain", `\xff00`, "pending", false}}
	own := look("acme")
	if len(own) != len(want) {
		t.Fatalf("%d lines: %v", len(own), own)
	}
	for i, got := range own {
		if i == 5 {
			if seq, ok := eventhose.EventIDSequence(got.id); !ok || seq != 6 {
				t.Errorf("a made id reads %q", got.id)
			}
			got.id = ""
		}
		if got != want[i] {
			t.Errorf("line %d is %+v, want %+v", i+1, got, want[i])
		}
	}
	places := look("platform")
	if len(places) != 6 || places[0].payload != data || places[5].payload != `\xff00` || places[0].status != "pending" {
		t.Errorf("the parent's lines are %v", places)
	}
}
