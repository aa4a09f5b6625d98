package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/sinktest"
	"github.com/eventhose/eventhose/sign"
)

func batch(sub *eventhose.Subscription) *sink.Batch { return sinktest.Batch(sub) }

// received is one request as a receiver saw it.
type received struct {
	method, uri, host string
	header            http.Header
	body              []byte
}

// receiver keeps what it is sent and answers 200.
type receiver struct {
	url string
	mu  sync.Mutex
	got []received
}

func newReceiver(t testing.TB) *receiver {
	t.Helper()
	rec := &receiver{}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		rec.mu.Lock()
		defer rec.mu.Unlock()
		rec.got = append(rec.got, received{r.Method, r.RequestURI, r.Host, r.Header, body})
	}))
	t.Cleanup(s.Close)
	rec.url = s.URL
	return rec
}

func (rec *receiver) last(t testing.TB) received {
	t.Helper()
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if len(rec.got) == 0 {
		t.Fatal("nothing was received")
	}
	return rec.got[len(rec.got)-1]
}

func taken(t testing.TB, r sink.Result) {
	t.Helper()
	if r.Outcome != eventhose.OutcomeTaken {
		t.Fatalf("%s %s %s", r.Outcome, r.Reason, r.Message)
	}
}

func TestRequest(t *testing.T) {
	rec, s := newReceiver(t), newSink(t, loopback())
	sub := subscription(rec.url + "/a%2Fb?x=1")
	sub.Destination.Headers = map[string]eventhose.Secret{"authorization": "Bearer abcdefgh", "X-Empty": ""}
	b := batch(sub)
	b.Number, b.Items[0].Previous, b.Items[0].Event.Key = 3, 5, "o1"
	before := time.Now().Truncate(time.Second)
	r := s.Send(t.Context(), b)
	taken(t, r)
	got := rec.last(t)
	if got.method != "POST" || got.uri != "/a%2Fb?x=1" || "http://"+got.host != rec.url {
		t.Errorf("%+v", got)
	}
	const want = `{"type":"order.paid","timestamp":"2025-11-24T16:00:00Z","data":{"amount":  12.50},"id":"evt_sinktest","sequence":7,"key":"o1"}`
	if string(got.body) != want {
		t.Errorf("body %s, want %s", got.body, want)
	}
	seconds, err := strconv.ParseInt(got.header.Get("webhook-timestamp"), 10, 64)
	if at := time.Unix(seconds, 0); err != nil || at.Before(before) || at.After(time.Now()) {
		t.Errorf("timestamp %s", got.header.Get("webhook-timestamp"))
	}
	library, err := standardwebhooks.NewWebhook(string(sub.Secrets[0].Secret))
	if err != nil {
		t.Fatal(err)
	}
	if err := library.Verify(got.body, got.header); err != nil {
		t.Errorf("the standard's library refuses it: %v", err)
	}
	got.header.Del("webhook-timestamp")
	got.header.Del("webhook-signature")
	wantHeader := http.Header{"Webhook-Id": {"evt_sinktest"}, "Eventhose-Attempt": {"3"}, "Eventhose-Sequence": {"7"}, "Eventhose-Previous-Sequence": {"5"},
		"Content-Type": {"application/json"}, "User-Agent": {UserAgent}, "Authorization": {"Bearer abcdefgh"}, "X-Empty": {""},
		"Content-Length": {strconv.Itoa(len(want))}}
	if !maps.EqualFunc(got.header, wantHeader, slices.Equal) {
		t.Errorf("headers %v, want %v", got.header, wantHeader)
	}
	if r.Status != 200 || r.URL != rec.url+"/a%2Fb" || "http://"+r.Address != rec.url || r.Phases.Connect == 0 || r.Phases.Wait == 0 || r.Phases.TLS != 0 ||
		r.ResponseHeaders["content-length"] != "0" || r.Started.IsZero() || r.Duration < time.Duration(r.Phases.Wait) {
		t.Errorf("%+v", r)
	}
	// A second one over the kept connection has no connect.
	if r := s.Send(t.Context(), b); r.Phases.Connect != 0 || "http://"+r.Address != rec.url {
		t.Errorf("%+v", r)
	}
}

func TestRequestOfTestAndReplay(t *testing.T) {
	rec, s := newReceiver(t), newSink(t, loopback())
	b := batch(subscription(rec.url))
	b.Kind, b.Items[0].Event.Sequence = eventhose.AttemptTest, 0
	taken(t, s.Send(t.Context(), b))
	if h := rec.last(t).header; h.Get("eventhose-test") != "true" || h.Get("eventhose-sequence") != "" || h.Get("eventhose-previous-sequence") != "" || h.Get("eventhose-replay") != "" {
		t.Errorf("test: %v", h)
	}
	b = batch(b.Subscription)
	b.Kind, b.Replay = eventhose.AttemptReplay, "rpl_1"
	taken(t, s.Send(t.Context(), b))
	if h := rec.last(t).header; h.Get("eventhose-test") != "" || h.Get("eventhose-sequence") != "7" || h.Get("eventhose-replay") != "rpl_1" {
		t.Errorf("replay: %v", h)
	}
	b.Kind = eventhose.AttemptRetry // a retry of what a replay sent
	taken(t, s.Send(t.Context(), b))
	if h := rec.last(t).header; h.Get("eventhose-replay") != "rpl_1" {
		t.Errorf("retry of a replay: %v", h)
	}
}

