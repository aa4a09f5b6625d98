package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

// headless is the log, whose head cannot be read while it is away.
type headless struct {
	httpapi.Log
	away atomic.Bool
}

func (h *headless) Head(ctx context.Context, id eventhose.TenantID) (eventhose.Head, error) {
	if h.away.Load() {
		return eventhose.Head{}, errors.New("planted")
	}
	return h.Log.Head(ctx, id)
}

// A worker that gets an error has taken nothing: no event is leased for it, and no delivery is charged.
func TestPullThatFailsTakesNothing(t *testing.T) {
	log := &headless{}
	w := newWorld(t, func(o *httpapi.Options) { log.Log, o.Log = o.Log, log })
	for name, fail := range map[string]func(sub string){
		"over HTTP": func(sub string) {
			log.away.Store(true)
			w.refused(eventhose.CodeInternal, "", w.root("POST", subscriptions+"/"+sub+"/pull", `{"wait": "20s"}`))
		},
		"over a socket": func(sub string) {
			s := w.dial(rootKey, "lease=10m&subscription="+sub)
			s.read("ready")
			log.away.Store(true)
			s.send(`{"type":"grant","events":10}`)
			s.closed(websocket.StatusInternalError, eventhose.CodeInternal)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			sub := w.want(201, w.root("POST", subscriptions, `{}`)).json(t)["id"].(string)
			w.append("acme", `{"type":"job","data":1}`)
			fail(sub)
			log.away.Store(false)
			list, err := w.engine.Pull(t.Context(), "acme", eventhose.SubscriptionID(sub), eventhose.Pull{Max: 10, Wait: 20 * time.Second, Lease: time.Minute})
			if err != nil || len(list) != 1 || list[0].Deliveries != 1 {
				t.Errorf("%+v, %v", list, err)
			}
		})
	}
}

// What a worker that stops releases is handed over again at once, and was not delivered: more often than the schedule is long.
func TestRelease(t *testing.T) {
	w := newWorld(t, nil)
	sub := w.want(201, w.root("POST", subscriptions, `{"ordering": "key", "retry": {"schedule": ["0s", "1h"]}}`)).json(t)["id"].(string)
	w.append("acme", `{"type":"job","key":"a","data":1}`)
	w.append("acme", `{"type":"job","key":"a","data":2}`)
	path := subscriptions + "/" + sub + "/"
	var last string
	for range 4 {
		list := w.want(200, w.root("POST", path+"pull", `{"wait": "20s"}`)).json(t)["data"].([]any)
		one := list[0].(map[string]any)
		if len(list) != 1 || one["deliveries"] != 1.0 || one["event"].(map[string]any)["data"] != 1.0 {
			t.Fatalf("%v", list)
		}
		before := last
		last = one["lease"].(string)
		answer := w.want(200, w.root("POST", path+"release", `{"leases": ["`+last+`"]}`)).json(t)
		if fmt.Sprint(answer["count"], answer["lost"]) != "1 []" {
			t.Errorf("%v", answer)
		}
		if before == "" {
			continue
		}
		answer = w.want(200, w.root("POST", path+"release", `{"leases": ["`+before+`", "`+last+`"]}`)).json(t)
		if fmt.Sprint(answer["count"], answer["lost"]) != "1 ["+before+"]" {
			t.Errorf("with one that was lost: %v", answer)
		}
	}
	if tried := w.want(200, w.root("GET", path+"attempts", "")).json(t)["data"].([]any); len(tried) > 0 {
		t.Errorf("attempts: %v", tried)
	}
	w.refused(eventhose.CodeInvalid, "leases", w.root("POST", path+"release", `{"leases": []}`))
	w.refused(eventhose.CodeInvalid, "leases[0]", w.root("POST", path+"release", `{"leases": ["x"]}`))
	w.refused(eventhose.CodeInvalid, "delay", w.root("POST", path+"release", `{"leases": ["`+last+`"], "delay": "1s"}`))
	w.refused(eventhose.CodeConflict, "", w.root("POST", subscriptions+"/"+w.subscribe("acme", "")+"/release", `{"leases": ["`+last+`"]}`))
}
