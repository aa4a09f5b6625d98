package app

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
	"github.com/eventhose/eventhose/internal/storetest"
)

// filled is a data directory that a script has written, closed.
type filled struct {
	dir    string
	script *storetest.Script
	heads  map[eventhose.TenantID]eventhose.Head
}

// tenants are those of the script "a", and one that has never had anything.
var tenants = []eventhose.TenantID{"a-0", "a-1", "a-platform", "a-silent"}

// fill has a script do n operations in each of several lives of a store.
func fill(t *testing.T, rng *rand.Rand, n, lives int) filled {
	t.Helper()
	f := filled{script: storetest.NewScript(rng, "a", storetest.NewModel(), 0), heads: map[eventhose.TenantID]eventhose.Head{}}
	f.dir = filepath.Join(t.TempDir(), "data")
	for life := range lives {
		st := openEmbedded(t, f.dir)
		for range n {
			if err := f.script.Run(t.Context(), st, f.script.Next()); err != nil {
				t.Fatal(err)
			}
		}
		for _, tenant := range tenants {
			h, err := st.Head(t.Context(), tenant)
			if err != nil {
				t.Fatal(err)
			}
			f.heads[tenant] = h
		}
		record := store.RecordChange{Record: store.Record{Kind: "tenant", ID: "a-silent", Version: uint64(life), Value: []byte("{}")}}
		if err := st.Save(t.Context(), []store.RecordChange{record}, nil); err != nil {
			t.Fatal(err)
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func openEmbedded(t *testing.T, dir string) *embedded.Store {
	t.Helper()
	st, err := embedded.Open(dir, embedded.Options{MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

func openPostgres(t *testing.T, url string) *postgres.Store {
	t.Helper()
	st, err := postgres.Open(t.Context(), url, postgres.Options{MaxConns: 8, Upkeep: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// small makes copies of many parts and partitions.
func small(rng *rand.Rand, from, to string) CopyOptions {
	return CopyOptions{From: from, To: to, partition: int64(5_000 + rng.IntN(40_000)), limit: store.PartLimit{Rows: 1 + rng.IntN(60), Bytes: 1 + rng.IntN(20_000)}}
}

// A copy is what the model of the script says that its source is, however often it was interrupted, and the script goes on on it.
func TestCopy(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			f := fill(t, rng, 150, 2)
			url := pgtest.Database(t)
			done, interruptions := copyInterrupted(t, rng, f, url)
			t.Logf("%+v after %d interruptions", done, interruptions)
			if interruptions < 3 {
				t.Error("it was hardly interrupted")
			}

			st := openPostgres(t, url)
			if err := f.script.Check(t.Context(), st, -1); err != nil {
				t.Fatal(err)
			}
			for tenant, want := range f.heads {
				if got, err := st.Head(t.Context(), tenant); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("the head of %s is %+v (%v), want %+v", tenant, got, err, want)
				}
			}
			var parts int
			ask(t, url, "SELECT count(DISTINCT part) FROM eventhose.spans", &parts)
			if parts < 2 {
				t.Error("there is one partition only")
			}
			goOn(t, f.script, st)
		})
	}
}

// fuse is a context that ends when it was asked for the nth time whether it has: anywhere in a transaction.
type fuse struct {
	context.Context
	left  atomic.Int64
	burnt func()
}

func (f *fuse) burn() {
	if f.left.Add(-1) == 0 {
		f.burnt()
	}
}

func (f *fuse) Done() <-chan struct{} {
	f.burn()
	return f.Context.Done()
}

func (f *fuse) Err() error {
	f.burn()
	return f.Context.Err()
}

// copyInterrupted copies again and again, ended at a random point each time, until it is done.
func copyInterrupted(t *testing.T, rng *rand.Rand, f filled, url string) (Copied, int) {
	for interruptions := 0; ; interruptions++ {
		ctx, cancel := context.WithCancel(t.Context())
		o, left := small(rng, f.dir, url), rng.IntN(8)
		burning := &fuse{Context: ctx, burnt: cancel}
		burning.left.Store(int64(20 + rng.IntN(300)))
		if rng.IntN(2) == 0 { // between two parts, or in the comparison
			burning.left.Store(1 << 60)
			o.Progress = func(CopyProgress) {
				if left--; left < 0 && interruptions < 12 {
					cancel()
				}
			}
		}
		if interruptions >= 12 {
			burning.left.Store(1 << 60)
		}
		done, err := Copy(burning, o)
		ended := ctx.Err() != nil
		cancel()
		if err == nil {
			return done, interruptions
		}
		if !ended {
			t.Fatal(err)
		}
		if st, err := postgres.Open(t.Context(), url, postgres.Options{}); err == nil {
			st.Close()
			var begun bool
			if ask(t, url, "SELECT EXISTS (SELECT FROM eventhose.copies WHERE finished IS NULL)", &begun); begun {
				t.Fatal("a node starts on an unfinished copy")
			}
		} else if eventhose.CodeOf(err) != eventhose.CodeConflict {
			t.Fatal(err)
		}
	}
}

// goOn has a script go on on a copy.
func goOn(t *testing.T, script *storetest.Script, st store.Store) {
	t.Helper()
	for i := range 150 {
		err := script.Run(t.Context(), st, script.Next())
		if err == nil && i%25 == 0 {
			err = script.Check(t.Context(), st, -1)
		}
		if err != nil {
			t.Fatalf("going on: %v", err)
		}
	}
}

// ask reads one row of a database.
func ask(t *testing.T, url, sql string, into ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := conn.QueryRow(t.Context(), sql).Scan(into...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

var ddl = regexp.MustCompile("^(CREATE|DROP|TRUNCATE)")

// change executes statements, each of which must change something.
func change(t *testing.T, url string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, sql := range statements {
		done, err := conn.Exec(t.Context(), sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if done.RowsAffected() == 0 && !ddl.MatchString(sql) {
			t.Fatalf("%s: nothing was changed", sql)
		}
	}
}

// What is wrong in the copy is found, and named.
func TestCopyIsCompared(t *testing.T) {
	var f filled
	for seed := uint64(1); f.dir == "" || kept(t, f.dir) < 2; seed++ {
		f = fill(t, rand.New(rand.NewPCG(seed, 7)), 200, 1)
	}
	url := pgtest.Database(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Copy(ctx, CopyOptions{From: f.dir, To: url, Progress: func(p CopyProgress) {
		if p.Doing == comparing {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("all is copied, nothing is compared: %v", err)
	}
	tables := []string{"logs", "events", "event_ids", "kept_events", "matched", "lanes", "parked", "blocked_keys", "attempts", "records"}
	change(t, url, "CREATE SCHEMA saved")
	for _, table := range tables {
		change(t, url, fmt.Sprintf("CREATE TABLE saved.%s AS SELECT * FROM eventhose.%[1]s", table))
	}
	for _, c := range []struct{ fault, want string }{
		{"UPDATE eventhose.events SET data = set_byte(data, 0, get_byte(data, 0) # 1) WHERE (tenant, seq) = (SELECT tenant, seq FROM eventhose.events WHERE tenant = 'a-0' AND length(data) > 0 ORDER BY seq OFFSET 3 LIMIT 1)", "log a-0 from sequence"},
		{"UPDATE eventhose.events SET key = key || 'x' WHERE tenant = 'a-1' AND seq = (SELECT last FROM eventhose.logs WHERE tenant = 'a-1')", "log a-1 from sequence"},
		{"UPDATE eventhose.events SET nanos = (nanos + 1) % 1000 WHERE tenant = 'a-0' AND seq = (SELECT first FROM eventhose.logs WHERE tenant = 'a-0')", "log a-0 from sequence"},
		{"DELETE FROM eventhose.events WHERE tenant = 'a-platform' AND seq = (SELECT last FROM eventhose.logs WHERE tenant = 'a-platform')", "log a-platform from sequence"},
		{"UPDATE eventhose.logs SET incarnation = incarnation + 1 WHERE tenant = 'a-0'", "the head of log a-0"},
		{"UPDATE eventhose.logs SET incarnation = incarnation + 1 WHERE tenant = 'a-silent'", "the head of log a-silent"},
		{"UPDATE eventhose.logs SET last = last - 1 WHERE tenant = 'a-1'", "the head of log a-1"},
		{"UPDATE eventhose.event_ids SET digest = gen_random_uuid() WHERE tenant = 'a-0'", "log a-0 remembers the id of sequence"},
		{"DELETE FROM eventhose.event_ids WHERE tenant = 'a-1'", "log a-1 remembers the id of sequence"},
		// What is kept of a-1 is read through its places in a-platform, too, whose log comes first.
		{"UPDATE eventhose.kept_events SET data = data || '!', erased = false WHERE tenant <> 'a-1'", "keeps another parked event of sequence"},
		{"DELETE FROM eventhose.kept_events WHERE tenant <> 'a-1'", "does not keep the parked event of sequence"},
		{"UPDATE eventhose.matched SET matched = matched + 1 WHERE tenant = 'a-0'", "log a-0 is matched to"},
		{"UPDATE eventhose.lanes SET dead = dead + 1", "has another row, or other blocked keys"},
		{"DELETE FROM eventhose.lanes", "is missing"},
		{"DELETE FROM eventhose.blocked_keys WHERE (lane, key) IN (SELECT lane, key FROM eventhose.blocked_keys LIMIT 1)", "has another row, or other blocked keys"},
		{"DELETE FROM eventhose.parked p USING eventhose.logs l WHERE l.tenant = p.tenant AND p.seq >= l.first", "parked event"},
		{"DELETE FROM eventhose.attempts WHERE first_id = (SELECT max(first_id) FROM eventhose.attempts)", "attempt att_"},
		{"UPDATE eventhose.records SET value = value || '!' WHERE id = (SELECT max(id) FROM eventhose.records WHERE kind = 'akey') AND kind = 'akey'", "record akey r"},
		{"UPDATE eventhose.records SET version = version + 1 WHERE kind = 'asub'", "record asub r"},
		{"UPDATE eventhose.records SET expires = now()", "record"},
		{"INSERT INTO eventhose.records (version, tenant, kind, id, value) VALUES (1, 'other', 'tenant', 'x', '')", "the database holds"},
		{"INSERT INTO eventhose.logs (tenant, incarnation, last) VALUES ('other', 1, 1)", "the database holds"},
	} {
		change(t, url, c.fault)
		_, err := Copy(t.Context(), CopyOptions{From: f.dir, To: url})
		if eventhose.CodeOf(err) != eventhose.CodeInternal || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want %q", c.fault, err, c.want)
		}
		if st, err := postgres.Open(t.Context(), url, postgres.Options{}); eventhose.CodeOf(err) != eventhose.CodeConflict {
			t.Errorf("a node starts on it: %v", err)
			if err == nil {
				st.Close()
			}
		}
		for _, table := range tables {
			change(t, url, "TRUNCATE eventhose."+table, fmt.Sprintf("INSERT INTO eventhose.%s OVERRIDING SYSTEM VALUE SELECT * FROM saved.%[1]s", table))
		}
	}
	if _, err := Copy(t.Context(), CopyOptions{From: f.dir, To: url}); err != nil {
		t.Errorf("without a fault: %v", err)
	}
}

// Whatever could mix up two stores is refused, and changes nothing.
func TestCopyRefuses(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	a, b := fill(t, rng, 30, 1), fill(t, rng, 30, 1)
	try := func(t *testing.T, from, url, field, says string) {
		t.Helper()
		before := contents(t, url)
		_, err := Copy(t.Context(), CopyOptions{From: from, To: url})
		var coded *eventhose.Error
		if !errors.As(err, &coded) || coded.Field != field || coded.Fix == "" || !strings.Contains(coded.Message, says) ||
			coded.Code != eventhose.CodeConflict && coded.Code != eventhose.CodeInvalid {
			t.Errorf("%v, want field %s and %q", err, field, says)
		}
		if after := contents(t, url); after != before {
			t.Errorf("the database was changed:\n%s\n%s", before, after)
		}
	}
	unfinished := func(t *testing.T, from string) string {
		t.Helper()
		url := pgtest.Database(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, err := Copy(ctx, CopyOptions{From: from, To: url, limit: store.PartLimit{Rows: 5, Bytes: 5000}, Progress: func(p CopyProgress) {
			if p.Events > 10 {
				cancel()
			}
		}})
		if ctx.Err() == nil {
			t.Fatalf("it was not interrupted: %v", err)
		}
		return url
	}
	t.Run("other data", func(t *testing.T) {
		for _, sql := range []string{"INSERT INTO eventhose.logs (tenant, incarnation) VALUES ('t', 1)",
			"INSERT INTO eventhose.records (version, tenant, kind, id, value) VALUES (1, '', 'tenant', 'default', '')"} {
			url := pgtest.Database(t)
			openPostgres(t, url).Close()
			change(t, url, sql)
			try(t, a.dir, url, "--to", "holds data already")
		}
	})
	t.Run("other data of an older schema", func(t *testing.T) {
		url := pgtest.Database(t)
		openPostgres(t, url).Close()
		change(t, url, "DROP TABLE eventhose.copies", "DELETE FROM eventhose.migrations WHERE version >= 6",
			"INSERT INTO eventhose.logs (tenant, incarnation) VALUES ('t', 1)")
		try(t, a.dir, url, "--to", "holds data already")
	})
	t.Run("servers", func(t *testing.T) {
		url := pgtest.Database(t)
		st := openPostgres(t, url)
		if _, err := st.Claim(t.Context(), "node", nil, time.Minute); err != nil {
			t.Fatal(err)
		}
		try(t, a.dir, url, "--to", "servers run on")
	})
	t.Run("finished", func(t *testing.T) {
		url := pgtest.Database(t)
		first, err := Copy(t.Context(), CopyOptions{From: a.dir, To: url})
		if err != nil {
			t.Fatal(err)
		}
		try(t, b.dir, url, "--to", "a copy of another data directory")
		again, err := Copy(t.Context(), CopyOptions{From: a.dir, To: url})
		if again.Took, first.Took = 0, 0; err != nil || !again.Before {
			t.Errorf("again: %+v, %v", again, err)
		}
		if again.Before = false; again != first {
			t.Errorf("again: %+v, was %+v", again, first)
		}
		openEmbedded(t, a.dir).Close()
		try(t, a.dir, url, "--to", "has been changed since it was made")
	})
	t.Run("unfinished", func(t *testing.T) {
		url := unfinished(t, a.dir)
		try(t, b.dir, url, "--to", "a copy of another data directory")
		openEmbedded(t, a.dir).Close()
		try(t, a.dir, url, "--to", "has been changed since it was begun")
	})
	t.Run("two at once", func(t *testing.T) {
		url := pgtest.Database(t)
		from, err := embedded.OpenExport(a.dir, embedded.Options{})
		if err != nil {
			t.Fatal(err)
		}
		source := from.Source()
		if err := from.Close(); err != nil {
			t.Fatal(err)
		}
		im, err := postgres.OpenImport(t.Context(), url, source, postgres.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer im.Close()
		try(t, a.dir, url+"&lock_timeout=50", "--to", "another process is copying into")
	})
	t.Run("the directory", func(t *testing.T) {
		url := pgtest.Database(t)
		try(t, t.TempDir(), url, "--from", "holds no store")
		try(t, filepath.Join(t.TempDir(), "nowhere"), url, "--from", "holds no store")
		st := openEmbedded(t, b.dir)
		backup := filepath.Join(t.TempDir(), "backup")
		if err := st.Backup(t.Context(), backup); err != nil {
			t.Fatal(err)
		}
		try(t, b.dir, url, "--from", "another process has")
		try(t, backup, url, "--from", "is a backup")
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Copy(t.Context(), CopyOptions{From: b.dir, To: url}); err != nil {
			t.Error(err)
		}
	})
	t.Run("the database", func(t *testing.T) {
		_, err := Copy(t.Context(), CopyOptions{From: a.dir, To: "postgres://127.0.0.1:1/nothing?connect_timeout=1"})
		if eventhose.CodeOf(err) != eventhose.CodeUnavailable {
			t.Errorf("away: %v", err)
		}
		_, err = Copy(t.Context(), CopyOptions{From: a.dir, To: "http://x:secret@y/"})
		var coded *eventhose.Error
		if !errors.As(err, &coded) || coded.Field != "--to" || coded.Code != eventhose.CodeInvalid || strings.Contains(err.Error(), "secret") {
			t.Errorf("no URL: %v", err)
		}
	})
}

// kept counts the events that are kept aside in a data directory, but for those of the connected tenant.
func kept(t *testing.T, dir string) (n int) {
	t.Helper()
	from, err := embedded.OpenExport(dir, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	for position := []byte(nil); ; {
		part, err := from.Outline(t.Context(), position, copyLimit)
		if err != nil {
			t.Fatal(err)
		}
		if part == nil {
			return n
		}
		for _, e := range part.Kept {
			if e.Event.Tenant != "a-1" {
				n++
			}
		}
		position = part.Position
	}
}

// contents is everything that a database holds, as text.
func contents(t *testing.T, url string) string {
	t.Helper()
	var all strings.Builder
	var tables []string
	ask(t, url, "SELECT coalesce(array_agg(tablename ORDER BY tablename), '{}') FROM pg_tables WHERE schemaname = 'eventhose'", &tables)
	for _, table := range tables {
		var rows string
		ask(t, url, "SELECT coalesce(string_agg(x::text, E'\\n' ORDER BY x::text), '') FROM eventhose."+table+" x", &rows)
		fmt.Fprintf(&all, "%s\n%s\n", table, rows)
	}
	return all.String()
}
