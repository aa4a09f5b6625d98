package gateway

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/sign"
)

// Every provider says who it is, how it signs, where that stands, and what it needs.
func TestProvidersAreDescribed(t *testing.T) {
	all := Providers()
	if len(all) < 60 {
		t.Errorf("there are %d providers", len(all))
	}
	seen := map[string]bool{}
	for _, p := range all {
		if seen[p.Name] || !eventhose.ValidType(p.Name) || len(p.Name) > maxPrefix || p.Title == "" || p.Doc == "" || strings.ContainsAny(p.Doc, "\n") {
			t.Errorf("%+v", p)
		}
		seen[p.Name] = true
		if u, err := url.Parse(p.Source); err != nil || u.Scheme != "https" || u.Host == "" {
			t.Errorf("%s: the source is %q", p.Name, p.Source)
		}
		for _, n := range p.Needs {
			if n.Doc == "" || n.Field == "" {
				t.Errorf("%s needs %+v", p.Name, n)
			}
		}
		if _, err := p.naming.compile(p.Name, p.Name); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
	if _, err := New("nobody", Settings{}, Surroundings{}); fieldOf(err) != "provider" {
		t.Errorf("an unknown provider: %v", err)
	}
}

// Svix's headers are Standard Webhooks' under another name, and the two sets are never mixed.
func TestStandardHeaderFamilies(t *testing.T) {
	v, r, _ := sendAs(t, "svix", matrixBody)
	renamed := clone(r)
	for _, part := range []string{"id", "timestamp", "signature"} {
		renamed.Header.Set("svix-"+part, r.Header.Get("webhook-"+part))
		renamed.Header.Del("webhook-" + part)
	}
	if e := takes(t, "Svix's headers", v, renamed); e.ID != "msg_1" {
		t.Errorf("the id is %s", e.ID)
	}
	for _, part := range []string{"id", "timestamp", "signature"} {
		mixed := clone(renamed)
		mixed.Header.Set("webhook-"+part, r.Header.Get("webhook-"+part))
		refuses(t, "one of the other family: "+part, v, mixed, "", ReasonHeaderMissing)
		missing := clone(renamed)
		missing.Header.Del("svix-" + part)
		refuses(t, "without svix-"+part, v, missing, "", ReasonHeaderMissing)
		twice := clone(renamed)
		twice.Header.Add("svix-"+part, "x")
		refuses(t, "svix-"+part+" twice", v, twice, "", ReasonHeaderRepeated)
	}
	both := clone(r)
	for name, values := range renamed.Header {
		both.Header[name] = values
	}
	takes(t, "both families whole", v, both)

	many := clone(r)
	many.Header.Set("webhook-signature", "v1,AAAA v2,x v1a,AAAA "+r.Header.Get("webhook-signature")+" v1,BBBB")
	takes(t, "the right one among others", v, many)
	many.Header.Set("webhook-signature", strings.Replace(r.Header.Get("webhook-signature"), "v1,", "v2,", 1))
	refuses(t, "of another version", v, many, "", ReasonHeaderMalformed)

	pair := sign.NewSigningKey()
	v1a, err := sign.Sign("msg_1", testNow, r.Body, pair)
	if err != nil {
		t.Fatal(err)
	}
	asymmetric := clone(r)
	asymmetric.Header.Set("webhook-signature", v1a)
	takes(t, "with a public key", open(t, "standard", Settings{PublicKeys: []string{pair.Public().String()}}), asymmetric)
	if _, err := New("standard", secretsOf([]string{pair.Public().String()}), Surroundings{}); fieldOf(err) != "secrets[0]" {
		t.Errorf("a public key as a secret: %v", err)
	}
}

func TestStripeHeader(t *testing.T) {
	v, r, s := sendAs(t, "stripe", matrixBody)
	header := r.Header.Get("Stripe-Signature")
	for _, good := range []string{header + ",v0=" + strings.Repeat("0", 64), "v1=nothex," + header, header + ",v1=" + strings.Repeat("0", 64), "scheme=x," + header} {
		changed := clone(r)
		changed.Header.Set("Stripe-Signature", good)
		takes(t, good, v, changed)
	}
	for _, bad := range []string{strings.Replace(header, "v1=", "v0=", 1), header + ",x", header + ",v1=aa=", strings.Replace(header, ",", ", ", 1), header + ",a=b=c", "t=1," + header, header + ",t=1", "v1=" + s, "t=1700000000", header + strings.Repeat(",v1="+s, maxSignatures)} {
		changed := clone(r)
		changed.Header.Set("Stripe-Signature", bad)
		refuses(t, bad, v, changed, textKey(0), ReasonHeaderMalformed)
	}
}

func TestShopifyFamilies(t *testing.T) {
	v, r, s := sendAs(t, "shopify", matrixBody)
	r.Header.Set("X-Shopify-Topic", "orders/create")
	r.Header.Set("X-Shopify-Webhook-Id", "b54557e4")
	if e := takes(t, "webhooks", v, r); e.Type != "shopify.orders/create" || e.ID != "b54557e4" || e.Key != "evt_1" {
		t.Errorf("%+v", e)
	}
	events := post(r.Body, "shopify-hmac-sha256", s, "shopify-topic", "Product.update", "shopify-webhook-id", "w1", "shopify-shop-domain", "a.myshopify.com")
	if e := takes(t, "events", v, events); e.Type != "shopify.Product.update" || e.ID != "w1" || e.Attributes["shopify-shop-domain"] != "a.myshopify.com" {
		t.Errorf("%+v", e)
	}
	events.Header.Set("X-Shopify-Hmac-Sha256", s)
	refuses(t, "both", v, events, textKey(0), ReasonHeaderRepeated)
}

func TestTwilio(t *testing.T) {
	const token = "12345"
	at := func(public string) *Verifier {
		return open(t, "twilio", Settings{Secrets: []eventhose.Secret{token}, PublicURL: public})
	}
	sum := func(content string) string {
		return base64.StdEncoding.EncodeToString(hmacOf(sha1.New, token, content))
	}
	params := url.Values{"To": {"+18005551212"}, "Digits": {"1234"}, "From": {"+14158675309"}, "CallSid": {"CA1234567890ABCDE"}, "Caller": {"+14158675309"}}
	const signed = "CallSidCA1234567890ABCDECaller+14158675309Digits1234From+14158675309To+18005551212"
	send := func(url string) *Request {
		r := formRequest(params, "X-Twilio-Signature", sum(url+signed))
		_, r.Query, _ = strings.Cut(url, "?")
		return r
	}
	v := at("https://mycompany.com/myapp.php")
	// Twilio's published example.
	example := formRequest(params, "X-Twilio-Signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8=")
	example.Query = "foo=1&bar=2"
	takes(t, "Twilio's example", v, example)
	takes(t, "with the usual port", v, send("https://mycompany.com:443/myapp.php"))
	takes(t, "without the usual port", at("https://mycompany.com:443/myapp.php"), send("https://mycompany.com/myapp.php?foo=1"))
	takes(t, "a port that Twilio does not sign", at("https://mycompany.com:1234/myapp.php"), send("https://mycompany.com/myapp.php"))
	refuses(t, "another port", v, send("https://mycompany.com:8443/myapp.php"), "", ReasonNoMatch)
	refuses(t, "another path", v, send("https://mycompany.com/other.php"), "", ReasonNoMatch)
	moved := send("https://mycompany.com/myapp.php?foo=1")
	moved.Query = "foo=2"
	refuses(t, "another query", v, moved, "", ReasonNoMatch)

	get := ask("GET", "MessageSid=SM1&Body=hi", "X-Twilio-Signature", sum("https://mycompany.com/myapp.php?MessageSid=SM1&Body=hi"))
	if e := takes(t, "GET", v, get); string(e.Data) != get.Query || e.ContentType != formType || e.Key != "SM1" {
		t.Errorf("%+v", e)
	}
	get.Body = []byte("x")
	refuses(t, "GET with a body", v, get, "", ReasonMethod)

	// A name that comes again, and the hash of a shared key: what Twilio's libraries for Python (9.13.0) and Node (6.3.1) make of it.
	again := url.Values{"A": {"2", "1", "2"}, "B": {"é"}}
	takes(t, "every value once, sorted", v, formRequest(again, "X-Twilio-Signature", "gToBe7Efwk9E816f91IXz0dOQ2g="))
	const settings, shared = "X-Twilio-Webhooks-Signature-Settings", "62JV5WRbSu0lmbEEya8SdqgaN9f/bULui8Y0S/KCSto="
	takes(t, "SHA-256", v, formRequest(again, "X-Twilio-Signature", shared, settings, "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"))
	takes(t, "SHA-1 by name", v, formRequest(again, "X-Twilio-Signature", "gToBe7Efwk9E816f91IXz0dOQ2g=", settings, "key=, algorithm = HMAC_SHA1"))
	takes(t, "SHA-1 as nothing is said", v, formRequest(again, "X-Twilio-Signature", "gToBe7Efwk9E816f91IXz0dOQ2g=", settings, "key=webhooks_sharedkey_1"))
	refuses(t, "SHA-256 that is not said", v, formRequest(again, "X-Twilio-Signature", shared), "", ReasonHeaderMalformed)
	refuses(t, "SHA-1 where SHA-256 is said", v, formRequest(again, "X-Twilio-Signature", "gToBe7Efwk9E816f91IXz0dOQ2g=", settings, "algorithm=HMAC_SHA256"), "", ReasonHeaderMalformed)
	refuses(t, "another hash", v, formRequest(again, "X-Twilio-Signature", shared, settings, "algorithm=HMAC_MD5"), "", ReasonHeaderMalformed)
	for what, content := range map[string]string{"the first": "A2Bé", "as it came": "A2A1A2Bé", "sorted": "A1A2A2Bé"} {
		refuses(t, "a name that comes again, "+what, v, formRequest(again, "X-Twilio-Signature", sum("https://mycompany.com/myapp.php"+content)), "", ReasonNoMatch)
	}

	body := []byte(`[{"id":"1"}]`)
	digest := sha256.Sum256(body)
	query := "bodySHA256=" + hex.EncodeToString(digest[:])
	j := post(body, "X-Twilio-Signature", sum("https://mycompany.com/myapp.php?"+query))
	j.Query = query
	takes(t, "JSON", v, j)
	changed := clone(j)
	changed.Body[2] ^= 1
	refuses(t, "JSON that was changed", v, changed, "", ReasonNoMatch)
	twice := clone(j)
	twice.Query += "&" + query
	twice.Header.Set("X-Twilio-Signature", sum("https://mycompany.com/myapp.php?"+twice.Query))
	refuses(t, "two digests", v, twice, "", ReasonNoMatch)
	bare := post(body, "X-Twilio-Signature", sum("https://mycompany.com/myapp.php"))
	refuses(t, "JSON without a digest", v, bare, "", ReasonBody)
	refuses(t, "too many parameters", v, func() *Request {
		r := send("https://mycompany.com/myapp.php")
		r.Body = []byte(strings.Repeat("a&", maxParameters+1))
		return r
	}(), "", ReasonBody)
}

func TestHubSpotVersions(t *testing.T) {
	const key = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy"
	hexed := func(content string) string {
		sum := sha256.Sum256([]byte(content))
		return hex.EncodeToString(sum[:])
	}
	v1 := post([]byte("{}"), "X-HubSpot-Signature", hexed(key+"{}"))
	v2 := post([]byte("{}"), "X-HubSpot-Signature", hexed(key+"POST"+testURL+"{}"), "X-HubSpot-Signature-Version", "v2")
	s := withURL([]string{key})
	v := open(t, "hubspot", s)
	refuses(t, "v1 that was not asked for", v, v1, key, ReasonHeaderMissing)
	refuses(t, "v2 that was not asked for", v, v2, key, ReasonHeaderMissing)
	s.Options = map[string]string{"legacy": "v2"}
	v = open(t, "hubspot", s)
	takes(t, "v2", v, v2)
	refuses(t, "v1 where v2 was asked for", v, v1, key, ReasonHeaderMalformed)
	s.Options["legacy"] = "v3"
	if _, err := New("hubspot", s, Surroundings{}); fieldOf(err) != "options.legacy" {
		t.Errorf("%v", err)
	}

	ts := "1700000000000"
	decoded := testURL + "?a=:/?@!$'()*,;&b=%20%26%2B"
	v3 := post([]byte("{}"), "X-HubSpot-Signature-v3", base64.StdEncoding.EncodeToString(hmacOf(sha256.New, key, "POST"+decoded+"{}"+ts)), "X-HubSpot-Request-Timestamp", ts)
	v3.Query = "a=%3A%2F%3F%40%21%24%27%28%29%2A%2C%3B&b=%20%26%2B"
	takes(t, "with escapes that are undone, and others that are not", v, v3)
}

func TestAdyenItems(t *testing.T) {
	v, r, s := sendAs(t, "adyen", `{}`)
	item := strings.TrimSuffix(strings.TrimPrefix(string(r.Body), `{"live":"false","notificationItems":[`), `]}`)
	wrap := func(items ...string) *Request {
		return post([]byte(`{"live":"false","notificationItems":[` + strings.Join(items, ",") + `]}`))
	}
	seen := takes(t, "as sent", v, wrap(item))
	if seen.ID != "psp1.AUTHORISATION.true" || seen.Type != "adyen.AUTHORISATION" {
		t.Errorf("%s %s", seen.Type, seen.ID)
	}
	other := strings.NewReplacer("psp1", "psp2", s, adyenSignature("psp2:orig1:acct1:ref1:1000:EUR:AUTHORISATION:true")).Replace(item)
	takes(t, "another", v, wrap(other))
	for what, items := range map[string][]string{"one item twice": {item, item}, "two that were seen": {item, other}, "the second is another's": {item, strings.Replace(item, "1000", "9000", 1)},
		"many": slices.Repeat([]string{item}, 99)} {
		refuses(t, what, v, wrap(items...), "", ReasonBody)
	}
	if why := v.Verify(t.Context(), wrap(item, item)).Rejection; why == nil || !strings.Contains(why.Detail, "has 2 notificationItems, and Adyen sends one") {
		t.Errorf("%v", why)
	}
	refuses(t, "without a signature", v, wrap(strings.Replace(item, s, "", 1)), "", ReasonBody)
	refuses(t, "an item that is none", v, wrap("{}"), "", ReasonBody)
	refuses(t, "no items", v, wrap(), "", ReasonBody)
	refuses(t, "a name twice", v, wrap(strings.Replace(item, `"pspReference"`, `"pspReference":"x","pspReference"`, 1)), "", ReasonBody)
	refuses(t, "half of a surrogate pair in a signed field", v, wrap(strings.Replace(item, "ref1", `ref1\ud83d`, 1)), "", ReasonBody)
	lost := strings.NewReplacer("ref1", `ref1\ud83d`, s, adyenSignature("psp1:orig1:acct1:ref1\ufffd:1000:EUR:AUTHORISATION:true")).Replace(item)
	refuses(t, "such a half where the character that stands for it is signed", v, wrap(lost), "", ReasonBody)
	takes(t, "a name of another case is another name", v, wrap(strings.Replace(item, `"pspReference"`, `"PspReference":"x","pspReference"`, 1)))
	for _, value := range []string{"1e3", "1000.0", `"1000"`, "[]"} {
		refuses(t, value, v, wrap(strings.Replace(item, "1000", value, 1)), "", ReasonBody, ReasonNoMatch)
	}
	for psp, want := range map[string]string{"1": `/pspReference" is of another kind than Adyen's`, `"psp1","pspReference":"psp1"`: "a name is given twice"} {
		if why := v.Verify(t.Context(), wrap(strings.Replace(item, `"psp1"`, psp, 1))).Rejection; why == nil || why.Reason != ReasonBody || !strings.Contains(why.Detail, want) {
			t.Errorf("%s: %v, want one that says %s", psp, why, want)
		}
	}
	settings := secretsOf([]string{hexKey(0)})
	settings.VerifyToken = "user:password"
	basic := open(t, "adyen", settings)
	refuses(t, "without Basic authentication", basic, r, "", ReasonHeaderMissing)
	r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("user:password")))
	takes(t, "with it", basic, r)
	r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("user:passwore")))
	refuses(t, "with another", basic, r, "user:password", ReasonNoMatch)
}

