package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// copyWriter is a connection, or a transaction on one.
type copyWriter interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Write writes a part and its position in one transaction. After an error the Import is closed and opened again to go on.
func (im *Import) Write(ctx context.Context, p *store.Part) error {
	next := im.state
	next.position = p.Position
	next.events += int64(len(p.Events))
	err := pgx.BeginFunc(ctx, im.conn, func(tx pgx.Tx) error {
		w := partWriter{ctx: ctx, tx: tx}
		w.do("logs", func() error { return w.logs(p.Logs) })
		w.do("events", func() error { return w.events(p.Events, im.size, &next) })
		w.do("kept events", func() error { return w.kept(p.Kept) })
		w.do("ids of events", func() error { return w.ids(p.IDs) })
		w.do("matched positions", func() error { return w.matched(p.Matched) })
		w.do("lanes", func() error { return w.lanes(p.Lanes) })
		w.do("records", func() error { return w.records(p.Records) })
		w.do("how far it is", func() error {
			return im.update(ctx, tx, "UPDATE eventhose.copies SET position = $1, events = $2, part_bytes = $3 WHERE finished IS NULL", next.position, next.events, next.partBytes)
		})
		return w.err
	})
	if err != nil {
		return failure("copy", err)
	}
	im.state = next
	return nil
}

// partWriter writes one part. After the first error it does nothing.
type partWriter struct {
	ctx context.Context
	tx  pgx.Tx
	err error
}

func (w *partWriter) do(what string, f func() error) {
	if w.err != nil {
		return
	}
	if err := f(); err != nil {
		w.err = fmt.Errorf("write %s: %w", what, err)
	}
}

// copy writes n rows of a table.
func (w *partWriter) copy(table string, columns []string, n int, row func(i int) []any) error {
	if n == 0 {
		return nil
	}
	_, err := w.tx.CopyFrom(w.ctx, pgx.Identifier{"eventhose", table}, columns, pgx.CopyFromSlice(n, func(i int) ([]any, error) { return row(i), nil }))
	return err
}

// logs makes logs. One that is there already is one that was known before it had a row of its own.
func (w *partWriter) logs(logs []store.LogHead) error {
	if len(logs) == 0 {
		return nil
	}
	var tenants, forks []string
	var incarnations, firsts, lasts, bytes []int64
	for i := range logs {
		h := &logs[i].Head
		told, err := json.Marshal(h.Forks)
		if err != nil {
			return err
		}
		if len(h.Forks) == 0 {
			told = []byte("[]")
		}
		tenants, forks = append(tenants, string(logs[i].Tenant)), append(forks, string(told))
		incarnations, firsts = append(incarnations, int64(h.Incarnation)), append(firsts, signed(h.First))
		lasts, bytes = append(lasts, signed(h.Last)), append(bytes, logs[i].Bytes)
	}
	_, err := w.tx.Exec(w.ctx, `INSERT INTO eventhose.logs (tenant, incarnation, first, last, bytes, forks)
		SELECT x.tenant, x.incarnation, x.first, x.last, x.bytes, x.forks::jsonb
		FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[]) AS x(tenant, incarnation, first, last, bytes, forks)
		ON CONFLICT (tenant) DO NOTHING`, tenants, incarnations, firsts, lasts, bytes, forks)
	return err
}

var eventCopyColumns = []string{"part", "nanos", "erased", "seq", "random", "origin_seq", "time", "appended", "tenant", "id", "scope", "type", "key", "version", "content_type",
	"attributes", "origin_tenant", "data"}

