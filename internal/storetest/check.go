package storetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// Check asks the store for everything that the script may have written and answers the first difference from the
// model, or nil. lookups bounds how many events of each log are also looked up by place and by id. Below 0 it looks up all
// of them and asks for everything in every way there is. With 0 it takes a sample of records and of what hangs on lanes.
func (s *Script) Check(ctx context.Context, st store.Store, lookups int) error {
	for _, tenant := range s.tenants() {
		if err := s.checkLog(ctx, st, tenant, lookups); err != nil {
			return fmt.Errorf("log of %s: %w", tenant, err)
		}
		for _, sub := range s.subs() {
			if err := s.checkLane(ctx, st, store.LaneRef{Tenant: tenant, Subscription: sub}, lookups < 0 || s.chance(15), lookups == 0 && s.chance(40)); err != nil {
				return fmt.Errorf("lane %s of %s: %w", sub, tenant, err)
			}
		}
		if lookups < 0 || s.chance(15) {
			if err := s.checkEverywhere(ctx, st, tenant); err != nil {
				return fmt.Errorf("lanes of %s: %w", tenant, err)
			}
		}
	}
	page := 100
	if lookups < 0 || s.chance(15) {
		page = 3
	}
	if err := s.checkWork(ctx, st, page); err != nil {
		return fmt.Errorf("work: %w", err)
	}
	if err := s.checkTails(ctx, st, page); err != nil {
		return fmt.Errorf("tails: %w", err)
	}
	for _, tenant := range append(s.tenants(), "") {
		for _, kind := range s.kinds() {
			if lookups == 0 && s.chance(40) {
				continue
			}
			if err := s.checkRecords(ctx, st, tenant, kind, lookups < 0 || s.chance(15)); err != nil {
				return fmt.Errorf("records %s of tenant %q: %w", kind, tenant, err)
			}
		}
	}
	return nil
}

func (s *Script) checkLog(ctx context.Context, st store.Store, tenant eventhose.TenantID, lookups int) error {
	l := s.Model.log(tenant)
	h, err := st.Head(ctx, tenant)
	switch {
	case err != nil:
		return fmt.Errorf("head: %w", err)
	case h.First != l.first || h.Last != l.last:
		return fmt.Errorf("head is [%d,%d], want [%d,%d]", h.First, h.Last, l.first, l.last)
	case l.incarnation != 0 && h.Incarnation != l.incarnation:
		return fmt.Errorf("incarnation is %d, was %d", h.Incarnation, l.incarnation)
	}
	next := l.first
	for after := l.first - 1; ; {
		limit := store.ReadLimit{Events: 1000, Bytes: 1 << 20}
		if lookups < 0 {
			limit = store.ReadLimit{Events: 1 + s.n%97, Bytes: 1 << 16}
		}
		page, err := st.Read(ctx, tenant, after, limit)
		if err != nil {
			return fmt.Errorf("read after %d: %w", after, err)
		}
		for _, e := range page {
			if err := SameEvent(e, l.events[next]); err != nil {
				return fmt.Errorf("read, place %d: %w", next, err)
			}
			next++
		}
		if len(page) == 0 || lookups >= 0 && next > l.last {
			break
		}
		after = next - 1
	}
	if next != l.last+1 {
		return fmt.Errorf("read ends before %d, want to %d", next, l.last)
	}
	if l.first > 1 {
		if page, err := st.Read(ctx, tenant, l.first-2, store.ReadLimit{Events: 10, Bytes: 1 << 16}); !errors.Is(err, store.ErrTrimmed) {
			return fmt.Errorf("read of what was trimmed answered %d events and %v, want ErrTrimmed", len(page), err)
		}
	}
	places := sortedKeys(l.events)
	if lookups >= 0 && len(places) > lookups {
		s.shuffle(places, lookups)
		places = places[:lookups]
	}
	for _, seq := range append(places, sortedKeys(l.kept)...) {
		want := l.find(seq)
		if err := checkLookup(ctx, st, tenant, store.Ref{Sequence: seq}, want); err != nil {
			return err
		}
		if r, ok := l.ids[idKey{want.Scope, want.ID}]; ok && r.seq != seq {
			continue // a newer event has this id
		}
		if err := checkLookup(ctx, st, tenant, store.Ref{Scope: want.Scope, ID: want.ID}, want); err != nil {
			return err
		}
	}
	absent := []store.Ref{{Sequence: l.last + 1}, {ID: "client-0-0"}, {ID: eventhose.EventID(1, 12345)}}
	if l.first > 1 && l.kept[l.first-1] == nil {
		absent = append(absent, store.Ref{Sequence: l.first - 1})
	}
	if lookups >= 0 {
		absent = absent[s.src.IntN(len(absent)):][:1]
	}
	for _, ref := range absent {
		if e, err := st.Lookup(ctx, tenant, ref); !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("lookup of %+v answered %v and %v, want ErrNotFound", ref, e, err)
		}
	}
	return nil
}

