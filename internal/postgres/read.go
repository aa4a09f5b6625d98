package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// eventColumns is what scanEvent reads, of a table e.
const eventColumns = `e.seq, e.id, e.random, e.scope, e.type, e.key, e.time, e.nanos, e.appended, e.version, e.content_type, e.attributes, e.data, e.erased, e.origin_tenant, e.origin_seq`

// eventRow is a row of events.
type eventRow struct {
	seq, random  int64
	id           pgtype.Text
	texts        [5]string // scope, type, key, version, content type
	at, appended time.Time
	nanos        int16
	attributes   []byte
	data         []byte
	erased       bool
	originTenant pgtype.Text
	originSeq    pgtype.Int8
}

func (e *eventRow) into() []any {
	return []any{&e.seq, &e.id, &e.random, &e.texts[0], &e.texts[1], &e.texts[2], &e.at, &e.nanos, &e.appended, &e.texts[3], &e.texts[4], &e.attributes, &e.data, &e.erased, &e.originTenant, &e.originSeq}
}

// event makes the event of a row. The row is of no further use.
func (e *eventRow) event(tenant tenantID) (*eventhose.Event, error) {
	ev := &eventhose.Event{Tenant: tenant, Sequence: sequence(e.seq), Scope: e.texts[0], Type: e.texts[1], Key: e.texts[2], Version: e.texts[3], ContentType: e.texts[4],
		Time: store.EventTime(e.at.UTC().Add(time.Duration(e.nanos))), Appended: e.appended.UTC(), Erased: e.erased}
	if len(e.attributes) > 0 {
		if err := json.Unmarshal(e.attributes, &ev.Attributes); err != nil {
			return nil, corrupt(fmt.Sprintf("attributes of event %d of %s", ev.Sequence, tenant), err)
		}
	}
	if len(e.data) > 0 || e.data != nil && e.originTenant.Valid { // a kept place with data of its own is told by it, even if that is empty
		ev.Data = e.data
	}
	made := ev.Sequence
	if e.originTenant.Valid {
		ev.Origin = eventhose.Origin{Tenant: tenantID(e.originTenant.String), Sequence: sequence(e.originSeq.Int64)}
		made = ev.Origin.Sequence
	}
	if ev.ID = e.id.String; !e.id.Valid {
		ev.ID = eventhose.EventID(made, uint64(e.random))
	}
	if ev.Origin.Tenant != "" {
		ev.ID = string(ev.Origin.Tenant) + "/" + ev.ID
	}
	return ev, nil
}

// signed answers a sequence as the database has it: what is beyond its numbers is beyond every log.
func signed(seq sequence) int64 { return int64(min(uint64(seq), math.MaxInt64-1)) }

// Head implements store.Log.
func (s *Store) Head(ctx context.Context, tenant tenantID) (eventhose.Head, error) {
	if err := s.begin(ctx); err != nil {
		return eventhose.Head{}, err
	}
	defer s.end()
	const statement = "SELECT incarnation, first, last, forks FROM eventhose.logs WHERE tenant = $1"
	var h eventhose.Head
	var forks []byte
	err := s.row(ctx, "read the head", statement, []any{string(tenant)}, &h.Incarnation, &h.First, &h.Last, &forks)
	if errors.Is(err, errNoRow) { // a cursor of an empty log, too, names its incarnation: retention may overtake whoever has it
		if err := s.makeLogs(ctx, []string{string(tenant)}); err != nil {
			return eventhose.Head{}, err
		}
		err = s.row(ctx, "read the head", statement, []any{string(tenant)}, &h.Incarnation, &h.First, &h.Last, &forks)
	}
	if err == nil && string(forks) != "[]" {
		err = json.Unmarshal(forks, &h.Forks)
	}
	return h, err
}