func TestGitLabTokens(t *testing.T) {
	signing, _ := senders()["gitlab"], 0
	signed, _ := signing.send(message{key: signing.keyOf(0), body: []byte(matrixBody), at: testNow})
	plain := post([]byte(`{"object_kind":"push","project":{"path_with_namespace":"a/b"}}`), "X-Gitlab-Token", "plain-token-1", "X-Gitlab-Event-UUID", "u1")
	v := open(t, "gitlab", secretsOf([]string{"plain-token-1"}))
	if e := takes(t, "a secret token", v, plain); e.Type != "gitlab.push" || !strings.HasPrefix(e.ID, "u1.body-") || e.Key != "a/b" {
		t.Errorf("%+v", e)
	}
	refuses(t, "a signature, where there is a secret token", v, signed, "")
	v = open(t, "gitlab", secretsOf([]string{signing.keyOf(0)}))
	refuses(t, "a secret token, where there is a signing token", v, plain, "")
	plain.Header.Set("X-Gitlab-Token", signing.keyOf(0))
	refuses(t, "the signing token shown", v, plain, signing.keyOf(0))
	if _, err := New("gitlab", secretsOf([]string{signing.keyOf(0), "plain-token-1"}), Surroundings{}); fieldOf(err) != fieldSecrets {
		t.Errorf("tokens of both kinds: %v", err)
	}
}

