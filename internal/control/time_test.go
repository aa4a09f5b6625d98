package control

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
)

// pass lets a bubble's time go by.
func pass(d time.Duration) { <-time.After(d) }

func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		ctx := t.Context()
		first := h.create(hook())
		live := func() (secrets []eventhose.Secret) {
			s, err := h.Subscription(ctx, "acme", first.ID)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range s.Secrets {
				secrets = append(secrets, l.Secret)
			}
			return secrets
		}
		rotate := func(overlap time.Duration) eventhose.Secret {
			s, err := h.RotateSecret(ctx, "acme", first.ID, overlap)
			if err != nil {
				t.Fatal(err)
			}
			return s.Secrets[0].Secret
		}
		same := func(what string, got, want []eventhose.Secret) {
			t.Helper()
			if len(got) != len(want) {
				t.Fatalf("%s: %d secrets, want %d", what, len(got), len(want))
			}
			for i := range got {
				if got[i] != want[i] {
					t.Errorf("%s: secret %d is another", what, i)
				}
			}
		}
		a := first.Secrets[0].Secret
		const day = time.Duration(eventhose.DefaultOverlap)
		b := rotate(day)
		same("rotated", live(), []eventhose.Secret{b, a})
		pass(day - time.Microsecond)
		same("before the overlap ends", live(), []eventhose.Secret{b, a})
		pass(time.Microsecond)
		same("after it", live(), []eventhose.Secret{b})

		c := rotate(MaxOverlap)
		d := rotate(time.Hour)
		same("twice", live(), []eventhose.Secret{d, c, b})
		e := rotate(time.Hour)
		same("the oldest makes room", live(), []eventhose.Secret{e, d, c})
		pass(time.Hour)
		same("an hour later", live(), []eventhose.Secret{e})
		f := rotate(time.Minute) // drops what has expired
		s, err := h.Subscription(ctx, "acme", first.ID)
		if err != nil || len(s.Secrets) != 2 || s.Secrets[0].Secret != f {
			t.Errorf("got %d secrets, %v", len(s.Secrets), err)
		}
		var stored subscriptionRecord
		if _, err := h.load(ctx, "acme", kindSubscription, string(first.ID), &stored); err != nil || len(stored.Secrets) != 2 {
			t.Errorf("stores %d secrets, %v", len(stored.Secrets), err)
		}
		for _, overlap := range []time.Duration{-1, MaxOverlap + 1} {
			_, err := h.RotateSecret(ctx, "acme", first.ID, overlap)
			wants(t, overlap.String(), err, eventhose.CodeInvalid, "overlap")
		}
		h.close()
		h.open()
	})
}

func TestKeyExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		ctx := t.Context()
		_, key, err := h.CreateKey(ctx, eventhose.APIKey{Tenant: "acme", Scopes: []eventhose.Scope{eventhose.ScopeRead}, Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		wants(t, "at once", authenticate(h, key), "", "")
		pass(time.Hour - time.Microsecond)
		wants(t, "before", authenticate(h, key), "", "")
		pass(time.Microsecond)
		wants(t, "after", authenticate(h, key), eventhose.CodeUnauthenticated, "")
		if keys, err := h.Keys(ctx, "acme", "", 10); err != nil || len(keys) != 1 {
			t.Errorf("an expired key is still listed: got %v, %v", keys, err)
		}
		pass(keptDead)
		for _, tenant := range []eventhose.TenantID{"", "acme"} {
			if keys, err := h.Keys(ctx, tenant, "", 10); err != nil || len(keys) != 0 {
				t.Errorf("a month later: got %v, %v", keys, err)
			}
		}
	})
}

