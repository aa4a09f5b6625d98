package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

func (h *house) inspector(i eventhose.Inspector) eventhose.Inspector {
	h.t.Helper()
	i.Tenant = "acme"
	made, err := h.CreateInspector(h.t.Context(), i.WithDefaults())
	if err != nil {
		h.t.Fatal(err)
	}
	return made
}

func (h *house) inspected(id eventhose.InspectorID, bodies ...string) {
	h.t.Helper()
	for _, body := range bodies {
		r := eventhose.InspectedRequest{Time: time.Now(), Method: "POST", Path: "/", Headers: map[string][]string{"Authorization": {"planted-credential"}}}
		r.SetContent([]byte(body))
		if _, err := h.KeepInspected(h.t.Context(), "acme", id, r); err != nil {
			h.t.Fatal(err)
		}
	}
}

// page lists the bodies of requests.
func (h *house) page(id eventhose.InspectorID, q eventhose.InspectedQuery) (bodies []string, oldest string, more bool) {
	h.t.Helper()
	list, more, err := h.Inspected(h.t.Context(), "acme", id, q)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, r := range list {
		bodies, oldest = append(bodies, string(r.Content())), r.ID
	}
	return bodies, oldest, more
}

// count is how many records of a kind a tenant has.
func (h *house) count(tenant eventhose.TenantID, kind string) int {
	h.t.Helper()
	list, err := h.store.List(h.t.Context(), tenant, kind, "", 1000)
	if err != nil {
		h.t.Fatal(err)
	}
	return len(list)
}

func numbers(from, to int) (list []string) {
	for n := from; n != to; n-- {
		list = append(list, fmt.Sprint(n))
	}
	return list
}

// The last hundred are kept, in order, whatever came; pages meet without gap, and what is removed stays so.
func TestInspectedIsTheNewest(t *testing.T) {
	h := newHouse(t)
	i, other := h.inspector(eventhose.Inspector{}), h.inspector(eventhose.Inspector{})
	h.inspected(other.ID, "of the other")
	for n := range 230 {
		h.inspected(i.ID, fmt.Sprint(n+1))
	}
	if n := h.count("acme", kindInspected); n != eventhose.MaxInspected+1 {
		t.Errorf("%d records", n)
	}
	h.restart()
	all, _, more := h.page(i.ID, eventhose.InspectedQuery{Limit: eventhose.MaxInspected})
	if more || !slices.Equal(all, numbers(230, 130)) {
		t.Errorf("%v, more %v", all, more)
	}
	var paged []string
	for q := (eventhose.InspectedQuery{Limit: 7}); ; {
		page, oldest, more := h.page(i.ID, q)
		paged = append(paged, page...)
		if !more {
			break
		}
		q.Before = oldest
	}
	if !slices.Equal(paged, all) {
		t.Errorf("in pages %v", paged)
	}
	if got, _, more := h.page(i.ID, eventhose.InspectedQuery{After: inspectedID(227), Limit: 100}); more || !slices.Equal(got, numbers(230, 227)) {
		t.Errorf("after 227: %v, more %v", got, more)
	}
	if got, _, more := h.page(i.ID, eventhose.InspectedQuery{After: inspectedID(225), Before: inspectedID(229), Limit: 2}); !more || !slices.Equal(got, numbers(228, 226)) {
		t.Errorf("between: %v, more %v", got, more)
	}
	for _, field := range []string{"after", "before"} {
		q := eventhose.InspectedQuery{Limit: 1, After: "inr_1"}
		if field == "before" {
			q = eventhose.InspectedQuery{Limit: 1, Before: "inr_+000000000000001"}
		}
		_, _, err := h.Inspected(t.Context(), "acme", i.ID, q)
		wants(t, field, err, eventhose.CodeInvalid, field)
	}
	if err := h.ForgetInspected(t.Context(), "acme", i.ID); err != nil {
		t.Fatal(err)
	}
	if n := h.count("acme", kindInspected); n != 1 {
		t.Errorf("%d records are left, of which one is the other's", n)
	}
	h.inspected(i.ID, "231")
	if got, _, more := h.page(i.ID, eventhose.InspectedQuery{Limit: 100}); more || !slices.Equal(got, []string{"231"}) {
		t.Errorf("after forgetting: %v, more %v", got, more)
	}
	if err := h.DeleteInspector(t.Context(), "acme", i.ID); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := h.page(other.ID, eventhose.InspectedQuery{Limit: 100}); !slices.Equal(got, []string{"of the other"}) || h.count("acme", kindInspected) != 1 {
		t.Errorf("the other has %v of %d", got, h.count("acme", kindInspected))
	}
	_, err := h.KeepInspected(t.Context(), "acme", i.ID, eventhose.InspectedRequest{})
	wants(t, "a request of what is gone", err, eventhose.CodeNotFound, "")
}

