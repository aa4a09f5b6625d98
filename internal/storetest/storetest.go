// Package storetest is the conformance suite that every store driver passes: named cases, each for one promise of the
// seam, and random scripts compared with a reference model after every step and after opening again.
//
// The checkers answer violations as errors, so that tests can show each of them red on a planted fault.
package storetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// Run runs the whole suite. open answers a fresh, empty store that is closed with the test; reopen closes a store and
// opens the same data again.
func Run(t *testing.T, open func(t *testing.T) store.Store, reopen func(t *testing.T, s store.Store) store.Store) {
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			if err := c.Try(t.Context(), open(t), func(s store.Store) store.Store { return reopen(t, s) }); err != nil {
				t.Errorf("promise: %s\n%v", c.Promise, err)
			}
		})
	}
	t.Run("script", func(t *testing.T) { runScripts(t, open, reopen) })
}

// Case is one promise and a way to see it broken.
type Case struct {
	Name    string
	Promise string
	run     func(*trial)
}

// Cases lists all named cases, by noun.
func Cases() []Case {
	var all []Case
	for _, of := range [][]Case{appendCases(), dedupeCases(), readCases(), lookupCases(), trimCases(), eraseCases(), parentCases(),
		headCases(), laneCases(), parkedCases(), attemptCases(), everywhereCases(), workCases(), leaseCases(), recordCases(), limitCases(), concurrencyCases()} {
		all = append(all, of...)
	}
	return all
}

// caseDeadline bounds one case, so that a store that hangs is a violation and not a stuck test.
const caseDeadline = 60 * time.Second

// Try runs the case on an empty store and answers the first violation. reopen closes a store and opens its data again.
func (c Case) Try(ctx context.Context, s store.Store, reopen func(store.Store) store.Store) error {
	ctx, cancel := context.WithTimeout(ctx, caseDeadline)
	defer cancel()
	t := &trial{ctx: ctx, s: s, reopenStore: reopen}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run(t)
	}()
	select {
	case <-done:
		return t.err
	case <-ctx.Done():
		return fmt.Errorf("no end after %v", caseDeadline)
	}
}

// trial is one run of a case. Its methods stop the case at the first violation, as testing.T.Fatal does.
type trial struct {
	ctx         context.Context
	s           store.Store
	reopenStore func(store.Store) store.Store
	err         error
}

func (t *trial) fatalf(format string, args ...any) {
	t.err = fmt.Errorf(format, args...)
	runtime.Goexit()
}

// ok stops the case if err is not nil.
func (t *trial) ok(doing string, err error) {
	if err != nil {
		t.fatalf("%s: %w", doing, err)
	}
}

// is stops the case if err does not wrap want.
func (t *trial) is(doing string, err, want error) {
	if !errors.Is(err, want) {
		t.fatalf("%s answered %v, want %v", doing, err, want)
	}
}

// same stops the case if the two differ in content.
func (t *trial) same(what string, got, want any) { t.ok("compare", same(what, got, want)) }

func (t *trial) reopen() { t.s = t.reopenStore(t.s) }

// Tenants and subscriptions of the cases.
const (
	acme     eventhose.TenantID       = "acme"
	other    eventhose.TenantID       = "other"
	platform eventhose.TenantID       = "platform"
	subA     eventhose.SubscriptionID = "sub_0000000000000000000000000a"
	subB     eventhose.SubscriptionID = "sub_0000000000000000000000000b"
)

// event makes an event that was appended n seconds after epoch, with a digest of its data.
func event(id, data string, n int) store.NewEvent {
	sum := sha256.Sum256([]byte(data))
	at := epoch.Add(time.Duration(n) * time.Second)
	return store.NewEvent{Digest: [16]byte(sum[:16]), Event: eventhose.Event{ID: id, Type: "order.paid", Key: "k", Time: at.Add(-time.Nanosecond),
		Appended: at, Version: "2", Attributes: map[string]string{"region": "eu"}, Data: []byte(data)}}
}

// append appends to one tenant and answers the placements.
func (t *trial) append(tenant eventhose.TenantID, events ...store.NewEvent) []eventhose.Placement {
	return t.group(store.Append{Tenant: tenant, Events: events})[0].Placements
}

// group appends a group of which no entry may be refused.
func (t *trial) group(entries ...store.Append) []store.AppendResult {
	results := t.results(entries...)
	for i, r := range results {
		t.ok(fmt.Sprintf("append, entry %d", i), r.Err)
		if len(r.Placements) != len(entries[i].Events) {
			t.fatalf("entry %d has %d placements for %d events", i, len(r.Placements), len(entries[i].Events))
		}
	}
	return results
}

