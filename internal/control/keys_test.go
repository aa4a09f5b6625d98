package control

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

func TestKeys(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	read := []eventhose.Scope{eventhose.ScopeRead}
	for what, c := range map[string]struct {
		key   eventhose.APIKey
		code  eventhose.Code
		field string
	}{
		"no scope":      {eventhose.APIKey{}, eventhose.CodeInvalid, "scopes"},
		"bad scope":     {eventhose.APIKey{Scopes: []eventhose.Scope{"read", "write"}}, eventhose.CodeInvalid, "scopes[1]"},
		"absent tenant": {eventhose.APIKey{Tenant: "nobody", Scopes: read}, eventhose.CodeNotFound, "tenant"},
		"past":          {eventhose.APIKey{Scopes: read, Expires: time.Now().Add(-time.Second)}, eventhose.CodeInvalid, "expires"},
	} {
		_, _, err := h.CreateKey(ctx, c.key)
		wants(t, what, err, c.code, c.field)
	}

	form := regexp.MustCompile(`^ehk_[0-9a-z]{26}_[0-9A-Za-z]{32}_[0-9A-Za-z]{6}$`)
	mine, secret, err := h.CreateKey(ctx, eventhose.APIKey{ID: "mine", Tenant: "acme", Scopes: read, Revoked: time.Now()})
	if err != nil || !form.MatchString(string(secret)) || mine.ID == "mine" || !mine.Revoked.IsZero() {
		t.Fatalf("got %+v, %v", mine, err)
	}
	all, allSecret, err := h.CreateKey(ctx, eventhose.APIKey{Scopes: []eventhose.Scope{eventhose.ScopeAdmin}})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := h.Authenticate(ctx, allSecret); err != nil || p.Tenant != "" || !p.Has(eventhose.ScopePublish) {
		t.Errorf("got %+v, %v", p, err)
	}
	if p, err := h.Authenticate(ctx, admin); err != nil || p.Tenant != "" || !p.Has(eventhose.ScopeAdmin) || p.KeyID != "admin" {
		t.Errorf("got %+v, %v", p, err)
	}

	// Who was authenticated before is known by the id.
	for id, secret := range map[string]eventhose.Secret{mine.ID: secret, all.ID: allSecret, "admin": admin} {
		want, err1 := h.Authenticate(ctx, secret)
		if got, err := h.Holder(ctx, id); err != nil || err1 != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the holder of %s is %+v, %v, not %+v", id, got, err, want)
		}
	}

	ids := func(tenant eventhose.TenantID) (ids []string) {
		for after := ""; ; {
			page, err := h.Keys(ctx, tenant, after, 1)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				return ids
			}
			after = page[0].ID
			ids = append(ids, after)
		}
	}
	if got := ids(""); !slices.Equal(got, []string{mine.ID, all.ID}) {
		t.Errorf("all keys: %v", got)
	}
	if got := ids("acme"); !slices.Equal(got, []string{mine.ID}) {
		t.Errorf("a tenant's keys: %v", got)
	}

	wants(t, "revoke an absent key", revoke(h, "", "key_nope"), eventhose.CodeNotFound, "")
	wants(t, "revoke a foreign key", revoke(h, "acme", all.ID), eventhose.CodeNotFound, "")
	wants(t, "authenticate", authenticate(h, secret), "", "") // now it is in memory
	wants(t, "revoke", revoke(h, "acme", mine.ID), "", "")
	wants(t, "authenticate a revoked key", authenticate(h, secret), eventhose.CodeUnauthenticated, "")
	_, err = h.Holder(ctx, mine.ID)
	wants(t, "the holder of a revoked key", err, eventhose.CodeUnauthenticated, "")
	_, err = h.Holder(ctx, "key_nope")
	wants(t, "the holder of no key", err, eventhose.CodeUnauthenticated, "")
	wants(t, "revoke again", revoke(h, "", mine.ID), "", "")
	if keys, err := h.Keys(ctx, "acme", "", 10); err != nil || len(keys) != 1 || keys[0].Revoked.IsZero() {
		t.Errorf("got %+v, %v", keys, err)
	}
	h.restart()
	wants(t, "authenticate a revoked key", authenticate(h, secret), eventhose.CodeUnauthenticated, "")
	wants(t, "authenticate", authenticate(h, allSecret), "", "")
}

func authenticate(h *house, key eventhose.Secret) error {
	_, err := h.Authenticate(h.t.Context(), key)
	return err
}

