package control

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// One key has so many sessions; one more ends the oldest. Another's are not touched.
func TestSessionsAreBounded(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	_, key, err := h.CreateKey(ctx, eventhose.APIKey{Name: "worker", Tenant: "acme", Scopes: []eventhose.Scope{eventhose.ScopeRead}})
	if err != nil {
		t.Fatal(err)
	}
	_, others, err := h.SignIn(ctx, admin, "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	var tokens []eventhose.Secret
	for range MaxSessionsOf + 3 {
		s, token, err := h.SignIn(ctx, key, "192.0.2.1")
		if err != nil || s.Name != "worker" || s.Tenant != "acme" || len(s.Scopes) != 1 {
			t.Fatalf("got %+v, %v", s, err)
		}
		tokens = append(tokens, token)
	}
	for i, token := range append(tokens, others) {
		want := eventhose.Code("")
		if i < 3 {
			want = eventhose.CodeUnauthenticated
		}
		_, err := h.Session(ctx, token)
		wants(t, fmt.Sprintf("session %d", i), err, want, "")
	}
	if list, err := h.Sessions(ctx, "", 100); err != nil || len(list) != MaxSessionsOf+1 {
		t.Errorf("%d sessions, %v", len(list), err)
	}
	// Nothing of a token is stored but its digest.
	for _, r := range h.store.saved {
		for _, token := range tokens {
			if strings.Contains(string(r.Value), string(token)) || strings.Contains(r.ID, string(token)) {
				t.Fatalf("a token is in the store: %s %s", r.Kind, r.ID)
			}
		}
	}
}

// A session that is over counts no more: none that lives is ended for its sake.
func TestSessionsThatAreOverDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		ctx := t.Context()
		signIn := func() eventhose.Secret {
			_, token, err := h.SignIn(ctx, admin, "")
			if err != nil {
				t.Fatal(err)
			}
			return token
		}
		alive := func(token eventhose.Secret) {
			t.Helper()
			if _, err := h.Session(ctx, token); err != nil {
				t.Fatal(err)
			}
		}
		old := signIn()
		for range MaxSessionsOf - 1 {
			signIn() // and nobody comes back
		}
		for range 3 {
			pass(eventhose.SessionIdle / 2)
			alive(old)
		}
		for range MaxSessionsOf - 1 {
			signIn()
		}
		alive(old)
		signIn() // one too many
		_, err := h.Session(ctx, old)
		wants(t, "the oldest of too many", err, eventhose.CodeUnauthenticated, "")
		if own, err := h.sessionsOf(ctx, adminKeyID); err != nil || len(own) != MaxSessionsOf {
			t.Errorf("%d are remembered, %v", len(own), err)
		}
	})
}

// A list of subscriptions that names none would be read as all of them.
func TestLinkToNoSubscription(t *testing.T) {
	h := newHouse(t)
	_, _, err := h.CreateLink(t.Context(), eventhose.PortalLink{Tenant: "acme", Subscriptions: []eventhose.SubscriptionID{}}, 0)
	wants(t, "a link to none", err, eventhose.CodeInvalid, "subscriptions")
	if list, err := h.Links(t.Context(), "acme", "", 10); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
	l, _, err := h.CreateLink(t.Context(), eventhose.PortalLink{Tenant: "acme"}, 0)
	if err != nil || l.Subscriptions != nil {
		t.Errorf("got %+v, %v", l, err)
	}
}

// A session of the admin key ends when the operator gives another one, or none; those of other keys go on.
func TestSessionOfAnotherAdminKey(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	_, key, err := h.CreateKey(ctx, eventhose.APIKey{Scopes: []eventhose.Scope{eventhose.ScopeRead}})
	if err != nil {
		t.Fatal(err)
	}
	_, byAdmin, err1 := h.SignIn(ctx, admin, "")
	_, byKey, err2 := h.SignIn(ctx, key, "")
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	for _, step := range []struct {
		admin eventhose.Secret
		want  eventhose.Code
	}{{admin, ""}, {"another-admin-key-of-the-operator", eventhose.CodeUnauthenticated}, {"", eventhose.CodeUnauthenticated}, {admin, ""}} {
		h.admin = step.admin
		h.restart()
		p, err := h.Session(ctx, byAdmin)
		wants(t, "a session of the admin key", err, step.want, "")
		if err == nil && (p.Kind != eventhose.PrincipalSession || p.Name != adminKeyID || !p.Has(eventhose.ScopeAdmin)) {
			t.Errorf("got %+v", p)
		}
		_, err = h.Session(ctx, byKey)
		wants(t, "a session of another key", err, "", "")
	}
}