// Read implements store.Log.
func (s *Store) Read(ctx context.Context, tenant tenantID, after sequence, limit store.ReadLimit) ([]*eventhose.Event, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	if events := s.recent.read(tenant, after, limit, time.Now()); len(events) > 0 {
		return events, nil
	}
	part, _, ok := s.spans.find(tenant, after+1)
	for looks := 0; ; {
		if !ok {
			of, err := s.loadSpans(ctx, tenant)
			if err != nil {
				return nil, err
			}
			looks++
			if part, _, ok = locate(of, after+1); !ok && len(of) == 0 {
				return nil, nil // an empty log
			}
			if !ok { // it begins later, so what was asked for is trimmed
				part = of[0].part
			}
		}
		events, last, err := s.readPart(ctx, tenant, after, part, limit)
		switch {
		case looks < maxLooks && (state(err) == stateUndefined || err == nil && len(events) == 0 && last > after && limit.Events > 0):
			ok = false // the log has gone on elsewhere, or its events were carried there
		case err != nil:
			return nil, failure("read the log", err)
		default:
			return s.resolve(ctx, events, limit.Bytes)
		}
	}
}

// maxLooks is how often a log's events are looked for while they are carried from partition to partition.
const maxLooks = 5

// readPart reads from one partition, and answers the log's last sequence.
func (s *Store) readPart(ctx context.Context, tenant tenantID, after sequence, part int32, limit store.ReadLimit) (events []*eventhose.Event, last sequence, err error) {
	// The page ends before the event with which its sizes would be more than the bytes asked for. Data is only fetched of what is within.
	// A log that has none there answers one row without an event.
	statement := fmt.Sprintf(`SELECT l.first, l.last, %s FROM eventhose.logs l LEFT JOIN LATERAL (
		SELECT * FROM (SELECT x.*, sum(%d + coalesce(octet_length(x.data), 0) +
			octet_length(concat(x.id, x.scope, x.type, x.key, x.version, x.content_type, x.attributes, x.origin_tenant))) OVER (ORDER BY x.seq) AS size FROM
			(SELECT * FROM eventhose.events_%d WHERE tenant = $1 AND seq > $2 ORDER BY seq LIMIT $3) x) y
		WHERE y.size <= $4 OR y.seq = $2 + 1) e ON l.first <= $2 + 1 WHERE l.tenant = $1`, eventColumns, (&eventhose.Event{}).Size(), part)
	first, next := sequence(1), after
	var row eventRow
	into := append([]any{&first, &last}, row.into()...)
	err = s.query(ctx, "read the log", statement, []any{string(tenant), signed(after), limit.Events, int64(limit.Bytes)},
		func() { events, next = nil, after }, func(r pgx.Rows) error {
			if r.RawValues()[2] == nil {
				return r.Scan(append([]any{&first, &last}, make([]any, len(into)-2)...)...)
			}
			row.data, row.attributes = nil, nil
			if err := r.Scan(into...); err != nil {
				return err
			}
			// A partition may hold a later piece of the log than the one after this: the rest is elsewhere.
			if next++; sequence(row.seq) != next {
				return nil
			}
			e, err := row.event(tenant)
			events = append(events, e)
			return err
		})
	if err == nil && first > after+1 {
		err = store.ErrTrimmed
	}
	return events, last, err
}

// elsewhere reports whether an event's data is that of another log's event.
func elsewhere(e *eventhose.Event) bool { return e.Origin.Tenant != "" && !e.Erased && e.Data == nil }

