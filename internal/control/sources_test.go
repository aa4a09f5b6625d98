package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

func (h *house) door(provider string, secrets ...eventhose.Secret) eventhose.Source {
	h.t.Helper()
	s, err := h.CreateSource(h.t.Context(), eventhose.Source{Tenant: "acme", Provider: provider, Secrets: secrets, VerifyToken: "token-1-planted"})
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func TestSource(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	var announced []eventhose.SubscriptionID
	h.Announce(func(_ eventhose.TenantID, id eventhose.SubscriptionID) { announced = append(announced, id) })
	made := h.door("stripe", "whsec_1-planted", "whsec_2-planted")
	if !eventhose.ValidSourceID(string(made.ID)) || made.Version != 1 || made.Created.IsZero() {
		t.Errorf("%+v", made)
	}
	inbox, err := h.Subscription(ctx, "acme", made.Subscription)
	if err != nil || !inbox.Pull() || inbox.Source != made.ID || inbox.Filter.Attributes["source"] != string(made.ID) {
		t.Errorf("%+v, %v", inbox, err)
	}
	h.restart()
	got, err := h.FindSource(ctx, made.ID)
	if err != nil || fmt.Sprint(len(got.Secrets), string(got.Secrets[0]), string(got.Secrets[1]), string(got.VerifyToken)) != "2whsec_1-plantedwhsec_2-plantedtoken-1-planted" {
		t.Errorf("%d secrets, %v", len(got.Secrets), err)
	}
	for _, secret := range []string{"whsec_1-planted", "whsec_2-planted", "token-1-planted"} {
		if found := leaks(h.everything(), secret); len(found) > 0 {
			t.Errorf("%s is in %v", secret, found)
		}
	}
	name := "mine"
	secrets := []eventhose.Secret{"whsec_3-planted"}
	if _, err := h.UpdateSource(ctx, "acme", made.ID, eventhose.SourcePatch{Name: &name, Secrets: &secrets}); err != nil {
		t.Fatal(err)
	}
	if got, err := h.FindSource(ctx, made.ID); err != nil || got.Name != "mine" || len(got.Secrets) != 1 || got.Version != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	kept := []eventhose.Secret{"whsec_4-planted", "***"}
	if got, err := h.UpdateSource(ctx, "acme", made.ID, eventhose.SourcePatch{Secrets: &kept}); err != nil || len(got.Secrets) != 2 || string(got.Secrets[0])+string(got.Secrets[1]) != "whsec_4-plantedwhsec_3-planted" {
		t.Errorf("%d secrets, %v", len(got.Secrets), err)
	}
	// Another node changes it: until that is heard, what is remembered counts.
	other, err := New(h.store, h.options())
	if err != nil {
		t.Fatal(err)
	}
	name = "other's"
	if _, err := other.UpdateSource(ctx, "acme", made.ID, eventhose.SourcePatch{Name: &name}); err != nil {
		t.Fatal(err)
	}
	if !Tells(kindSource) {
		t.Error("other nodes are not told")
	}
	h.Heard(kindSource, "acme", string(made.ID))
	if got, err := h.FindSource(ctx, made.ID); err != nil || got.Name != "other's" {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = h.CreateSource(ctx, eventhose.Source{Tenant: "acme", Provider: "refused"})
	wants(t, "what is not liked", err, eventhose.CodeInvalid, "provider")
	_, err = h.CreateSource(ctx, eventhose.Source{Tenant: "nobody", Provider: "stripe"})
	wants(t, "no tenant", err, eventhose.CodeNotFound, "")
	_, err = h.Source(ctx, "globex", made.ID)
	wants(t, "another's", err, eventhose.CodeNotFound, "")
	wants(t, "its inbox", h.DeleteSubscription(ctx, "acme", made.Subscription), eventhose.CodeConflict, "")
	_, err = h.UpdateSubscription(ctx, "acme", made.Subscription, eventhose.SubscriptionPatch{Filter: &eventhose.Filter{}}, nil)
	wants(t, "its inbox's filter", err, eventhose.CodeConflict, "filter")

	if err := h.DeleteSource(ctx, "acme", made.ID); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"found":   func() error { _, err := h.FindSource(ctx, made.ID); return err }(),
		"read":    func() error { _, err := h.Source(ctx, "acme", made.ID); return err }(),
		"inbox":   func() error { _, err := h.Subscription(ctx, "acme", made.Subscription); return err }(),
		"deleted": h.DeleteSource(ctx, "acme", made.ID),
	} {
		wants(t, what, err, eventhose.CodeNotFound, "")
	}
	if _, _, err := h.store.Lane(ctx, "acme", made.Subscription); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the lane of the inbox: %v", err)
	}
	if len(announced) != 1 || announced[0] != made.Subscription { // before the restart
		t.Errorf("announced %v", announced)
	}
}

