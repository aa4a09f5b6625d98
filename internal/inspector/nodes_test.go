package inspector_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
	"github.com/eventhose/eventhose/internal/pgtest"
)

// Over one database every node takes what is sent to an inspector, in one order, whoever waits at another is told, and what one
// changes the other answers by.
func TestNodes(t *testing.T) {
	url := pgtest.Database(t)
	node := func() *world { return newWorld(t, app.Options{DatabaseURL: url, SecretKey: make([]byte, 32)}) }
	a, b := node(), node()
	i := a.inspector(eventhose.Inspector{})
	var want []string
	for n := range 10 {
		body := fmt.Sprint(n)
		at := []*world{a, b}[n%2]
		if status, _, _ := at.send("POST", at.url+"/play/"+string(i.ID), body); status != 200 {
			t.Fatalf("%d", status)
		}
		want = append([]string{body}, want...)
	}
	last := ""
	for _, w := range []*world{a, b} {
		var got []string
		for _, r := range w.requests(i.ID, "") {
			got = append(got, r.Body)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		last = w.requests(i.ID, "")[0].ID
	}
	came := make(chan eventhose.InspectedRequest)
	go func() { came <- a.requests(i.ID, last)[0] }()
	b.send("POST", b.url+"/play/"+string(i.ID), "from the other")
	if got := <-came; got.Body != "from the other" {
		t.Errorf("%+v", got)
	}
	// At both nodes at once, each request has a place of its own.
	done := make(chan bool)
	for _, w := range []*world{a, b} {
		go func() {
			for range 5 {
				w.send("POST", w.url+"/play/"+string(i.ID), "x")
			}
			done <- true
		}()
	}
	<-done
	<-done
	if got := must(b.tenant.Inspector(t.Context(), i.ID))(t); got.Requests != 21 {
		t.Errorf("%d", got.Requests)
	}
	status := 418
	must(a.tenant.UpdateInspector(t.Context(), i.ID, eventhose.InspectorPatch{Status: &status}))(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for got := 0; got != status; {
		if got, _, _ = b.send("POST", b.url+"/play/"+string(i.ID), ""); ctx.Err() != nil {
			t.Fatal("the other node never knows")
		}
	}
	// Deliveries reach an inspector whichever node makes them.
	status = 200
	must(a.tenant.UpdateInspector(t.Context(), i.ID, eventhose.InspectorPatch{Status: &status}))(t)
	for n := range 4 {
		name := eventhose.TenantID(fmt.Sprintf("t%d", n))
		must(a.client.PutTenant(t.Context(), eventhose.Tenant{ID: name}))(t)
		tenant := a.client.Tenant(name)
		i := must(tenant.CreateInspector(t.Context(), eventhose.Inspector{}))(t)
		a.subscribe(tenant, i.Destination, 0)
		a.append(tenant, `{}`)
		o := client.InspectedOptions{Wait: 20 * time.Second}
		if l := must(b.client.Tenant(name).Inspected(t.Context(), i.ID, o))(t); len(l.Data) != 1 {
			t.Errorf("%s: %+v", name, l)
		}
	}
}