// Every live secret signs and an ended one does not, also when the subscription was sent to before.
func TestRotation(t *testing.T) {
	rec, s := newReceiver(t), newSink(t, loopback())
	first, second, third, pair := sign.NewSecret(), sign.NewSecret(), sign.NewSecret(), sign.NewSigningKey()
	live := func(k interface{ Reveal() string }, until time.Time) eventhose.LiveSecret {
		return eventhose.LiveSecret{Secret: eventhose.Secret(k.Reveal()), Until: until}
	}
	sub := subscription(rec.url)
	verifies := func(keys map[string]sign.Verifier) (names string) {
		taken(t, s.Send(t.Context(), batch(sub)))
		got := rec.last(t)
		for _, name := range slices.Sorted(maps.Keys(keys)) {
			if sign.Verify(got.header, got.body, time.Now(), 0, keys[name]) == nil {
				names += name
			}
		}
		return names
	}
	all := map[string]sign.Verifier{"1": first, "2": second, "3": third, "p": pair.Public()}
	hour := time.Now().Add(time.Hour)
	for version, c := range []struct {
		secrets []eventhose.LiveSecret
		want    string
	}{
		{[]eventhose.LiveSecret{live(first, time.Time{})}, "1"},
		{[]eventhose.LiveSecret{live(second, time.Time{}), live(first, hour)}, "12"},
		{[]eventhose.LiveSecret{live(third, time.Time{}), live(second, hour), live(first, time.Now().Add(-time.Second))}, "23"},
		{[]eventhose.LiveSecret{live(pair, time.Time{}), live(third, hour)}, "3p"},
	} {
		sub.Version, sub.Secrets = uint64(version+1), c.secrets
		for range 2 {
			if got := verifies(all); got != c.want {
				t.Errorf("version %d verifies with %s, want %s", version+1, got, c.want)
			}
		}
	}
	// What is kept for a version is kept with its ends.
	kept, _ := s.target(sub)
	if got := len(kept.live(hour.Add(time.Second))); got != 1 {
		t.Errorf("%d keys sign after the overlap", got)
	}
}

