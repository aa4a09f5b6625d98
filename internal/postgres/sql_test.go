package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// sqlWorld is a database with a node, and an application's connection.
type sqlWorld struct {
	*testing.T
	url string
	st  *postgres.Store
	log *eventlog.Log
	db  *pgx.Conn
}

func newSQLWorld(t *testing.T) *sqlWorld {
	t.Helper()
	w := &sqlWorld{T: t, url: pgtest.Database(t)}
	var err error
	if w.st, err = postgres.Open(t.Context(), w.url, postgres.Options{MaxConns: 6, Upkeep: -1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.st.Close() })
	if err := makeTenants(t.Context(), w.st, everyLog...); err != nil {
		t.Fatal(err)
	}
	w.log = eventlog.New(w.st, tenants(everyLog), eventlog.Options{})
	t.Cleanup(func() { w.log.Close() })
	w.db = w.connect(w.url)
	return w
}

func (w *sqlWorld) connect(url string) *pgx.Conn {
	w.Helper()
	db, err := pgx.Connect(w.Context(), url)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { db.Close(context.Background()) })
	return db
}

// place has all that applications have committed placed.
func (w *sqlWorld) place() {
	w.Helper()
	placing, cancel := context.WithTimeout(w.Context(), 30*time.Second)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.log.RunPlacing(placing, w.st, time.Hour)
	}()
	if !until(placing, func() bool {
		left, err := w.st.UnplacedTenants(placing, "", 1)
		return err == nil && len(left) == 0
	}) {
		w.Fatal("events never got their places")
	}
	cancel()
	<-ended
}

func (w *sqlWorld) read(tenant eventhose.TenantID) []*eventhose.Event {
	w.Helper()
	logs, err := readAll(w.Context(), w.st, []eventhose.TenantID{tenant})
	if err != nil {
		w.Fatal(err)
	}
	return logs[tenant]
}

// args are the arguments of eventhose.append; absent ones are left out.
type args map[string]any

func appendSQL(ctx context.Context, db interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
}, a args) error {
	var named []string
	var values []any
	for _, name := range []string{"tenant", "type", "data", "key", "id", "attributes", "version", "event_time"} {
		if v, there := a[name]; there {
			values = append(values, v)
			named = append(named, fmt.Sprintf("%q => $%d", name, len(values)))
		}
	}
	_, err := db.Exec(ctx, "SELECT eventhose.append("+strings.Join(named, ", ")+")", values...)
	return err
}

// with answers good arguments, with one of another value.
func with(name string, v any) args {
	a := args{"tenant": "t0", "type": "order.paid", "data": "{}"}
	a[name] = v
	return a
}

