package inbound

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/control"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/gateway"
)

// house is a door over a real log and store, in a bubble whose time stands still while something is done.
type house struct {
	*Door
	t   *testing.T
	ctl *control.Control
}

func newHouse(t *testing.T) *house {
	t.Helper()
	st, err := embedded.Open("data", embedded.Options{FS: vfs.NewMem(), MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t}
	if h.ctl, err = control.New(st, control.Options{SecretKey: make([]byte, control.SecretKeySize), CheckSource: (&Checker{}).Check}); err != nil {
		t.Fatal(err)
	}
	log := eventlog.New(st, h.ctl, eventlog.Options{})
	if h.Door, err = New(Options{Log: log, Sources: h.ctl}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// inspect makes a source that takes anything, and answers where.
func (h *house) inspect(tenant eventhose.TenantID, delay time.Duration) string {
	h.t.Helper()
	if err := h.ctl.EnsureTenant(h.t.Context(), tenant); err != nil {
		h.t.Fatal(err)
	}
	s, err := h.ctl.CreateSource(h.t.Context(), eventhose.Source{Tenant: tenant, Provider: eventhose.ProviderInspect, Answer: &eventhose.InspectAnswer{Delay: eventhose.Duration(delay)}})
	if err != nil {
		h.t.Fatal(err)
	}
	return Path(s.ID)
}

// answer is what a request got, and how long that took.
type answer struct {
	status int
	took   time.Duration
}

// post sends a body of a declared length, or -1.
func (h *house) post(ctx context.Context, path string, body io.Reader, length int64) answer {
	began := time.Now()
	r := httptest.NewRequestWithContext(ctx, "POST", path, body)
	r.ContentLength = length
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, time.Since(began)}
}

// whole sends a body of n bytes.
func (h *house) whole(path string, n int) answer {
	return h.post(h.t.Context(), path, bytes.NewReader(make([]byte, n)), int64(n))
}

const delay = 10 * time.Second

// While answers are held for their delay, the bodies that they are to take no room: another source of the tenant takes its own.
func TestHeldAnswersHoldNoBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		slow, other := h.inspect("acme", delay), h.inspect("acme", 0)
		const held = 31 // of the longest there is room for so many of one tenant
		answers := make(chan answer, held)
		for range held {
			go func() { answers <- h.whole(slow, gateway.MaxBody) }()
		}
		synctest.Wait()
		if got, want := h.whole(other, gateway.MaxBody), (answer{http.StatusOK, 0}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		for range held {
			if got, want := <-answers, (answer{http.StatusOK, delay}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		}
	})
}

// Who has a tenant's answers held has its share of them; beyond it they are given at once, and another tenant's are held as before.
func TestHeldAnswersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		slow, other := h.inspect("acme", delay), h.inspect("globex", delay)
		answers := make(chan answer, maxHeld)
		for range maxHeld {
			go func() { answers <- h.whole(slow, 1) }()
			synctest.Wait() // so that no more comes at once than can be written
		}
		if got, want := h.whole(other, 1), (answer{http.StatusOK, delay}); got != want {
			t.Errorf("another tenant's: %+v, want %+v", got, want)
		}
		held := 0
		for range maxHeld {
			got := <-answers
			if got.took == delay {
				held++
			}
			if got.status != http.StatusOK || got.took != 0 && got.took != delay {
				t.Errorf("%+v", got)
			}
		}
		if held != maxTenantHeld {
			t.Errorf("%d are held", held)
		}
	})
}

// busy is sources of which too many are looked up.
type busy struct{ *control.Control }

func (busy) FindSource(context.Context, eventhose.SourceID) (eventhose.Source, error) {
	return eventhose.Source{}, &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "too many", RetryAfter: time.Second}
}

// Who comes while too many ids are made up is told to come again, and the server's log is not filled with it.
func TestTooManyAreLookedUp(t *testing.T) {
	var logs bytes.Buffer
	d, err := New(Options{Sources: busy{}, Logger: slog.New(slog.NewTextHandler(&logs, nil))})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", Path("src_00000000000000000000000000"), nil))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" || logs.Len() > 0 {
		t.Errorf("%d, %v, %s", w.Code, w.Header(), logs.String())
	}
}

// Senders who stall in the name of four tenants leave another its first body.
func TestStalledBodiesLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		ctx, leave := context.WithCancel(t.Context())
		ended := make(chan answer, 1000)
		stalled, refused := 0, 0
		for _, tenant := range []eventhose.TenantID{"a", "b", "c", "d"} {
			path := h.inspect(tenant, 0)
			for n := gateway.MaxBody; n >= 64<<10; n /= 2 {
				for was := refused; was == refused; stalled++ {
					in, sender := io.Pipe()
					context.AfterFunc(ctx, func() { _ = sender.CloseWithError(io.ErrUnexpectedEOF) })
					go func() { ended <- h.post(ctx, path, in, int64(n)) }()
					go func() { _, _ = sender.Write(make([]byte, n-1)) }() // and one more, which does not come
					synctest.Wait()
					for ; len(ended) > 0; refused++ {
						if got := <-ended; got.status != http.StatusServiceUnavailable {
							t.Fatalf("%+v", got)
						}
						_ = in.Close()
					}
				}
			}
		}
		path := h.inspect("e", 0)
		if got := h.whole(path, gateway.MaxBody); got.status != http.StatusOK {
			t.Errorf("a body of a length: %+v, while %d stall", got, stalled-refused)
		}
		if got := h.post(t.Context(), path, strings.NewReader(strings.Repeat("x", gateway.MaxBody)), -1); got.status != http.StatusOK {
			t.Errorf("a body of no declared length: %+v", got)
		}
		leave()
		for range stalled - refused {
			<-ended
		}
		synctest.Wait()
	})
}