// Changes at the same time are all made.
func TestSourceChangesAtOnce(t *testing.T) {
	h := newHouse(t)
	s := h.door("stripe", "whsec_1")
	var changing sync.WaitGroup
	for i := range 8 {
		changing.Go(func() {
			name := fmt.Sprint(i)
			if _, err := h.UpdateSource(t.Context(), "acme", s.ID, eventhose.SourcePatch{Name: &name}); err != nil {
				t.Error(err)
			}
		})
	}
	changing.Wait()
	if got, err := h.FindSource(t.Context(), s.ID); err != nil || got.Version != 9 {
		t.Errorf("version %d, %v", got.Version, err)
	}
}

func TestRejections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		ctx := t.Context()
		a, b := h.door("stripe", "whsec_1"), h.door("stripe", "whsec_2")
		keep := func(s eventhose.Source, i int) eventhose.Rejection {
			r, err := h.KeepRejection(ctx, "acme", eventhose.Rejection{Source: s.ID, Received: time.Now(), Reason: "no_match", Detail: fmt.Sprint(i), Method: "POST",
				Request: &eventhose.RejectedRequest{Header: map[string][]string{"Authorization": {"auth-1-planted"}}, Body: []byte("body-1-planted")}})
			if err != nil {
				t.Fatal(err)
			}
			pass(time.Millisecond) // ids sort by time
			return r
		}
		of := keep(b, 0)
		var first, last eventhose.Rejection
		for i := range eventhose.MaxRejections + 3 {
			last = keep(a, i)
			if i == 0 {
				first = last
			}
		}
		list, err := h.Rejections(ctx, "acme", a.ID)
		if err != nil || len(list) != eventhose.MaxRejections || list[0].ID != last.ID || list[0].Detail != "102" || list[99].Detail != "3" || list[0].Request != nil {
			t.Errorf("%d, %v", len(list), err)
		}
		if list, err := h.Rejections(ctx, "acme", b.ID); err != nil || len(list) != 1 {
			t.Errorf("%v, %v", list, err)
		}
		for _, secret := range []string{"auth-1-planted", "body-1-planted"} {
			if found := leaks(h.everything(), secret); len(found) > 0 {
				t.Errorf("%s is in %v", secret, found)
			}
		}
		one, err := h.Rejection(ctx, "acme", a.ID, last.ID)
		if err != nil || string(one.Request.Body) != "body-1-planted" || one.Request.Truncated {
			t.Errorf("%+v, %v", one, err)
		}
		for what, ids := range map[string][3]string{"dropped": {"acme", string(a.ID), first.ID}, "of another source": {"acme", string(a.ID), of.ID},
			"of another tenant": {"globex", string(b.ID), of.ID}, "no id": {"acme", string(a.ID), ""}} {
			_, err := h.Rejection(ctx, eventhose.TenantID(ids[0]), eventhose.SourceID(ids[1]), ids[2])
			wants(t, what, err, eventhose.CodeNotFound, "")
		}
		big, err := h.KeepRejection(ctx, "acme", eventhose.Rejection{Source: b.ID, Request: &eventhose.RejectedRequest{Body: []byte(strings.Repeat("x", eventhose.MaxRejectedBody+1)),
			Header: map[string][]string{"X": {strings.Repeat("y", 64<<10)}}}})
		if err != nil {
			t.Fatal(err)
		}
		if one, err := h.Rejection(ctx, "acme", b.ID, big.ID); err != nil || len(one.Request.Body) != eventhose.MaxRejectedBody || !one.Request.Truncated {
			t.Errorf("%v", err)
		}
		for range 2 {
			if err := h.ForgetRejection(ctx, "acme", b.ID, big.ID); err != nil {
				t.Error(err)
			}
		}
		if err := h.DeleteSource(ctx, "acme", a.ID); err != nil {
			t.Fatal(err)
		}
		if left, err := h.store.List(ctx, "acme", kindRejected, "", 1000); err != nil || len(left) != 1 {
			t.Errorf("%d are left, %v", len(left), err)
		}
		pass(eventhose.RejectionsKept)
		_, err = h.Rejection(ctx, "acme", b.ID, of.ID)
		wants(t, "a day later", err, eventhose.CodeNotFound, "")
		if list, err := h.Rejections(ctx, "acme", b.ID); err != nil || len(list) != 0 {
			t.Errorf("%v, %v", list, err)
		}
	})
}

