package control

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

func TestCreateSubscription(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	s := hook()
	s.ID, s.Secrets, s.PublicKey, s.Reason = "sub_mine", []eventhose.LiveSecret{{Secret: "mine"}}, "mine", "mine"
	made := h.create(s)
	if !strings.HasPrefix(string(made.ID), "sub_") || len(made.ID) != 30 || made.State != eventhose.StateActive || made.Version != 1 ||
		made.Created.IsZero() || made.Reason != "" || made.PublicKey != "" || len(made.Retry.Schedule) != 10 || made.Destination.Signature != "v1" {
		t.Errorf("got %+v", made)
	}
	if len(made.Secrets) != 1 || !strings.HasPrefix(string(made.Secrets[0].Secret), "whsec_") {
		t.Errorf("got %d secrets", len(made.Secrets))
	} else if b, err := base64.StdEncoding.DecodeString(string(made.Secrets[0].Secret)[6:]); err != nil || len(b) != 32 {
		t.Errorf("the secret has %d bytes, %v", len(b), err)
	}
	s.Destination.Headers["X-Token"] = "changed by the caller"
	if got, err := h.Subscription(ctx, "acme", made.ID); err != nil || got.Destination.Headers["X-Token"] != "tok-1-planted" {
		t.Errorf("got %+v, %v", got, err)
	}

	s = hook()
	s.Destination.Signature = "v1a"
	made = h.create(s)
	seed, err1 := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(made.Secrets[0].Secret), "whsk_"))
	public, err2 := base64.StdEncoding.DecodeString(strings.TrimPrefix(made.PublicKey, "whpk_"))
	if err1 != nil || err2 != nil || len(seed) != ed25519.SeedSize || !ed25519.Verify(public, []byte("m"), ed25519.Sign(ed25519.NewKeyFromSeed(seed), []byte("m"))) {
		t.Errorf("the pair does not fit: %v, %v", err1, err2)
	}
}

func TestCreateSubscriptionRefuses(t *testing.T) {
	h := newHouse(t)
	for field, change := range map[string]func(*eventhose.Subscription){
		"ordering":                    func(s *eventhose.Subscription) { s.Ordering = "any" },
		"state":                       func(s *eventhose.Subscription) { s.State = eventhose.StateDisabled },
		"filter.expression":           func(s *eventhose.Subscription) { s.Filter.Expression = "data." },
		"destination.url":             func(s *eventhose.Subscription) { s.Destination.URL = badURL },
		"destination.type":            func(s *eventhose.Subscription) { s.Destination.Type = "pigeon" },
		"destination.headers.X-Token": func(s *eventhose.Subscription) { s.Destination.Headers["X-Token"] = "***" },
	} {
		s := hook()
		change(&s)
		_, err := h.CreateSubscription(t.Context(), s, "")
		wants(t, field, err, eventhose.CodeInvalid, field)
	}
	s := hook()
	s.Tenant = "nobody"
	_, err := h.CreateSubscription(t.Context(), s, "")
	wants(t, "absent tenant", err, eventhose.CodeNotFound, "")
	if all, err := h.All(t.Context(), "acme"); err != nil || len(all) != 0 {
		t.Errorf("something was saved: %v, %v", all, err)
	}
}

func TestCreateFrom(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	h.appendEvents("acme", 5)
	head, err := h.store.Head(ctx, "acme")
	if err != nil || head.Last != 5 {
		t.Fatal(head, err)
	}
	for from, want := range map[string]eventhose.Sequence{"": 5, "now": 5, "start": 0, "0": 0, head.Cursor(3).String(): 3} {
		s, err := h.CreateSubscription(ctx, hook(), from)
		if err != nil {
			t.Errorf("%q: %v", from, err)
			continue
		}
		lane, _, err := h.store.Lane(ctx, "acme", s.ID)
		if err != nil || lane.Cursor != want || !lane.Behind {
			t.Errorf("%q: got %+v, %v; want cursor %d", from, lane, err, want)
		}
	}
	for from, code := range map[string]eventhose.Code{"yesterday": eventhose.CodeInvalid, head.Cursor(6).String(): eventhose.CodeCursorGone} {
		_, err := h.CreateSubscription(ctx, hook(), from)
		wants(t, from, err, code, "")
	}
	_, err = h.CreateSubscription(ctx, hook(), "yesterday")
	wants(t, "field", err, eventhose.CodeInvalid, "from")
}