func (t *trial) results(entries ...store.Append) []store.AppendResult {
	results, err := t.s.Append(t.ctx, entries)
	t.ok("append", err)
	if len(results) != len(entries) {
		t.fatalf("%d results for %d entries", len(results), len(entries))
	}
	return results
}

// fill appends n events "e1", "e2" … of one append each, a second apart, with size bytes of data.
func (t *trial) fill(tenant eventhose.TenantID, n, size int) {
	for i := range n {
		data := fmt.Sprintf("%0*d", size, i+1)
		t.append(tenant, event(fmt.Sprintf("e%d", i+1), data, i+1))
	}
}

func (t *trial) head(tenant eventhose.TenantID) eventhose.Head {
	h, err := t.s.Head(t.ctx, tenant)
	t.ok("head", err)
	return h
}

// read answers everything after a sequence, page by page.
func (t *trial) read(tenant eventhose.TenantID, after eventhose.Sequence) (all []*eventhose.Event) {
	for {
		page, err := t.s.Read(t.ctx, tenant, after, store.ReadLimit{Events: 1000, Bytes: 1 << 20})
		t.ok("read", err)
		if len(page) == 0 {
			return all
		}
		for _, e := range page {
			if after++; e.Sequence != after || e.Tenant != tenant {
				t.fatalf("read %s/%d at place %d of %s", e.Tenant, e.Sequence, after, tenant)
			}
		}
		all = append(all, page...)
	}
}

func (t *trial) lookup(tenant eventhose.TenantID, ref store.Ref) *eventhose.Event {
	e, err := t.s.Lookup(t.ctx, tenant, ref)
	t.ok(fmt.Sprintf("lookup of %+v", ref), err)
	return e
}

func (t *trial) noLookup(tenant eventhose.TenantID, ref store.Ref) {
	_, err := t.s.Lookup(t.ctx, tenant, ref)
	t.is(fmt.Sprintf("lookup of %+v", ref), err, store.ErrNotFound)
}

func (t *trial) commit(p store.Progress) { t.ok("commit", t.s.Commit(t.ctx, p)) }

// change commits one change of one lane.
func (t *trial) change(c store.LaneChange) { t.commit(store.Progress{Lanes: []store.LaneChange{c}}) }

func (t *trial) lane(tenant eventhose.TenantID, sub eventhose.SubscriptionID) (store.Lane, []store.BlockedKey) {
	lane, keys, err := t.s.Lane(t.ctx, tenant, sub)
	t.ok("lane", err)
	return lane, keys
}

func (t *trial) noLane(tenant eventhose.TenantID, sub eventhose.SubscriptionID) {
	_, _, err := t.s.Lane(t.ctx, tenant, sub)
	t.is("lane", err, store.ErrNotFound)
}

func (t *trial) parked(tenant eventhose.TenantID, sub eventhose.SubscriptionID, q store.ParkedQuery) []store.Parked {
	rows, err := t.s.Parked(t.ctx, tenant, sub, q)
	t.ok("parked", err)
	return rows
}

func (t *trial) attempts(tenant eventhose.TenantID, q store.AttemptQuery) []string {
	list, err := t.s.Attempts(t.ctx, tenant, q)
	t.ok("attempts", err)
	ids := []string{}
	for _, a := range list {
		ids = append(ids, a.ID)
	}
	return ids
}

// newLane is a change that makes a lane.
func newLane(tenant eventhose.TenantID, sub eventhose.SubscriptionID) store.LaneChange {
	return store.LaneChange{Create: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: tenant, Subscription: sub}}}
}

func parkedRow(seq eventhose.Sequence, state eventhose.ParkedState) store.Parked {
	return store.Parked{Parked: eventhose.Parked{Event: fmt.Sprintf("e%d", seq), Sequence: seq, Type: "order.paid", State: state, Since: epoch}, Tries: 1}
}

// attempt number n of a subscription, at some events.
func attempt(tenant eventhose.TenantID, sub eventhose.SubscriptionID, n int, seqs ...eventhose.Sequence) eventhose.Attempt {
	a := eventhose.Attempt{ID: "att_" + eventhose.IDText([16]byte{6: byte(n >> 8), 7: byte(n)}), Tenant: tenant, Subscription: sub, Kind: eventhose.AttemptFirst,
		Number: 1, Outcome: eventhose.OutcomeTaken, Status: 200, Started: epoch.Add(time.Duration(n) * time.Second), Sequences: seqs}
	for _, seq := range seqs {
		a.Events = append(a.Events, fmt.Sprintf("e%d", seq))
	}
	return a
}