// events puts events into the open partition of class 0, or a new one if it has enough of them.
func (w *partWriter) events(events []store.StoredEvent, size int64, st *importState) error {
	if len(events) == 0 {
		return nil
	}
	part, err := w.partition(st.partBytes >= size)
	if err != nil {
		return err
	}
	if st.partBytes >= size {
		st.partBytes = 0
	}
	var tenants []string
	var firsts []int64
	for i := range events {
		e := events[i].Event
		if n := len(tenants); n == 0 || tenants[n-1] != string(e.Tenant) {
			tenants, firsts = append(tenants, string(e.Tenant)), append(firsts, signed(e.Sequence))
		}
		st.partBytes += int64(len(e.Data)) + rowOverhead
	}
	if _, err := w.tx.Exec(w.ctx, `INSERT INTO eventhose.spans (tenant, first, part) SELECT x.tenant, x.first, $3 FROM unnest($1::text[], $2::bigint[]) AS x(tenant, first)
		WHERE NOT EXISTS (SELECT FROM eventhose.logs l WHERE l.tenant = x.tenant AND l.part = $3)`, tenants, firsts, part); err != nil {
		return err
	}
	if _, err := w.tx.Exec(w.ctx, "UPDATE eventhose.logs SET part = $2 WHERE tenant = ANY ($1) AND part <> $2", tenants, part); err != nil {
		return err
	}
	err = w.copy(fmt.Sprintf("events_%d", part), eventCopyColumns, len(events), func(i int) []any { return eventValues(part, &events[i], false) })
	if err != nil {
		return fmt.Errorf("from %d of log %s: %w", events[0].Event.Sequence, events[0].Event.Tenant, err)
	}
	return w.remember(events, false)
}

// rowOverhead is about what an event takes beside its data, in bytes, so that a log of very small ones fills partitions, too.
const rowOverhead = 200

// partition answers the partition that takes events, another one than before if that is full.
func (w *partWriter) partition(full bool) (part int32, err error) {
	if _, err := w.tx.Exec(w.ctx, "SELECT pg_advisory_xact_lock($1)", int64(upkeepLock)+1); err != nil {
		return 0, err
	}
	err = w.tx.QueryRow(w.ctx, "SELECT max(part) FROM eventhose.partitions WHERE class = 0 AND closed IS NULL").Scan(&part)
	if err != nil || !full {
		return part, err
	}
	before := part
	if err := w.tx.QueryRow(w.ctx, "SELECT eventhose._open_partition(0::smallint)").Scan(&part); err != nil {
		return 0, err
	}
	_, err = w.tx.Exec(w.ctx, "UPDATE eventhose.partitions SET closed = now() WHERE part = $1", before)
	return part, err
}

// eventValues are those of eventCopyColumns. A kept event has its own data, whichever log it is from.
func eventValues(part int32, s *store.StoredEvent, kept bool) []any {
	e := s.Event
	id, random, made := identity(s)
	var text, originTenant, attributes *string
	var originSeq *int64
	if !made {
		text = &id
	}
	data := e.Data
	if data == nil {
		data = []byte{}
	}
	if e.Origin.Tenant != "" {
		tenant, seq := string(e.Origin.Tenant), signed(e.Origin.Sequence)
		originTenant, originSeq = &tenant, &seq
		if !kept {
			data = nil
		}
	}
	if len(e.Attributes) > 0 {
		b, _ := json.Marshal(e.Attributes) // a map of texts
		a := string(b)
		attributes = &a
	}
	at := e.Time.UTC()
	return []any{part, int16(at.Nanosecond() % 1000), e.Erased, signed(e.Sequence), int64(random), originSeq, at.Truncate(time.Microsecond), e.Appended, string(e.Tenant), text,
		e.Scope, e.Type, e.Key, e.Version, e.ContentType, attributes, originTenant, data}
}

// identity answers an event's id in its own log, or what is random in one that was made. A place in a parent's log has the id of the event
// that it stands for, of which only the text is known: one that says where that event is was made, or may as well have been.
func identity(s *store.StoredEvent) (id string, random uint64, made bool) {
	e := s.Event
	if e.Origin.Tenant == "" {
		return e.ID, s.Random, s.Made
	}
	id = strings.TrimPrefix(e.ID, string(e.Origin.Tenant)+"/")
	if seq, ok := eventhose.EventIDSequence(id); ok && seq == e.Origin.Sequence {
		random, made = eventhose.EventIDRandom(id)
	}
	return id, random, made
}