func TestLinearTime(t *testing.T) {
	at := func(off time.Duration) string { return fmt.Sprint(testNow.Add(off).UnixMilli()) }
	body := func(off time.Duration) string {
		return `{"type":"Issue","action":"create","webhookTimestamp":` + at(off) + `}`
	}
	for _, off := range []time.Duration{-60 * time.Second, 0, 60 * time.Second} {
		v, r, _ := sendAs(t, "linear", body(off))
		r.Header.Set("Linear-Timestamp", at(time.Hour)) // not signed, so not believed
		if e := takes(t, off.String(), v, r); e.Type != "linear.Issue.create" {
			t.Errorf("%+v", e)
		}
	}
	for _, off := range []time.Duration{-61 * time.Second, 61 * time.Second} {
		v, r, _ := sendAs(t, "linear", body(off))
		r.Header.Set("Linear-Timestamp", at(0))
		refuses(t, off.String(), v, r, "", ReasonClock)
		v, r, _ = sendAs(t, "linear", "{}")
		r.Header.Set("Linear-Timestamp", at(off))
		refuses(t, off.String()+" in the header", v, r, "", ReasonClock)
	}
	v, r, _ := sendAs(t, "linear", `{"webhookTimestamp":"soon"}`)
	refuses(t, "no time", v, r, "", ReasonHeaderMalformed)
}

