package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/store"
)

// slowStore takes groups and is done with one when it is told.
type slowStore struct {
	store.Log
	groups chan int // events of each group that it was given
	done   chan struct{}
}

func (s *slowStore) Append(_ context.Context, group []store.Append) ([]store.AppendResult, error) {
	results := make([]store.AppendResult, len(group))
	n := 0
	for i, e := range group {
		results[i].Placements = make([]eventhose.Placement, len(e.Events))
		n += len(e.Events)
	}
	s.groups <- n
	<-s.done
	return results, nil
}

// While the disk works, what gathers is taken only if it is worth a sync of its own, and never more than one group.
func TestGroupsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &slowStore{groups: make(chan int, 10), done: make(chan struct{})}
		log := eventlog.New(st, acme, eventlog.Options{})
		append := func(events ...eventhose.Event) {
			go func() {
				if _, err := log.Append(context.Background(), "acme", events...); err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		given := func(want ...int) {
			t.Helper()
			synctest.Wait()
			for _, n := range want {
				select {
				case got := <-st.groups:
					if got != n {
						t.Errorf("a group of %d, want %d", got, n)
					}
				default:
					t.Errorf("no group of %d", n)
				}
			}
			if len(st.groups) > 0 {
				t.Errorf("a group too many, of %d", <-st.groups)
			}
		}
		large := eventhose.Event{Type: "t", Data: make([]byte, 1<<20)}
		append(event(1))
		given(1)
		append(event(2))
		append(event(3), event(4))
		given() // three small events wait for the first one's sync
		append(large)
		given(4) // and go with a large one
		append(large)
		append(event(5))
		given() // two groups at once
		st.done <- struct{}{}
		given(2)
		close(st.done)
		given()
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
}

// heldStore has logs that somebody else holds. It waits a moment for that of a group's first entry, and none for the others.
type heldStore struct {
	store.Log
	mu   sync.Mutex
	held map[eventhose.TenantID]bool
	logs map[eventhose.TenantID][]string // the types of what was appended
}

const moment = 50 * time.Millisecond

func (s *heldStore) hold(held bool, tenants ...eventhose.TenantID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range tenants {
		s.held[t] = held
	}
}

func (s *heldStore) Append(_ context.Context, group []store.Append) ([]store.AppendResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[group[0].Tenant] {
		s.mu.Unlock()
		<-time.After(moment)
		s.mu.Lock()
	}
	results := make([]store.AppendResult, len(group))
	for i, e := range group {
		if !e.Skip {
			return nil, errors.New("an append that everybody else waits for")
		}
		if s.held[e.Tenant] {
			results[i].Err = store.ErrBusy
			continue
		}
		for j := range e.Events {
			s.logs[e.Tenant] = append(s.logs[e.Tenant], e.Events[j].Event.Type)
			results[i].Placements = append(results[i].Placements, eventhose.Placement{Sequence: eventhose.Sequence(len(s.logs[e.Tenant]))})
		}
	}
	return results, nil
}

// appends are those under way, each with its answer.
type appends struct {
	log *eventlog.Log
}

func (a appends) begin(ctx context.Context, tenant eventhose.TenantID, typ string) <-chan error {
	answer := make(chan error, 1)
	go func() {
		_, err := a.log.Append(ctx, tenant, eventhose.Event{Type: typ})
		answer <- err
	}()
	synctest.Wait()
	return answer
}

// within waits for an answer, at most for as long as it may take.
func within(d time.Duration, answer <-chan error) error {
	<-time.After(d) // of the bubble's time
	synctest.Wait()
	select {
	case err := <-answer:
		return err
	default:
		return errors.New("no answer in time")
	}
}

func newHeld(tenants tenants) (*heldStore, appends) {
	st := &heldStore{held: map[eventhose.TenantID]bool{}, logs: map[eventhose.TenantID][]string{}}
	return st, appends{eventlog.New(st, tenants, eventlog.Options{})}
}

var several = tenants{"a": {ID: "a"}, "b": {ID: "b"}, "c": {ID: "c"}, "d": {ID: "d"}}

// A log that somebody else holds keeps the appends to no other: they are answered after a moment at most, and after that at once.
func TestHeldLogHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, on := newHeld(several)
		st.hold(true, "a", "c")
		var waiting []<-chan error
		for i := range 10 {
			for _, tenant := range []eventhose.TenantID{"a", "c"} {
				waiting = append(waiting, on.begin(t.Context(), tenant, fmt.Sprint("n.", i)))
			}
			limit := time.Duration(0)
			if i == 0 { // it is not known yet that they are held
				limit = 2 * moment
			}
			if err := within(limit, on.begin(t.Context(), "b", "n")); err != nil {
				t.Fatalf("append %d to a log that nobody holds: %v", i, err)
			}
		}
		// One that is held for short only goes before those that are held for long have gone all round.
		st.hold(true, "d")
		short := on.begin(t.Context(), "d", "n")
		<-time.After(moment / 2)
		st.hold(false, "d")
		if err := within(3*moment, short); err != nil {
			t.Errorf("append to a log that was held for a moment: %v", err)
		}
		st.hold(false, "a", "c")
		for _, answer := range waiting {
			if err := within(5*moment, answer); err != nil {
				t.Errorf("append to a log that was let go of: %v", err)
			}
		}
		for _, tenant := range []eventhose.TenantID{"a", "c"} {
			if got := st.logs[tenant]; !slices.IsSorted(got) || len(got) != 10 {
				t.Errorf("the events of %s are in the order %v", tenant, got)
			}
		}
		if err := on.log.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A log that is held for too long: its appends are answered, and can be left before; closing waits for no more than that.
func TestHeldLogIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, on := newHeld(several)
		st.hold(true, "a", "b")
		leaving, leave := context.WithCancel(t.Context())
		left := on.begin(leaving, "b", "n")
		leave()
		if err := within(3*moment, left); !errors.Is(err, context.Canceled) {
			t.Errorf("an append that was left: %v", err)
		}
		answer := on.begin(t.Context(), "a", "n")
		if err := within(9*time.Second, answer); eventhose.CodeOf(err) == eventhose.CodeUnavailable {
			t.Error("given up too soon")
		}
		if err := within(2*time.Second, answer); eventhose.CodeOf(err) != eventhose.CodeUnavailable {
			t.Errorf("an append to a log that is held for long: %v", err)
		}
		var last []<-chan error
		for i := range 20 {
			last = append(last, on.begin(t.Context(), []eventhose.TenantID{"a", "b"}[i%2], "n"))
		}
		began := time.Now()
		if err := on.log.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("closing took %v", took)
		}
		for _, answer := range last {
			if err := within(0, answer); eventhose.CodeOf(err) != eventhose.CodeUnavailable {
				t.Errorf("an append to a log that is held while the node stops: %v", err)
			}
		}
		if len(st.logs) > 0 {
			t.Errorf("appended to logs that are held: %v", st.logs)
		}
	})
}
