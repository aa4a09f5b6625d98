package app

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// A copy is read back in the way in which it will be read, from the first event to the last, and everything else after it. It costs about
// as long again as the copying, and nobody has to take our word for it.

const (
	// compareAtOnce is how many logs, or lanes, are compared at the same time.
	compareAtOnce = 4
	comparePage   = 500
)

// comparison compares what two stores hold.
type comparison struct {
	from  *embedded.Export
	to    *postgres.Import
	limit store.PartLimit
	tell  func(events int)

	mu       sync.Mutex
	events   int
	attempts int
	rows     postgres.Rows
}

// differs is what a comparison answers.
func differs(format string, args ...any) error {
	return &eventhose.Error{Code: eventhose.CodeInternal, Message: "the copy differs: " + fmt.Sprintf(format, args...),
		Fix: "the data directory is as it was; begin anew with an empty database, and report this if it happens again"}
}

func (c *comparison) all(ctx context.Context) error {
	c.tell(0)
	for position := []byte(nil); ; {
		part, err := c.from.Outline(ctx, position, c.limit)
		if err != nil {
			return err
		}
		if part == nil {
			break
		}
		position = part.Position
		if err := c.part(ctx, part); err != nil {
			return err
		}
	}
	got, err := c.to.Rows(ctx)
	if err != nil {
		return err
	}
	if got != c.rows {
		return differs("the database holds %+v, and should %+v", got, c.rows)
	}
	return nil
}

func (c *comparison) part(ctx context.Context, part *store.Part) error {
	c.rows.Logs += len(part.Logs)
	c.rows.Kept += len(part.Kept)
	c.rows.Matched += len(part.Matched)
	c.rows.Lanes += len(part.Lanes)
	c.rows.Records += len(part.Records)
	return errors.Join(
		atOnce(len(part.Logs), func(i int) error { return c.log(ctx, part.Logs[i].Tenant) }),
		c.ids(ctx, part.IDs),
		atOnce(len(part.Kept), func(i int) error { return c.kept(ctx, part.Kept[i].Event) }),
		atOnce(len(part.Matched), func(i int) error { return c.matched(ctx, part.Matched[i]) }),
		atOnce(len(part.Lanes), func(i int) error { return c.lane(ctx, part.Lanes[i].Lane.LaneRef) }),
		c.silent(ctx, part),
		c.records(ctx, part.Records))
}

