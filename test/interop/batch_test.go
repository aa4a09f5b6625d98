package interop_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/types"
)

// receive serves a receiver that takes everything.
func receive(t *testing.T) (url string, got chan arrived) {
	t.Helper()
	got = make(chan arrived, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- arrived{r.Header.Clone(), body}
	}))
	t.Cleanup(receiver.Close)
	return receiver.URL, got
}

// appendPayloads appends an event for each payload, in one request.
func appendPayloads(t *testing.T, tenant, prefix string) {
	t.Helper()
	var events []string
	for i, data := range payloads {
		events = append(events, fmt.Sprintf(`{"type":"order.paid","id":"%s-%d","key":"k","data":%s}`, prefix, i, data))
	}
	call(t, http.MethodPost, tenant+"/events", "["+strings.Join(events, ",")+"]", nil)
}

// A batch, compressed or not, is what other people's verifiers take, with all data as it was appended.
func TestStandardWebhooksLibrariesVerifyBatches(t *testing.T) {
	tenant := serve(t) + "/v1/tenants/default"
	for _, compression := range []string{"", "gzip"} {
		t.Run("compression "+compression, func(t *testing.T) {
			to, got := receive(t)
			var subscription struct{ ID, Secret string }
			call(t, http.MethodPost, tenant+"/subscriptions", fmt.Sprintf(`{"ordering":"strict","batch":{"max_events":%d,"max_wait":"60s"},"destination":{"type":"webhook","url":%q,"compression":%q}}`,
				len(payloads), to, compression), &subscription)
			appendPayloads(t, tenant, "order"+compression)
			d := next(t, got)
			if compression == "gzip" {
				r, err := gzip.NewReader(bytes.NewReader(d.body))
				if err != nil {
					t.Fatal(err)
				}
				if d.body, err = io.ReadAll(r); err != nil {
					t.Fatal(err)
				}
			}
			for _, data := range payloads {
				if !bytes.Contains(d.body, []byte(`"data":`+data+`,"id"`)) {
					t.Errorf("%s does not hold %s", d.body, data)
				}
			}
			if id := d.headers.Get("webhook-id"); !strings.HasPrefix(id, "bat_") || !bytes.HasPrefix(d.body, []byte(`{"batch_id":"`+id+`","events":[{`)) {
				t.Errorf("webhook-id %s of %s", id, d.body)
			}
			verifyGo(t, subscription.Secret, []arrived{d})
			verifyNode(t, subscription.Secret, []arrived{d})
			call(t, http.MethodDelete, tenant+"/subscriptions/"+subscription.ID, "", nil)
		})
	}
}

// The SDK of CloudEvents reads what we send as CloudEvents, alone and in batches, and finds nothing wrong with it.
func TestCloudEventsSDKReads(t *testing.T) {
	tenant := serve(t) + "/v1/tenants/default"
	for _, batched := range []bool{false, true} {
		t.Run(fmt.Sprint("batched ", batched), func(t *testing.T) {
			to, got := receive(t)
			policy := ""
			if batched {
				policy = fmt.Sprintf(`"batch":{"max_events":%d,"max_wait":"60s"},`, len(payloads)+2)
			}
			var subscription struct{ ID, Secret string }
			call(t, http.MethodPost, tenant+"/subscriptions", fmt.Sprintf(`{"ordering":"strict",%s"destination":{"type":"webhook","url":%q,"format":"cloudevents"}}`, policy, to), &subscription)
			prefix := fmt.Sprint("cloud-", batched)
			appendPayloads(t, tenant, prefix)
			call(t, http.MethodPost, tenant+"/events", fmt.Sprintf(`[{"type":"label.printed","id":"%s-png","content_type":"image/png","data_base64":"iVBORw0KGgo="},{"type":"note","id":"%s-text","content_type":"text/plain","data_base64":"aMOp"}]`, prefix, prefix), nil)
			var events []cloudevents.Event
			var all []arrived
			for len(events) < len(payloads)+2 {
				d := next(t, got)
				all = append(all, d)
				r := &http.Request{Header: d.headers, Body: io.NopCloser(bytes.NewReader(d.body))}
				if batched {
					batch, err := cloudevents.NewEventsFromHTTPRequest(r)
					if err != nil {
						t.Fatalf("%v: %s", err, d.body)
					}
					events = append(events, batch...)
					continue
				}
				e, err := cloudevents.NewEventFromHTTPRequest(r)
				if err != nil {
					t.Fatalf("%v: %s", err, d.body)
				}
				events = append(events, *e)
			}
			verifyGo(t, subscription.Secret, all)
			sent := append(slices.Clone(payloads), "\x89PNG\r\n\x1a\n", "hé")
			last := ""
			for i, e := range events {
				if err := e.Validate(); err != nil {
					t.Errorf("%v: %s", err, e)
				}
				extensions := e.Extensions()
				sequence, err := types.ToString(extensions["sequence"])
				if err != nil || sequence <= last || last != "" && extensions["previoussequence"] != last {
					t.Errorf("sequence %s after %s: %v", sequence, last, extensions)
				}
				last = sequence
				if key := extensions["partitionkey"]; i < len(payloads) && key != "k" || i >= len(payloads) && key != nil {
					t.Errorf("event %d has the key %v", i, key)
				}
				if id := extensions["batchid"]; batched != (id != nil) || batched && id != all[0].headers.Get("webhook-id") {
					t.Errorf("event %d is of the batch %v", i, id)
				}
				if e.Source() != "/tenants/default" || e.Subject() != "" || e.Time().IsZero() || !strings.HasPrefix(e.ID(), prefix) || string(e.Data()) != sent[i] {
					t.Errorf("event %d: %s\nwith data %q, want %q", i, e, e.Data(), sent[i])
				}
			}
			call(t, http.MethodDelete, tenant+"/subscriptions/"+subscription.ID, "", nil)
		})
	}
}
