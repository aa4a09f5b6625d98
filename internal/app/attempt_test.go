package app_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
)

// webhookGot is a request as a real receiver got it.
type webhookGot struct {
	method, host string
	header       http.Header
	body         []byte
}

// An attempt's request is told as the receiver got it, byte for byte and header for header, for every format, alone and in a
// batch, for first tries, retries, replays and tests; only what the subscription sets of headers is not shown.
func TestRequestIsToldAsItWasSent(t *testing.T) {
	tried := make(chan eventhose.Attempt, 1000)
	server, err := app.New(app.Options{Listen: "127.0.0.1:0", Memory: true, SecretKey: make([]byte, 32), AdminKey: "admin-key-of-this-test",
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Observe: func(a eventhose.Attempt) { tried <- a }})
	if err == nil {
		err = server.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	c, err := client.New("http://"+server.Addr(), "admin-key-of-this-test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	acme := c.Tenant("default")

	for _, format := range []string{eventhose.FormatStandard, eventhose.FormatCloudEvents} {
		for _, batched := range []bool{false, true} {
			for _, compression := range []string{"", eventhose.CompressionGzip} {
				t.Run(fmt.Sprint(format, " batch ", batched, " ", compression), func(t *testing.T) {
					got := make(chan webhookGot, 100)
					answers := []int{200, 503, 200}
					receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						body, err := io.ReadAll(r.Body)
						if err != nil {
							t.Error(err)
						}
						if r.Header.Get("Content-Encoding") == "gzip" {
							z, err := gzip.NewReader(bytes.NewReader(body))
							if err != nil {
								t.Error(err)
								return
							}
							body, _ = io.ReadAll(z)
						}
						got <- webhookGot{r.Method, r.Host, r.Header, body}
						w.WriteHeader(answers[0])
						if len(answers) > 1 {
							answers = answers[1:]
						}
					}))
					defer receiver.Close()
					n := client.NewSubscription{Filter: eventhose.Filter{Types: []string{"t.*"}}, Retry: eventhose.Retry{Schedule: []eventhose.Duration{0, 0, 0}},
						Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: receiver.URL + "/hook?token=secret", Format: format, Compression: compression,
							Headers: map[string]eventhose.Secret{"authorization": "Bearer of-the-subscription"}}, MaxInFlight: 1}
					if batched {
						n.Batch = eventhose.BatchPolicy{MaxEvents: 2, MaxWait: eventhose.Duration(30 * time.Second)}
					}
					sub, err := acme.CreateSubscription(t.Context(), n)
					if err != nil {
						t.Fatal(err)
					}
					defer func() { // and what is left of it is not sent
						if err := acme.DeleteSubscription(t.Context(), sub.ID); err != nil {
							t.Error(err)
						}
					}()
					wait := func(count int) (seen []webhookGot, made []eventhose.Attempt) {
						t.Helper()
						limit := time.After(30 * time.Second)
						for len(seen) < count || len(made) < count {
							select {
							case g := <-got:
								seen = append(seen, g)
							case a := <-tried:
								made = append(made, a)
							case <-limit:
								t.Fatalf("%d of %d requests came", len(seen), count)
							}
						}
						return seen, made
					}
					append2 := func() {
						t.Helper()
						if _, err := acme.Append(t.Context(),
							eventhose.Event{Type: "t.json", Key: "k<1>", Data: []byte(awkwardJSON), Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)},
							eventhose.Event{Type: "ignored", Data: []byte("0")},
							eventhose.Event{Type: "t.raw", ContentType: "application/octet-stream", Data: []byte{0, 1, 2, 0xff}}); err != nil {
							t.Fatal(err)
						}
					}
					append2()
					requests := 3 // the second is refused once
					if batched {
						append2()
					}
					seen, made := wait(requests)
					test, err := acme.Test(t.Context(), sub.ID)
					if err != nil {
						t.Fatal(err)
					}
					more, _ := wait(1)
					seen, made = append(seen, more...), append(made, test)
					replay, err := acme.Replay(t.Context(), sub.ID, client.NewReplay{From: fmt.Sprint(made[0].Sequences[0]), To: fmt.Sprint(made[0].Sequences[len(made[0].Sequences)-1])})
					if err != nil || replay.Replay == nil {
						t.Fatal(replay, err)
					}
					more, again := wait(1)
					seen, made = append(seen, more...), append(made, again...)

					// What is observed comes in another order than what is received.
					slices.SortFunc(made, func(a, b eventhose.Attempt) int { return a.Started.Compare(b.Started) })
					kinds := map[eventhose.AttemptKind]bool{}
					for i, a := range made {
						kinds[a.Kind] = true
						d := detailOf(t, acme, a)
						told(t, &d, seen[i], sub.Secret, receiver.URL+"/hook")
					}
					for _, kind := range []eventhose.AttemptKind{eventhose.AttemptFirst, eventhose.AttemptRetry, eventhose.AttemptTest, eventhose.AttemptReplay} {
						if !kinds[kind] {
							t.Errorf("no attempt was a %s", kind)
						}
					}

					// Another secret, and it is not claimed what the signature was; another policy, and the body is still that of then.
					if _, err := acme.RotateSecret(t.Context(), sub.ID, 0); err != nil {
						t.Fatal(err)
					}
					policy := eventhose.BatchPolicy{MaxEvents: 3}
					if batched {
						policy = eventhose.BatchPolicy{}
					}
					if _, err := acme.UpdateSubscription(t.Context(), sub.ID, eventhose.SubscriptionPatch{Batch: &policy}); err != nil {
						t.Fatal(err)
					}
					d := detailOf(t, acme, made[0])
					if _, there := d.Request.Headers["Webhook-Signature"]; there || !d.Request.Changed || d.Request.Body != string(seen[0].body) {
						t.Errorf("after a rotation: %+v\nwas %s", d.Request, seen[0].body)
					}
				})
			}
		}
	}
}