// resolve puts in the data of those of a page's events that stand for another log's, and answers the page up to the first for which that would
// be more than the bytes given; one is answered in any case. Those whose event is gone read as erased.
func (s *Store) resolve(ctx context.Context, events []*eventhose.Event, bytes int) ([]*eventhose.Event, error) {
	var left []*eventhose.Event
	var cut sequence // the first one without its data, 0 if there is none
	for _, e := range events {
		if elsewhere(e) {
			left = append(left, e)
		}
	}
	before := map[*eventhose.Event]int32{}
	for looks := 0; len(left) > 0; looks++ {
		parts, err := s.partsOf(ctx, left)
		if err != nil {
			return nil, err
		}
		// What was not found where it was said to be may have been carried elsewhere; if it is still said to be there, it is gone.
		byPart := map[int32][]*eventhose.Event{}
		for i, e := range left {
			if last, looked := before[e]; looked && last == parts[i] || looks == maxLooks {
				e.Erased = true
				continue
			}
			before[e] = parts[i]
			byPart[parts[i]] = append(byPart[parts[i]], e)
		}
		left = left[:0:0]
		for part, some := range byPart {
			if part > 0 {
				// Partition by partition, since a plan over all of them opens all of them.
				if some, err = s.origins(ctx, some, fmt.Sprintf("eventhose.events_%d", part), bytes, &cut); err != nil {
					return nil, err
				}
			}
			// Only then: before a partition goes, what is kept of it is kept aside.
			if some, err = s.origins(ctx, some, "eventhose.kept_events", bytes, &cut); err != nil {
				return nil, err
			}
			left = append(left, some...)
		}
		slices.SortFunc(left, func(a, b *eventhose.Event) int { return cmp.Compare(a.Sequence, b.Sequence) })
	}
	if cut > 0 {
		events = events[:cut-events[0].Sequence]
	}
	return events, nil
}

// partsOf answers which partitions the events are in that others stand for, 0 if in none.
func (s *Store) partsOf(ctx context.Context, events []*eventhose.Event) (parts []int32, err error) {
	tenants, seqs := originsOf(events)
	err = s.query(ctx, "read where events are", `SELECT coalesce(eventhose._part(o.tenant, o.seq), 0) FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS o(tenant, seq, n) ORDER BY o.n`,
		[]any{tenants, seqs}, func() { parts = nil }, func(r pgx.Rows) error {
			var part int32
			err := r.Scan(&part)
			parts = append(parts, part)
			return err
		})
	return parts, err
}

func originsOf(events []*eventhose.Event) (tenants []string, seqs []int64) {
	for _, e := range events {
		tenants, seqs = append(tenants, string(e.Origin.Tenant)), append(seqs, signed(e.Origin.Sequence))
	}
	return tenants, seqs
}

// origins puts in the data of those events whose origins are in a table, and answers the others. Where the data is more than the bytes
// given the rest is left without; cut is then at most where that begins.
func (s *Store) origins(ctx context.Context, events []*eventhose.Event, table string, bytes int, cut *sequence) (missing []*eventhose.Event, err error) {
	if len(events) == 0 {
		return nil, nil
	}
	tenants, seqs := originsOf(events)
	found := make([]bool, len(events))
	err = s.query(ctx, "read the data of connected tenants' events", `SELECT n, CASE WHEN NOT beyond THEN data END, erased, beyond FROM (
		SELECT o.n, e.data, e.erased, o.n > 1 AND sum(coalesce(octet_length(e.data), 0)) OVER (ORDER BY o.n) > $3 AS beyond
		FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS o(tenant, seq, n)
		JOIN `+table+` e ON e.tenant = o.tenant AND e.seq = o.seq WHERE eventhose._visible(o.tenant, o.seq)) x`, []any{tenants, seqs, int64(bytes)}, func() {}, func(r pgx.Rows) error {
		var n int
		var data []byte
		var erased, beyond bool
		if err := r.Scan(&n, &data, &erased, &beyond); err != nil {
			return err
		}
		found[n-1] = true
		if at := events[n-1].Sequence; beyond && (*cut == 0 || at < *cut) {
			*cut = at
		}
		if events[n-1].Erased = erased; !erased && len(data) > 0 {
			events[n-1].Data = data
		}
		return nil
	})
	if err != nil && state(err) != stateUndefined { // dropped meanwhile
		return nil, err
	}
	for i, e := range events {
		if !found[i] {
			missing = append(missing, e)
		}
	}
	return missing, nil
}