// Each argument is checked, and the message begins with its name.
func TestAppendArguments(t *testing.T) {
	w := newSQLWorld(t)
	long := func(n int) string { return strings.Repeat("x", n) }
	many := map[string]string{}
	for i := range eventhose.MaxAttributes + 1 {
		many[fmt.Sprint("a", i)] = "v"
	}
	for _, c := range []struct {
		field string
		v     any
	}{
		{"tenant", "nobody"}, {"tenant", nil}, {"tenant", ""},
		{"type", nil}, {"type", ""}, {"type", "a..b"}, {"type", ".a"}, {"type", "a."}, {"type", "a b"}, {"type", "a\n"}, {"type", "é"}, {"type", long(257)}, {"type", "eventhose.tenant.created"},
		{"data", nil}, {"data", `"` + long(eventhose.MaxData-1) + `"`},
		{"key", long(257)}, {"key", "a\tb"}, {"key", "\u0085"}, {"key", strings.Repeat("é", 129)},
		{"id", long(257)}, {"id", "a\x7f"}, {"id", "/"}, {"id", "."}, {"id", ".."}, {"id", "search"}, {"id", "stream"}, {"id", "ws"},
		{"version", long(65)}, {"version", "\n"},
		{"event_time", time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, {"event_time", time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)},
		{"attributes", `[]`}, {"attributes", `"a"`}, {"attributes", many}, {"attributes", `{"": "v"}`}, {"attributes", `{"a b": "v"}`}, {"attributes", `{"` + long(65) + `": "v"}`},
		{"attributes", `{"a": 1}`}, {"attributes", `{"a": null}`}, {"attributes", `{"a": {"b": "c"}}`}, {"attributes", map[string]string{"a": long(1025)}}, {"attributes", map[string]string{"a": "\x01"}},
		{"attributes", map[string]string{"source": "src_01j9z3k4m5n6p7q8r9s0t1v2w0"}}, {"attributes", map[string]string{"source": "src_" + eventhose.IDText([16]byte{15: 255})}},
	} {
		err := appendSQL(t.Context(), w.db, with(c.field, c.v))
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != "22023" || !strings.HasPrefix(pg.Message, c.field+": ") {
			t.Errorf("%s of %.40q: %v", c.field, fmt.Sprint(c.v), err)
		}
	}
	var pg *pgconn.PgError
	if err := appendSQL(t.Context(), w.db, with("data", "{")); !errors.As(err, &pg) || pg.Code != "22P02" {
		t.Errorf("data that is no JSON: %v", err)
	}
	if n := ask[int](t, w.db, "SELECT count(*) FROM eventhose.unplaced"); n > 0 {
		t.Errorf("%d events were taken all the same", n)
	}
	delete(many, "a0")
	for _, c := range []args{with("type", long(256)), with("type", "A-1_/:.z"), with("data", `"`+long(eventhose.MaxData-2)+`"`), with("key", long(256)), with("key", nil), with("key", "é😀\u200b"), with("id", long(256)),
		with("id", nil), with("version", long(64)), with("version", nil), with("event_time", nil), with("event_time", time.Date(1, 2, 3, 4, 5, 6, 7000, time.UTC)), with("attributes", nil), with("attributes", `{}`), with("attributes", many),
		with("attributes", map[string]string{"A_b.c-9": long(1024)}), with("type", "eventhosepipe.x"),
		with("attributes", map[string]string{"source": "src_01j9z3k4m5n6p7q8r9s0t1v2w1"}), with("attributes", map[string]string{"source": "/shop"})} {
		if err := appendSQL(t.Context(), w.db, c); err != nil {
			t.Errorf("%.60q: %v", fmt.Sprint(c), err)
		}
	}
}

// What the database takes for a type or a key is what the API does.
func TestAppendArgumentsAsTheAPI(t *testing.T) {
	w := newSQLWorld(t)
	rng := rand.New(rand.NewPCG(number(t, "EVENTHOSE_SEED", 1), 1))
	letters := []string{"a", "Z", "0", ".", ".", "_", "-", "/", ":", " ", "é", "\t", "\n", "\x01", "\x1f", "\x7f", "\u0080", "\u009f", "\u00a0", "\u2028", "\ufeff", "😀", "\\", "'", "$"}
	took := 0
	for range 600 {
		text := ""
		for range rng.IntN(5) {
			text += letters[rng.IntN(len(letters))]
		}
		for _, field := range []string{"type", "key", "id", "version"} {
			e := eventhose.Event{Type: "order.paid", Data: []byte("{}")}
			switch field {
			case "type":
				e.Type = text
			case "key":
				e.Key = text
			case "id":
				e.ID = text
			case "version":
				e.Version = text
			}
			api, sql := e.Validate(), appendSQL(t.Context(), w.db, with(field, text))
			if (api == nil) != (sql == nil) {
				t.Errorf("%s of %q: the API says %v, the database %v", field, text, api, sql)
			}
			if api == nil {
				took++
			}
		}
	}
	if took < 100 || took > 2300 {
		t.Errorf("of 2400 texts %d were good", took)
	}
}