func TestSubscriptionPages(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	var want, got []eventhose.SubscriptionID
	for range 7 {
		want = append(want, h.create(hook()).ID)
	}
	slices.Sort(want)
	for after := eventhose.SubscriptionID(""); ; {
		page, err := h.Subscriptions(ctx, "acme", after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, s := range page {
			got = append(got, s.ID)
		}
		after = got[len(got)-1]
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	_, err := h.Subscriptions(ctx, "nobody", "", 3)
	wants(t, "absent tenant", err, eventhose.CodeNotFound, "")
	_, err = h.Subscription(ctx, "other", want[0])
	wants(t, "foreign subscription", err, eventhose.CodeNotFound, "")
}

func TestSubscriptionLimit(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	first := h.create(hook())
	r, err := h.store.Record(ctx, "acme", kindCount, kindSubscription)
	if err != nil || string(r.Value) != "1" {
		t.Fatal(r, err)
	}
	change, err := put(r, eventhose.MaxSubscriptions)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.save(ctx, "count", []store.RecordChange{change}); err != nil {
		t.Fatal(err)
	}
	_, err = h.CreateSubscription(ctx, hook(), "")
	wants(t, "one too many", err, eventhose.CodeLimit, "")
	if err := h.DeleteSubscription(ctx, "acme", first.ID); err != nil {
		t.Fatal(err)
	}
	h.create(hook())
}

func TestDeleteSubscription(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	s := h.create(hook())
	wants(t, "foreign", h.DeleteSubscription(ctx, "other", s.ID), eventhose.CodeNotFound, "")
	wants(t, "delete", h.DeleteSubscription(ctx, "acme", s.ID), "", "")
	wants(t, "delete again", h.DeleteSubscription(ctx, "acme", s.ID), eventhose.CodeNotFound, "")
	if _, _, err := h.store.Lane(ctx, "acme", s.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the lane: got %v", err)
	}
	_, err := h.Subscription(ctx, "acme", s.ID)
	wants(t, "read", err, eventhose.CodeNotFound, "")
}

func TestUpdateSubscription(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	s := h.create(hook())
	name, ordering, bad := "new name", eventhose.OrderingKey, eventhose.Filter{Expression: "1"}
	got, err := h.UpdateSubscription(ctx, "acme", s.ID, eventhose.SubscriptionPatch{Name: &name, Ordering: &ordering, Retry: &eventhose.Retry{Timeout: eventhose.Duration(time.Second)},
		Destination: &eventhose.Destination{Type: "webhook", URL: "https://example.com/other", Headers: map[string]eventhose.Secret{"X-Token": "***", "X-New": "n"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.Subscription(ctx, "acme", s.ID)
	if err != nil || fmt.Sprint(plain(again)) != fmt.Sprint(plain(got)) {
		t.Errorf("read %v, %v; was answered %v", plain(again), err, plain(got))
	}
	if got.Name != name || got.Ordering != ordering || got.Retry.Timeout != eventhose.Duration(time.Second) || len(got.Retry.Schedule) != 10 || got.Version != 2 ||
		got.Filter.Expression != s.Filter.Expression || got.Destination.Headers["X-Token"] != "tok-1-planted" || got.Destination.Headers["X-New"] != "n" ||
		got.Secrets[0] != s.Secrets[0] || got.Created != s.Created {
		t.Errorf("got %v", plain(got))
	}
	for field, p := range map[string]eventhose.SubscriptionPatch{
		"filter.expression":         {Filter: &bad},
		"destination.url":           {Destination: &eventhose.Destination{Type: "webhook", URL: badURL}},
		"destination.signature":     {Destination: &eventhose.Destination{Type: "webhook", URL: "https://example.com/", Signature: "v1a"}},
		"destination.headers.X-Old": {Destination: &eventhose.Destination{Type: "webhook", URL: "https://example.com/", Headers: map[string]eventhose.Secret{"X-Old": "***"}}},
	} {
		_, err := h.UpdateSubscription(ctx, "acme", s.ID, p, nil)
		wants(t, field, err, eventhose.CodeInvalid, field)
	}
	if after, err := h.Subscription(ctx, "acme", s.ID); err != nil || after.Version != 2 {
		t.Errorf("a refused change was saved: %+v, %v", after, err)
	}
	_, err = h.UpdateSubscription(ctx, "other", s.ID, eventhose.SubscriptionPatch{Name: &name}, nil)
	wants(t, "foreign", err, eventhose.CodeNotFound, "")
}

// TestConcurrentChanges: none is lost, and each makes a version of its own.
func TestConcurrentChanges(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	s := h.create(hook())
	name, flight := "raced", 7
	var wg sync.WaitGroup
	for _, change := range []func() error{
		func() error {
			_, err := h.UpdateSubscription(ctx, "acme", s.ID, eventhose.SubscriptionPatch{Name: &name}, nil)
			return err
		},
		func() error {
			_, err := h.UpdateSubscription(ctx, "acme", s.ID, eventhose.SubscriptionPatch{MaxInFlight: &flight}, nil)
			return err
		},
		func() error { _, err := h.RotateSecret(ctx, "acme", s.ID, time.Hour); return err },
		func() error { return h.Disable(ctx, "acme", s.ID, "the receiver answered 410") },
	} {
		wg.Go(func() {
			if err := change(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := h.Subscription(ctx, "acme", s.ID)
	if err != nil || got.Name != name || got.MaxInFlight != flight || len(got.Secrets) != 2 || got.State != eventhose.StateDisabled || got.Version != 5 {
		t.Errorf("got %+v, %v", got, err)
	}

	// Creations count without gaps.
	for range 4 {
		wg.Go(func() {
			for range 5 {
				if _, err := h.CreateSubscription(ctx, hook(), ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		if err := h.DeleteSubscription(ctx, "acme", s.ID); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	if r, err := h.store.Record(ctx, "acme", kindCount, kindSubscription); err != nil || string(r.Value) != "20" {
		t.Errorf("counts %s, %v", r.Value, err)
	}
}

func TestStates(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	s := h.create(hook())
	set := func(state eventhose.SubscriptionState) eventhose.Subscription {
		got, err := h.SetState(ctx, "acme", s.ID, state)
		if err != nil {
			t.Error(err)
		}
		return got
	}
	if got := set(eventhose.StatePaused); got.State != eventhose.StatePaused || got.Reason == "" {
		t.Errorf("paused: %+v", got)
	}
	if got := set(eventhose.StatePaused); got.Version != 2 {
		t.Errorf("paused again: %+v", got)
	}
	for _, reason := range []string{"gone", "again"} {
		if err := h.Disable(ctx, "acme", s.ID, reason); err != nil {
			t.Error(err)
		}
	}
	if got, err := h.Subscription(ctx, "acme", s.ID); err != nil || got.State != eventhose.StateDisabled || got.Reason != "gone" {
		t.Errorf("disabled: %+v, %v", got, err)
	}
	if got := set(eventhose.StateActive); got.State != eventhose.StateActive || got.Reason != "" {
		t.Errorf("active: %+v", got)
	}
	_, err := h.SetState(ctx, "acme", s.ID, eventhose.StateDisabled)
	wants(t, "disable by hand", err, eventhose.CodeInvalid, "state")
	_, err = h.SetState(ctx, "other", s.ID, eventhose.StateActive)
	wants(t, "foreign", err, eventhose.CodeNotFound, "")
	wants(t, "disable an absent one", h.Disable(ctx, "acme", "sub_no", "x"), eventhose.CodeNotFound, "")
}

func TestAnnounce(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	early := h.create(hook()) // nobody listens yet
	var heard []string
	h.Announce(func(tenant eventhose.TenantID, id eventhose.SubscriptionID) {
		_, err := h.Subscription(ctx, tenant, id) // what was announced is committed
		heard = append(heard, fmt.Sprint(tenant, " ", id == early.ID, " ", eventhose.CodeOf(err)))
	})
	name := "n"
	h.create(hook())
	h.UpdateSubscription(ctx, "acme", early.ID, eventhose.SubscriptionPatch{Name: &name}, nil)
	h.SetState(ctx, "acme", early.ID, eventhose.StatePaused)
	h.SetState(ctx, "acme", early.ID, eventhose.StatePaused) // it may be that nobody knew
	h.RotateSecret(ctx, "acme", early.ID, 0)
	h.Disable(ctx, "acme", early.ID, "x")
	h.UpdateSubscription(ctx, "acme", "sub_no", eventhose.SubscriptionPatch{}, nil)
	h.DeleteSubscription(ctx, "acme", early.ID)
	h.DeleteSubscription(ctx, "acme", early.ID)
	want := []string{"acme false ", "acme true ", "acme true ", "acme true ", "acme true ", "acme true ", "acme true not_found"}
	if !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
}

// A change that the store did not answer may have been made, and nobody else tells this node of it: it is announced. One that
// is asked for again, and was made, is too.
func TestAnnounceWhatNobodyKnows(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	var heard []eventhose.SubscriptionID
	h.Announce(func(_ eventhose.TenantID, id eventhose.SubscriptionID) { heard = append(heard, id) })
	announced := func(what string, id eventhose.SubscriptionID) {
		t.Helper()
		if !slices.Contains(heard, id) {
			t.Errorf("%s is not announced", what)
		}
		heard = nil
	}
	only := func() eventhose.SubscriptionID {
		t.Helper()
		all, err := h.All(ctx, "acme")
		if err != nil || len(all) != 1 {
			t.Fatalf("%d subscriptions, %v", len(all), err)
		}
		return all[0].ID
	}
	h.mutely("create", func() error { _, err := h.CreateSubscription(ctx, hook(), ""); return err })
	id := only()
	announced("creating", id)
	h.mutely("pause", func() error { _, err := h.SetState(ctx, "acme", id, eventhose.StatePaused); return err })
	announced("pausing", id)
	if s, err := h.SetState(ctx, "acme", id, eventhose.StatePaused); err != nil || s.Version != 2 {
		t.Errorf("version %d, %v", s.Version, err)
	}
	announced("pausing again", id)
	h.mutely("rotate the secret", func() error { _, err := h.RotateSecret(ctx, "acme", id, 0); return err })
	announced("another secret", id)
	h.mutely("delete", func() error { return h.DeleteSubscription(ctx, "acme", id) })
	announced("deleting", id)

	h.mutely("create a source", func() error {
		_, err := h.CreateSource(ctx, eventhose.Source{Tenant: "acme", Name: "payments", Provider: "stripe"})
		return err
	})
	inbox := only()
	announced("a source's inbox", inbox)
	made, err := h.Sources(ctx, "acme", "", 10)
	if err != nil || len(made) != 1 {
		t.Fatalf("%d sources, %v", len(made), err)
	}
	source := made[0].ID
	if _, err := h.FindSource(ctx, source); err != nil {
		t.Fatal(err)
	}
	name := "other"
	h.mutely("update a source", func() error {
		_, err := h.UpdateSource(ctx, "acme", source, eventhose.SourcePatch{Name: &name})
		return err
	})
	if s, err := h.FindSource(ctx, source); err != nil || s.Name != name {
		t.Errorf("the source is called %q, %v", s.Name, err)
	}
	h.mutely("delete a source", func() error { return h.DeleteSource(ctx, "acme", source) })
	announced("an inbox that goes with its source", inbox)
	_, err = h.FindSource(ctx, source)
	wants(t, "find what is deleted", err, eventhose.CodeNotFound, "")

	bounded := false
	h.AnnounceTenants(func(id eventhose.TenantID) { bounded = bounded || id == "acme" })
	if _, err := h.Tenant(ctx, "acme"); err != nil {
		t.Fatal(err)
	}
	kept := eventhose.Retention{Age: eventhose.Duration(time.Hour)}
	h.mutely("save a tenant", func() error { _, _, err := h.PutTenant(ctx, eventhose.Tenant{ID: "acme", Retention: kept}); return err })
	if tenant, err := h.Tenant(ctx, "acme"); err != nil || tenant.Retention != kept || !bounded {
		t.Errorf("%+v, %v, announced: %v", tenant.Retention, err, bounded)
	}
}

// What may be changed is judged of the very subscription that is changed, whatever others have made of it meanwhile.
func TestUpdateIsJudgedAgain(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	at := func(url, token string) *eventhose.Destination {
		return &eventhose.Destination{Type: eventhose.DestinationWebhook, URL: url, Headers: map[string]eventhose.Secret{"X-Token": eventhose.Secret(token)}}
	}
	const mine, theirs = "https://mine.example/hook", "https://theirs.example/hook"
	s := h.create(eventhose.Subscription{Tenant: "acme", Destination: *at(mine, "worthless")})
	var seen []string
	refusal := eventhose.Invalid("destination.headers.X-Token", "must be given anew with another URL")
	_, err := h.UpdateSubscription(ctx, "acme", s.ID, eventhose.SubscriptionPatch{Destination: at(mine, "***")}, func(before eventhose.Subscription) error {
		seen = append(seen, before.Destination.URL)
		if len(seen) == 1 { // the owner is quicker
			if _, err := h.UpdateSubscription(ctx, "acme", s.ID, eventhose.SubscriptionPatch{Destination: at(theirs, "planted")}, nil); err != nil {
				t.Error(err)
			}
		}
		if before.Destination.URL != mine {
			return refusal
		}
		return nil
	})
	wants(t, "the header of another place", err, eventhose.CodeInvalid, refusal.Field)
	if !slices.Equal(seen, []string{mine, theirs}) {
		t.Errorf("it was shown %v", seen)
	}
	if got, err := h.Subscription(ctx, "acme", s.ID); err != nil || got.Destination.URL != theirs || got.Destination.Headers["X-Token"] != "planted" {
		t.Errorf("got %+v, %v", got.Destination, err)
	}
}
