package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/eventhose/eventhose"
)

// answers checks that a request is a handshake with an answer.
func answers(t *testing.T, what string, v *Verifier, r *Request, status int, body string) Answer {
	t.Helper()
	verdict := v.Verify(t.Context(), r)
	if verdict.Rejection != nil || verdict.Event != nil || verdict.Answer.Status != status || string(verdict.Answer.Body) != body {
		t.Errorf("%s: %d %q, event %v, rejection %v; want %d %q", what, verdict.Answer.Status, verdict.Answer.Body, verdict.Event != nil, verdict.Rejection, status, body)
	}
	if media := verdict.Answer.Header.Get("Content-Type"); body != "" && (strings.Contains(media, "html") || verdict.Answer.Header.Get("X-Content-Type-Options") != "nosniff") {
		t.Errorf("%s: what is reflected goes as %q", what, verdict.Answer.Header)
	}
	return verdict.Answer
}

func ask(method, query string, headers ...string) *Request {
	r := post(nil, headers...)
	r.Method, r.Query = method, query
	return r
}

// withoutSignature checks that a signed handshake is not answered when its signature is wrong.
func withoutSignature(t *testing.T, v *Verifier, r *Request, signature string) {
	t.Helper()
	refuses(t, "with another's signature", v, replace(r, signature, strings.Map(func(c rune) rune {
		if c == 'a' {
			return 'b'
		}
		return c
	}, signature+"a")[:len(signature)]), "")
}

func sendAs(t *testing.T, name, body string) (*Verifier, *Request, string) {
	t.Helper()
	s := senders()[name]
	key := s.keyOf(0)
	v, err := New(name, s.settingsOf(key), s.around)
	if err != nil {
		t.Fatal(err)
	}
	r, signature := s.send(message{key: key, body: []byte(body), at: testNow})
	return v, r, signature
}

func TestSlackURLVerification(t *testing.T) {
	v, r, s := sendAs(t, "slack", `{"token":"x","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}`)
	answers(t, "slack", v, r, 200, "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P")
	withoutSignature(t, v, r, s)
	v, r, _ = sendAs(t, "slack", `{"challenge":"<script>","type":"url_verification"}`)
	takes(t, "a challenge that could be markup is not reflected", v, r)
}

func TestZoomValidation(t *testing.T) {
	v, r, s := sendAs(t, "zoom", `{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event_ts":1654503849680,"event":"endpoint.url_validation"}`)
	withoutSignature(t, v, r, s)
	var got map[string]string
	if err := json.Unmarshal(v.Verify(t.Context(), r).Answer.Body, &got); err != nil {
		t.Fatal(err)
	}
	want := hex.EncodeToString(hmacOf(sha256.New, textKey(0), "qgg8vlvZRS6UYooatFL8Aw"))
	if len(got) != 2 || got["plainToken"] != "qgg8vlvZRS6UYooatFL8Aw" || got["encryptedToken"] != want {
		t.Errorf("%v, want %s", got, want)
	}
}

func TestMetaSubscription(t *testing.T) {
	for _, name := range []string{"meta", "whatsapp"} {
		v, _, _ := sendAs(t, name, "{}")
		query := func(mode, token, challenge string) string {
			return url.Values{"hub.mode": {mode}, "hub.verify_token": {token}, "hub.challenge": {challenge}}.Encode()
		}
		answers(t, "as Meta asks", v, ask("GET", query("subscribe", "verify-token-1", "1158201444")), 200, "1158201444")
		for what, q := range map[string]string{
			"another token": query("subscribe", "verify-token-2", "1"), "no token": "hub.mode=subscribe&hub.challenge=1", "the token of another mode": query("unsubscribe", "verify-token-1", "1"),
			"two tokens": query("subscribe", "verify-token-1", "1") + "&hub.verify_token=verify-token-1", "markup": query("subscribe", "verify-token-1", "<b>"),
			"a long challenge": query("subscribe", "verify-token-1", strings.Repeat("a", 257)), "nothing": "", "no challenge": "hub.mode=subscribe&hub.verify_token=verify-token-1",
			"two challenges": query("subscribe", "verify-token-1", "1") + "&hub.challenge=2", "bad escapes": "hub.mode=%zz",
		} {
			refuses(t, what, v, ask("GET", q), "verify-token-1")
		}
		refuses(t, "HEAD", v, ask("HEAD", query("subscribe", "verify-token-1", "1")), "", ReasonMethod)
	}
}

func TestOktaVerification(t *testing.T) {
	v, _, _ := sendAs(t, "okta", "{}")
	answers(t, "as Okta asks", v, ask("GET", "", "X-Okta-Verification-Challenge", "my-verification-challenge"), 200, `{"verification":"my-verification-challenge"}`)
	refuses(t, "without a challenge", v, ask("GET", ""), "", ReasonHeaderMissing)
	refuses(t, "with markup", v, ask("GET", "", "X-Okta-Verification-Challenge", `"><script>`), "", ReasonHeaderMalformed)
	refuses(t, "DELETE", v, ask("DELETE", ""), "", ReasonMethod)
}