func (s *Script) shuffle(places []eventhose.Sequence, n int) {
	for i := range min(n, len(places)-1) {
		j := i + s.src.IntN(len(places)-i)
		places[i], places[j] = places[j], places[i]
	}
}

func checkLookup(ctx context.Context, st store.Store, tenant eventhose.TenantID, ref store.Ref, want *eventhose.Event) error {
	got, err := st.Lookup(ctx, tenant, ref)
	if err == nil {
		err = SameEvent(got, want)
	}
	if err != nil {
		return fmt.Errorf("lookup of %+v: %w", ref, err)
	}
	return nil
}

// SameEvent answers what differs between an event that a store answered and the one that it should be, or nil. Times are compared as
// instants; no data and empty data are the same.
func SameEvent(got, want *eventhose.Event) error {
	if got == nil || want == nil {
		return fmt.Errorf("event is %v, want %v", got, want)
	}
	if !bytes.Equal(got.Data, want.Data) {
		return fmt.Errorf("data of event %q (erased %v) is %d bytes that differ from the %d (erased %v) that were appended", got.ID, got.Erased, len(got.Data), len(want.Data), want.Erased)
	}
	if !got.Time.Equal(want.Time) || !got.Appended.Equal(want.Appended) || !maps.Equal(got.Attributes, want.Attributes) ||
		got.ID != want.ID || got.Tenant != want.Tenant || got.Sequence != want.Sequence || got.Scope != want.Scope || got.Type != want.Type ||
		got.Key != want.Key || got.Version != want.Version || got.ContentType != want.ContentType || got.Erased != want.Erased || got.Origin != want.Origin {
		g, w := *got, *want
		g.Data, w.Data = nil, nil
		return fmt.Errorf("event is\n\t%+v, want\n\t%+v", g, w)
	}
	return nil
}

func (s *Script) checkLane(ctx context.Context, st store.Store, ref store.LaneRef, everyWay, rowOnly bool) error {
	want := s.Model.lanes[ref]
	row, keys, err := st.Lane(ctx, ref.Tenant, ref.Subscription)
	if want == nil {
		if !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("answered %+v and %v, want ErrNotFound", row, err)
		}
		if !everyWay {
			return nil
		}
		want = &laneModel{}
	} else if err != nil {
		return err
	} else if err := same("row", row, want.row); err != nil {
		return err
	}
	if !everyWay && rowOnly {
		return nil
	}
	slices.SortFunc(keys, func(a, b store.BlockedKey) int { return cmp.Compare(a.Key, b.Key) })
	if err := same("blocked keys", keys, sortedValues(want.blocked)); err != nil {
		return err
	}
	parked, states := sortedValues(want.parked), []eventhose.ParkedState{"", eventhose.ParkedDead, eventhose.ParkedRetrying}
	if !everyWay {
		states = states[:1]
	}
	for _, state := range states {
		of := slices.DeleteFunc(slices.Clone(parked), func(p store.Parked) bool { return state != "" && p.State != state })
		got, err := st.Parked(ctx, ref.Tenant, ref.Subscription, store.ParkedQuery{State: state, Limit: 1000})
		if err == nil {
			err = same("parked "+string(state), got, of)
		}
		if err == nil && len(of) > 1 && everyWay {
			got, err = st.Parked(ctx, ref.Tenant, ref.Subscription, store.ParkedQuery{State: state, After: of[0].Sequence, Limit: 1})
			if err == nil {
				err = same("second page of parked "+string(state), got, of[1:2])
			}
		}
		if err != nil {
			return err
		}
	}
	got, err := st.Attempts(ctx, ref.Tenant, store.AttemptQuery{Subscription: ref.Subscription, Limit: 1000})
	if err == nil {
		err = s.sameAttempts(ref.Tenant, got, want.attempts)
	}
	if err != nil {
		return fmt.Errorf("attempts: %w", err)
	}
	if !everyWay {
		return nil
	}
	return s.checkAttemptsOfEvent(ctx, st, ref, got)
}

