package control

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// anywhere is a sink that knows one URL that it does not like.
type anywhere struct{}

const badURL = "https://refused.example/"

func (anywhere) Check(d eventhose.Destination) error {
	if d.URL == badURL {
		return eventhose.Invalid("destination.url", "is not allowed")
	}
	return nil
}
func (anywhere) Send(context.Context, *sink.Batch) sink.Result { return sink.Result{} }

// recorder keeps everything that was ever saved as a record.
type recorder struct {
	store.Store
	mu    sync.Mutex
	saved []store.Record
	// before is asked before each save, and may refuse it; nil refuses none.
	before func(ctx context.Context, records []store.RecordChange) error
	// mute has the connection break after each save, before its answer.
	mute bool
}

func (r *recorder) Save(ctx context.Context, records []store.RecordChange, lanes []store.LaneChange) error {
	r.mu.Lock()
	for _, c := range records {
		c.Value = slices.Clone(c.Value)
		r.saved = append(r.saved, c.Record)
	}
	before, mute := r.before, r.mute
	r.mu.Unlock()
	if before != nil {
		if err := before(ctx, records); err != nil {
			return err
		}
	}
	err := r.Store.Save(ctx, records, lanes)
	if err == nil && mute {
		err = fmt.Errorf("%w: the connection broke", store.ErrUnavailable)
	}
	return err
}

// mutely does something while the connection breaks before the store's answer, and wants that it is said that nobody knows.
func (h *house) mutely(what string, do func() error) {
	h.t.Helper()
	set := func(mute bool) {
		h.store.mu.Lock()
		defer h.store.mu.Unlock()
		h.store.mute = mute
	}
	set(true)
	err := do()
	set(false)
	wants(h.t, what, err, eventhose.CodeUnavailable, "")
}

// ask sets what is asked before each save.
func (r *recorder) ask(before func(ctx context.Context, records []store.RecordChange) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = before
}

// house is a Control over a real store, which can be opened again.
type house struct {
	*Control
	t     testing.TB
	fs    vfs.FS
	store *recorder
	key   []byte
	admin eventhose.Secret
}

const admin = eventhose.Secret("an-admin-key-for-this-test-only")

func newHouse(t testing.TB) *house {
	h := &house{t: t, fs: vfs.NewMem(), key: []byte(strings.Repeat("k", SecretKeySize)), admin: admin}
	h.open()
	t.Cleanup(func() { h.close() })
	if err := h.EnsureTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) openStore() {
	h.t.Helper()
	s, err := embedded.Open("data", embedded.Options{FS: h.fs, MinFree: -1})
	if err != nil {
		h.t.Fatal(err)
	}
	h.store = &recorder{Store: s}
}

func (h *house) open() {
	h.t.Helper()
	h.openStore()
	c, err := New(h.store, h.options())
	if err != nil {
		h.t.Fatal(err)
	}
	h.Control = c
}

func (h *house) options() Options {
	return Options{AdminKey: h.admin, SecretKey: h.key, Sinks: map[string]sink.Sink{eventhose.DestinationWebhook: anywhere{}},
		CheckSource: func(s eventhose.Source) error {
			if s.Provider == "refused" {
				return eventhose.Invalid("provider", "is not liked")
			}
			return nil
		}}
}

func (h *house) close() {
	if err := h.store.Close(); err != nil {
		h.t.Error(err)
	}
}

// restart closes the store and opens all anew.
func (h *house) restart() {
	h.t.Helper()
	h.close()
	h.open()
}

func hook() eventhose.Subscription {
	return eventhose.Subscription{Tenant: "acme", Name: "orders", Filter: eventhose.Filter{Types: []string{"order.*"}, Expression: "data.amount > 100"},
		Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: "https://example.com/hook", Headers: map[string]eventhose.Secret{"X-Token": "tok-1-planted"}}}
}

func (h *house) create(s eventhose.Subscription) eventhose.Subscription {
	h.t.Helper()
	made, err := h.CreateSubscription(h.t.Context(), s, "")
	if err != nil {
		h.t.Fatal(err)
	}
	return made
}

