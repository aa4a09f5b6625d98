package eventlog_test

import (
	"context"
	"testing"
	"testing/synctest"

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
