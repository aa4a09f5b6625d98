package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func snsVerifier(t *testing.T, around Surroundings, options ...string) *Verifier {
	t.Helper()
	s := Settings{Options: map[string]string{"topics": snsTopic}}
	for i := 0; i < len(options); i += 2 {
		s.Options[options[i]] = options[i+1]
	}
	v, err := New("sns", s, around)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func notification(change map[string]string) *Request {
	fields := map[string]string{"Type": "Notification", "Message": "hello\nworld <&> é", "MessageId": "mid-1", "TopicArn": snsTopic, "Timestamp": "2023-11-14T22:13:20.123Z", "Subject": "greeting"}
	for name, value := range change {
		fields[name] = value
	}
	body, _ := snsMessage(fields)
	return post(body)
}

func TestSNSSubscription(t *testing.T) {
	around, w := snsSurroundings()
	const confirm = "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=arn&Token=1"
	w.pages[confirm] = page{200, []byte("<ConfirmSubscriptionResponse/>")}
	v := snsVerifier(t, around)
	ask := func(change map[string]string) *Request {
		fields := map[string]string{"Type": "SubscriptionConfirmation", "Token": "1", "SubscribeURL": confirm}
		for name, value := range change {
			fields[name] = value
		}
		return notification(fields)
	}
	answers(t, "a topic that is listed", v, ask(nil), 200, "")
	if !slices.Contains(w.asked, "GET "+confirm) {
		t.Errorf("it was not confirmed: %v", w.asked)
	}
	before := len(w.asked)
	refuses(t, "a topic of somebody else", v, ask(map[string]string{"TopicArn": "arn:aws:sns:eu-central-1:999999999999:orders"}), "", ReasonNotAllowed)
	for _, u := range []string{"https://evil.example.com/?Action=ConfirmSubscription", "http://sns.eu-central-1.amazonaws.com/", "https://sns.eu-central-1.amazonaws.com:8443/",
		"https://a@sns.eu-central-1.amazonaws.com/", "https://sns.eu-central-1.amazonaws.com.evil.example/", "https://sns.eu-central-1.amazonaws.com/other", "https://sns.eu-central-1.amazonaws.com/#x", "https://169.254.169.254/"} {
		refuses(t, u, v, ask(map[string]string{"SubscribeURL": u}), "", ReasonNotAllowed)
	}
	forged := ask(nil)
	forged.Body = []byte(strings.Replace(string(forged.Body), `"Token":"1"`, `"Token":"2"`, 1))
	refuses(t, "a message that was changed", v, forged, "", ReasonNoMatch)
	if len(w.asked) != before {
		t.Errorf("what was refused was asked for: %v", w.asked[before:])
	}
	w.pages[confirm] = page{403, nil}
	if verdict := v.Verify(t.Context(), ask(nil)); verdict.Rejection == nil || verdict.Rejection.Reason != ReasonUnavailable || verdict.Answer.Status != 503 {
		t.Errorf("when Amazon does not confirm: %+v", verdict)
	}
	if e := takes(t, "the end of a subscription", v, ask(map[string]string{"Type": "UnsubscribeConfirmation"})); e.Type != "sns.UnsubscribeConfirmation" {
		t.Errorf("%+v", e)
	}
}

func TestSNSMessages(t *testing.T) {
	around, w := snsSurroundings()
	v := snsVerifier(t, around)
	if e := takes(t, "a notification", v, notification(nil)); e.ID != "mid-1" || e.Type != "sns.Notification" || e.ContentType != "application/json" || e.Key != snsTopic {
		t.Errorf("%+v", e)
	}
	takes(t, "a second", v, notification(nil))
	if len(w.asked) != 1 {
		t.Errorf("the certificate was fetched %d times", len(w.asked))
	}
	change := func(edit func(fields map[string]any)) *Request {
		r := notification(nil)
		var fields map[string]any
		if err := json.Unmarshal(r.Body, &fields); err != nil {
			t.Fatal(err)
		}
		edit(fields)
		r.Body, _ = json.Marshal(fields)
		return r
	}
	takes(t, "with a Subject of null, which is none", v, func() *Request {
		body, _ := snsMessage(map[string]string{"Type": "Notification", "Message": "m", "MessageId": "mid-1", "TopicArn": snsTopic, "Timestamp": "2023-11-14T22:13:20.123Z"})
		return post([]byte(strings.Replace(string(body), "{", `{"Subject":null,`, 1)))
	}())
	for name, value := range map[string]any{"Message": "other", "MessageId": "mid-2", "Subject": "other", "Timestamp": "2023-11-14T22:13:21.123Z"} {
		refuses(t, "another "+name, v, change(func(f map[string]any) { f[name] = value }), "", ReasonNoMatch)
	}
	for name, value := range map[string]any{"Message": 1, "MessageId": nil, "Type": "Other", "SignatureVersion": "3", "Signature": "!", "Token": []any{}} {
		refuses(t, "a wrong "+name, v, change(func(f map[string]any) { f[name] = value }), "", ReasonBody)
	}
	twice := notification(nil)
	twice.Body = []byte(strings.Replace(string(twice.Body), "{", `{"Message":"other",`, 1))
	refuses(t, "a Message twice", v, twice, "", ReasonBody)
	header := notification(nil)
	header.Header.Set("x-amz-sns-message-type", "SubscriptionConfirmation")
	refuses(t, "another type in the header", v, header, "", ReasonHeaderMalformed)
	refuses(t, "a SHA-256 signature as SHA-1", v, change(func(f map[string]any) { f["SignatureVersion"] = "1" }), "", ReasonNoMatch)
	strict := snsVerifier(t, around, "refuse_sha1", "true")
	refuses(t, "SHA-1 where it is refused", strict, change(func(f map[string]any) { f["SignatureVersion"] = "1" }), "", ReasonBody)

	before := len(w.asked)
	for _, u := range []string{"http://sns.eu-central-1.amazonaws.com/a.pem", "https://evil.example.com/a.pem", "https://sns.eu-central-1.amazonaws.com.evil.example/a.pem",
		"https://sns.eu-central-1.amazonaws.com@evil.example/a.pem", "https://sns.eu-central-1.amazonaws.com:444/a.pem", "https://sns.eu-central-1.amazonaws.com/a.txt",
		"https://sns.eu-central-1.amazonaws.com/../a.pem", "https://evilsns.eu-central-1.amazonaws.com/a.pem", "https://s3.amazonaws.com/sns.eu-central-1.amazonaws.com/a.pem",
		"https://sns.eu-central-1.amazonaws.com/a.pem#", "https://sns.eu-central-1.amazonaws.com/a.pem\n", "//sns.eu-central-1.amazonaws.com/a.pem",
		"https://sns.eu-central-1.amazonaws.com/a.pem", snsCertURL + "?", snsCertURL + "?a=1", snsCertURL + "#", snsCertURL + "\n", strings.Replace(snsCertURL, "sns.", "SNS.", 1),
		strings.Replace(snsCertURL, "https", "HTTPS", 1), strings.Replace(snsCertURL, "eu-central", "EU-central", 1), strings.Replace(snsCertURL, ".com/", ".com:443/", 1), strings.Replace(snsCertURL, ".com/", ".com./", 1),
		strings.Replace(snsCertURL, "Simple", "%53imple", 1), strings.Replace(snsCertURL, "-0123", "-A123", 1), strings.Replace(snsCertURL, "/Simple", "//Simple", 1)} {
		refuses(t, u, v, change(func(f map[string]any) { f["SigningCertURL"] = u }), "", ReasonCertificate)
	}
	if len(w.asked) != before {
		t.Errorf("asked for %v", w.asked[before:])
	}
}

// A certificate is believed only if it is the provider's own and in force. Its file holds it alone, and nobody known vouches for it.
func TestCertificates(t *testing.T) {
	in := testAuthority()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const signer = "sns.amazonaws.com"
	long := append(testAuthority().issue("sns.amazonaws.com", testNow.Add(time.Hour)), strings.Repeat("\n", maxCertificate)...)
	for _, c := range []struct {
		what   string
		page   page
		reason Reason
	}{
		{"another's name", page{200, testAuthority().issue("www.example.com", testNow.Add(time.Hour))}, ReasonCertificate},
		{"a name that begins like it", page{200, testAuthority().issue("sns.amazonaws.com.evil.example", testNow.Add(time.Hour))}, ReasonCertificate},
		{"expired", page{200, testAuthority().issue("sns.amazonaws.com", testNow.Add(-time.Second))}, ReasonCertificate},
		{"not in force yet", page{200, in.issueFor(&leafKey().PublicKey, signer, testNow.Add(time.Second), testNow.Add(time.Hour))}, ReasonCertificate},
		{"a key of 1024 bits", page{200, in.issueFor(&small.PublicKey, signer, testNow.Add(-time.Hour), testNow.Add(time.Hour))}, ReasonCertificate},
		{"a key of another kind", page{200, in.issueFor(&curve.PublicKey, signer, testNow.Add(-time.Hour), testNow.Add(time.Hour))}, ReasonCertificate},
		{"a key and no certificate", page{200, []byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")}, ReasonCertificate},
		{"no PEM", page{200, []byte("<html>")}, ReasonCertificate},
		{"not there", page{404, nil}, ReasonCertificate},
		{"too long", page{200, long}, ReasonCertificate},
		{"a server in trouble", page{500, nil}, ReasonUnavailable},
	} {
		around, w := snsSurroundings()
		w.pages[snsCertURL] = c.page
		v := snsVerifier(t, around)
		refuses(t, c.what, v, notification(nil), "", c.reason)
		refuses(t, c.what, v, notification(nil), "", c.reason)
		if n := len(w.asked); c.reason == ReasonCertificate && n != 1 {
			t.Errorf("%s: it was fetched %d times within a minute", c.what, n)
		}
		w.pages[snsCertURL] = page{200, testAuthority().issue("sns.amazonaws.com", testNow.Add(time.Hour))}
		later := notification(nil)
		later.Received = later.Received.Add(2 * refusedAge)
		takes(t, c.what+", mended", v, later)
	}
	for _, name := range []string{signer, "sns.eu-central-1.amazonaws.com", "sns-signing.eu-south-1.amazonaws.com", "sns-cn-north-1.amazonaws.com.cn", "sns-us-gov-west-1.amazonaws.com", "sns-signing.eusc-de-east-1.amazonaws.eu"} {
		around, w := snsSurroundings()
		w.pages[snsCertURL] = page{200, in.issue(name, testNow.Add(time.Hour))}
		takes(t, name, snsVerifier(t, around), notification(nil))
	}
	for _, name := range []string{"amazonaws.com", "s3.amazonaws.com", "snsx.amazonaws.com", "sns.a.b.amazonaws.com", "sns.amazonaws.com.de", "sns.amazonaws.eu.com"} {
		around, w := snsSurroundings()
		w.pages[snsCertURL] = page{200, in.issue(name, testNow.Add(time.Hour))}
		refuses(t, name, snsVerifier(t, around), notification(nil), "", ReasonCertificate)
	}
	around, w := snsSurroundings()
	delete(w.pages, snsCertURL)
	v := snsVerifier(t, around)
	if verdict := v.Verify(t.Context(), notification(nil)); verdict.Answer.Status != 503 {
		t.Errorf("when Amazon cannot be reached: %+v", verdict)
	}
	around, w = snsSurroundings()
	v = snsVerifier(t, around)
	takes(t, "in force", v, notification(nil))
	late := notification(nil)
	late.Received = late.Received.Add(2 * time.Hour)
	refuses(t, "a kept certificate that has expired", v, late, "", ReasonCertificate)
	if len(w.asked) != 2 {
		t.Errorf("fetched %d times", len(w.asked))
	}
}

// slowWeb answers when it is told to.
type slowWeb struct {
	web
	begun   chan struct{}
	release chan struct{}
}

func (w *slowWeb) Fetch(ctx context.Context, method, url string, h http.Header, body []byte) (int, []byte, error) {
	w.begun <- struct{}{}
	select {
	case <-w.release:
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
	return w.web.Fetch(ctx, method, url, h, body)
}

// Strangers can make a source fetch a few certificates at once and keep a few, whatever they name.
func TestCertificatesAreBounded(t *testing.T) {
	around, w := snsSurroundings()
	slow := &slowWeb{begun: make(chan struct{}, 100), release: make(chan struct{})}
	slow.pages = w.pages
	v := snsVerifier(t, Surroundings{Fetcher: slow})
	var fetching sync.WaitGroup
	for range maxFetching {
		fetching.Go(func() { takes(t, "the first", v, notification(nil)) })
		<-slow.begun
	}
	refuses(t, "one more", v, notification(nil), "", ReasonUnavailable)
	close(slow.release)
	fetching.Wait()
	takes(t, "after", v, notification(nil))

	cs, err := newCertificates(&configuration{Surroundings: around}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 * maxCertificates {
		url := namedURL(i)
		cs.keep(url, nil, reject(ReasonCertificate, "it is not there"), testNow)
		url = namedURL(1_000 + i)
		cs.keep(url, &goodCertificate{fresh: testNow.Add(time.Hour), expires: testNow.Add(2 * time.Hour)}, nil, testNow)
		if cs.proved(url); i < maxCertificates && cs.good[url] == nil || i >= maxCertificates && cs.good[url] != nil {
			t.Errorf("certificate %d of those that have verified: kept %v", i, cs.good[url] != nil)
		}
	}
	if len(cs.good) != maxCertificates || len(cs.refused) != maxRefused {
		t.Errorf("%d certificates and %d refused ones are kept", len(cs.good), len(cs.refused))
	}
	cs.keep(snsCertURL, &goodCertificate{}, nil, testNow.Add(time.Hour))
	if cs.good[snsCertURL] == nil || len(cs.good) > maxCertificates {
		t.Error("those that nobody has asked for in a while give way to none")
	}
	if _, err := New("sns", Settings{Options: map[string]string{"topics": snsTopic}}, Surroundings{}); err == nil {
		t.Error("a source that must reach out was made without a Fetcher")
	}
}

// strangersWeb is a web on which what strangers name is slow to come.
type strangersWeb struct {
	web
	slow   slowWeb
	slowly bool // also what the provider signs with
}

func (w *strangersWeb) Fetch(ctx context.Context, method, url string, h http.Header, body []byte) (int, []byte, error) {
	if w.slow.begun != nil && (w.slowly || url != snsCertURL) {
		return w.slow.Fetch(ctx, method, url, h, body)
	}
	return w.web.Fetch(ctx, method, url, h, body)
}

// named is a notification that names its certificate, as a stranger may name it who cannot sign.
func named(n int) *Request {
	r := notification(map[string]string{"SigningCertURL": namedURL(n)})
	r.Body = []byte(strings.Replace(string(r.Body), "hello", "forged", 1))
	return r
}

func namedURL(n int) string {
	return fmt.Sprintf("https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-%032x.pem", n)
}

// Whatever strangers name, and however slowly it comes: what the provider signs with a certificate that is known is verified at once.
func TestStrangersShutNoSource(t *testing.T) {
	_, pages := snsSurroundings()
	w := &strangersWeb{}
	w.pages = pages.pages
	w.pages[snsCertURL] = page{200, testAuthority().issue("sns.amazonaws.com", testNow.Add(900*time.Hour))}
	v := snsVerifier(t, Surroundings{Fetcher: w})
	fetched := func() (n int) {
		for _, asked := range w.asked {
			if asked == "GET "+snsCertURL {
				n++
			}
		}
		return n
	}
	takes(t, "the first", v, notification(nil))
	for n := range 10 * maxCertificates {
		w.pages[namedURL(n)] = page{404, nil}
		if n%2 == 0 { // a certificate of another region's, as good as ours
			w.pages[namedURL(n)] = page{200, testAuthority().issue("sns.eu-west-1.amazonaws.com", testNow.Add(900*time.Hour))}
		}
		refuses(t, "a stranger's", v, named(n), "", ReasonCertificate, ReasonNoMatch)
	}
	takes(t, "after strangers have named others", v, notification(nil))
	if n := fetched(); n != 1 {
		t.Errorf("the certificate was fetched %d times", n)
	}

	w.slow = slowWeb{begun: make(chan struct{}, 100), release: make(chan struct{})}
	var strangers sync.WaitGroup
	for n := range maxFetching {
		strangers.Go(func() { v.Verify(t.Context(), named(1_000+n)) })
		<-w.slow.begun
	}
	takes(t, "while strangers have others fetched", v, notification(nil))
	later := func(d time.Duration) *Request {
		r := notification(nil)
		r.Received = r.Received.Add(d)
		return r
	}
	takes(t, "looked for again while strangers have others fetched", v, later(certificateAge))
	if n := fetched(); n != 2 {
		t.Errorf("the certificate was fetched %d times, and is to be looked for once a day", n)
	}
	w.slowly = true
	strangers.Go(func() { takes(t, "looked for again slowly", v, later(2*certificateAge)) })
	<-w.slow.begun
	takes(t, "while it is looked for again", v, later(2*certificateAge))
	if len(w.slow.begun) > 0 {
		t.Error("two look for one certificate at once")
	}
	w.slowly = false
	close(w.slow.release)
	strangers.Wait()

	// The provider being away takes nothing from what is known. That it has taken the certificate away does.
	certificate := w.pages[snsCertURL]
	for i, gone := range []page{{500, nil}, {429, nil}} {
		before := fetched()
		w.pages[snsCertURL] = gone
		takes(t, "while the provider is away", v, later(time.Duration(3+i)*certificateAge))
		takes(t, "and again", v, later(time.Duration(3+i)*certificateAge))
		if n := fetched() - before; n != 1 {
			t.Errorf("the certificate was looked for %d times within a minute", n)
		}
	}
	w.pages[snsCertURL] = certificate
	takes(t, "when the provider is back", v, later(5*certificateAge))
	w.pages[snsCertURL] = page{404, nil}
	refuses(t, "when the certificate is there no more", v, later(7*certificateAge), "", ReasonCertificate)
}

func TestPayPal(t *testing.T) {
	s := senders()["paypal"]
	around, w := paypalSurroundings()
	v, err := New("paypal", s.settings(nil), around)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := s.send(message{body: []byte(`{"id":"WH-1","event_type":"PAYMENT.SALE.COMPLETED"}`), at: testNow})
	if e := takes(t, "as sent", v, r); e.ID != "WH-1" || e.Type != "paypal.PAYMENT.SALE.COMPLETED" {
		t.Errorf("%+v", e)
	}
	other, err := New("paypal", Settings{Options: map[string]string{"webhook_id": "other"}}, around)
	if err != nil {
		t.Fatal(err)
	}
	refuses(t, "another webhook's", other, r, "", ReasonNoMatch)
	before := len(w.asked)
	for _, u := range []string{"http://api.paypal.com/v1/notifications/certs/CERT-1", "https://evilpaypal.com/v1/notifications/certs/CERT-1", "https://api.paypal.com.evil.example/v1/notifications/certs/CERT-1",
		"https://api.paypal.com:8443/v1/notifications/certs/CERT-1", "https://a@api.paypal.com/v1/notifications/certs/CERT-1", "https://api.paypal.com/redirect?to=evil", "https://api.paypal.com/v1/notifications/certs/../../x",
		"https://PAYPAL.com.evil/", "file:///etc/passwd", paypalCertURL + "?", paypalCertURL + "?a=1", paypalCertURL + "#", strings.Replace(paypalCertURL, "api.", "API.", 1),
		strings.Replace(paypalCertURL, "https", "Https", 1), strings.Replace(paypalCertURL, "api.", "www.", 1), strings.Replace(paypalCertURL, "CERT", "%43ERT", 1),
		strings.Replace(paypalCertURL, ".com/", ".com:443/", 1), strings.Replace(paypalCertURL, "-360caa42", "-360CAA42", 1), paypalCertURL + "-0"} {
		changed := clone(r)
		changed.Header.Set("PAYPAL-CERT-URL", u)
		refuses(t, u, v, changed, "", ReasonCertificate)
	}
	if len(w.asked) != before {
		t.Errorf("asked for %v", w.asked[before:])
	}
	changed := clone(r)
	changed.Header.Set("PAYPAL-AUTH-ALGO", "SHA1withRSA")
	refuses(t, "another algorithm", v, changed, "", ReasonHeaderMalformed)
	changed = clone(r)
	changed.Header.Set("PAYPAL-TRANSMISSION-ID", "tid-1|x")
	refuses(t, "a separator in the id", v, changed, "", ReasonHeaderMalformed)
}

// With a client, PayPal has the last word, and is told the event as it came.
func TestPayPalIsAsked(t *testing.T) {
	s := senders()["paypal"]
	around, w := paypalSurroundings()
	settings := secretsOf([]string{"client-secret-1"})
	settings.Options = map[string]string{"webhook_id": "4JH86294D6297924G", "client_id": "client-1", "sandbox": "true"}
	v, err := New("paypal", settings, around)
	if err != nil {
		t.Fatal(err)
	}
	const api = "https://api-m.sandbox.paypal.com/v1/"
	w.pages[api+"oauth2/token"] = page{200, []byte(`{"access_token":"A21"}`)}
	w.pages[api+"notifications/verify-webhook-signature"] = page{200, []byte(`{"verification_status":"SUCCESS"}`)}
	const body = `{ "id" : "WH-1", "amount": 1.10, "html": "<b>\u00e9", "cut": "\ud83d" }`
	r, _ := s.send(message{body: []byte(body), at: testNow})
	takes(t, "PayPal says yes", v, r)
	asked := string(w.sent[len(w.sent)-1])
	if !strings.Contains(asked, `"webhook_event":`+body+"}") || !strings.Contains(asked, `"webhook_id":"4JH86294D6297924G"`) || !json.Valid([]byte(asked)) {
		t.Errorf("PayPal was asked %s", asked)
	}
	w.pages[api+"notifications/verify-webhook-signature"] = page{200, []byte(`{"verification_status":"FAILURE"}`)}
	refuses(t, "PayPal says no", v, r, "client-secret-1", ReasonNoMatch)
	w.pages[api+"notifications/verify-webhook-signature"] = page{500, nil}
	refuses(t, "PayPal is in trouble", v, r, "client-secret-1", ReasonUnavailable)
	w.pages[api+"oauth2/token"] = page{401, []byte(`{}`)}
	refuses(t, "the client is not known", v, r, "client-secret-1", ReasonUnavailable)
	broken, _ := s.send(message{body: []byte(`{"id":1},"webhook_id":"x"`), at: testNow})
	w.pages[api+"oauth2/token"] = page{200, []byte(`{"access_token":"A21"}`)}
	refuses(t, "a body that would add to the question", v, broken, "", ReasonBody)
	settings.Secrets = nil
	if _, err := New("paypal", settings, around); fieldOf(err) != fieldSecrets {
		t.Errorf("a client without a secret: %v", err)
	}
}