// kept puts events aside, and remembers the ids by which they are found. Those do not count as used: they are below the floor.
func (w *partWriter) kept(events []store.StoredEvent) error {
	err := w.copy("kept_events", eventCopyColumns, len(events), func(i int) []any { return eventValues(0, &events[i], true) })
	if err != nil {
		return err
	}
	return w.remember(events, true)
}

// remember makes events found by their ids that have no remembered one: places in parents' logs, and kept events. Of several with one
// id the newest is found.
func (w *partWriter) remember(events []store.StoredEvent, kept bool) error {
	of := map[idKey]*eventhose.Event{}
	for i := range events {
		s := &events[i]
		id, random, made := identity(s)
		switch e := s.Event; {
		case e.Origin.Tenant != "":
			if made {
				id = ""
			}
			of[placeKey(e.Tenant, e.Origin.Tenant, e.Scope, id, random)] = e
		case !made && kept:
			of[keyOf(ownID, e.Tenant, e.Scope, id)] = e
		}
	}
	if len(of) == 0 {
		return nil
	}
	keys := make([][16]byte, 0, len(of))
	for key := range of {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, compareKeys)
	tenants, seqs := make([]string, len(keys)), make([]int64, len(keys))
	for i, key := range keys {
		tenants[i], seqs[i] = string(of[key].Tenant), signed(of[key].Sequence)
	}
	_, err := w.tx.Exec(w.ctx, `INSERT INTO eventhose.event_ids (id, digest, seq, tenant) SELECT x.id, '00000000-0000-0000-0000-000000000000', x.seq, x.tenant
		FROM unnest($1::uuid[], $2::bigint[], $3::text[]) AS x(id, seq, tenant)
		ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, digest = excluded.digest WHERE event_ids.seq < excluded.seq`, keys, seqs, tenants)
	return err
}

func compareKeys(a, b [16]byte) int { return slices.Compare(a[:], b[:]) }

func (w *partWriter) ids(ids []store.RememberedID) error {
	type row struct {
		key [16]byte
		*store.RememberedID
	}
	rows := make([]row, len(ids))
	for i := range ids {
		rows[i] = row{ownKey(&ids[i]), &ids[i]}
	}
	slices.SortFunc(rows, func(a, b row) int { return compareKeys(a.key, b.key) })
	return w.copy("event_ids", []string{"id", "digest", "seq", "tenant"}, len(rows), func(i int) []any {
		return []any{rows[i].key, rows[i].Digest, signed(rows[i].Sequence), string(rows[i].Tenant)}
	})
}

func ownKey(id *store.RememberedID) [16]byte { return keyOf(ownID, id.Tenant, id.Scope, id.ID) }

func (w *partWriter) matched(tails []store.Tail) error {
	return w.copy("matched", []string{"tenant", "matched"}, len(tails), func(i int) []any { return []any{string(tails[i].Tenant), signed(tails[i].Matched)} })
}

func (w *partWriter) lanes(lanes []store.LaneChange) error {
	if len(lanes) == 0 {
		return nil
	}
	args := lanesOf(lanes)
	_, err := w.tx.Exec(w.ctx, numbered("SELECT eventhose._lanes("+marks(len(args))+")"), args...)
	return err
}

func (w *partWriter) records(records []store.Record) error {
	return w.copy("records", []string{"version", "expires", "tenant", "kind", "id", "value"}, len(records), func(i int) []any {
		r := &records[i]
		var expires *time.Time
		if !r.Expires.IsZero() {
			expires = &r.Expires
		}
		value := r.Value
		if value == nil {
			value = []byte{}
		}
		return []any{int64(r.Version), expires, string(r.Tenant), r.Kind, r.ID, value}
	})
}