// awkwardJSON is changed by every decode and encode.
const awkwardJSON = "{ \"amount\" : 1.10e+2,\n \"html\":\"<b>&</b>\", \"big\": 12345678901234567890.0,\"é\":\"\\u00e9\"}"

// detailOf reads an attempt once it is recorded; the id of one that was observed is made before that.
func detailOf(t *testing.T, c *client.Tenant, a eventhose.Attempt) eventhose.AttemptDetail {
	t.Helper()
	for {
		d, err := c.Attempt(t.Context(), a.Subscription, a.ID)
		if eventhose.CodeOf(err) != eventhose.CodeNotFound {
			if err != nil || d.Request == nil || d.EventGone {
				t.Fatalf("%s: %+v, %v", a.ID, d, err)
			}
			return d
		}
	}
}

// told compares what is told of a request with what came.
func told(t *testing.T, d *eventhose.AttemptDetail, got webhookGot, secret eventhose.Secret, url string) {
	t.Helper()
	r := d.Request
	if r.Method != got.method || r.URL != url || r.Changed || r.BodyTruncated {
		t.Errorf("%s: %+v", d.Kind, r)
	}
	if r.Body != string(got.body) {
		t.Errorf("%s: body\n%s\nwas\n%s", d.Kind, r.Body, got.body)
	}
	want := map[string]string{"Host": got.host}
	for name, values := range got.header {
		want[name] = strings.Join(values, ", ")
	}
	want["Authorization"] = "***"
	if !maps.Equal(r.Headers, want) {
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if r.Headers[name] != want[name] {
				t.Errorf("%s: %s is %q, was %q", d.Kind, name, r.Headers[name], want[name])
			}
		}
		t.Errorf("%s: headers %v\nwere %v", d.Kind, r.Headers, want)
	}
	// A library that we did not write believes what is told, too.
	library, err := standardwebhooks.NewWebhook(string(secret))
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{}
	for name, value := range r.Headers {
		header.Set(name, value)
	}
	if err := library.Verify([]byte(r.Body), header); err != nil {
		t.Errorf("%s: the standard's library refuses what is told: %v", d.Kind, err)
	}
}