// Requests that come at once get one number each.
func TestInspectedAtOnce(t *testing.T) {
	h := newHouse(t)
	i := h.inspector(eventhose.Inspector{})
	var wait sync.WaitGroup
	for range 40 {
		wait.Go(func() { h.inspected(i.ID, "x") })
	}
	wait.Wait()
	list, _, err := h.Inspected(t.Context(), "acme", i.ID, eventhose.InspectedQuery{Limit: 100})
	if err != nil || len(list) != 40 || list[0].ID != inspectedID(40) || list[39].ID != inspectedID(1) {
		t.Errorf("%d, %v", len(list), err)
	}
}

// The largest requests fit into a record, whatever bytes they are of, and a page of them is bounded.
func TestLargestInspectedRequest(t *testing.T) {
	h := newHouse(t)
	i := h.inspector(eventhose.Inspector{})
	largest := map[string][]string{}
	for n := range 17 { // 68 KB, which is more than net/http takes
		largest[fmt.Sprintf("X-%d", n)] = []string{strings.Repeat("\"<\u00ff\\", 1000)[:4000]}
	}
	for _, b := range []string{"\x00", "\xff", "<", "é", "\u2028"} {
		r := eventhose.InspectedRequest{Method: "POST", Path: "/", Headers: largest}
		body := strings.Repeat(b, 2*eventhose.MaxInspectedBody)
		r.SetContent([]byte(body))
		if _, err := h.KeepInspected(t.Context(), "acme", i.ID, r); err != nil {
			t.Errorf("%q: %v", b, err)
			continue
		}
		list, _, err := h.Inspected(t.Context(), "acme", i.ID, eventhose.InspectedQuery{Limit: 1})
		if err != nil || len(list) != 1 || !list[0].BodyTruncated || !strings.HasPrefix(body, string(list[0].Content())) ||
			len(list[0].Content()) <= eventhose.MaxInspectedBody-len(b) || (len(list[0].BodyBase64) > 0) != (b == "\xff") {
			t.Errorf("%q: %v", b, err)
		}
	}
	for range 30 {
		h.inspected(i.ID, strings.Repeat("x", eventhose.MaxInspectedBody))
	}
	list, more, err := h.Inspected(t.Context(), "acme", i.ID, eventhose.InspectedQuery{Limit: 100})
	if err != nil || !more || len(list) < 20 || len(list) > 25 {
		t.Errorf("%d in a page, more %v, %v", len(list), more, err)
	}
}