func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		ctx := t.Context()
		one, two := [32]byte{1}, [32]byte{2}
		reserve := func(what string, tenant eventhose.TenantID, key string, digest [32]byte, code eventhose.Code) *eventhose.StoredAnswer {
			t.Helper()
			a, err := h.ReserveAnswer(ctx, tenant, key, digest)
			wants(t, what, err, code, "")
			return a
		}
		none := func(what string, a *eventhose.StoredAnswer) {
			t.Helper()
			if a != nil {
				t.Errorf("%s: got an answer", what)
			}
		}
		for _, key := range []string{"", strings.Repeat("k", MaxIdempotencyKey+1)} {
			_, err := h.ReserveAnswer(ctx, "acme", key, one)
			wants(t, "bad key", err, eventhose.CodeInvalid, "Idempotency-Key")
		}
		none("first", reserve("first", "acme", "k", one, ""))
		reserve("under way", "acme", "k", one, eventhose.CodeConflict)
		reserve("another request", "acme", "k", two, eventhose.CodeInvalid)
		none("another tenant", reserve("another tenant", "other", "k", two, ""))
		if err := h.SaveAnswer(ctx, "acme", "k", one, nil); err != nil {
			t.Fatal(err)
		}
		none("given back", reserve("given back", "acme", "k", two, ""))
		pass(answerReserved)
		none("after a crash", reserve("after a crash", "acme", "k", one, ""))
		wants(t, "save another's", h.SaveAnswer(ctx, "acme", "k", two, &eventhose.StoredAnswer{}), eventhose.CodeConflict, "")
		body := []byte(strings.Repeat("0123456789", 100_000)) // eight parts
		if err := h.SaveAnswer(ctx, "acme", "k", one, &eventhose.StoredAnswer{Status: 202, ContentType: "application/json", Body: body}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if a := reserve("a repeat", "acme", "k", one, ""); a == nil || a.Status != 202 || a.ContentType != "application/json" || !bytes.Equal(a.Body, body) {
				t.Errorf("a repeat: got %v", a)
			}
			reserve("another request", "acme", "k", two, eventhose.CodeInvalid)
			h.restart()
		}
		pass(answerKept)
		none("a day later", reserve("a day later", "acme", "k", two, ""))
		pass(answerReserved) // its reservation has expired, and its answer is kept all the same
		if err := h.SaveAnswer(ctx, "acme", "k", two, &eventhose.StoredAnswer{Status: 204}); err != nil {
			t.Fatal(err)
		}
		if a := reserve("an empty answer", "acme", "k", two, ""); a == nil || a.Status != 204 || len(a.Body) != 0 {
			t.Errorf("an empty answer: got %v", a)
		}
		wants(t, "too large", h.SaveAnswer(ctx, "acme", "k", two, &eventhose.StoredAnswer{Body: make([]byte, MaxAnswer+1)}), eventhose.CodeTooLarge, "")
	})
}

func TestOneOfManyReserves(t *testing.T) {
	h := newHouse(t)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			_, err := h.ReserveAnswer(t.Context(), "acme", "k", [32]byte{1})
			switch eventhose.CodeOf(err) {
			case "":
				won.Add(1)
			case eventhose.CodeConflict:
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d requests go on, want 1", won.Load())
	}
}

func TestSecretKeyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, keyFile)
	keys := make([][]byte, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = LoadOrCreateSecretKey(dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		if len(key) != SecretKeySize || !bytes.Equal(key, keys[0]) {
			t.Fatal("several starts made several keys")
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("leaves %v, %v", entries, err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadOrCreateSecretKey(dir)
		wants(t, mode.String(), err, eventhose.CodeInvalid, "secret-key")
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if key, err := LoadOrCreateSecretKey(dir); err != nil || !bytes.Equal(key, keys[0]) {
		t.Errorf("read only: %v", err)
	}
	for _, text := range []string{"", "short", strings.Repeat("A", 400)} {
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadOrCreateSecretKey(dir)
		wants(t, text, err, eventhose.CodeInvalid, "secret-key")
	}
	if _, err := LoadOrCreateSecretKey(filepath.Join(dir, "absent")); err == nil {
		t.Error("made a key in a directory that is not there")
	}
}