// Mailgun does not sign the body: what was seen once can stand before any other, so it is one event.
func TestMailgunReplay(t *testing.T) {
	v, r, _ := sendAs(t, "mailgun", `{"event":"opened","id":"1"}`)
	first := takes(t, "as sent", v, r)
	other := clone(r)
	other.Body = []byte(strings.Replace(string(r.Body), `"event":"opened","id":"1"`, `"event":"failed","id":"2"`, 1))
	if again := takes(t, "another body behind the same signature", v, other); again.ID != first.ID {
		t.Errorf("the ids are %s and %s: the log would take both", first.ID, again.ID)
	}
	form := func(values url.Values) *Request { return formRequest(values) }
	s := hex.EncodeToString(hmacOf(sha256.New, textKey(0), "1700000000"+"t1"))
	good := url.Values{"timestamp": {"1700000000"}, "token": {"t1"}, "signature": {s}, "event": {"delivered"}}
	if e := takes(t, "a form", v, form(good)); e.ID != "t1" || e.Type != "mailgun.delivered" {
		t.Errorf("%+v", e)
	}
	good["token"] = []string{"t1", "t2"}
	refuses(t, "two tokens", v, form(good), "", ReasonBody)
	multi := post([]byte("--b\r\nContent-Disposition: form-data; name=\"timestamp\"\r\n\r\n1700000000\r\n--b\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\nt1\r\n--b\r\n" +
		"Content-Disposition: form-data; name=\"signature\"\r\n\r\n" + s + "\r\n--b\r\nContent-Disposition: form-data; name=\"a\"; filename=\"token\"\r\n\r\nt2\r\n--b--\r\n"))
	multi.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	takes(t, "multipart", v, multi)
	multi.Body = multi.Body[:len(multi.Body)-9]
	refuses(t, "multipart that breaks off", v, multi, "", ReasonBody)
	refuses(t, "a signature twice", v, post([]byte(`{"signature":{"timestamp":"1700000000","token":"t1","signature":"`+s+`"},"signature":{}}`)), "", ReasonBody)
}

