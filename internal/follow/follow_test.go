package follow_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/follow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a log that counts how often it was read.
type memory struct {
	mu     sync.Mutex
	events []eventhose.Event
	grown  chan struct{}
	pages  atomic.Int64
	gone   atomic.Bool
}

func newMemory() *memory { return &memory{grown: make(chan struct{})} }

func (m *memory) append(n int, typ string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range n {
		m.events = append(m.events, eventhose.Event{Type: typ, Sequence: eventhose.Sequence(len(m.events) + 1)})
	}
	close(m.grown)
	m.grown = make(chan struct{})
}

func (m *memory) Page(_ context.Context, _ eventhose.TenantID, after eventhose.Cursor, f eventhose.Filter, limit eventhose.PageLimit) (eventhose.Page, error) {
	m.pages.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone.Load() {
		return eventhose.Page{}, &eventhose.Error{Code: eventhose.CodeCursorGone}
	}
	page := eventhose.Page{Cursor: eventhose.Cursor{Incarnation: 7, Sequence: after.Sequence}}
	for _, e := range m.events[after.Sequence:] {
		if len(page.Events) == limit.Events || int(e.Sequence)-int(after.Sequence) > 1000 {
			break
		}
		page.Cursor.Sequence = e.Sequence
		if len(f.Types) == 0 || f.Types[0] == e.Type {
			page.Events = append(page.Events, e)
		}
	}
	page.HasMore = int(page.Cursor.Sequence) < len(m.events)
	return page, nil
}

func (m *memory) Wait(ctx context.Context, _ eventhose.TenantID, after eventhose.Sequence) error {
	for {
		m.mu.Lock()
		grown, there := m.grown, len(m.events) > int(after)
		m.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func text(events []eventhose.Event, _ eventhose.Incarnation) follow.Encoded[string] {
	out := follow.Encoded[string]{Size: len(events)}
	for _, e := range events {
		one := fmt.Sprint(e.Sequence, " ")
		out.All += one
		out.Each = append(out.Each, one)
	}
	return out
}

func next(t *testing.T, s *follow.Stream[string], max int) follow.Page[string] {
	t.Helper()
	page, err := s.Next(t.Context(), max, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// Every event is handed out once and in order, whatever part of a page a reader may take.
func TestInParts(t *testing.T) {
	log := newMemory()
	log.append(1234, "a")
	pages := follow.New(log, follow.NewStreams(0, 0), text)
	defer pages.Close()
	s := pages.Open("t", eventhose.Cursor{}, eventhose.Filter{})
	var got, want string
	for max := 1; s.Cursor().Sequence < 1234; max = max*7%600 + 1 {
		page := next(t, s, max)
		if page.Events > max || page.Events != len(page.Each) {
			t.Fatalf("%d events where %d were asked for", page.Events, max)
		}
		for _, e := range page.Each {
			got += e
		}
	}
	for i := range 1234 {
		want += fmt.Sprint(i+1, " ")
	}
	if got != want {
		t.Error("events are missing, twice or out of order")
	}
}

// A thousand readers at the tail cost as many reads as one.
func TestReadersShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemory()
		pages := follow.New(log, follow.NewStreams(0, 0), text)
		defer pages.Close()
		var readers sync.WaitGroup
		var wrong atomic.Int64
		want := ""
		for i := range 20 {
			want += fmt.Sprint(i+1, " ")
		}
		for range 1000 {
			readers.Go(func() {
				s, got := pages.Open("t", eventhose.Cursor{Incarnation: 7}, eventhose.Filter{}), ""
				for s.Cursor().Sequence < 20 {
					page, err := s.Next(t.Context(), 100, time.Hour)
					if err != nil || !page.Whole {
						wrong.Add(1)
						return
					}
					got += page.All
				}
				if got != want {
					wrong.Add(1)
				}
			})
		}
		for range 20 {
			synctest.Wait()
			log.append(1, "a")
		}
		readers.Wait()
		if n := log.pages.Load(); wrong.Load() > 0 || n > 60 {
			t.Errorf("%d readers got something else, %d reads of the log", wrong.Load(), n)
		}
	})
}

// A thousand readers of one event are woken in turns, so that who appends has an answer before all of them have theirs.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemory()
		pages := follow.New(log, follow.NewStreams(0, 0), text)
		defer pages.Close()
		var readers sync.WaitGroup
		var woken atomic.Int64
		for range 200 * runtime.GOMAXPROCS(0) {
			readers.Go(func() {
				next(t, pages.Open("t", eventhose.Cursor{Incarnation: 7}, eventhose.Filter{}), 100)
				woken.Add(1)
			})
		}
		synctest.Wait()
		log.append(1, "a")
		synctest.Wait()
		if n := int(woken.Load()); n == 0 || n > 30*runtime.GOMAXPROCS(0) {
			t.Errorf("%d readers were woken at once", n)
		}
		began := time.Now()
		readers.Wait()
		if d := time.Since(began); d == 0 || d > time.Second {
			t.Errorf("the last was woken after %v", d)
		}
	})
}