// checkAttemptsOfEvent takes one event and asks for its attempts, at this subscription and at all, for those of it and some behind it,
// and for a second page.
func (s *Script) checkAttemptsOfEvent(ctx context.Context, st store.Store, ref store.LaneRef, listed []eventhose.Attempt) error {
	if len(listed) > 1 {
		got, err := st.Attempts(ctx, ref.Tenant, store.AttemptQuery{Subscription: ref.Subscription, Before: listed[0].ID, Limit: 1})
		if err == nil {
			err = same("second page of attempts", got, listed[1:2])
		}
		if err != nil {
			return err
		}
	}
	seq := s.place(ref.Tenant)
	if seq == 0 {
		return nil
	}
	through := seq + 20
	var here, all, near []eventhose.Attempt
	for _, sub := range s.subs() {
		lane := s.Model.lanes[store.LaneRef{Tenant: ref.Tenant, Subscription: sub}]
		if lane == nil {
			continue
		}
		for _, a := range lane.attempts {
			if slices.Contains(a.Sequences, seq) {
				all = append(all, a)
				if sub == ref.Subscription {
					here = append(here, a)
				}
			}
			if sub == ref.Subscription && slices.ContainsFunc(a.Sequences, func(at eventhose.Sequence) bool { return at >= seq && at <= through }) {
				near = append(near, a)
			}
		}
	}
	slices.SortFunc(all, func(a, b eventhose.Attempt) int { return cmp.Compare(a.ID, b.ID) })
	got, err := st.Attempts(ctx, ref.Tenant, store.AttemptQuery{Subscription: ref.Subscription, Sequence: seq, Through: through, Limit: 1000})
	if err == nil {
		err = s.sameAttempts(ref.Tenant, got, near)
	}
	if err != nil {
		return fmt.Errorf("attempts of events %d to %d at one: %w", seq, through, err)
	}
	got, err = st.Attempts(ctx, ref.Tenant, store.AttemptQuery{Subscription: ref.Subscription, Sequence: seq, Limit: 1000})
	if err == nil {
		err = s.sameAttempts(ref.Tenant, got, here)
	}
	if err != nil {
		return fmt.Errorf("attempts of event %d at one: %w", seq, err)
	}
	got, err = st.Attempts(ctx, ref.Tenant, store.AttemptQuery{Sequence: seq, Limit: 1000})
	if err == nil {
		err = s.sameAttempts(ref.Tenant, got, all)
	}
	if err != nil {
		return fmt.Errorf("attempts of event %d: %w", seq, err)
	}
	return nil
}

// checkEverywhere asks for the attempts, and for what is parked, of all of a tenant's lanes, page by page.
func (s *Script) checkEverywhere(ctx context.Context, st store.Store, tenant eventhose.TenantID) error {
	var attempts, tried []eventhose.Attempt
	var parked, aside []store.Parked
	for ref, lane := range s.Model.lanes {
		if ref.Tenant != tenant {
			continue
		}
		attempts = append(attempts, lane.attempts...)
		for _, p := range lane.parked {
			p.Subscription = ref.Subscription
			parked = append(parked, p)
		}
	}
	slices.SortFunc(attempts, func(a, b eventhose.Attempt) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(parked, func(a, b store.Parked) int {
		return cmp.Or(cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Subscription, b.Subscription))
	})
	for q := (store.AttemptQuery{Limit: 7}); ; {
		page, err := st.Attempts(ctx, tenant, q)
		if err != nil {
			return err
		}
		for _, a := range page {
			if q.Before != "" && a.ID >= q.Before {
				return fmt.Errorf("all attempts: %s comes after %s", a.ID, q.Before)
			}
			if q.Before = a.ID; a.Subscription != "" {
				tried = append(tried, a)
			}
		}
		if len(page) < q.Limit {
			break
		}
	}
	if err := s.sameAttempts(tenant, tried, attempts); err != nil {
		return fmt.Errorf("all attempts: %w", err)
	}
	for q := (store.ParkedQuery{Limit: 3}); ; {
		page, err := st.Parked(ctx, tenant, "", q)
		if err != nil {
			return err
		}
		for _, p := range page {
			aside = append(aside, p)
			q.After, q.AfterSubscription = p.Sequence, p.Subscription
		}
		if len(page) < q.Limit || len(aside) > len(parked) {
			break
		}
	}
	return same("all that is parked", aside, parked)
}

