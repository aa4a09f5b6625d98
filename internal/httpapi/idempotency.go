package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
)

// An Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07) works on every POST. The first answer is stored for
// 24 h if it is a 2xx, and given again, marked, to the same request with the same key; anything else gives the key back. What a
// worker was handed is stored as long as its lease: behind that its events are others' again, or may have been erased.
// Control seals what it stores, so an answer with a new secret is given again whole.

// maxIdempotencyKey is in bytes.
const maxIdempotencyKey = 255

// maxKeyedAppend bounds the answers of appends with a key, in bytes. Only one of thousands of events with long ids comes near.
const maxKeyedAppend = 4 << 20

// How long a request with a key may take, within Control's reservation of a minute, and the storing of its answer; and how long it may wait
// for events in that time.
const (
	keyedTime = 45 * time.Second
	saveTime  = 10 * time.Second
	keyedWait = 30 * time.Second
)

// keyed answers a request with an Idempotency-Key once.
func (a *API) keyed(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		values := r.Header["Idempotency-Key"]
		if r.Method != http.MethodPost || len(values) == 0 {
			next(w, r)
			return
		}
		key, err := idempotencyKey(values)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		x := exchangeOf(r.Context())
		x.keyed = true
		tenant := x.tenant
		if tenant == "" {
			tenant = x.principal.Tenant
		}
		if x.principal.Kind == eventhose.PrincipalPortal {
			// An answer may hold what another credential may see and this one may not.
			sum := sha256.Sum256([]byte(x.principal.KeyID + "\x00" + key))
			key = hex.EncodeToString(sum[:])
		}
		digest := digestOf(r, x.body)
		stored, err := a.control.ReserveAnswer(r.Context(), tenant, key, digest)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		if stored != nil {
			w.Header().Set("Content-Type", stored.ContentType)
			w.Header().Set("Idempotency-Replayed", "true")
			w.WriteHeader(stored.Status)
			_, _ = w.Write(stored.Body)
			return
		}
		r.Header.Del("Accept-Encoding") // what is kept is for clients that take other encodings, too
		held := &heldAnswer{header: w.Header()}
		// A client that leaves must find its answer when it comes back, so nothing of this ends with it.
		detached := context.WithoutCancel(r.Context())
		defer func() {
			ctx, cancel := context.WithTimeout(detached, saveTime)
			defer cancel()
			if err := a.control.SaveAnswer(ctx, tenant, key, digest, held.stored(x.good)); err != nil {
				a.logger.LogAttrs(ctx, slog.LevelError, "http: cannot settle an idempotency key", slog.String("request_id", x.id), slog.String("error", err.Error()))
			}
			held.send(w)
		}()
		ctx, cancel := context.WithTimeout(detached, keyedTime)
		defer cancel()
		next(held, r.WithContext(ctx))
	}
}

// idempotencyKey reads the header, a quoted string as the draft has it or bare as most clients send it.
func idempotencyKey(values []string) (string, error) {
	key := values[0]
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	if len(values) > 1 || key == "" || len(key) > maxIdempotencyKey || strings.IndexFunc(key, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) >= 0 {
		return "", eventhose.Invalid("Idempotency-Key", "must be one string of 1 to %d printable ASCII characters", maxIdempotencyKey)
	}
	return key, nil
}

// digestOf is over everything that makes one request another: the route, the body, and the headers that carry an event.
func digestOf(r *http.Request, body []byte) (sum [32]byte) {
	h := sha256.New()
	part := func(s string) {
		_, _ = io.WriteString(h, s)
		_, _ = h.Write([]byte{0})
	}
	part(r.Method)
	part(r.URL.EscapedPath())
	part(r.URL.RawQuery)
	part(r.Header.Get("Content-Type"))
	var names []string
	for name := range r.Header {
		if strings.HasPrefix(name, "Ce-") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		part(name)
		part(strings.Join(r.Header[name], "\n"))
	}
	_, _ = h.Write(body)
	return [32]byte(h.Sum(nil))
}

// heldAnswer keeps an answer until it is stored.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *heldAnswer) Header() http.Header { return h.header }

func (h *heldAnswer) WriteHeader(status int) {
	if h.status == 0 {
		h.status = status
	}
}

func (h *heldAnswer) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	return h.body.Write(b)
}

// stored answers what is kept, as long as it is good: nil for what is not a success.
func (h *heldAnswer) stored(good time.Duration) *eventhose.StoredAnswer {
	if h.status < 200 || h.status > 299 {
		return nil
	}
	return &eventhose.StoredAnswer{Good: eventhose.Duration(good), Status: h.status, ContentType: h.header.Get("Content-Type"), Body: h.body.Bytes()}
}

func (h *heldAnswer) send(w http.ResponseWriter) {
	if h.status == 0 {
		return // a panic: observe answers it
	}
	w.WriteHeader(h.status)
	_, _ = w.Write(h.body.Bytes())
}