// Discord sends good pings and bad ones, and wants 401 for these.
func TestDiscordPings(t *testing.T) {
	v, r, s := sendAs(t, "discord", `{"version":1,"application_id":"1","type":0}`)
	answers(t, "a webhook's ping", v, r, 204, "")
	bad := replace(r, s, strings.Repeat("0", len(s)))
	if verdict := v.Verify(t.Context(), bad); verdict.Answer.Status != http.StatusUnauthorized {
		t.Errorf("a ping that is signed wrongly: %d", verdict.Answer.Status)
	}
	v, r, _ = sendAs(t, "discord", `{"id":"787053080478613555","type":1}`)
	answers(t, "an interaction's ping", v, r, 200, `{"type":1}`)
	v, r, _ = sendAs(t, "discord", `{"version":1,"application_id":"1","type":1,"event":{"type":"APPLICATION_AUTHORIZED","timestamp":"2024-10-18T14:42:53.064834"}}`)
	if e := takes(t, "a webhook event", v, r); e.Type != "discord.APPLICATION_AUTHORIZED" || v.Verify(t.Context(), r).Answer.Status != 204 {
		t.Errorf("%+v", e)
	}
}

// Xero's intent to receive: some requests are signed rightly, some wrongly, none has events.
func TestXeroIntentToReceive(t *testing.T) {
	v, r, s := sendAs(t, "xero", `{"events":[],"firstEventSequence":0,"lastEventSequence":0,"entropy":"S0m3r4Nd0mt3xt"}`)
	if a := answers(t, "signed rightly", v, r, 200, ""); len(a.Header) > 0 {
		t.Errorf("the answer has headers: %v", a.Header)
	}
	if verdict := v.Verify(t.Context(), replace(r, s, "A"+s[1:])); s[0] != 'A' && verdict.Answer.Status != 401 {
		t.Errorf("signed wrongly: %d", verdict.Answer.Status)
	}
	v, r, _ = sendAs(t, "xero", `{"events":[{"resourceId":"r1","eventDateUtc":"2017-06-21T01:15:39.902","eventType":"Update","eventCategory":"CONTACT"}],"entropy":"x"}`)
	if e := takes(t, "an event", v, r); e.Type != "xero.CONTACT.Update" || e.Key != "r1" || e.ID != "r1.2017-06-21T01:15:39.902.Update" {
		t.Errorf("%+v", e)
	}
}

func TestCloudEventsConsent(t *testing.T) {
	s := secretsOf([]string{textKey(0)})
	s.Options = map[string]string{"origins": "eventemitter.example.com, other.example.com", "rate": "120"}
	v := open(t, "cloudevents", s)
	a := answers(t, "an origin that is listed", v, ask("OPTIONS", "", "WebHook-Request-Origin", "eventemitter.example.com", "WebHook-Request-Rate", "1000"), 200, "")
	if a.Header.Get("WebHook-Allowed-Origin") != "eventemitter.example.com" || a.Header.Get("WebHook-Allowed-Rate") != "120" {
		t.Errorf("%v", a.Header)
	}
	for _, origin := range []string{"evil.example.com", "*", "eventemitter.example.com.evil.example", "EVENTEMITTER.example.com"} {
		refuses(t, origin, v, ask("OPTIONS", "", "WebHook-Request-Origin", origin), "", ReasonNotAllowed)
	}
	refuses(t, "without an origin", v, ask("OPTIONS", ""), "", ReasonHeaderMissing)
	refuses(t, "GET", v, ask("GET", ""), "", ReasonMethod)

	r := post([]byte(`{"amount":1}`), "ce-id", "1", "ce-source", "/shop", "ce-type", "com.example.order.paid", "ce-time", "2026-01-02T03:04:05Z", "ce-subject", "o1")
	refuses(t, "without a token", v, r, textKey(0), ReasonHeaderMissing)
	r.Query = "access_token=" + textKey(0)
	if e := takes(t, "with a token in the query", v, r); e.Type != "cloudevents.com.example.order.paid" || e.ID != "/shop.1" || e.Key != "o1" || e.Attributes["ce-source"] != "/shop" {
		t.Errorf("%+v", e)
	}
	r.Query += "x"
	refuses(t, "with another", v, r, textKey(0), ReasonNoMatch)
	for _, rate := range []string{"0", "-1", "many", "+5", "05"} {
		s.Options["rate"] = rate
		if _, err := New("cloudevents", s, Surroundings{}); fieldOf(err) != "options.rate" {
			t.Errorf("a rate of %q: %v", rate, err)
		}
	}
}