// sameAttempts compares newest first with oldest first. Attempts go with the events that they are about: those of
// events that all are left must be there, those of events that all are gone must not, in between both is right.
func (s *Script) sameAttempts(tenant eventhose.TenantID, got, want []eventhose.Attempt) error {
	l := s.Model.log(tenant)
	i := 0
	for _, w := range slices.Backward(want) {
		if i < len(got) && got[i].ID == w.ID {
			if err := same("attempt "+w.ID, got[i], w); err != nil {
				return err
			}
			if gone(w, func(seq eventhose.Sequence) bool { return l.find(seq) != nil }) {
				return fmt.Errorf("%s is still there, its events %v are not", w.ID, w.Sequences)
			}
			i++
		} else if !slices.ContainsFunc(w.Sequences, func(seq eventhose.Sequence) bool { return seq < l.first }) {
			return fmt.Errorf("%s of events %v is missing", w.ID, w.Sequences)
		}
	}
	if i < len(got) {
		return fmt.Errorf("%d unexpected or out of order, from %s", len(got)-i, got[i].ID)
	}
	return nil
}

func gone(a eventhose.Attempt, there func(eventhose.Sequence) bool) bool {
	return len(a.Sequences) > 0 && !slices.ContainsFunc(a.Sequences, there)
}

func (s *Script) mine(tenant eventhose.TenantID) bool {
	return strings.HasPrefix(string(tenant), s.name+"-")
}

func (s *Script) checkWork(ctx context.Context, st store.Store, limit int) error {
	var got, want []store.Lane
	for after := (store.LaneRef{}); ; {
		page, err := st.Work(ctx, after, limit)
		if err != nil {
			return err
		}
		for _, lane := range page {
			if s.mine(lane.Tenant) {
				got = append(got, lane)
			}
		}
		if len(page) == 0 || len(page) < limit && limit > 3 {
			break
		}
		if last := page[len(page)-1].LaneRef; compareRefs(last, after) <= 0 {
			return fmt.Errorf("the page after %v ends with %v", after, last)
		}
		after = page[len(page)-1].LaneRef
	}
	for _, lane := range s.Model.lanes {
		if lane.row.Behind || !lane.row.Due.IsZero() {
			want = append(want, lane.row)
		}
	}
	slices.SortFunc(want, func(a, b store.Lane) int { return compareRefs(a.LaneRef, b.LaneRef) })
	return same("lanes", got, want)
}

func compareRefs(a, b store.LaneRef) int {
	return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Subscription, b.Subscription))
}

func (s *Script) checkTails(ctx context.Context, st store.Store, limit int) error {
	var got, want []store.Tail
	for after := eventhose.TenantID(""); ; {
		page, err := st.Tails(ctx, after, limit)
		if err != nil {
			return err
		}
		for _, t := range page {
			if s.mine(t.Tenant) {
				got = append(got, t)
			}
		}
		if len(page) == 0 || len(page) < limit && limit > 3 {
			break
		}
		if last := page[len(page)-1].Tenant; last <= after {
			return fmt.Errorf("the page after %s ends with %s", after, last)
		}
		after = page[len(page)-1].Tenant
	}
	for tenant, l := range s.Model.logs {
		if l.last > l.matched {
			want = append(want, store.Tail{Tenant: tenant, Matched: l.matched, Last: l.last})
		}
	}
	slices.SortFunc(want, func(a, b store.Tail) int { return cmp.Compare(a.Tenant, b.Tenant) })
	return same("logs", got, want)
}