// JSON is kept byte for byte, and what else was given, too.
func TestAppendKeepsJSON(t *testing.T) {
	w := newSQLWorld(t)
	texts := []string{`{}`, ` { "b" : 1 ,` + "\n\t" + `"a":2 } `, `{"a":1,"a":2}`, `"\u00e9\u0000\ud83d\ude00 é😀"`, `1.0e+400`, `-0.10`, `null`, `[ ]`, `{"z":{"y":[1, 2 ,3]},"a":"\/"}`, "\"\u2028\""}
	at := time.Date(2024, 5, 6, 7, 8, 9, 123456000, time.UTC)
	for i, text := range texts {
		a := args{"tenant": "c0", "type": "order.paid", "data": text, "key": "k é", "id": fmt.Sprint("i", i), "attributes": `{"b": "2", "a": "é"}`, "version": "v1", "event_time": at}
		if err := appendSQL(t.Context(), w.db, a); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	w.place()
	for tenant, prefix := range map[eventhose.TenantID]string{"c0": "", orderParent: "c0/"} {
		log := w.read(tenant)
		if len(log) != len(texts) {
			t.Fatalf("%s has %d events", tenant, len(log))
		}
		for i, e := range log {
			if string(e.Data) != texts[i] || e.ID != fmt.Sprint(prefix, "i", i) || e.Key != "k é" || e.Version != "v1" || !e.Time.Equal(at) || e.Attributes["a"] != "é" || len(e.Attributes) != 2 || e.Type != "order.paid" {
				t.Errorf("%q became %+v with %q", texts[i], e, e.Data)
			}
		}
	}
}

// An event is there if its transaction commits; an id that is known is the same event, or refused and said so.
func TestAppendWithinTransaction(t *testing.T) {
	w := newSQLWorld(t)
	tx := func(commit bool, all ...args) {
		t.Helper()
		tx, err := w.db.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range all {
			if err := appendSQL(t.Context(), tx, a); err != nil {
				t.Fatal(err)
			}
		}
		if end := tx.Rollback; !commit {
			err = end(t.Context())
		} else {
			err = tx.Commit(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	first := args{"tenant": "t0", "type": "order.paid", "data": `{"n":1}`, "id": "first", "attributes": `{"a":"1"}`}
	other := args{"tenant": "t0", "type": "order.paid", "data": `{"n":2}`, "id": "first", "attributes": `{"a":"1"}`}
	tx(false, with("data", `"rolled back"`), first)
	tx(true, first, with("data", `"between"`), first)
	w.place()
	tx(true, first, other)
	w.place()
	tx(true, other, with("data", `"last"`))
	// In a savepoint that is rolled back.
	if _, err := w.db.Exec(t.Context(), `BEGIN; SELECT eventhose.append('t0', 'order.paid', '"kept"'); SAVEPOINT s; SELECT eventhose.append('t0', 'order.paid', '"dropped"'); ROLLBACK TO s; COMMIT`); err != nil {
		t.Fatal(err)
	}
	w.place()
	var got []string
	for _, e := range w.read("t0") {
		if e.Type != "order.paid" {
			var told struct{ ID, Type, Reason string }
			if err := json.Unmarshal(e.Data, &told); err != nil || e.Type != eventlog.Refused || told.ID != "first" || told.Type != "order.paid" || told.Reason == "" {
				t.Errorf("%+v with %s", e, e.Data)
			}
			got = append(got, "refused")
			continue
		}
		got = append(got, string(e.Data))
	}
	if want := []string{`{"n":1}`, `"between"`, "refused", `"last"`, `"kept"`, "refused"}; !slices.Equal(got, want) && !slices.Equal(got, []string{`{"n":1}`, `"between"`, "refused", `"last"`, "refused", `"kept"`}) {
		t.Errorf("the log has %q, want %q", got, want)
	}
	// The API knows it, too.
	same := eventhose.Event{Type: "order.paid", Data: []byte(`{"n":1}`), ID: "first", Attributes: map[string]string{"a": "1"}}
	if p, err := w.log.Append(t.Context(), "t0", same); err != nil || !p[0].Duplicate || p[0].Sequence != 1 {
		t.Errorf("appended again by the API: %+v, %v", p, err)
	}
	same.Data = []byte(`{"n": 1}`)
	if _, err := w.log.Append(t.Context(), "t0", same); eventhose.CodeOf(err) != eventhose.CodeConflict {
		t.Errorf("another event of that id by the API: %v", err)
	}
}

// ended is a log of a program that ends with the first line of it.
type ended struct {
	slog.Handler
	end func()
}

func (ended) Enabled(context.Context, slog.Level) bool { return true }

func (e ended) Handle(context.Context, slog.Record) error {
	e.end()
	return nil
}

// dying is a store of a node that dies once it has placed something.
type dying struct {
	*postgres.Store
	dead bool
}

func (d *dying) Append(ctx context.Context, group []store.Append) ([]store.AppendResult, error) {
	if d.dead {
		return nil, fmt.Errorf("planted: %w", store.ErrUnavailable)
	}
	return d.Store.Append(ctx, group)
}

func (d *dying) Place(ctx context.Context, entries []store.Append, rows []int64) ([]store.AppendResult, bool, error) {
	if d.dead {
		return nil, false, fmt.Errorf("planted: %w", store.ErrUnavailable)
	}
	d.dead = true
	return d.Store.Place(ctx, entries, rows)
}

// Whatever happens to the node that refuses an event, the event stays until it is told of that, once; and those that were placed with it are counted.
func TestRefusedIsToldAfterADeath(t *testing.T) {
	w := newSQLWorld(t)
	for i, data := range []string{`1`, `2`, `3`, `4`, `"good"`} {
		a := with("data", data)
		if i < 4 {
			a["id"] = "same"
		}
		if err := appendSQL(t.Context(), w.db, a); err != nil {
			t.Fatal(err)
		}
	}
	counted := 0
	placing, cancel := context.WithCancel(t.Context())
	defer cancel()
	st := &dying{Store: w.st}
	dies := eventlog.New(st, tenants(everyLog), eventlog.Options{Logger: slog.New(ended{slog.DiscardHandler, cancel}),
		Counted: func(_, _ eventhose.TenantID, events, _ int) { counted += events }})
	defer dies.Close()
	dies.RunPlacing(placing, st, time.Hour)
	w.place()
	placed, refused := 0, 0
	for _, e := range w.read("t0") {
		switch e.Type {
		case "order.paid":
			placed++
		case eventlog.Refused:
			refused++
		}
	}
	if placed != 2 || refused != 3 || counted != 2 {
		t.Errorf("%d were placed and %d counted, 3 were refused and %d told of", placed, counted, refused)
	}
}

// A transaction that stays open holds up nobody: not the same log, not an application, not the places.
func TestAppendHeldOpen(t *testing.T) {
	w := newSQLWorld(t)
	tx, err := w.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := appendSQL(t.Context(), tx, with("data", `"held"`)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // were it held up, it would be until the end of the transaction
	defer cancel()
	if _, err := w.log.Append(ctx, "t0", eventhose.Event{Type: "order.paid", Data: []byte(`"api"`)}); err != nil {
		t.Error(err)
	}
	if err := appendSQL(ctx, w.connect(w.url), with("data", `"other"`)); err != nil {
		t.Error(err)
	}
	w.place()
	if done, err := w.st.Trim(ctx, "t0", store.Trim{Bytes: 1 << 20}); err != nil || done.Removed > 0 {
		t.Error(done, err)
	}
	if err := w.st.Upkeep(ctx); err != nil {
		t.Error(err)
	}
	if n := len(w.read("t0")); n != 2 {
		t.Errorf("%d events are there while the transaction is open", n)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.place()
	if log := w.read("t0"); len(log) != 3 || string(log[2].Data) != `"held"` {
		t.Errorf("after it: %d events", len(log))
	}
}

// An application's role needs the schema and the function, and gets nothing else.
func TestApplicationRole(t *testing.T) {
	w := newSQLWorld(t)
	if _, err := w.st.Append(t.Context(), []store.Append{{Tenant: "t0", Events: []store.NewEvent{growthEvent(1, true)}}}); err != nil {
		t.Fatal(err)
	}
	role := fmt.Sprint("app", rand.Uint64())
	run(t, w.url, "CREATE ROLE "+role+" LOGIN", "GRANT USAGE ON SCHEMA eventhose TO "+role)
	defer run(t, w.url, "DROP OWNED BY "+role, "DROP ROLE "+role)
	as, err := url.Parse(w.url)
	if err != nil {
		t.Fatal(err)
	}
	q := as.Query()
	q.Set("user", role)
	as.RawQuery = q.Encode()
	app := w.connect(as.String())
	denied := func(what string, err error) {
		t.Helper()
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != "42501" {
			t.Errorf("%s: %v", what, err)
		}
	}
	denied("append without a grant", appendSQL(t.Context(), app, with("key", "k")))
	run(t, w.url, "GRANT EXECUTE ON FUNCTION eventhose.append TO "+role)
	if err := appendSQL(t.Context(), app, with("key", "k")); err != nil {
		t.Error(err)
	}
	rows, err := w.db.Query(t.Context(), "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'eventhose'::regnamespace AND c.relkind IN ('r', 'p', 'v')")
	if err != nil {
		t.Fatal(err)
	}
	relations, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(relations) < 15 {
		t.Fatal(relations, err)
	}
	for _, r := range relations {
		for _, sql := range []string{"SELECT FROM eventhose.%s", "DELETE FROM eventhose.%s", "INSERT INTO eventhose.%s DEFAULT VALUES", "TRUNCATE eventhose.%s"} {
			if _, err := app.Exec(t.Context(), fmt.Sprintf(sql, r)); r != "webhook_events" || strings.HasPrefix(sql, "SELECT") {
				denied(fmt.Sprintf(sql, r), err)
			}
		}
	}
	for _, sql := range []string{"SELECT eventhose._erase('t0', 1)", "SELECT eventhose._trim('t0', now(), 1, 1)", "SELECT eventhose._claim('me', '{}', '1 minute')", "SELECT eventhose._size('t0', 1)",
		"SELECT eventhose._open_partition(0::smallint)", "SELECT eventhose._visible('t0', 1)", "CREATE TABLE eventhose.mine ()"} {
		_, err := app.Exec(t.Context(), sql)
		denied(sql, err)
	}
	// A table or an operator of the role's own is not taken for what the function means.
	if _, err := app.Exec(t.Context(), "CREATE TEMP TABLE records (tenant text, kind text, id text)"); err != nil {
		t.Error(err)
	}
	if err := appendSQL(t.Context(), app, with("tenant", "nobody")); err == nil || !strings.Contains(err.Error(), "tenant: ") {
		t.Errorf("a tenant that is not there: %v", err)
	}
	w.place()
	if log := w.read("t0"); len(log) != 2 || log[1].Key != "k" {
		t.Errorf("%d events", len(log))
	}
}

// The database writes ids as we do.
func TestEventIDInSQL(t *testing.T) {
	w := newSQLWorld(t)
	rng := rand.New(rand.NewPCG(number(t, "EVENTHOSE_SEED", 1), 2))
	seqs := []int64{0, 1, 31, 32, 1 << 40, math.MaxInt64}
	randoms := []int64{0, 1, -1, math.MinInt64, math.MaxInt64, 0x0123456789abcdef}
	for range 500 {
		seqs, randoms = append(seqs, int64(rng.Uint64()>>(1+rng.IntN(63)))), append(randoms, int64(rng.Uint64()))
	}
	for i, seq := range seqs {
		random := randoms[i%len(randoms)]
		if got, want := ask[string](t, w.db, "SELECT eventhose.event_id($1, $2)", seq, random), eventhose.EventID(eventhose.Sequence(seq), uint64(random)); got != want {
			t.Fatalf("of %d and %d it is %s, want %s", seq, random, got, want)
		}
	}
}