// Lookup implements store.Log.
func (s *Store) Lookup(ctx context.Context, tenant tenantID, ref store.Ref) (*eventhose.Event, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	if ref.Sequence > 0 {
		return s.at(ctx, tenant, ref.Sequence)
	}
	if !isText(ref.Scope) || !isText(ref.ID) {
		return nil, store.ErrNotFound
	}
	for _, key := range lookupKeys(tenant, ref) {
		var seq sequence
		err := s.row(ctx, "look up an id", "SELECT seq FROM eventhose.event_ids WHERE id = $1", []any{[16]byte(key)}, &seq)
		if errors.Is(err, errNoRow) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if e, err := s.named(ctx, tenant, ref, seq); !errors.Is(err, store.ErrNotFound) {
			return e, err
		}
	}
	if seq, ok := eventhose.EventIDSequence(ref.ID); ok {
		if e, err := s.named(ctx, tenant, ref, seq); !errors.Is(err, store.ErrNotFound) {
			return e, err
		}
	}
	return s.parkedNamed(ctx, tenant, ref)
}

// lookupKeys are what an id may be remembered by: as a client's, or as that of a place in a parent's log.
func lookupKeys(tenant tenantID, ref store.Ref) []idKey {
	keys := []idKey{keyOf(ownID, tenant, ref.Scope, ref.ID)}
	child, id, ok := strings.Cut(ref.ID, "/")
	if !ok {
		return keys
	}
	if b, made := eventhose.EventIDRandom(id); made {
		keys = append(keys, placeKey(tenant, tenantID(child), "", "", b))
	}
	return append(keys, placeKey(tenant, tenantID(child), ref.Scope, id, 0))
}

// named answers the event at a place if it is the one that was asked for.
func (s *Store) named(ctx context.Context, tenant tenantID, ref store.Ref, seq sequence) (*eventhose.Event, error) {
	e, err := s.at(ctx, tenant, seq)
	if err == nil && (e.ID != ref.ID || e.Scope != ref.Scope) {
		return nil, store.ErrNotFound
	}
	return e, err
}

// at answers the event at a place, ErrNotFound if there is none.
func (s *Store) at(ctx context.Context, tenant tenantID, seq sequence) (*eventhose.Event, error) {
	var gone *eventhose.Event
	for _, table := range [...]string{"eventhose.events e WHERE e.part = eventhose._part($1, $2) AND", "eventhose.kept_events e WHERE"} {
		var row eventRow
		err := s.row(ctx, "look up an event", "SELECT "+eventColumns+" FROM "+table+" e.tenant = $1 AND e.seq = $2 AND eventhose._visible($1, $2)",
			[]any{string(tenant), signed(seq)}, row.into()...)
		if errors.Is(err, errNoRow) {
			continue
		}
		if err != nil {
			return nil, err
		}
		e, err := row.event(tenant)
		if err != nil {
			return nil, err
		}
		if row.data != nil { // also of a place that is kept aside: its event may be gone
			return e, nil
		}
		if _, err := s.resolve(ctx, []*eventhose.Event{e}, 0); err != nil || !e.Erased {
			return e, err
		}
		gone = e
	}
	if gone == nil {
		return nil, store.ErrNotFound
	}
	return gone, nil
}

// parkedNamed looks for an id among the parked events that were trimmed: a newer event may have had it since, and be gone.
func (s *Store) parkedNamed(ctx context.Context, tenant tenantID, ref store.Ref) (*eventhose.Event, error) {
	var seqs []sequence
	err := s.query(ctx, "look up a parked event", `SELECT DISTINCT p.seq FROM eventhose.parked p JOIN eventhose.logs l ON l.tenant = p.tenant AND p.seq < l.first
		LEFT JOIN eventhose.events e ON e.part = eventhose._part(p.tenant, p.seq) AND e.tenant = p.tenant AND e.seq = p.seq
		LEFT JOIN eventhose.kept_events k ON k.tenant = p.tenant AND k.seq = p.seq
		WHERE p.tenant = $1 AND coalesce(e.scope, k.scope) = $2 AND coalesce(e.origin_tenant || '/', k.origin_tenant || '/', '') || coalesce(e.id, k.id) = $3 ORDER BY p.seq DESC`,
		[]any{string(tenant), ref.Scope, ref.ID}, func() { seqs = nil }, func(r pgx.Rows) error {
			var seq sequence
			err := r.Scan(&seq)
			seqs = append(seqs, seq)
			return err
		})
	if err != nil {
		return nil, err
	}
	for _, seq := range seqs {
		if e, err := s.named(ctx, tenant, ref, seq); !errors.Is(err, store.ErrNotFound) {
			return e, err
		}
	}
	return nil, store.ErrNotFound
}