func (s *Script) checkRecords(ctx context.Context, st store.Store, tenant eventhose.TenantID, kind string, everyWay bool) error {
	var want []store.Record
	for key, r := range s.Model.records {
		if key.tenant == tenant && key.kind == kind {
			want = append(want, r)
		}
	}
	slices.SortFunc(want, func(a, b store.Record) int { return cmp.Compare(a.ID, b.ID) })
	var got []store.Record
	limit := 100
	if everyWay {
		limit = 4
	}
	for after := ""; ; {
		page, err := st.List(ctx, tenant, kind, after, limit)
		if err != nil {
			return err
		}
		got = append(got, page...)
		if len(page) == 0 || !everyWay {
			break
		}
		if page[len(page)-1].ID <= after {
			return fmt.Errorf("the page after %q ends with %q", after, page[len(page)-1].ID)
		}
		after = page[len(page)-1].ID
	}
	if err := same("list", got, want); err != nil || !everyWay {
		return err
	}
	id := "r" + strconv.Itoa(s.src.IntN(6))
	r, err := st.Record(ctx, tenant, kind, id)
	stored, ok := s.Model.records[recordKey{tenant, kind, id}]
	if ok && err == nil {
		return same("record "+id, r, stored)
	}
	if ok || !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("record %s answered %v, stored: %v", id, err, ok)
	}
	return nil
}

// MarkOf answers the greatest number of an operation whose effects a reader can see at one of the script's tenants, which
// goes round with turn. Whatever can be seen must be durable, so after a power cut no smaller one may come back.
func (s *Script) MarkOf(ctx context.Context, st store.Store, turn int) (mark int, err error) {
	see := func(n int) { mark = max(mark, n) }
	for _, tenant := range s.tenants()[turn%3:][:1] {
		h, err := st.Head(ctx, tenant)
		if err != nil {
			return mark, err
		}
		if h.Last >= h.First {
			page, err := st.Read(ctx, tenant, h.Last-1, store.ReadLimit{Events: 100, Bytes: 1 << 20})
			if errors.Is(err, store.ErrTrimmed) {
				continue // between Head and Read
			}
			if err != nil {
				return mark, err
			}
			if len(page) == 0 {
				return mark, fmt.Errorf("head of %s says %d, which cannot be read", tenant, h.Last)
			}
			for _, e := range page {
				see(markOf(e.Version))
			}
		}
		for _, sub := range s.subs() {
			row, _, err := st.Lane(ctx, tenant, sub)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return mark, err
			}
			see(row.Probes)
		}
		for _, kind := range s.kinds() {
			page, err := st.List(ctx, tenant, kind, "", 10)
			if err != nil {
				return mark, err
			}
			for _, r := range page {
				text, _, _ := strings.Cut(string(r.Value), " ")
				see(markOf(text))
			}
		}
	}
	return mark, nil
}

func markText(n int) string { return "op-" + strconv.Itoa(n) }

func markOf(text string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(text, "op-"))
	return n
}

// same compares by content: times by instant, nil as empty.
func same(what string, got, want any) error {
	if reflect.DeepEqual(got, want) {
		return nil
	}
	if g, w := canonical(got), canonical(want); g != w {
		return fmt.Errorf("%s is\n\t%s, want\n\t%s", what, g, w)
	}
	return nil
}

func canonical(v any) string {
	var b strings.Builder
	write(&b, reflect.ValueOf(v))
	return b.String()
}

var timeType = reflect.TypeFor[time.Time]()

func write(b *strings.Builder, v reflect.Value) {
	switch {
	case v.Type() == timeType:
		if t := v.Interface().(time.Time); t.IsZero() {
			b.WriteString("never")
		} else {
			b.WriteString(t.UTC().Format(time.RFC3339Nano))
		}
	case v.Kind() == reflect.Struct:
		b.WriteByte('{')
		for i := range v.NumField() {
			f := v.Field(i)
			if empty := (f.Kind() == reflect.Slice || f.Kind() == reflect.Map) && f.Len() == 0; !f.IsZero() && !empty {
				b.WriteString(v.Type().Field(i).Name + ":")
				write(b, f)
				b.WriteByte(' ')
			}
		}
		b.WriteByte('}')
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
		fmt.Fprintf(b, "%q", v.Bytes())
	case v.Kind() == reflect.Slice:
		b.WriteByte('[')
		for i := range v.Len() {
			write(b, v.Index(i))
			b.WriteByte(' ')
		}
		b.WriteByte(']')
	default: // maps print sorted
		fmt.Fprint(b, v.Interface())
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func sortedValues[K cmp.Ordered, V any](m map[K]V) []V {
	var out []V
	for _, k := range sortedKeys(m) {
		out = append(out, m[k])
	}
	return out
}