func TestSendGridLineBreaks(t *testing.T) {
	v, r, _ := sendAs(t, "sendgrid", "[{\"sg_event_id\":\"a\",\"event\":\"open\"},\r\n{\"sg_event_id\":\"b\",\"event\":\"open\"}]\r\n")
	if e := takes(t, "as sent", v, r); e.Type != "sendgrid.open" || !strings.HasPrefix(e.ID, "ids-") {
		t.Errorf("%+v", e)
	}
	changed := clone(r)
	changed.Body = []byte(strings.ReplaceAll(string(r.Body), "\r\n", "\n"))
	refuses(t, "with other line breaks", v, changed, "", ReasonReencoded)
}

func TestOtherHeaders(t *testing.T) {
	v, r, s := sendAs(t, "docusign", matrixBody)
	r.Header.Del("X-DocuSign-Signature-1")
	r.Header.Set("X-DocuSign-Signature-7", s)
	r.Header.Set("X-DocuSign-Signature-2", strings.Repeat("A", len(s)))
	takes(t, "the seventh key", v, r)
	v, r, s = sendAs(t, "box", matrixBody)
	r.Header.Del("BOX-SIGNATURE-PRIMARY")
	r.Header.Set("BOX-SIGNATURE-SECONDARY", s)
	takes(t, "the secondary key", v, r)
	v, r, _ = sendAs(t, "fedex", matrixBody)
	r.Header.Set("fdx-signature", hex.EncodeToString(hmacOf(sha256.New, textKey(0), matrixBody)))
	takes(t, "hex", v, r)
	v, r, s = sendAs(t, "pagerduty", matrixBody)
	r.Header.Set("X-PagerDuty-Signature", "v1="+strings.Repeat("0", 64)+",v1="+s)
	takes(t, "the second of two", v, r)
	v, r, s = sendAs(t, "paddle", matrixBody)
	r.Header.Set("Paddle-Signature", "ts=1700000000;h1="+s+";h1="+strings.Repeat("0", 64))
	takes(t, "the first of two", v, r)

	settings := secretsOf([]string{textKey(0)})
	settings.Options = map[string]string{"header": "X-Own"}
	v = open(t, "postmark", settings)
	takes(t, "a header of one's own", v, post([]byte("{}"), "X-Own", textKey(0)))
	refuses(t, "another header", v, post([]byte("{}"), "Authorization", "Bearer "+textKey(0)), textKey(0), ReasonHeaderMissing)
	basic := open(t, "postmark", secretsOf([]string{"user:password"}))
	r = post([]byte("{}"))
	(&http.Request{Header: r.Header}).SetBasicAuth("user", "password")
	takes(t, "Basic authentication", basic, r)
}