// wants fails unless err has a code, and its field if one is given.
func wants(t testing.TB, what string, err error, code eventhose.Code, field string) {
	t.Helper()
	if eventhose.CodeOf(err) != code {
		t.Errorf("%s: got %v, want %s", what, err, code)
		return
	}
	var e *eventhose.Error
	if errors.As(err, &e) && field != "" && e.Field != field {
		t.Errorf("%s: field is %q, want %q", what, e.Field, field)
	}
}

func (h *house) appendEvents(tenant eventhose.TenantID, n int) {
	h.t.Helper()
	var events []store.NewEvent
	for i := range n {
		events = append(events, store.NewEvent{Event: eventhose.Event{Type: "order.paid", Appended: time.Now().UTC(), Data: []byte(`{}`)}, Digest: [16]byte{byte(i)}})
	}
	results, err := h.store.Append(h.t.Context(), []store.Append{{Tenant: tenant, Events: events}})
	if err != nil || results[0].Err != nil {
		h.t.Fatal(err, results)
	}
}

// leaks answers in which blobs a secret is found: as it is, in hex or in base64.
func leaks(blobs map[string][]byte, secret string) []string {
	forms := map[string]string{"raw": secret, "hex": hex.EncodeToString([]byte(secret)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(secret)))}
	for name, e := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
		for shift := range 3 { // whatever stands before it in the same text
			text := e.EncodeToString([]byte(strings.Repeat("x", shift) + secret))
			forms[fmt.Sprint(name, shift)] = text[(shift*8+5)/6 : len(text)-2]
		}
	}
	var found []string
	for where, blob := range blobs {
		for form, text := range forms {
			if bytes.Contains(blob, []byte(text)) {
				found = append(found, where+" as "+form)
			}
		}
	}
	return found
}

// everything is all that was ever saved, and all that lies in the files.
func (h *house) everything() map[string][]byte {
	all := map[string][]byte{}
	for _, r := range h.store.saved {
		addBlobs(all, fmt.Sprint(r.Kind, " ", r.ID, " ", r.Version), r.Value)
	}
	h.addFiles(all, "data")
	return all
}

func (h *house) addFiles(all map[string][]byte, dir string) {
	names, err := h.fs.List(dir)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, name := range names {
		path := h.fs.PathJoin(dir, name)
		info, err := h.fs.Stat(path)
		if err != nil {
			h.t.Fatal(err)
		}
		if info.IsDir() {
			h.addFiles(all, path)
			continue
		}
		f, err := h.fs.Open(path)
		if err != nil {
			h.t.Fatal(err)
		}
		if all[path], err = io.ReadAll(f); err != nil {
			h.t.Fatal(err)
		}
		f.Close()
	}
}

// addBlobs adds a value and what it holds in base64 if it is JSON.
func addBlobs(all map[string][]byte, where string, value []byte) {
	all[where] = value
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			if b, err := base64.StdEncoding.DecodeString(v); err == nil {
				all[fmt.Sprint(where, " ", len(all))] = b
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for k, e := range v {
				walk(k)
				walk(e)
			}
		}
	}
	var v any
	if json.Unmarshal(value, &v) == nil {
		walk(v)
	}
}