// meanwhile is a store in which something happens when it is first asked for a kind of records.
type meanwhile struct {
	store.Store
	kind    string
	happens func()
}

func (m *meanwhile) Record(ctx context.Context, tenant eventhose.TenantID, kind, id string) (store.Record, error) {
	if happens := m.happens; kind == m.kind && happens != nil {
		m.happens = nil
		happens()
	}
	return m.Store.Record(ctx, tenant, kind, id)
}

// Who deletes a source names no version: it goes whatever others make of it meanwhile, and once.
func TestDeleteSourceThatIsChanged(t *testing.T) {
	ctx := t.Context()
	name := "changed meanwhile"
	for kind, change := range map[string]struct {
		by   func(h *house, id eventhose.SourceID) error
		want eventhose.Code
	}{
		"changed": {func(h *house, id eventhose.SourceID) error {
			_, err := h.UpdateSource(ctx, "acme", id, eventhose.SourcePatch{Name: &name})
			return err
		}, ""},
		"its inbox changed": {func(h *house, id eventhose.SourceID) error {
			s, err := h.Source(ctx, "acme", id)
			if err != nil {
				return err
			}
			_, err = h.UpdateSubscription(ctx, "acme", s.Subscription, eventhose.SubscriptionPatch{Name: &name}, nil)
			return err
		}, ""},
		"another made":    {func(h *house, _ eventhose.SourceID) error { h.door("stripe", "whsec_1"); return nil }, ""},
		"already deleted": {func(h *house, id eventhose.SourceID) error { return h.DeleteSource(ctx, "acme", id) }, eventhose.CodeNotFound},
	} {
		for _, at := range []string{kindSourceOf, kindSubscription, kindCount} {
			t.Run(kind+" before the "+at, func(t *testing.T) {
				h := newHouse(t)
				s := h.door("stripe", "whsec_1")
				st := &meanwhile{Store: h.store, kind: at}
				node, err := New(st, h.options())
				if err != nil {
					t.Fatal(err)
				}
				st.happens = func() {
					if err := change.by(h, s.ID); err != nil {
						t.Error(err)
					}
				}
				wants(t, "delete", node.DeleteSource(ctx, "acme", s.ID), change.want, "")
				if st.happens != nil {
					t.Error("nothing happened meanwhile")
				}
				_, err = h.Source(ctx, "acme", s.ID)
				wants(t, "the source", err, eventhose.CodeNotFound, "")
				left, err := h.Sources(ctx, "acme", "", 10)
				if err != nil {
					t.Fatal(err)
				}
				for _, counted := range []string{kindSource, kindSubscription} {
					if r, err := h.store.Record(ctx, "acme", kindCount, counted); err != nil || string(r.Value) != fmt.Sprint(len(left)) {
						t.Errorf("counts %s of %s, %v; there are %d", r.Value, counted, err, len(left))
					}
				}
			})
		}
	}
}

// A source whose rejected requests cannot be removed now is gone all the same, and says so: they vanish by themselves.
func TestDeleteSourceThoughItsRejectionsStay(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	s := h.door("stripe", "whsec_1")
	if _, err := h.KeepRejection(ctx, "acme", eventhose.Rejection{Source: s.ID, Received: time.Now(), Reason: "no_match"}); err != nil {
		t.Fatal(err)
	}
	saves := 0
	h.store.ask(func(context.Context, []store.RecordChange) error {
		if saves++; saves > 1 {
			return store.ErrUnavailable
		}
		return nil
	})
	wants(t, "delete", h.DeleteSource(ctx, "acme", s.ID), "", "")
	_, err := h.Rejections(ctx, "acme", s.ID)
	wants(t, "the rejections of a source that is gone", err, eventhose.CodeNotFound, "")
	if saves != 2 {
		t.Errorf("%d saves", saves)
	}
}