// What a person reads of a rejection says what is wrong.
func TestRejectionsInPlainWords(t *testing.T) {
	v, r, _ := sendAs(t, "stripe", matrixBody)
	for want, change := range map[string]func(r *Request){
		"header Stripe-Signature is missing": func(r *Request) { r.Header.Del("Stripe-Signature") },
		"clock 412 s off":                    func(r *Request) { r.Received = r.Received.Add(412 * time.Second) },
		"body re-encoded? The signature is right for the body with a space after each colon and comma": func(r *Request) { r.Body = []byte(strings.ReplaceAll(string(r.Body), " ", "")) },
		"body re-encoded? The signature is right for the body without white space at its ends":         func(r *Request) { r.Body = append(r.Body, '\n') },
		"the secret does not match": func(r *Request) { r.Body = []byte("{}") },
	} {
		changed := clone(r)
		change(changed)
		if verdict := v.Verify(t.Context(), changed); verdict.Rejection == nil || !strings.Contains(verdict.Rejection.Detail, want) {
			t.Errorf("%v, want %q", verdict.Rejection, want)
		}
	}
	others := map[string]*Verifier{"src_a": open(t, "stripe", secretsOf([]string{textKey(7)})), "src_b": v, "src_c": open(t, "inspect", Settings{})}
	if name, found := Owner(t.Context(), r, others); !found || name != "src_b" {
		t.Errorf("the request is %q's", name)
	}
	delete(others, "src_b")
	if name, found := Owner(t.Context(), r, others); found {
		t.Errorf("the request is %q's", name)
	}
}

// Texts are cut in the middle of an emoji: what JavaScript and Python then write is JSON, is signed, and is taken.
func TestHalfOfASurrogatePair(t *testing.T) {
	for name := range senders() {
		v, r, _ := sendAs(t, name, `{"id":"evt_1","text":"\ud83d"}`)
		takes(t, name, v, r)
	}
}