// Erase implements store.Log.
func (s *Store) Erase(ctx context.Context, tenant tenantID, seq sequence) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	ctx, cancel := write(ctx)
	defer cancel()
	var there bool
	if err := s.row(ctx, "erase data", "SELECT eventhose._erase($1, $2)", []any{string(tenant), signed(seq)}, &there); err != nil {
		return err
	}
	s.recent.leave(tenant)
	if !there {
		return store.ErrNotFound
	}
	s.tell(hint{kind: hintErased, tenant: tenant, sequence: seq})
	return nil
}

// Trim implements store.Log.
func (s *Store) Trim(ctx context.Context, tenant tenantID, t store.Trim) (store.Trimmed, error) {
	if err := s.begin(ctx); err != nil {
		return store.Trimmed{}, err
	}
	defer s.end()
	if err := s.classify(ctx, tenant, t); err != nil {
		return store.Trimmed{}, err
	}
	lost, err := s.lose(ctx, tenant, t.Lose)
	if err != nil {
		return store.Trimmed{}, err
	}
	sum := store.Trimmed{Lost: lost}
	for try := 0; ; {
		done, err := s.trimStep(ctx, tenant, t)
		if state(err) == stateUndefined && try < retries { // a partition was dropped that all events were carried out of
			try++
			continue
		}
		if err != nil {
			return sum, err
		}
		sum.First, sum.Over = done.First, done.Over
		sum.Removed += done.Removed
		sum.Bytes += done.Bytes
		// What is aside beyond the quota is told of before more comes to it.
		if done.Removed < maxStep || len(sum.Over) > 0 || ctx.Err() != nil {
			return sum, ctx.Err()
		}
	}
}

// maxStep is how many events are trimmed by one statement. That is few enough for those that lie scattered on a slow disk.
const maxStep = 10_000

func (s *Store) trimStep(ctx context.Context, tenant tenantID, t store.Trim) (done store.Trimmed, err error) {
	ctx, cancel := write(ctx)
	defer cancel()
	var before *time.Time
	if !t.Before.IsZero() {
		before = &t.Before
	}
	err = s.row(ctx, "trim the log", "SELECT o_first, o_removed, o_bytes FROM eventhose._trim_log($1, $2, $3, $4)",
		[]any{string(tenant), before, t.Bytes, maxStep}, &done.First, &done.Removed, &done.Bytes)
	if done.Removed > 0 || err != nil {
		s.recent.leave(tenant)
	}
	if err == nil {
		done.Over, err = s.parkedOf(ctx, "look for parked events beyond the quota", "SELECT o_sub, o_seq FROM eventhose._over($1, $2)", string(tenant), t.Keep)
	}
	return done, err
}

// lose removes parked rows of events that the log no longer holds, and answers those that were there.
func (s *Store) lose(ctx context.Context, tenant tenantID, all []store.LostParked) ([]store.LostParked, error) {
	if len(all) == 0 {
		return nil, nil
	}
	ctx, cancel := write(ctx)
	defer cancel()
	subs, seqs := make([]string, len(all)), make([]int64, len(all))
	for i, p := range all {
		subs[i], seqs[i] = string(p.Subscription), signed(p.Sequence)
	}
	return s.parkedOf(ctx, "remove parked events", "SELECT o_sub, o_seq FROM eventhose._lose($1, $2, $3)", string(tenant), subs, seqs)
}

func (s *Store) parkedOf(ctx context.Context, doing, statement string, args ...any) (all []store.LostParked, err error) {
	err = s.query(ctx, doing, statement, args, func() { all = nil }, func(r pgx.Rows) error {
		var p store.LostParked
		err := r.Scan(&p.Subscription, &p.Sequence)
		all = append(all, p)
		return err
	})
	return all, err
}