func TestChallengeResponseCheck(t *testing.T) {
	v, _, _ := sendAs(t, "x", "{}")
	want := `{"response_token":"sha256=` + encode("base64", hmacOf(sha256.New, textKey(0), "challenge_string")) + `"}`
	answers(t, "as X asks", v, ask("GET", "crc_token=challenge_string&nonce=1"), 200, want)
	refuses(t, "without a token", v, ask("GET", ""), "", ReasonMethod)
	refuses(t, "twice", v, ask("GET", "crc_token=a&crc_token=b"), "", ReasonBody)
	for _, name := range []string{"dropbox", "nylas"} {
		v, _, _ := sendAs(t, name, "{}")
		answers(t, name, v, ask("GET", "challenge=abc123"), 200, "abc123")
		refuses(t, name+" with markup", v, ask("GET", "challenge=%3Cscript%3E"), "", ReasonBody)
	}
	v, r, s := sendAs(t, "twitch", `{"challenge":"pogchamp-kappa-360noscope-vohiyo","subscription":{"id":"f1c2a387","type":"channel.follow"}}`)
	answers(t, "twitch", v, r, 200, "pogchamp-kappa-360noscope-vohiyo")
	withoutSignature(t, v, r, s)
}

// No handshake that anybody may ask for answers what is a signature of a webhook: its answer must be good for nothing else.
func TestHandshakesSignNoWebhook(t *testing.T) {
	const challenge = "challenge_string"
	var queries []string
	for _, name := range []string{"crc_token", "challenge", "hub.challenge", "plainToken", "validationToken", "token"} {
		queries = append(queries, name+"="+challenge)
	}
	query := strings.Join(queries, "&") + "&hub.mode=subscribe&hub.verify_token=verify-token-1"
	signing := 0
	for name, s := range senders() {
		v, err := New(name, s.settingsOf(s.keyOf(0)), s.around)
		if err != nil {
			t.Fatal(err)
		}
		webhook, signature := s.send(message{key: s.keyOf(0), body: []byte(challenge), at: testNow})
		asked := []*Request{post([]byte(`{"event":"endpoint.url_validation","type":"url_verification","payload":{"plainToken":"` + challenge + `"},"challenge":"` + challenge + `"}`))}
		for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
			asked = append(asked, ask(method, query, "X-Okta-Verification-Challenge", challenge, "WebHook-Request-Origin", challenge))
		}
		for _, r := range asked {
			verdict := v.Verify(t.Context(), r)
			if verdict.Event == nil && s.encoding != "" && strings.Contains(string(verdict.Answer.Body), signature) {
				signing++
				refuses(t, name+": what its handshake signs", v, webhook, "", ReasonBody)
			}
		}
	}
	if signing == 0 {
		t.Error("no handshake signs, not even X's: the test asks for none")
	}
	v, r, _ := sendAs(t, "x", `{"for_user_id":"1"}`)
	takes(t, "what X sends", v, r)
}

func TestProbes(t *testing.T) {
	for _, name := range []string{"intercom", "mandrill", "trello"} {
		v, _, _ := sendAs(t, name, "{}")
		answers(t, name, v, ask("HEAD", ""), 200, "")
		refuses(t, name+" with GET", v, ask("GET", ""), "", ReasonMethod)
	}
	v, _, _ := sendAs(t, "mandrill", "{}")
	probe := func(events string) *Request {
		s := encode("base64", hmacOf(SHA1.make(), "test-webhook", testURL+"mandrill_events"+events))
		return formRequest(url.Values{"mandrill_events": {events}}, "X-Mandrill-Signature", s)
	}
	answers(t, "Mandrill's probe", v, probe("[]"), 200, "")
	refuses(t, "events with the key of the probe", v, probe(`[{"event":"send"}]`), "", ReasonNoMatch)
	for _, values := range []url.Values{{"mandrill_events": {"[1]", "[2]"}}, {"mandrill_events": {"[1]", "[1]"}}} {
		twice := formRequest(values, "X-Mandrill-Signature", encode("base64", hmacOf(SHA1.make(), textKey(0), testURL+"mandrill_events[1]")))
		refuses(t, "a parameter twice", v, twice, textKey(0), ReasonBody)
	}
	if _, err := New("mandrill", Settings{Secrets: []eventhose.Secret{"test-webhook"}, PublicURL: testURL}, Surroundings{}); fieldOf(err) != fieldSecrets {
		t.Errorf("the key of the probe as a source's: %v", err)
	}
}

func TestAdyenAnswersAccepted(t *testing.T) {
	v, r, _ := sendAs(t, "adyen", `{}`)
	if a := v.Verify(t.Context(), r).Answer; a.Status != 200 || string(a.Body) != "[accepted]" {
		t.Errorf("%d %q", a.Status, a.Body)
	}
}
