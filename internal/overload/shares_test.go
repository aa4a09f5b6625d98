package overload

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
)

// What is only declared takes no room, and what one tenant's senders hold leaves the others theirs.
func TestBodiesAreBounded(t *testing.T) {
	const most, each = 1 << 20, 32 << 20
	var b Shares
	b.Set(4*each, each)
	stalled, sender := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, give, err := b.Read(stalled, most, "acme")
		give()
		done <- err
	}()
	if _, err := sender.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	if b.all != firstRead {
		t.Errorf("a stalled body takes %d bytes", b.all)
	}
	b.mu.Unlock()
	var gives []func()
	refused := false
	for !refused {
		_, give, err := b.Read(strings.NewReader(strings.Repeat("x", most)), -1, "acme")
		gives = append(gives, give)
		if refused = errors.Is(err, ErrNoRoom); !refused && err != nil {
			t.Fatal(err)
		}
		if b.all > each || len(gives) > each/most {
			t.Fatalf("%d bodies take %d bytes", len(gives), b.all)
		}
	}
	body, give, err := b.Read(strings.NewReader("hello"), 5, "globex")
	if err != nil || string(body) != "hello" || b.of["globex"] != 6 {
		t.Errorf("%q, %v, %d", body, err, b.of["globex"])
	}
	give()
	for _, give := range gives {
		give()
	}
	_ = sender.CloseWithError(io.ErrUnexpectedEOF)
	if err := <-done; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	if b.all != 0 || len(b.of) != 0 {
		t.Errorf("%d are not given back, %v", b.all, b.of)
	}
}

// Tenants that have taken all that they may leave those their first who have nothing, as far as that goes.
func TestSharesKeepSome(t *testing.T) {
	const all, each, kept, first = 64, 16, 16, 4
	var s Shares
	s.Set(all, each)
	s.Keep(kept, first)
	for i, want := range []int64{each, each, each, first, first, first, first, 0} {
		tenant, n := eventhose.TenantID(rune('a'+i)), int64(0)
		for s.Take(tenant, 1) {
			n++
		}
		if n != want {
			t.Errorf("%s had room for %d, want %d", tenant, n, want)
		}
	}
	if s.all != all {
		t.Errorf("%d of %d are taken", s.all, all)
	}
	s.Give("a", each)
	if !s.Take("h", first) || s.Take("h", 1) {
		t.Error("what was given back is not the first of who has nothing")
	}
}

// A flood is let through at a bounded pace, each key's at its own.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const burst, perSecond = 100, 1
		var p Pace[string]
		p.Set(burst, perSecond)
		allowed := func(tries int) (n int) {
			for range tries {
				if p.Allows("a", time.Now()) {
					n++
				}
			}
			return n
		}
		if n := allowed(1000); n != burst {
			t.Errorf("%d at once", n)
		}
		<-time.After(10 * time.Second)
		if n := allowed(1000); n != 10*perSecond {
			t.Errorf("%d after 10 s", n)
		}
		if !p.Allows("b", time.Now()) {
			t.Error("another key is refused")
		}
		<-time.After(24 * time.Hour)
		if n := allowed(1000); n != burst {
			t.Errorf("%d a day later", n)
		}
	})
}