func TestSecretsAreNotInTheStore(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	var secrets []string
	add := func(s eventhose.Secret) {
		secrets = append(secrets, string(s))
		if _, text, ok := strings.Cut(string(s), "_"); ok {
			secrets = append(secrets, text)
			if b, err := base64.StdEncoding.DecodeString(text); err == nil {
				secrets = append(secrets, string(b))
			}
		}
	}
	add(admin)
	secrets = append(secrets, string(h.key))
	for _, signature := range []string{"v1", "v1a"} {
		s := hook()
		s.Destination.Signature = signature
		s.Destination.Headers["Authorization"] = "Bearer planted-header-" + eventhose.Secret(signature)
		made := h.create(s)
		rotated, err := h.RotateSecret(ctx, "acme", made.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, live := range rotated.Secrets {
			add(live.Secret)
		}
		for _, value := range rotated.Destination.Headers {
			add(value)
		}
	}
	for _, tenant := range []eventhose.TenantID{"", "acme"} {
		_, key, err := h.CreateKey(ctx, eventhose.APIKey{Tenant: tenant, Scopes: []eventhose.Scope{eventhose.ScopeRead}})
		if err != nil {
			t.Fatal(err)
		}
		add(key)
		secrets = append(secrets, strings.Split(string(key), "_")[2])
		if _, err := h.Authenticate(ctx, key); err != nil {
			t.Fatal(err)
		}
		if _, err := h.ReserveAnswer(ctx, "acme", "i"+string(tenant), [32]byte{1}); err != nil {
			t.Fatal(err)
		}
		answer := &eventhose.StoredAnswer{Status: 201, Body: []byte(`{"key":"` + string(key) + strings.Repeat(" ", 300_000) + `"}`)}
		if err := h.SaveAnswer(ctx, "acme", "i"+string(tenant), [32]byte{1}, answer); err != nil {
			t.Fatal(err)
		}
	}
	if len(secrets) < 20 {
		t.Fatalf("only %d secrets were looked for", len(secrets))
	}
	everything := h.everything()
	if len(everything) < 20 {
		t.Fatalf("looks at %d pieces only", len(everything))
	}
	for i, secret := range secrets {
		if found := leaks(everything, secret); len(found) > 0 {
			t.Errorf("secret %d is in %v", i, found)
		}
	}
	if name := "orders"; len(leaks(everything, name)) < 2 {
		t.Error("what is no secret was not found in the records and the files")
	}
	// The checker itself, on each form.
	for _, value := range []string{"a " + secrets[0], hex.EncodeToString([]byte(secrets[0])), base64.StdEncoding.EncodeToString([]byte("ab" + secrets[0] + "c")),
		`{"a":"` + base64.StdEncoding.EncodeToString([]byte("a"+base64.URLEncoding.EncodeToString([]byte(secrets[0])))) + `"}`} {
		planted := map[string][]byte{}
		addBlobs(planted, "planted", []byte(value))
		if len(leaks(planted, secrets[0])) == 0 {
			t.Errorf("a planted secret was not found in %s", value)
		}
	}
}

func TestEverythingSurvivesARestart(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	if _, _, err := h.PutTenant(ctx, eventhose.Tenant{ID: "child", Parent: "acme", Retention: eventhose.Retention{Age: eventhose.Duration(time.Hour)}}); err != nil {
		t.Fatal(err)
	}
	s := h.create(hook())
	k, secret, err := h.CreateKey(ctx, eventhose.APIKey{Tenant: "acme", Scopes: []eventhose.Scope{eventhose.ScopeManage, eventhose.ScopeRead, eventhose.ScopeRead}})
	if err != nil {
		t.Fatal(err)
	}
	h.restart()
	got, err := h.Subscription(ctx, "acme", s.ID)
	if err != nil || fmt.Sprintf("%#v", plain(got)) != fmt.Sprintf("%#v", plain(s)) {
		t.Errorf("got %#v, %v\nwant %#v", plain(got), err, plain(s))
	}
	all, err := h.All(ctx, "acme")
	if err != nil || len(all) != 1 || all[0].Secrets[0] != s.Secrets[0] || all[0].Destination.Headers["X-Token"] != "tok-1-planted" {
		t.Errorf("got %v, %v", all, err)
	}
	if tenant, err := h.Tenant(ctx, "child"); err != nil || tenant.Parent != "acme" || tenant.Retention.Age != eventhose.Duration(time.Hour) || tenant.Created.IsZero() {
		t.Errorf("got %+v, %v", tenant, err)
	}
	p, err := h.Authenticate(ctx, secret)
	if err != nil || p.KeyID != k.ID || p.Tenant != "acme" || !slices.Equal(p.Scopes, []eventhose.Scope{eventhose.ScopeRead, eventhose.ScopeManage}) {
		t.Errorf("got %+v, %v", p, err)
	}
}

// plain shows what Secret hides, to compare.
func plain(s eventhose.Subscription) any {
	text, _ := json.Marshal(s)
	var secrets []string
	for _, live := range s.Secrets {
		secrets = append(secrets, string(live.Secret)+live.Until.String())
	}
	for name, value := range s.Destination.Headers {
		secrets = append(secrets, name+string(value))
	}
	slices.Sort(secrets)
	return []any{string(text), secrets}
}

func TestWrongSecretKey(t *testing.T) {
	h := newHouse(t)
	h.create(hook())
	right := h.key
	for name, key := range map[string][]byte{"another": []byte(strings.Repeat("x", SecretKeySize)), "short": right[:31], "none": nil} {
		o := h.options()
		o.SecretKey = key
		c, err := New(h.store, o)
		wants(t, name, err, eventhose.CodeInvalid, "secret-key")
		if c != nil {
			t.Errorf("%s: got a Control", name)
		}
	}
	h.restart()
	if all, err := h.All(t.Context(), "acme"); err != nil || len(all) != 1 {
		t.Errorf("the right key: got %v, %v", all, err)
	}
}

// TestSeveralStartAtOnce: whoever loses the race to make the keyset uses the winner's.
func TestSeveralStartAtOnce(t *testing.T) {
	h := &house{t: t, fs: vfs.NewMem(), key: []byte(strings.Repeat("k", SecretKeySize))}
	h.openStore()
	defer h.close()
	controls := make([]*Control, 8)
	var wg sync.WaitGroup
	for i := range controls {
		wg.Go(func() {
			c, err := New(h.store, h.options())
			if err != nil {
				t.Error(err)
			}
			controls[i] = c
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	sealed, err := controls[0].seal.seal([]byte("a"), place{"t", "o", "f"})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range controls {
		if plain, err := c.seal.open(sealed, place{"t", "o", "f"}); err != nil || string(plain) != "a" {
			t.Errorf("control %d cannot open what another sealed: %v", i, err)
		}
	}
}

// TestSwappedRowsDoNotOpen moves sealed values between rows and fields of the store.
func TestSwappedRowsDoNotOpen(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	if err := h.EnsureTenant(ctx, "other"); err != nil {
		t.Fatal(err)
	}
	s := hook()
	s.Destination.Headers["X-Other"] = "tok-2"
	a, b := h.create(s), h.create(s)
	s.Tenant = "other"
	c := h.create(s)
	read := func(s eventhose.Subscription) (store.Record, subscriptionRecord) {
		var v subscriptionRecord
		r, err := h.load(ctx, s.Tenant, kindSubscription, string(s.ID), &v)
		if err != nil {
			t.Fatal(err)
		}
		return r, v
	}
	_, from := read(a)
	for name, swap := range map[string]func(*subscriptionRecord){
		"secret":            func(v *subscriptionRecord) { v.Secrets[0].Sealed = from.Secrets[0].Sealed },
		"header":            func(v *subscriptionRecord) { v.Headers["X-Token"] = from.Headers["X-Token"] },
		"header for header": func(v *subscriptionRecord) { v.Headers["X-Token"] = v.Headers["X-Other"] },
		"header for secret": func(v *subscriptionRecord) { v.Secrets[0].Sealed = v.Headers["X-Other"] },
		"flipped bit":       func(v *subscriptionRecord) { v.Secrets[0].Sealed[20] ^= 1 },
	} {
		for _, to := range []eventhose.Subscription{b, c} {
			r, v := read(to)
			swap(&v)
			change, err := put(r, v)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.decodeSubscription(change.Record); !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("%s of %s in %s: got %v", name, a.ID, to.ID, err)
			}
		}
	}
	r, _ := read(a)
	r.ID = string(b.ID) // the whole row
	if _, err := h.decodeSubscription(r); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a whole row moved: got %v", err)
	}
}
