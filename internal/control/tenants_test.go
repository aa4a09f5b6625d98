package control

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
)

func TestTenants(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	put := func(id, parent eventhose.TenantID) error {
		_, _, err := h.PutTenant(ctx, eventhose.Tenant{ID: id, Parent: parent})
		return err
	}
	for what, c := range map[string]struct {
		id, parent eventhose.TenantID
		code       eventhose.Code
		field      string
	}{
		"bad id":       {"-", "", eventhose.CodeInvalid, "tenant"},
		"own parent":   {"a", "a", eventhose.CodeInvalid, "parent"},
		"absent":       {"a", "nobody", eventhose.CodeNotFound, "parent"},
		"new":          {"plain", "", "", ""},
		"with parent":  {"child", "acme", "", ""},
		"second child": {"child2", "acme", "", ""},
	} {
		wants(t, what, put(c.id, c.parent), c.code, c.field)
	}
	wants(t, "parent kept", put("child", ""), "", "")
	wants(t, "same parent", put("child", "acme"), "", "")
	wants(t, "other parent", put("child", "plain"), eventhose.CodeConflict, "parent")
	wants(t, "grandparent", put("grandchild", "child"), eventhose.CodeConflict, "parent")
	wants(t, "parent of a parent", put("acme", "plain"), eventhose.CodeConflict, "parent")
	wants(t, "set later", put("plain", "acme"), "", "")

	if got, err := h.Tenant(ctx, "child"); err != nil || got.Parent != "acme" {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err := h.Tenant(ctx, "grandchild")
	wants(t, "a refused tenant", err, eventhose.CodeNotFound, "")

	var ids []eventhose.TenantID
	for after := eventhose.TenantID(""); ; {
		page, err := h.Tenants(ctx, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, tenant := range page {
			ids = append(ids, tenant.ID)
		}
		after = ids[len(ids)-1]
	}
	if fmt.Sprint(ids) != "[acme child child2 plain]" {
		t.Errorf("lists %v", ids)
	}
}

func TestRetentionIsReplaced(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	day := eventhose.Retention{Age: eventhose.Duration(24 * time.Hour), Bytes: 1 << 30}
	if _, created, err := h.PutTenant(ctx, eventhose.Tenant{ID: "acme", Retention: day}); err != nil || created {
		t.Fatal(created, err)
	}
	if got, err := h.Tenant(ctx, "acme"); err != nil || got.Retention != day {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := h.EnsureTenant(ctx, "acme"); err != nil {
		t.Fatal(err)
	}
	if got, _ := h.Tenant(ctx, "acme"); got.Retention != day {
		t.Errorf("EnsureTenant changed it to %+v", got)
	}
	if got, _, err := h.PutTenant(ctx, eventhose.Tenant{ID: "acme"}); err != nil || got.Retention != (eventhose.Retention{}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, created, err := h.PutTenant(ctx, eventhose.Tenant{ID: "new"}); err != nil || !created || got.Created.IsZero() || got.Created != got.Updated {
		t.Errorf("got %+v, %v, %v", got, created, err)
	}
}

// TestParentsRace: of two tenants that want to be each other's parents, one gets its wish at most.
func TestParentsRace(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	for i := range 20 {
		a, b := eventhose.TenantID(fmt.Sprint("a", i)), eventhose.TenantID(fmt.Sprint("b", i))
		for _, id := range []eventhose.TenantID{a, b} {
			if err := h.EnsureTenant(ctx, id); err != nil {
				t.Fatal(err)
			}
		}
		errs := make([]error, 2)
		var wg sync.WaitGroup
		wg.Go(func() { _, _, errs[0] = h.PutTenant(ctx, eventhose.Tenant{ID: a, Parent: b}) })
		wg.Go(func() { _, _, errs[1] = h.PutTenant(ctx, eventhose.Tenant{ID: b, Parent: a}) })
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Errorf("got %v and %v", errs[0], errs[1])
		}
	}
}

// TestTenantCache reads while the retention changes (see also cache_test.go): once PutTenant has returned, no reader sees what was before.
func TestTenantCache(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	h.tenants.limit = 2
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					h.Tenant(ctx, "acme")
				}
			}
		})
	}
	for i := range 200 {
		want := eventhose.Retention{Bytes: 1<<20 + int64(i)}
		if _, _, err := h.PutTenant(ctx, eventhose.Tenant{ID: "acme", Retention: want}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if got, err := h.Tenant(ctx, "acme"); err != nil || got.Retention != want {
				t.Fatalf("change %d: got %+v, %v", i, got.Retention, err)
			}
		}
	}
	close(stop)
	wg.Wait()
	for i := range 10 {
		if err := h.EnsureTenant(ctx, eventhose.TenantID(fmt.Sprint("t", i))); err != nil {
			t.Fatal(err)
		}
		h.Tenant(ctx, eventhose.TenantID(fmt.Sprint("t", i)))
	}
	if n := len(h.tenants.values); n > 2 {
		t.Errorf("remembers %d tenants, want 2", n)
	}
}