// Gates that all have left are not waited at, and a small audience not at all.
func TestLeftGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemory()
		pages := follow.New(log, follow.NewStreams(0, 0), text)
		defer pages.Close()
		var stay, leave sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 1000 {
			if i%200 == 0 {
				stay.Go(func() {
					s := pages.Open("t", eventhose.Cursor{Incarnation: 7}, eventhose.Filter{})
					next(t, s, 1)
					next(t, s, 1)
				})
				continue
			}
			leave.Go(func() {
				if _, err := pages.Open("t", eventhose.Cursor{Incarnation: 7}, eventhose.Filter{}).Next(ctx, 1, time.Hour); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		cancel()
		leave.Wait()
		began := time.Now()
		log.append(2, "a")
		stay.Wait()
		if d := time.Since(began); d > 100*time.Millisecond {
			t.Errorf("five readers waited for %v at the gates of those that have left", d)
		}
	})
}

// A large audience whose readers are slow to come back holds up another's by a gate or two, not by all of its own, and a tenant's
// hundred audiences no more than one.
func TestAudiencesTakeTurns(t *testing.T) {
	for _, audiences := range []int{1, 100} {
		t.Run(fmt.Sprint(audiences), func(t *testing.T) { takeTurns(t, audiences) })
	}
}

func takeTurns(t *testing.T, audiences int) {
	synctest.Test(t, func(t *testing.T) {
		log, other := newMemory(), newMemory()
		streams := follow.NewStreams(0, 0)
		slow, quick := follow.New(log, streams, text), follow.New(other, streams, text)
		defer slow.Close()
		defer quick.Close()
		var all sync.WaitGroup
		var heard atomic.Int64 // nanoseconds until the last of the quick ones
		var began time.Time
		for i := range 5000 {
			filter := eventhose.Filter{Keys: []string{"", fmt.Sprint(i % audiences)}}
			all.Go(func() { next(t, slow.Open("a", eventhose.Cursor{Incarnation: 7}, filter), 1) }) // and never comes back
		}
		for range 100 {
			all.Go(func() {
				next(t, quick.Open("b", eventhose.Cursor{Incarnation: 7}, eventhose.Filter{}), 1)
				heard.Store(max(heard.Load(), int64(time.Since(began))))
			})
		}
		synctest.Wait()
		began = time.Now()
		log.append(1, "a")
		synctest.Wait()
		other.append(1, "b")
		all.Wait()
		gates := 100/(14*runtime.GOMAXPROCS(0)) + 1
		if d, most := time.Duration(heard.Load()), time.Duration(2*gates+2)*6*time.Millisecond; d > most {
			t.Errorf("a hundred readers waited for %v, more than %v, behind five thousand of another log", d, most)
		}
	})
}

// Readers whose filter seldom matches go on sharing after they were told how far there is nothing.
func TestReadersShareWhatIsRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemory()
		pages := follow.New(log, follow.NewStreams(0, 0), text)
		defer pages.Close()
		var readers sync.WaitGroup
		for i := range 100 {
			readers.Go(func() {
				s := pages.Open("t", eventhose.Cursor{Incarnation: 7}, eventhose.Filter{Types: []string{"rare"}})
				for {
					page, err := s.Next(t.Context(), 10, time.Second+time.Duration(i)*time.Millisecond)
					if err != nil || page.Events > 0 {
						if err != nil || page.All != "501 " {
							t.Errorf("%+v, %v", page, err)
						}
						return
					}
				}
			})
		}
		for range 500 { // fifty seconds, with fifty heartbeats of each
			time.Sleep(100 * time.Millisecond) // sleep: needed, because the time is virtual
			log.append(1, "a")
		}
		synctest.Wait()
		log.append(1, "rare")
		readers.Wait()
		if n := log.pages.Load(); n > 1200 {
			t.Errorf("the log was read %d times for 501 appends", n)
		}
	})
}

// What was read before an erasure is not handed to who comes after it, even if it was still being encoded.
func TestForgetWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemory()
		log.append(1, "a")
		encoding := make(chan struct{})
		pages := follow.New(log, follow.NewStreams(0, 0), func(events []eventhose.Event, i eventhose.Incarnation) follow.Encoded[string] {
			<-encoding
			return text(events, i)
		})
		defer pages.Close()
		var readers sync.WaitGroup
		read := func() { next(t, pages.Open("t", eventhose.Cursor{}, eventhose.Filter{}), 10) }
		readers.Go(read)
		synctest.Wait()
		pages.Forget("t")
		close(encoding)
		readers.Wait()
		read()
		if n := log.pages.Load(); n != 2 {
			t.Errorf("the log was read %d times, not again after the erasure", n)
		}
	})
}