// Another node hears of what has ended there, and knows a stream's holder by the session's or the link's id.
func TestEndsAreHeard(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	other, err := New(h.store, h.options())
	if err != nil {
		t.Fatal(err)
	}
	s, token, err := h.SignIn(ctx, admin, "")
	if err != nil {
		t.Fatal(err)
	}
	l, linkToken, err := h.CreateLink(ctx, eventhose.PortalLink{Tenant: "acme"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	both := func(want eventhose.Code) {
		t.Helper()
		_, err := other.Session(ctx, token)
		wants(t, "the session", err, want, "")
		_, err = other.Authenticate(ctx, linkToken)
		wants(t, "the link", err, want, "")
		for _, id := range []string{s.ID, l.ID} {
			p, err := other.Holder(ctx, id)
			wants(t, "the holder", err, want, "")
			if err == nil && p.KeyID != id {
				t.Errorf("got %+v", p)
			}
		}
	}
	both("")
	wants(t, "revoke a foreign link", h.RevokeLink(ctx, "globex", l.ID), eventhose.CodeNotFound, "")
	both("")
	wants(t, "end", h.EndSession(ctx, s.ID), "", "")
	wants(t, "revoke", h.RevokeLink(ctx, "acme", l.ID), "", "")
	for _, r := range h.store.saved {
		if Tells(r.Kind) {
			other.Heard(r.Kind, r.Tenant, r.ID)
		}
	}
	both(eventhose.CodeUnauthenticated)
	wants(t, "end again", h.EndSession(ctx, s.ID), eventhose.CodeNotFound, "")
	wants(t, "revoke again", h.RevokeLink(ctx, "acme", l.ID), eventhose.CodeNotFound, "")
}

// A session in use is written down once a minute, however many requests there are.
func TestSessionIsNotWrittenTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		_, token, err := h.SignIn(t.Context(), admin, "")
		if err != nil {
			t.Fatal(err)
		}
		before := len(h.store.saved)
		for range 3 {
			var crew sync.WaitGroup
			for range 20 {
				crew.Go(func() {
					if _, err := h.Session(t.Context(), token); err != nil {
						t.Error(err)
					}
				})
			}
			crew.Wait()
			pass(time.Minute)
		}
		if n := len(h.store.saved) - before; n != 2 {
			t.Errorf("%d writes, want 2", n)
		}
	})
}

// A session is told to end when its key does, also once its use was noted.
func TestSessionIsToldToEndWithItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		ends := now().Add(time.Hour)
		_, key, err := h.CreateKey(t.Context(), eventhose.APIKey{Scopes: []eventhose.Scope{eventhose.ScopeRead}, Expires: ends})
		if err != nil {
			t.Fatal(err)
		}
		_, token, err := h.SignIn(t.Context(), key, "")
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if p, err := h.Session(t.Context(), token); err != nil || !p.Expires.Equal(ends) {
				t.Errorf("it is told to end at %v, and its key ends at %v: %v", p.Expires, ends, err)
			}
			pass(sessionGrain)
		}
	})
}

// Of many at once one is the first.
func TestOnce(t *testing.T) {
	h := newHouse(t)
	for id := range 5 {
		var first atomic.Int32
		var crew sync.WaitGroup
		for range 20 {
			crew.Go(func() {
				ok, err := h.Once(t.Context(), fmt.Sprint(id), time.Now().Add(time.Minute))
				if err != nil {
					t.Error(err)
				}
				if ok {
					first.Add(1)
				}
			})
		}
		crew.Wait()
		if first.Load() != 1 {
			t.Errorf("%d were the first", first.Load())
		}
	}
}

// A filter that nothing passes is no scan: each page looks at so many entries, and says where it has come to.
func TestAuditPages(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	const entries, rare = maxAuditLook + auditStep + 7, 3
	var changes []store.RecordChange
	for i := range entries {
		e := eventhose.AuditEntry{ID: fmt.Sprintf("aud_%026d", i), Action: "often", Tenant: "acme"}
		if i == rare || i == entries-1 {
			e.Action = "rare"
		}
		change, err := put(store.Record{Tenant: "acme", Kind: kindAudit, ID: e.ID}, e)
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, change)
	}
	for chunk := range slices.Chunk(changes, 1000) {
		if err := h.store.Store.Save(ctx, chunk, nil); err != nil {
			t.Fatal(err)
		}
	}
	var found []string
	pages := 0
	for after := ""; ; pages++ {
		list, next, err := h.AuditTrail(ctx, "acme", eventhose.AuditQuery{After: after, Limit: 10, Action: "rare"})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			found = append(found, e.ID)
		}
		if next == "" {
			break
		}
		if next <= after {
			t.Fatalf("from %s on to %s", after, next)
		}
		after = next
	}
	if pages != 1 || len(found) != 2 || found[0] != fmt.Sprintf("aud_%026d", rare) {
		t.Errorf("%d more pages, found %v", pages, found)
	}
}

