package httpapi_test

import (
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

// ticket makes one for acme with a key.
func (w *world) ticket(key string) string {
	w.t.Helper()
	made := w.want(201, w.call(key, "POST", "/v1/tenants/acme/tickets", "")).json(w.t)
	expires, err := time.Parse(time.RFC3339, made["expires"].(string))
	if left := time.Until(expires); err != nil || left > time.Minute || left < 50*time.Second {
		w.t.Errorf("it expires at %v, %v", made["expires"], err)
	}
	return made["ticket"].(string)
}

// A ticket opens what its key does, there where it was made for, for a minute; everything else is refused as a wrong key is.
func TestTickets(t *testing.T) {
	w := newWorld(t, quick)
	id, key := w.key("acme", eventhose.ScopeRead)
	ticket := w.ticket(key)
	w.append("acme", `{"type":"a","data":1}`)
	s := w.open("", "ticket="+ticket, "Origin", "https://shop.example")
	if e := s.event(); !strings.Contains(e.Data, `"type":"a"`) || s.res.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("got %+v %v", e, s.res.Header)
	}
	ws := w.dial("", "ticket="+ticket)
	ws.read("ready")

	stream := func(tenant, ticket string) reply {
		return w.call("", "GET", "/v1/tenants/"+tenant+"/events/stream?ticket="+ticket, "")
	}
	refused := func(what, ticket string) {
		t.Helper()
		r := stream("acme", ticket)
		if r.StatusCode != 401 || r.Header.Get("WWW-Authenticate") == "" || r.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d %s", what, r.StatusCode, r.body)
		}
		w.refused("unauthenticated", "", r)
	}
	soon := time.Now().Add(time.Minute)
	w.want(200, stream("acme", w.api.WriteTicket(id, "acme", soon)))
	refused("expired", w.api.WriteTicket(id, "acme", time.Now()))
	refused("of an unknown key", w.api.WriteTicket("key_00000000000000000000000000", "acme", soon))
	refused("of another server", func() string { other := newWorld(t, nil); return other.api.WriteTicket(id, "acme", soon) }())
	refused("empty", "")
	refused("no ticket", "tkt_AAAA")
	refused("a key", key)
	refused("long", "tkt_"+strings.Repeat("A", 10_000))
	for i := len("tkt_"); i < len(ticket); i++ {
		b := []byte(ticket)
		if b[i]++; b[i] == ':' || b[i] == '[' || b[i] == '{' || b[i] == '`' || b[i] == '.' {
			b[i] = 'A'
		}
		refused("changed", string(b))
		refused("cut off", ticket[:i])
	}
	// Another tenant is absent to it, whether it is there or not, also if its key reaches all.
	for _, ticket := range []string{ticket, w.ticket(rootKey)} {
		foreign, absent := stream("globex", ticket), stream("nobody", ticket)
		w.refused("not_found", "", foreign)
		if string(foreign.body) != string(absent.body) {
			t.Errorf("%s\n%s", foreign.body, absent.body)
		}
	}
	// It opens nothing but streams, and makes no ticket.
	for _, route := range []string{"GET " + events, "GET /v1/tenants/acme", "POST /v1/tenants/acme/tickets", "POST " + events} {
		method, path, _ := strings.Cut(route, " ")
		w.refused("unauthenticated", "", w.call("", method, path+"?ticket="+ticket, ""))
	}
	_, publisher := w.key("acme", eventhose.ScopePublish)
	w.refused("forbidden", "", w.call(publisher, "POST", "/v1/tenants/acme/tickets", ""))
	// A key beside it counts, and the ticket does not.
	w.want(200, w.call(key, "GET", events+"/stream?ticket=nonsense", ""))
	w.refused("unauthenticated", "", w.call("ehk_made_up", "GET", events+"/stream?ticket="+ticket, ""))

	w.want(204, w.root("DELETE", "/v1/keys/"+id, ""))
	refused("of a revoked key", ticket)
	ws.closed(4401, eventhose.CodeUnauthenticated)
	if logs := w.logs.String(); strings.Contains(logs, ticket) || strings.Contains(logs, "tkt_") {
		t.Error("a ticket is in the log")
	}
}

// Nodes with the same key take each other's tickets; what an operator gives as a key must be one.
func TestTicketKey(t *testing.T) {
	with := func(key string) func(*httpapi.Options) {
		return func(o *httpapi.Options) { o.TicketKey = eventhose.Secret(key) }
	}
	one, two := newWorld(t, with(strings.Repeat("k", 32))), newWorld(t, with(strings.Repeat("k", 32)))
	two.want(200, two.call("", "GET", events+"/stream?ticket="+one.ticket(rootKey), ""))
	if _, err := httpapi.New(httpapi.Options{TicketKey: "short"}); eventhose.CodeOf(err) != eventhose.CodeInvalid {
		t.Errorf("a short key: %v", err)
	}
}
