package graphql_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/coder/websocket"

	"github.com/eventhose/eventhose"
)

// A portal link opens nothing of GraphQL, whatever its capabilities and however it is shown.
func TestPortalLinksAreRefused(t *testing.T) {
	w := newWorld(t, quick)
	_, link, err := w.ctl.CreateLink(t.Context(), eventhose.PortalLink{Tenant: "acme", Capabilities: eventhose.Capabilities()}, 0)
	if err != nil {
		t.Fatal(err)
	}
	query := request(`{ events { cursor } }`)
	bearer := []string{"Authorization", "Bearer " + string(link), "Content-Type", "application/json"}
	if status, b, _ := w.do("POST", acme+"/graphql", query, bearer...); status != 403 {
		t.Errorf("a query: %d %s", status, b)
	}
	status, b, _ := w.do("POST", acme+"/tickets", "", bearer...)
	if status != 201 {
		t.Fatalf("a ticket: %d %s", status, b)
	}
	var made struct{ Ticket string }
	unmarshal(t, b, &made)
	if status, b, _ := w.do("POST", acme+"/graphql?ticket="+made.Ticket, query, "Content-Type", "application/json"); status != 403 {
		t.Errorf("a query by ticket: %d %s", status, b)
	}
	s := w.dial(acme, "", "", "graphql-transport-ws")
	s.send(`{"type":"connection_init","payload":{"authorization":"Bearer ` + string(link) + `"}}`)
	s.closed(4403, "")
}

// A session's cookie opens a WebSocket to a page of this server alone. A page of another origin may have a key of its own, and then the
// cookie that the browser sends along counts for nothing.
func TestSocketByCookie(t *testing.T) {
	w := newWorld(t, quick)
	w.append(`{"type":"a","data":1}`)
	_, token, err := w.ctl.SignIn(t.Context(), rootKey, "")
	if err != nil {
		t.Fatal(err)
	}
	dial := func(origin string) *socket {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		//nolint:bodyclose // which the connection is
		conn, _, err := websocket.Dial(ctx, w.server.URL+acme+"/graphql", &websocket.DialOptions{HTTPClient: w.server.Client(), Subprotocols: []string{"graphql-transport-ws"},
			HTTPHeader: http.Header{"Origin": {origin}, "Cookie": {"eventhose_session=" + string(token)}}})
		if err != nil {
			cancel()
			t.Fatal(err)
		}
		t.Cleanup(func() { cancel(); conn.CloseNow() })
		return &socket{t: t, ctx: ctx, conn: conn}
	}
	own := dial(w.server.URL)
	own.send(`{"type":"connection_init"}`)
	own.read("connection_ack", "")
	own.subscribe("1", following)
	own.item("1")

	other := dial("https://shop.example")
	other.send(`{"type":"connection_init"}`)
	other.closed(4401, "")

	_, key := w.key("acme", eventhose.ScopeRead)
	with := dial("https://shop.example")
	with.send(`{"type":"connection_init","payload":{"authorization":"Bearer ` + key + `"}}`)
	with.read("connection_ack", "")

	for origin, want := range map[string]int{w.server.URL: 200, "https://shop.example": 403} {
		status, b, h := w.do("POST", acme+"/graphql", request(`{ events { cursor } }`), "Content-Type", "application/json", "Origin", origin, "Cookie", "eventhose_session="+string(token))
		if status != want || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("a query from %s: %d %s %v", origin, status, b, h)
		}
	}
}
