package overload

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
)

// A server that writes one append every millisecond is offered three: it goes on writing one every millisecond, none of
// those that it took is late for long, and what it refuses it refuses at once. Later all are taken again.
func TestOverload(t *testing.T) { overloaded(t, false) }

// That wrong appends, of which nothing is written, are answered at once does not hide that the others are late.
func TestOverloadBesideWrongOnes(t *testing.T) { overloaded(t, true) }

func overloaded(t *testing.T, wrong bool) {
	synctest.Test(t, func(t *testing.T) {
		o := New()
		type taken struct {
			at   time.Time
			done func(written bool)
		}
		var queue []taken
		refused, written, worst := 0, 0, time.Duration(0)
		step := func(offered int) {
			if wrong {
				if done, err := o.Take("globex"); err == nil {
					done(false)
				}
			}
			for range offered {
				if done, err := o.Take("acme"); err == nil {
					queue = append(queue, taken{time.Now(), done})
				} else {
					refused++
				}
			}
			<-time.After(time.Millisecond)
			if len(queue) > 0 {
				worst = max(worst, time.Since(queue[0].at))
				queue[0].done(true)
				queue = queue[1:]
				written++
			}
		}
		for range 5000 {
			step(3)
		}
		refused, written, worst = 0, 0, 0
		for range 5000 {
			step(3)
		}
		if written < 4900 || refused < 9000 {
			t.Errorf("of 15,000 in 5 s %d are written and %d refused", written, refused)
		}
		if worst > 3*lateAfter/2 {
			t.Errorf("one that was taken took %v", worst)
		}
		for range 1000 {
			step(0)
		}
		refused = 0
		for i := range 3000 {
			step(1 - i%4/3) // three quarters of what it can do
		}
		if refused != 0 || o.underWay != len(queue) {
			t.Errorf("%d are refused when there is room for all; %d under way", refused, o.underWay)
		}
	})
}

// A fsync that takes long refuses nobody by itself, and does not shrink what may be under way if others are quick.
func TestOverloadForgivesABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := New()
		for range 50 {
			var all []func(written bool)
			for range 200 {
				done, err := o.Take("acme")
				if err != nil {
					t.Fatalf("refused with %d under way, of %v", o.underWay, o.limit)
				}
				all = append(all, done)
			}
			<-time.After(20 * time.Millisecond)
			all[0](true)
			<-time.After(200 * time.Millisecond) // the disk was busy
			for _, done := range all[1:] {
				done(true)
			}
		}
	})
}

// One slow fsync, of a server that has little to do, is no queue: of those that come then nobody is refused.
func TestOverloadForgivesOneSlowSync(t *testing.T) {
	for _, underWay := range []int{1, 20, 200} {
		synctest.Test(t, func(t *testing.T) {
			o := New()
			take := func(n int, took time.Duration) {
				t.Helper()
				var all []func(written bool)
				for range n {
					done, err := o.Take("acme")
					if err != nil {
						t.Fatalf("refused with %d under way, of %v", o.underWay, o.limit)
					}
					all = append(all, done)
				}
				<-time.After(took)
				for _, done := range all {
					done(true)
				}
			}
			for range 3 { // a quiet server
				<-time.After(time.Minute)
				take(1, 5*time.Millisecond)
			}
			<-time.After(time.Minute)
			take(underWay, 2*lateAfter)
			take(200, 5*time.Millisecond)
		})
	}
}

// Who floods is refused; who has less than its share under way is not.
func TestOverloadIsTheFloodersOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := New()
		for {
			if _, err := o.Take("loud"); err != nil {
				break
			}
		}
		if !o.Refuses("loud") {
			t.Error("the one that floods is not refused")
		}
		for i := range 50 {
			tenant := eventhose.TenantID([]byte{'q', byte('a' + i%25), byte('a' + i/25)})
			if o.Refuses(tenant) {
				t.Fatalf("quiet tenant %d is refused", i)
			}
			if _, err := o.Take(tenant); err != nil {
				t.Fatalf("quiet tenant %d is refused", i)
			}
		}
		if len(o.tenants) != 51 {
			t.Errorf("%d tenants have appends under way", len(o.tenants))
		}
	})
}