// TestWrongKeysAnswerTheSame: nothing tells why a key is refused.
func TestWrongKeysAnswerTheSame(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	k, secret, err := h.CreateKey(ctx, eventhose.APIKey{Scopes: []eventhose.Scope{eventhose.ScopeRead}})
	if err != nil {
		t.Fatal(err)
	}
	revoked, revokedSecret, err := h.CreateKey(ctx, eventhose.APIKey{Scopes: []eventhose.Scope{eventhose.ScopeRead}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.RevokeKey(ctx, "", revoked.ID); err != nil {
		t.Fatal(err)
	}
	text := string(secret)
	changed := []byte(text)
	changed[40] ^= 1
	noAdmin, err := New(h.store, Options{SecretKey: h.key})
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%#v", authenticate(h, ""))
	for what, key := range map[string]string{
		"typo": string(changed), "short": text[:len(text)-1], "long": text + "a", "text": "hello", "admin and more": string(admin) + "x", "only an id": k.ID,
		"of its id, other secret": string(keyTokens.write(strings.TrimPrefix(k.ID, keyTokens.id))), "unknown id": string(keyTokens.write(strings.Repeat("0", 26))),
		"revoked": string(revokedSecret), "bytes": "\x00\xff",
	} {
		if got := fmt.Sprintf("%#v", authenticate(h, eventhose.Secret(key))); got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	wants(t, "the right key", authenticate(h, secret), "", "")
	for _, key := range []eventhose.Secret{"", admin} {
		_, err := noAdmin.Authenticate(ctx, key)
		wants(t, "no admin key", err, eventhose.CodeUnauthenticated, "")
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(string(keyTokens.write(strings.Repeat("a", 26))))
	f.Add("ehk_")
	f.Add("")
	f.Fuzz(func(t *testing.T, key string) {
		id, ok := keyTokens.parse(eventhose.Secret(key))
		if ok != (id != "") || ok && !strings.Contains(key, strings.TrimPrefix(id, keyTokens.id)) {
			t.Errorf("%q: got %q, %v", key, id, ok)
		}
	})
}

func TestChecksumFindsTypos(t *testing.T) {
	key := string(keyTokens.write(strings.Repeat("a", 26)))
	if _, ok := keyTokens.parse(eventhose.Secret(key)); !ok {
		t.Fatal("a new key has a wrong checksum")
	}
	for i := range len(key) {
		for _, c := range []byte("aZ9_") {
			typo := []byte(key)
			if typo[i] == c {
				continue
			}
			typo[i] = c
			if _, ok := keyTokens.parse(eventhose.Secret(typo)); ok {
				t.Errorf("a typo at %d was not found", i)
			}
		}
	}
}

func revoke(h *house, tenant eventhose.TenantID, id string) error {
	_, err := h.RevokeKey(h.t.Context(), tenant, id)
	return err
}

// A key and its sessions end in one write, so that nothing is left to fail once the key is revoked.
func TestRevokeIsOneWrite(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	k, secret, err := h.CreateKey(ctx, eventhose.APIKey{Scopes: []eventhose.Scope{eventhose.ScopeRead}})
	if err != nil {
		t.Fatal(err)
	}
	_, token, err := h.SignIn(ctx, secret, "")
	if err != nil {
		t.Fatal(err)
	}
	saves := 0
	h.store.ask(func(context.Context, []store.RecordChange) error {
		if saves++; saves > 1 {
			return store.ErrUnavailable
		}
		return nil
	})
	if revoked, err := h.RevokeKey(ctx, "", k.ID); err != nil || revoked.Revoked.IsZero() {
		t.Errorf("got %+v, %v", revoked, err)
	}
	_, err = h.Session(ctx, token)
	wants(t, "a session of a revoked key", err, eventhose.CodeUnauthenticated, "")
	if list, err := h.Sessions(ctx, "", 10); err != nil || len(list) != 0 {
		t.Errorf("sessions %v, %v", list, err)
	}
	if own, err := h.sessionsOf(ctx, k.ID); err != nil || len(own) != 0 {
		t.Errorf("remembered %v, %v", own, err)
	}
}

// What could not be written down of the uses of keys is kept for the next time, and keeps no other from being written.
func TestUsesOutliveAnError(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	read := []eventhose.Scope{eventhose.ScopeRead}
	var ids []string
	for range 2*usesAtOnce + 1 {
		k, secret, err := h.CreateKey(ctx, eventhose.APIKey{Tenant: "acme", Scopes: read})
		if err != nil {
			t.Fatal(err)
		}
		wants(t, "authenticate", authenticate(h, secret), "", "")
		ids = append(ids, k.ID)
	}
	written := func() (n int) {
		list, err := h.store.List(ctx, "", kindKeyUse, "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	saves := 0
	h.store.ask(func(context.Context, []store.RecordChange) error {
		if saves++; saves == 1 {
			return store.ErrUnavailable
		}
		return nil
	})
	wants(t, "the store is away for a moment", h.saveUses(ctx), eventhose.CodeUnavailable, "")
	if n := written(); saves != 3 || n != usesAtOnce+1 {
		t.Errorf("%d saves, %d uses are written", saves, n)
	}
	wants(t, "once more", h.saveUses(ctx), "", "")
	if n := written(); saves != 4 || n != len(ids) {
		t.Errorf("%d saves, %d uses are written", saves, n)
	}
	wants(t, "nothing is left", h.saveUses(ctx), "", "")
	if saves != 4 {
		t.Errorf("%d saves", saves)
	}
}