// Streams of one form share what its encoding makes, which may be of fewer events than there are; others do not.
func TestForms(t *testing.T) {
	log := newMemory()
	log.append(7, "a")
	pages := follow.New[string](log, follow.NewStreams(0, 0), nil)
	defer pages.Close()
	made := map[string]int{}
	open := func(form string) *follow.Stream[string] {
		return pages.Open("t", eventhose.Cursor{}, eventhose.Filter{}).As(form, func(events []eventhose.Event, _ eventhose.Incarnation) (out follow.Encoded[string]) {
			made[form]++
			for _, e := range events[:min(3, len(events))] {
				out.Each = append(out.Each, fmt.Sprint(form, e.Sequence, " "))
			}
			return out
		})
	}
	for _, form := range []string{"x", "y", "x"} {
		s, got := open(form), ""
		for s.Cursor().Sequence < 7 {
			for _, e := range next(t, s, 100).Each {
				got += e
			}
		}
		want := ""
		for i := range 7 {
			want += fmt.Sprint(form, i+1, " ")
		}
		if got != want {
			t.Errorf("%s instead of %s", got, want)
		}
	}
	if made["x"] != 3 || made["y"] != 3 {
		t.Errorf("encoded %v times", made)
	}
}

// With nothing to hand out, the cursor moves over what the filter does not match.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemory()
		log.append(5000, "a")
		pages := follow.New(log, follow.NewStreams(0, 0), text)
		defer pages.Close()
		s := pages.Open("t", eventhose.Cursor{}, eventhose.Filter{Types: []string{"rare"}})
		page, err := s.Next(t.Context(), 10, 15*time.Second)
		if err != nil || page.Events != 0 || s.Cursor().Sequence != 5000 {
			t.Fatalf("%+v at %v, %v", page, s.Cursor(), err)
		}
		go log.append(1, "rare")
		if page := next(t, s, 10); page.All != "5001 " {
			t.Errorf("%+v", page)
		}
	})
}

// Nothing goes on for readers that have left, and errors are not kept.
func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemory()
		pages := follow.New(log, follow.NewStreams(0, 0), text)
		defer pages.Close()
		before := runtime.NumGoroutine()
		ctx, cancel := context.WithCancel(t.Context())
		var readers sync.WaitGroup
		for range 10 {
			readers.Go(func() {
				if _, err := pages.Open("t", eventhose.Cursor{}, eventhose.Filter{}).Next(ctx, 1, time.Hour); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		cancel()
		readers.Wait()
		synctest.Wait()
		if n := runtime.NumGoroutine(); n > before {
			t.Errorf("%d goroutines are left", n-before)
		}
		log.gone.Store(true)
		s := pages.Open("t", eventhose.Cursor{}, eventhose.Filter{})
		if _, err := s.Next(t.Context(), 1, time.Hour); eventhose.CodeOf(err) != eventhose.CodeCursorGone {
			t.Error(err)
		}
		log.gone.Store(false)
		go log.append(1, "a")
		next(t, s, 1)
	})
}

// What was erased is read again, not handed out from memory.
func TestForget(t *testing.T) {
	log := newMemory()
	log.append(3, "a")
	pages := follow.New(log, follow.NewStreams(0, 0), text)
	defer pages.Close()
	read := func() int64 {
		next(t, pages.Open("t", eventhose.Cursor{}, eventhose.Filter{}), 10)
		return log.pages.Load()
	}
	if read(); read() != 1 {
		t.Fatal("two readers at one place do not share")
	}
	pages.Forget("t")
	if read() != 2 {
		t.Error("a page was handed out again after it was forgotten")
	}
}

// A server that stops ends all streams.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pages := follow.New(newMemory(), follow.NewStreams(0, 0), text)
		var readers sync.WaitGroup
		readers.Go(func() {
			if _, err := pages.Open("t", eventhose.Cursor{}, eventhose.Filter{}).Next(t.Context(), 1, time.Hour); eventhose.CodeOf(err) != eventhose.CodeUnavailable {
				t.Error(err)
			}
		})
		synctest.Wait()
		pages.Close()
		readers.Wait()
		if _, err := pages.Open("t", eventhose.Cursor{}, eventhose.Filter{}).Next(t.Context(), 1, time.Hour); eventhose.CodeOf(err) != eventhose.CodeUnavailable {
			t.Error(err)
		}
	})
}

func TestStreams(t *testing.T) {
	s := follow.NewStreams(3, 2)
	one, err1 := s.Open("a")
	_, err2 := s.Open("a")
	_, err3 := s.Open("a")
	_, err4 := s.Open("b")
	_, err5 := s.Open("b")
	if err1 != nil || err2 != nil || eventhose.CodeOf(err3) != eventhose.CodeLimit || err4 != nil || eventhose.CodeOf(err5) != eventhose.CodeLimit {
		t.Fatal(err1, err2, err3, err4, err5)
	}
	one()
	if _, err := s.Open("b"); err != nil || s.Count() != 3 {
		t.Error(err, s.Count())
	}
}