// atOnce calls f for 0 to n-1, a few at the same time, and none after one has failed. It answers the error of the lowest that failed.
func atOnce(n int, f func(i int) error) error {
	var workers sync.WaitGroup
	var mu sync.Mutex
	next, failed := 0, error(nil)
	failedAt := n
	for range min(n, compareAtOnce) {
		workers.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				stop := i >= n || failed != nil
				mu.Unlock()
				if stop {
					return
				}
				err := f(i)
				mu.Lock()
				if err != nil && i < failedAt {
					failed, failedAt = err, i
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return failed
}

// count adds to what was compared.
func (c *comparison) count(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// head compares heads.
func (c *comparison) head(ctx context.Context, tenant eventhose.TenantID) (eventhose.Head, error) {
	want, err := c.from.Head(ctx, tenant)
	if err != nil {
		return want, fmt.Errorf("read the head of log %s: %w", tenant, err)
	}
	got, err := c.to.Head(ctx, tenant)
	if err != nil {
		return want, fmt.Errorf("read the head of the copy of log %s: %w", tenant, err)
	}
	if got.Incarnation != want.Incarnation || got.First != want.First || got.Last != want.Last || !slices.Equal(got.Forks, want.Forks) {
		return want, differs("the head of log %s is %+v, and should be %+v", tenant, got, want)
	}
	return want, nil
}

// log compares all events of a log, by their number and a SHA-256 over all of them.
func (c *comparison) log(ctx context.Context, tenant eventhose.TenantID) error {
	head, err := c.head(ctx, tenant)
	if err != nil {
		return err
	}
	var want, got logSum
	var wantErr, gotErr error
	var both sync.WaitGroup
	both.Go(func() { want, wantErr = sumLog(ctx, c.from, tenant, head, func(int) {}) })
	both.Go(func() {
		got, gotErr = sumLog(ctx, c.to, tenant, head, func(n int) {
			c.count(func() {
				c.events += n
				c.tell(c.events)
			})
		})
	})
	both.Wait()
	switch {
	case wantErr != nil:
		return fmt.Errorf("read log %s: %w", tenant, wantErr)
	case gotErr != nil:
		return fmt.Errorf("read the copy of log %s: %w", tenant, gotErr)
	case got == want:
		return nil
	}
	seq, err := c.firstDifference(ctx, tenant, head)
	if err != nil {
		return err
	}
	return differs("log %s from sequence %d on: %d events with the sum %x, and should be %d with %x", tenant, seq, got.events, got.sum, want.events, want.sum)
}

// logSum is what a log is compared by.
type logSum struct {
	events int
	sum    [sha256.Size]byte
}

// sumLog reads a log from its first event to its last.
func sumLog(ctx context.Context, from store.Reading, tenant eventhose.TenantID, head eventhose.Head, read func(n int)) (s logSum, err error) {
	all := sha256.New()
	for after := head.First - 1; after < head.Last; {
		page, err := from.Read(ctx, tenant, after, store.ReadLimit{Events: comparePage, Bytes: 4 << 20})
		if err != nil {
			return s, err
		}
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			writeEvent(all, e)
		}
		after = page[len(page)-1].Sequence
		s.events += len(page)
		read(len(page))
	}
	all.Sum(s.sum[:0])
	return s, nil
}

// writeEvent writes all of an event, so that no two write the same.
func writeEvent(h hash.Hash, e *eventhose.Event) {
	var b []byte
	number := func(n uint64) { b = binary.BigEndian.AppendUint64(b, n) }
	text := func(s string) { number(uint64(len(s))); b = append(b, s...) }
	at := func(t time.Time) { number(uint64(t.Unix())); number(uint64(t.Nanosecond())) }
	number(uint64(e.Sequence))
	for _, s := range [...]string{string(e.Tenant), e.ID, e.Scope, e.Type, e.Key, e.Version, e.ContentType, string(e.Origin.Tenant)} {
		text(s)
	}
	number(uint64(e.Origin.Sequence))
	at(e.Time)
	at(e.Appended)
	number(uint64(len(e.Attributes)))
	for _, name := range slices.Sorted(maps.Keys(e.Attributes)) {
		text(name)
		text(e.Attributes[name])
	}
	if b = append(b, 0); e.Erased {
		b[len(b)-1] = 1
	}
	number(uint64(len(e.Data)))
	h.Write(b)
	h.Write(e.Data)
}

func sumEvent(e *eventhose.Event) [sha256.Size]byte {
	h := sha256.New()
	writeEvent(h, e)
	return [sha256.Size]byte(h.Sum(nil))
}

// firstDifference finds where two logs part.
func (c *comparison) firstDifference(ctx context.Context, tenant eventhose.TenantID, head eventhose.Head) (eventhose.Sequence, error) {
	limit := store.ReadLimit{Events: comparePage, Bytes: 4 << 20}
	for after := head.First - 1; after < head.Last; {
		want, err := c.from.Read(ctx, tenant, after, limit)
		if err != nil {
			return 0, fmt.Errorf("read log %s: %w", tenant, err)
		}
		got, err := c.to.Read(ctx, tenant, after, limit)
		if err != nil {
			return 0, fmt.Errorf("read the copy of log %s: %w", tenant, err)
		}
		n := min(len(want), len(got))
		for i := range n {
			if sumEvent(want[i]) != sumEvent(got[i]) {
				return want[i].Sequence, nil
			}
		}
		if after += eventhose.Sequence(n); n == 0 {
			return after + 1, nil
		}
	}
	return head.Last + 1, nil
}

// ids compares what is remembered under clients' ids.
func (c *comparison) ids(ctx context.Context, want []store.RememberedID) error {
	if len(want) == 0 {
		return nil
	}
	got, err := c.to.Remembered(ctx, want)
	if err != nil {
		return err
	}
	for i := range want {
		if got[i] != want[i] {
			return differs("log %s remembers the id of sequence %d otherwise", want[i].Tenant, want[i].Sequence)
		}
	}
	return nil
}

// kept compares an event of a parked sequence that its log no longer holds.
func (c *comparison) kept(ctx context.Context, e *eventhose.Event) error {
	ref := store.Ref{Sequence: e.Sequence}
	want, err := c.from.Lookup(ctx, e.Tenant, ref)
	if err != nil {
		return fmt.Errorf("read what is kept of sequence %d of log %s: %w", e.Sequence, e.Tenant, err)
	}
	got, err := c.to.Lookup(ctx, e.Tenant, ref)
	if errors.Is(err, store.ErrNotFound) {
		return differs("log %s does not keep the parked event of sequence %d", e.Tenant, e.Sequence)
	}
	if err != nil {
		return fmt.Errorf("read the copy of what is kept of sequence %d of log %s: %w", e.Sequence, e.Tenant, err)
	}
	if sumEvent(got) != sumEvent(want) {
		return differs("log %s keeps another parked event of sequence %d", e.Tenant, e.Sequence)
	}
	return nil
}

func (c *comparison) matched(ctx context.Context, want store.Tail) error {
	got, _, err := c.to.Lane(ctx, want.Tenant, "")
	if err != nil {
		return err
	}
	if got.Cursor != want.Matched {
		return differs("log %s is matched to %d, and should be to %d", want.Tenant, got.Cursor, want.Matched)
	}
	return nil
}

// silent compares the heads of logs without events.
func (c *comparison) silent(ctx context.Context, part *store.Part) error {
	tenants := slices.Compact(slices.Sorted(slices.Values(tenantsOf(part))))
	return atOnce(len(tenants), func(i int) error {
		_, err := c.head(ctx, tenants[i])
		return err
	})
}

// lane compares a lane and everything that hangs on it.
func (c *comparison) lane(ctx context.Context, ref store.LaneRef) error {
	want, wantKeys, err := c.from.Lane(ctx, ref.Tenant, ref.Subscription)
	if err != nil {
		return fmt.Errorf("read lane %s of %s: %w", ref.Subscription, ref.Tenant, err)
	}
	got, gotKeys, err := c.to.Lane(ctx, ref.Tenant, ref.Subscription)
	if errors.Is(err, store.ErrNotFound) {
		return differs("lane %s of %s is missing", ref.Subscription, ref.Tenant)
	}
	if err != nil {
		return fmt.Errorf("read the copy of lane %s of %s: %w", ref.Subscription, ref.Tenant, err)
	}
	byKey := func(a, b store.BlockedKey) int { return cmp.Compare(a.Key, b.Key) }
	slices.SortFunc(wantKeys, byKey)
	slices.SortFunc(gotKeys, byKey)
	if !reflect.DeepEqual(got, want) || !slices.Equal(gotKeys, wantKeys) {
		return differs("lane %s of %s has another row, or other blocked keys", ref.Subscription, ref.Tenant)
	}
	parked, err := compareLists(ctx, c, ref, func(r store.Reading, after *store.Parked) ([]store.Parked, error) {
		q := store.ParkedQuery{Limit: comparePage}
		if after != nil {
			q.After = after.Sequence
		}
		return r.Parked(ctx, ref.Tenant, ref.Subscription, q)
	}, func(p *store.Parked) string { return fmt.Sprintf("parked event %d", p.Sequence) })
	if err != nil {
		return err
	}
	attempts, err := compareLists(ctx, c, ref, func(r store.Reading, after *eventhose.Attempt) ([]eventhose.Attempt, error) {
		q := store.AttemptQuery{Subscription: ref.Subscription, Limit: comparePage}
		if after != nil {
			q.Before = after.ID
		}
		return r.Attempts(ctx, ref.Tenant, q)
	}, func(a *eventhose.Attempt) string { return "attempt " + a.ID })
	c.count(func() {
		c.rows.Blocked += len(wantKeys)
		c.rows.Parked += parked
		c.attempts += attempts
	})
	return err
}

// compareLists reads what hangs on a lane from both stores, page by page, and answers how many there are.
func compareLists[T any](ctx context.Context, c *comparison, ref store.LaneRef, page func(r store.Reading, after *T) ([]T, error), name func(*T) string) (int, error) {
	count := 0
	for last := (*T)(nil); ; {
		want, err := page(c.from, last)
		if err != nil {
			return 0, fmt.Errorf("read what hangs on lane %s of %s: %w", ref.Subscription, ref.Tenant, err)
		}
		got, err := page(c.to, last)
		if err != nil {
			return 0, fmt.Errorf("read the copy of what hangs on lane %s of %s: %w", ref.Subscription, ref.Tenant, err)
		}
		for i := range max(len(want), len(got)) {
			switch {
			case i >= len(got):
				return 0, differs("%s of lane %s of %s is missing", name(&want[i]), ref.Subscription, ref.Tenant)
			case i >= len(want):
				return 0, differs("%s of lane %s of %s should not be there", name(&got[i]), ref.Subscription, ref.Tenant)
			case !reflect.DeepEqual(got[i], want[i]):
				return 0, differs("%s of lane %s of %s is another", name(&want[i]), ref.Subscription, ref.Tenant)
			}
		}
		if count += len(want); len(want) == 0 {
			return count, ctx.Err()
		}
		last = &want[len(want)-1]
	}
}

func (c *comparison) records(ctx context.Context, want []store.Record) error {
	if len(want) == 0 {
		return nil
	}
	got, err := c.to.Records(ctx, want)
	if err != nil {
		return err
	}
	for i := range want {
		w, g := &want[i], &got[i]
		// The database counts in microseconds.
		if g.Version != w.Version || !bytes.Equal(g.Value, w.Value) || !g.Expires.Equal(w.Expires.Truncate(time.Microsecond)) {
			return differs("record %s %s of tenant %q has version %d, and should have %d, or holds something else", w.Kind, w.ID, w.Tenant, g.Version, w.Version)
		}
	}
	return nil
}