// The newest come first, and whoever reads on meets each once.
func TestAuditOrder(t *testing.T) {
	h := newHouse(t)
	for i := range 25 {
		if err := h.Audit(t.Context(), eventhose.AuditEntry{Action: fmt.Sprint(i), Tenant: "globex"}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for after := ""; ; {
		list, next, err := h.AuditTrail(t.Context(), "globex", eventhose.AuditQuery{After: after, Limit: 4})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			got = append(got, e.Action)
		}
		if after = next; next == "" {
			break
		}
	}
	for i, action := range got {
		if action != fmt.Sprint(24-i) || len(got) != 25 {
			t.Fatalf("got %v", got)
		}
	}
}

func TestAuditExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		count := func() int {
			n := 0
			for _, tenant := range []eventhose.TenantID{"", "acme"} {
				list, _, err := h.AuditTrail(t.Context(), tenant, eventhose.AuditQuery{Limit: 10})
				if err != nil {
					t.Fatal(err)
				}
				n += len(list)
			}
			return n
		}
		if err := h.Audit(t.Context(), eventhose.AuditEntry{Action: "a", Tenant: "acme"}); err != nil {
			t.Fatal(err)
		}
		pass(eventhose.AuditKept - time.Second)
		if n := count(); n != 2 {
			t.Errorf("%d entries before they expire", n)
		}
		pass(time.Second)
		if n := count(); n != 0 {
			t.Errorf("%d entries after they expire", n)
		}
	})
}

// Each key of a list tells its own last use, whoever else's lie between.
func TestUsesInLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		ctx := t.Context()
		if err := h.EnsureTenant(ctx, "globex"); err != nil {
			t.Fatal(err)
		}
		want := map[string]time.Time{}
		for i := range 60 {
			pass(time.Minute)
			tenant := eventhose.TenantID("globex")
			if i%7 == 0 {
				tenant = "acme"
			}
			k, key, err := h.CreateKey(ctx, eventhose.APIKey{Tenant: tenant, Scopes: []eventhose.Scope{eventhose.ScopeRead}})
			if err != nil {
				t.Fatal(err)
			}
			if want[k.ID] = (time.Time{}); i%3 > 0 {
				if _, err := h.Authenticate(ctx, key); err != nil {
					t.Fatal(err)
				}
				want[k.ID] = time.Now().UTC().Truncate(time.Second)
			}
		}
		for _, written := range []bool{false, true} {
			if written {
				if err := h.saveUses(ctx); err != nil {
					t.Fatal(err)
				}
			}
			for tenant, n := range map[eventhose.TenantID]int{"": 60, "acme": 9, "globex": 51} {
				list, err := h.Keys(ctx, tenant, "", 100)
				if err != nil || len(list) != n {
					t.Fatalf("%d keys, %v", len(list), err)
				}
				for _, k := range list {
					if !k.LastUsed.Equal(want[k.ID]) {
						t.Errorf("of %q, written %v: used at %v, want %v", tenant, written, k.LastUsed, want[k.ID])
					}
				}
			}
		}
	})
}

// When a key was used last is written down at a stop, and the later of what two nodes know stays.
func TestUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		ctx := t.Context()
		k, key, err := h.CreateKey(ctx, eventhose.APIKey{Tenant: "acme", Scopes: []eventhose.Scope{eventhose.ScopeRead}})
		if err != nil {
			t.Fatal(err)
		}
		other, err := New(h.store, h.options())
		if err != nil {
			t.Fatal(err)
		}
		lastUsed := func(c *Control) time.Time {
			list, err := c.Keys(ctx, "acme", "", 10)
			if err != nil || len(list) != 1 || list[0].ID != k.ID {
				t.Fatalf("got %+v, %v", list, err)
			}
			return list[0].LastUsed
		}
		use := func(c *Control) {
			if _, err := c.Authenticate(ctx, key); err != nil {
				t.Fatal(err)
			}
		}
		use(h.Control)
		first := time.Now().UTC().Truncate(time.Second)
		if got := lastUsed(h.Control); !got.Equal(first) || !lastUsed(other).IsZero() {
			t.Errorf("used at %v", got)
		}
		pass(time.Hour)
		use(other)
		later := time.Now().UTC().Truncate(time.Second)
		for _, c := range []*Control{other, h.Control} { // the earlier use is written down later
			if err := c.saveUses(ctx); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []*Control{h.Control, other} {
			if got := lastUsed(c); !got.Equal(later) {
				t.Errorf("used at %v, want %v", got, later)
			}
		}
		if _, err := h.RevokeKey(ctx, "acme", k.ID); err != nil {
			t.Fatal(err)
		}
		if err := h.saveUses(ctx); err != nil {
			t.Error(err)
		}
	})
}