// An inspector is a secret's keeper: neither the one that verifies nor what senders have sent is in the store in clear.
func TestInspectorSecrets(t *testing.T) {
	h := newHouse(t)
	i := h.inspector(eventhose.Inspector{Secret: "whsec_planted", Name: "n"})
	h.inspected(i.ID, "planted-body")
	name := "m"
	if _, err := h.UpdateInspector(t.Context(), "acme", i.ID, eventhose.InspectorPatch{Name: &name}); err != nil {
		t.Fatal(err)
	}
	saved := h.store.saved
	h.restart()
	if got, err := h.FindInspector(t.Context(), i.ID); err != nil || got.Secret != "whsec_planted" || got.Name != "m" || got.Requests != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := h.UpdateInspector(t.Context(), "acme", i.ID, eventhose.InspectorPatch{Secret: new(eventhose.Secret)}); err != nil {
		t.Fatal(err)
	}
	if got, err := h.FindInspector(t.Context(), i.ID); err != nil || got.Secret != "" {
		t.Errorf("the secret that was taken away is %q, %v", string(got.Secret), err)
	}
	if len(saved) < 4 {
		t.Errorf("only %d records were seen", len(saved))
	}
	for _, r := range append(saved, h.store.saved...) {
		if strings.Contains(string(r.Value), "planted") {
			t.Errorf("%s %s: %s", r.Kind, r.ID, r.Value)
		}
	}
}

func TestInspectorsOfTenants(t *testing.T) {
	h := newHouse(t)
	h.checkInspector = func(i eventhose.Inspector) error {
		if i.Secret == "bad" {
			return eventhose.Invalid("secret", "is bad")
		}
		return nil
	}
	ctx := t.Context()
	if err := h.EnsureTenant(ctx, "globex"); err != nil {
		t.Fatal(err)
	}
	for field, i := range map[string]eventhose.Inspector{
		"name": {Name: "\x01"}, "status": {Status: 199}, "delay": {Delay: eventhose.MaxInspectDelay + 1}, "fail_rate": {FailRate: 1.01},
		"body": {Body: strings.Repeat("x", eventhose.MaxInspectBody+1)}, "secret": {Secret: "bad"},
	} {
		i.Tenant = "acme"
		_, err := h.CreateInspector(ctx, i.WithDefaults())
		wants(t, field, err, eventhose.CodeInvalid, field)
	}
	_, err := h.CreateInspector(ctx, eventhose.Inspector{Tenant: "nobody"}.WithDefaults())
	wants(t, "no tenant", err, eventhose.CodeNotFound, "")
	i := h.inspector(eventhose.Inspector{})
	status := 404
	for name, err := range map[string]error{
		"get":    errOf(h.Inspector(ctx, "globex", i.ID)),
		"update": errOf(h.UpdateInspector(ctx, "globex", i.ID, eventhose.InspectorPatch{Status: &status})),
		"delete": h.DeleteInspector(ctx, "globex", i.ID),
		"forget": h.ForgetInspected(ctx, "globex", i.ID),
		"empty":  h.ForgetInspected(ctx, "globex", ""),
	} {
		wants(t, name+" of another tenant", err, eventhose.CodeNotFound, "")
	}
	if got, err := h.Inspector(ctx, "acme", i.ID); err != nil || got.Status != 200 {
		t.Errorf("%+v, %v", got, err)
	}
	// Concurrent creations do not pass the limit.
	var wait sync.WaitGroup
	refusals := make(chan error, 2*eventhose.MaxInspectors)
	for range cap(refusals) {
		wait.Go(func() {
			if _, err := h.CreateInspector(ctx, eventhose.Inspector{Tenant: "acme"}.WithDefaults()); err != nil {
				refusals <- err
			}
		})
	}
	wait.Wait()
	close(refusals)
	n := 0
	for err := range refusals {
		wants(t, "one more", err, eventhose.CodeLimit, "")
		n++
	}
	list, err := h.Inspectors(ctx, "acme", "", 1000)
	if err != nil || len(list) != eventhose.MaxInspectors || n != eventhose.MaxInspectors+1 {
		t.Errorf("%d inspectors, %d refusals, %v", len(list), n, err)
	}
	if err := h.DeleteInspector(ctx, "acme", list[3].ID); err != nil {
		t.Fatal(err)
	}
	h.inspector(eventhose.Inspector{})
}

func errOf[T any](_ T, err error) error { return err }