func TestUnusableSubscriptions(t *testing.T) {
	rec, s := newReceiver(t), newSink(t, loopback())
	for name, change := range map[string]func(b *sink.Batch){
		"no secret":     func(b *sink.Batch) { b.Subscription.Secrets = nil },
		"secrets ended": func(b *sink.Batch) { b.Subscription.Secrets[0].Until = time.Now().Add(-time.Second) },
		"broken secret": func(b *sink.Batch) { b.Subscription.Secrets[0].Secret = "whsec_planted-broken" },
		"public key": func(b *sink.Batch) {
			b.Subscription.Secrets[0].Secret = "whpk_ZlN4eg7dSSqi0moX9hQUk3orrOouK3QVQSlJa248c/g="
		},
		"id with full stop": func(b *sink.Batch) { b.ID = "a.b" },
		"two events":        func(b *sink.Batch) { b.Items = append(b.Items, b.Items[0]) },
		"no event":          func(b *sink.Batch) { b.Items = nil },
		"bad URL":           func(b *sink.Batch) { b.Subscription.Destination.URL = "https://planted:planted@example.com/?planted" },
		"bad header": func(b *sink.Batch) {
			b.Subscription.Destination.Headers = map[string]eventhose.Secret{"X": "planted\r\nX: y"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := batch(subscription(rec.url))
			change(b)
			r := s.Send(t.Context(), b)
			asJSON, err := json.Marshal(r)
			if err != nil || r.Outcome != eventhose.OutcomeFailed || r.Reason != eventhose.ReasonConfig || r.Message == "" || strings.Contains(string(asJSON), "planted") {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	if len(rec.got) != 0 {
		t.Errorf("%d were sent", len(rec.got))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := s.Send(ctx, batch(subscription(rec.url))); r.Reason != eventhose.ReasonStopping || r.Slow {
		t.Errorf("%+v", r)
	}
}

func TestCheck(t *testing.T) {
	s := newSink(t, loopback())
	good := eventhose.Destination{Type: eventhose.DestinationWebhook, URL: "https://example.com/hook"}
	with := func(name, value string) eventhose.Destination {
		d := good
		d.Headers = map[string]eventhose.Secret{name: eventhose.Secret(value)}
		return d
	}
	for _, d := range []eventhose.Destination{good, with("X-Foo", "bar"), with("Authorization", "Basic "+strings.Repeat("a", 4000)), with("x_9.Y-", ""),
		with("User-Agent", "mine"), with("Technical", "1"), with("Hosting", "1"), with("x", "a\tb é")} {
		if err := s.Check(d); err != nil {
			t.Errorf("%v: %v", d.Headers, err)
		}
	}
	many := good
	many.Headers = map[string]eventhose.Secret{}
	for i := range 33 {
		many.Headers["X-"+strconv.Itoa(i)] = "v"
	}
	twice := with("X-Foo", "1")
	twice.Headers["x-foo"] = "2"
	for field, all := range map[string][]eventhose.Destination{
		"destination.type":                 {{Type: "smtp", URL: good.URL}},
		"destination.url":                  {{Type: good.Type, URL: "https://10.0.0.1/"}, {Type: good.Type}, {Type: good.Type, URL: "http://example.com:22/"}},
		"destination.headers":              {many},
		"destination.headers.x-foo":        {twice},
		"destination.headers.X-Foo":        {with("X-Foo", "a\r\nb"), with("X-Foo", "a\x00"), with("X-Foo", strings.Repeat("a", 4097))},
		"destination.headers.":             {with("", "a")},
		"destination.headers.a b":          {with("a b", "a")},
		"destination.headers.a:":           {with("a:", "a")},
		"destination.headers.x$y":          {with("x$y", "a")},
		"destination.headers.é":            {with("é", "a")},
		"destination.headers.a  X: y":      {with("a\r\nX: y", "a")},
		"destination.headers.HOST":         {with("HOST", "a")},
		"destination.headers.Webhook-Id":   {with("Webhook-Id", "a")},
		"destination.headers.svix-id":      {with("svix-id", "a")},
		"destination.headers.Eventhose-X":  {with("Eventhose-X", "a")},
		"destination.headers.Proxy-Foo":    {with("Proxy-Foo", "a")},
		"destination.headers.Te":           {with("Te", "trailers")},
		"destination.headers.Content-Type": {with("Content-Type", "text/plain")},
	} {
		for _, d := range all {
			err := s.Check(d)
			e, ok := err.(*eventhose.Error)
			if !ok || e.Code != eventhose.CodeInvalid || e.Field != field {
				t.Errorf("%s: %v", field, err)
			}
		}
	}
	for _, c := range "!#$%&'*+^`|~" { // HTTP allows them
		odd := with("x"+string(c)+"y", "a")
		if s.Check(odd) == nil {
			t.Errorf("%c may be in a name", c)
		}
		sub := subscription(odd.URL)
		sub.Destination.Headers = odd.Headers
		if target, r := s.target(sub); target == nil {
			t.Errorf("%c: what was let through before is not sent any more: %+v", c, r)
		}
	}
	for _, name := range []string{"Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Trailer", "Keep-Alive", "Proxy-Authorization", "Expect", "Content-Encoding"} {
		for _, n := range []string{name, strings.ToUpper(name), strings.ToLower(name)} {
			if s.Check(with(n, "x")) == nil {
				t.Errorf("%s may be set", n)
			}
		}
	}
}

// What is kept of subscriptions is bounded, and follows their versions.
func TestTargetsAreBounded(t *testing.T) {
	s := newSink(t, loopback())
	sub := subscription("http://127.0.0.1:1/")
	sub.Version = 1
	for i := range maxTargets + 100 {
		one := *sub
		one.ID = eventhose.SubscriptionID("sub_" + strconv.Itoa(i))
		if target, _ := s.target(&one); target == nil {
			t.Fatal("no target")
		}
	}
	if n := len(s.targets.of); n != maxTargets {
		t.Errorf("%d are kept", n)
	}
	a, _ := s.target(sub)
	b, _ := s.target(sub)
	other := *sub
	other.Tenant = "other"
	c, _ := s.target(&other)
	sub.Version++
	sub.Destination.URL = "http://127.0.0.1:2/"
	d, _ := s.target(sub)
	if a != b || a == c || a == d || d.url.String() != sub.Destination.URL {
		t.Error("a version and its target do not go together")
	}
}

func TestLargeEventTravelsWhole(t *testing.T) {
	rec, s := newReceiver(t), newSink(t, loopback())
	b := batch(subscription(rec.url))
	b.Items[0].Event.Data = []byte(`"` + strings.Repeat("é", (eventhose.MaxData-2)/2) + `"`)
	taken(t, s.Send(t.Context(), b))
	if got := rec.last(t); !bytes.Contains(got.body, b.Items[0].Event.Data) || sign.Verify(got.header, got.body, time.Now(), 0, mustSecret(t, b.Subscription)) != nil {
		t.Error("1 MiB of data does not arrive as it was")
	}
}

func mustSecret(t testing.TB, sub *eventhose.Subscription) sign.Secret {
	t.Helper()
	s, err := sign.ParseSecret(string(sub.Secrets[0].Secret))
	if err != nil {
		t.Fatal(err)
	}
	return s
}
