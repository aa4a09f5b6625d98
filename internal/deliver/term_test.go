package deliver

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose/internal/store"
)

// A term ends by the clock alone, and nothing extends one whose end was seen.
func TestTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := func(m *term, lasts, sends bool, when string) {
			t.Helper()
			if l, s := m.lasts(time.Now()), m.sends(time.Now()); l != lasts || s != sends || m != nil && m.still() != sends {
				t.Errorf("%s: it lasts: %v, and new things may be begun: %v", when, l, s)
			}
		}
		begin := func() *term { return newTerm(store.Lease{Shard: 1, Epoch: 1}, time.Now().Add(time.Second)) }
		is(nil, true, true, "with a store of one process")
		m := begin()
		is(m, true, true, "at first")
		<-time.After(900 * time.Millisecond)
		if !m.extend(time.Now().Add(time.Second)) {
			t.Error("it is not extended before its end")
		}
		<-time.After(900 * time.Millisecond)
		is(m, true, true, "extended")
		m.leaving.Store(true)
		is(m, true, false, "leaving")
		<-time.After(100 * time.Millisecond)
		is(m, false, false, "at its end")
		m = begin()
		<-time.After(time.Hour)
		if m.extend(time.Now().Add(time.Second)) {
			t.Error("it is extended after its end")
		}
		m = begin()
		m.lasts(time.Now().Add(time.Second)) // somebody saw its end, while it was being extended
		if m.extend(time.Now().Add(time.Second)) {
			t.Error("it is extended though its end was seen")
		}
		is(m, false, false, "when its end was seen")
	})
}