// A day after its last use an inspector is gone with everything, and makes room; looking at it is a use.
func TestInspectorsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		idle, looked, sent := h.inspector(eventhose.Inspector{}), h.inspector(eventhose.Inspector{}), h.inspector(eventhose.Inspector{})
		h.inspected(idle.ID, "x")
		h.inspected(looked.ID, "x")
		for range 3 {
			pass(eventhose.InspectorKept - time.Hour)
			h.page(looked.ID, eventhose.InspectedQuery{Limit: 1})
			h.inspected(sent.ID, "x")
		}
		_, err := h.Inspector(t.Context(), "acme", idle.ID)
		wants(t, "idle", err, eventhose.CodeNotFound, "")
		_, err = h.FindInspector(t.Context(), idle.ID)
		wants(t, "idle", err, eventhose.CodeNotFound, "")
		list, err := h.Inspectors(t.Context(), "acme", "", 10)
		if err != nil || len(list) != 2 {
			t.Errorf("%d are left, %v", len(list), err)
		}
		if got, _, _ := h.page(looked.ID, eventhose.InspectedQuery{Limit: 10}); len(got) != 0 {
			t.Errorf("requests of days ago: %v", got)
		}
		if got, _, _ := h.page(sent.ID, eventhose.InspectedQuery{Limit: 10}); len(got) != 2 {
			t.Errorf("of the last day %v", got)
		}
		h.inspector(eventhose.Inspector{})
		if n := h.count("acme", kindInspectorOf); n != 3 {
			t.Errorf("%d are told to be the tenant's", n)
		}
		pass(eventhose.InspectorKept)
		if _, err := h.store.Record(t.Context(), "", kindInspector, string(sent.ID)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%v", err)
		}
	})
}

// While the store is slow with an inspector of one tenant, another tenant's is changed, and who waits for the first one may leave.
func TestInspectorsDoNotWaitForOthers(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	mine := h.inspector(eventhose.Inspector{})
	if err := h.EnsureTenant(ctx, "globex"); err != nil {
		t.Fatal(err)
	}
	other, err := h.CreateInspector(ctx, eventhose.Inspector{Tenant: "globex"}.WithDefaults())
	for err == nil && other.ID[len(other.ID)-1] != mine.ID[len(mine.ID)-1] { // ids that end alike
		if err = h.DeleteInspector(ctx, "globex", other.ID); err == nil {
			other, err = h.CreateInspector(ctx, eventhose.Inspector{Tenant: "globex"}.WithDefaults())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	slow, goOn := make(chan struct{}), make(chan struct{})
	h.store.ask(func(_ context.Context, records []store.RecordChange) error {
		for _, r := range records {
			if r.ID == string(mine.ID) {
				close(slow)
				<-goOn
			}
		}
		return nil
	})
	name := "another"
	first := make(chan error, 1)
	go func() {
		_, err := h.UpdateInspector(ctx, "acme", mine.ID, eventhose.InspectorPatch{Name: &name})
		first <- err
	}()
	<-slow
	within := func(what string, do func(context.Context) error) error {
		done := make(chan error, 1)
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		go func() { done <- do(ctx) }()
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			t.Errorf("%s waits for another", what)
			return nil
		}
	}
	err = within("the other tenant's inspector", func(ctx context.Context) error {
		_, err := h.UpdateInspector(ctx, "globex", other.ID, eventhose.InspectorPatch{Name: &name})
		return err
	})
	wants(t, "the other tenant's inspector", err, "", "")
	err = within("who has left", func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		_, err := h.UpdateInspector(ctx, "acme", mine.ID, eventhose.InspectorPatch{Name: &name})
		return err
	})
	if !errors.Is(err, context.Canceled) && !t.Failed() {
		t.Errorf("who has left is told %v", err)
	}
	h.store.ask(nil)
	close(goOn)
	wants(t, "the first one", <-first, "", "")
}
