package gateway

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// What was seen once must not become another event: whoever sees a request can send it again with everything changed that is not signed.

// Mailgun signs a time and a token, so that the token which was verified is the id, however the body can be read.
func TestMailgunTokenIsTheID(t *testing.T) {
	v, r, _ := sendAs(t, "mailgun", `{"event":"opened","id":"1"}`)
	seen := takes(t, "as sent", v, r).ID
	s := hex.EncodeToString(hmacOf(sha256.New, textKey(0), "1700000000"+seen))
	both := post([]byte(`{"signature":{"token":"forged-1"},"event-data":{"event":"opened"},"x":"&timestamp=1700000000&token=` + seen + `&signature=` + s + `&y="}`))
	both.Header.Set("Content-Type", formType)
	if e := takes(t, "a body that is JSON and a form", v, both); e.ID != seen || e.Type != "mailgun.inbound" || e.ContentType != formType {
		t.Errorf("it was read as JSON after it was verified as a form: %s %s %s", e.ID, e.Type, e.ContentType)
	}
	settings := secretsOf([]string{textKey(0)})
	settings.Naming = &Naming{Type: []string{"json:event-data.event"}}
	if e := takes(t, "with a naming of one's own", open(t, "mailgun", settings), r); e.ID != seen {
		t.Errorf("the id is %s, want the token", e.ID)
	}
	settings.Naming.ID = []string{"json:event-data.id"}
	if _, err := New("mailgun", settings, Surroundings{}); fieldOf(err) != "naming.id" {
		t.Errorf("an id of what is not signed: %v", err)
	}
}

// The Content-Type is not signed: it has no say in what a body is whose bytes are.
func TestContentTypeNamesNothing(t *testing.T) {
	bodies := map[string][]string{"slack": {
		`{"type":"event_callback","event_id":"Ev1","event":{"type":"message"}}`, "command=%2Fweather&trigger_id=13345224609.738474920.8088930838d88f008e0&text=94070",
		"--b\r\nContent-Disposition: form-data; name=\"trigger_id\"\r\n\r\n1\r\n--b--\r\n",
	}}
	for name, s := range senders() {
		for _, body := range append(bodies[name], matrixBody) {
			v, err := New(name, s.settingsOf(s.keyOf(0)), s.around)
			if err != nil {
				t.Fatal(err)
			}
			r, _ := s.send(message{key: s.keyOf(0), body: []byte(body), at: testNow})
			seen := takes(t, name, v, r)
			for _, media := range []string{"", "text/plain", "application/json", formType, "multipart/form-data; boundary=b", "multipart/form-data; boundary=c"} {
				again := clone(r)
				again.Header.Set("Content-Type", media)
				if e := v.Verify(t.Context(), again).Event; e != nil && (e.ID != seen.ID || e.Type != seen.Type) {
					t.Errorf("%s: as %q it is %s %s, and was %s %s", name, media, e.Type, e.ID, seen.Type, seen.ID)
				}
			}
		}
	}
	v, r, _ := sendAs(t, "slack", bodies["slack"][1])
	if e := takes(t, "a command", v, r); e.ID != "13345224609.738474920.8088930838d88f008e0" || e.Type != "slack./weather" {
		t.Errorf("%+v", e)
	}
}

// Twilio signs the names and values of a form, one behind the other. JSON in it is looked at no more than it is signed.
func TestTwilioFormIsNoJSON(t *testing.T) {
	v, _, _ := sendAs(t, "twilio", "{}")
	body := `{"id":"forged-1","x":"&CallSid=CA1&Digits=1&y="}`
	values, err := url.ParseQuery(body)
	if err != nil {
		t.Fatal(err)
	}
	var content strings.Builder
	for _, name := range sortedNames(values) {
		content.WriteString(name + values.Get(name))
	}
	r := post([]byte(body), "X-Twilio-Signature", encode("base64", hmacOf(sha1.New, textKey(0), testURL+content.String())))
	r.Header.Set("Content-Type", formType)
	if e := takes(t, "a form that is JSON too", v, r); e.ID == "forged-1" || e.Key != "CA1" || e.ContentType != formType {
		t.Errorf("%+v", e)
	}
}

// Mandrill's one parameter is signed as names and values are, one behind the other and without their escapes.
func TestMandrillIsOneParameter(t *testing.T) {
	const sync = `[{"type":"blacklist","action":"add","ts":1700000000}]`
	v, _, _ := sendAs(t, "mandrill", "{}")
	sign := encode("base64", hmacOf(sha1.New, textKey(0), testURL+"mandrill_events"+sync))
	r := formRequest(url.Values{"mandrill_events": {sync}}, "X-Mandrill-Signature", sign)
	seen := takes(t, "events without an id", v, r)
	escaped := clone(r)
	escaped.Body = []byte(strings.Replace(string(r.Body), "mandrill", "%6Dandrill", 1))
	multi := post([]byte("--b\r\nContent-Disposition: form-data; name=\"mandrill_events\"\r\n\r\n"+sync+"\r\n--b--\r\n"), "X-Mandrill-Signature", sign)
	multi.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	for what, again := range map[string]*Request{"with another escape": escaped, "multipart": multi} {
		if e := takes(t, what, v, again); e.ID != seen.ID {
			t.Errorf("%s: it is %s, and was %s", what, e.ID, seen.ID)
		}
	}
	for _, values := range []url.Values{{"mandrill_event": {"s" + sync}}, {"mandrill_events" + sync: {""}}, {"mandrill_events": {sync[:9]}, sync[9:]: {""}}} {
		refuses(t, "cut at another place", v, formRequest(values, "X-Mandrill-Signature", sign), "")
	}
}

// Adyen signs eight fields, joined without escapes. Nothing else has a say in the id, and no field can be cut at another place.
func TestAdyenIDIsSigned(t *testing.T) {
	const sent = "psp1:orig1:acct1:a:ref:1000:EUR:AUTHORISATION:"
	item := func(success string, fields ...string) *Request {
		return post([]byte(`{"live":"true","notificationItems":[{"NotificationRequestItem":{"additionalData":{"hmacSignature":"` + adyenSignature(sent+success) + `"},"pspReference":"` + fields[0] +
			`","originalReference":"` + fields[1] + `","merchantAccountCode":"` + fields[2] + `","merchantReference":"` + fields[3] + `","amount":{"value":1000,"currency":"EUR"},"eventCode":"AUTHORISATION"` + fields[4] + `}}]}`))
	}
	v, _, _ := sendAs(t, "adyen", "{}")
	seen := takes(t, "as sent", v, item("true", "psp1", "orig1", "acct1", "a:ref", `,"success":"true"`))
	for what, rest := range map[string]string{"another kind of success": `,"success":true`, "another date": `,"success":"true","eventDate":"2020-01-01T00:00:00Z"`, "a note": `,"success":"true","reason":"x"`} {
		if e := takes(t, what, v, item("true", "psp1", "orig1", "acct1", "a:ref", rest)); e.ID != seen.ID {
			t.Errorf("%s: it is %s, and was %s", what, e.ID, seen.ID)
		}
	}
	for _, fields := range [][]string{{"psp1:orig1", "acct1", "a", "ref"}, {"psp1", "orig1:acct1", "a", "ref"}, {"psp1", "orig1", "acct1:a", "ref"}} {
		refuses(t, "cut at another place", v, item("true", append(fields, `,"success":"true"`)...), "", ReasonBody)
	}
	without := takes(t, "without a success", v, item("", "psp1", "orig1", "acct1", "a:ref", ""))
	for _, rest := range []string{`,"success":null`, `,"success":""`, `,"reason":"x"`} {
		if e := takes(t, rest, v, item("", "psp1", "orig1", "acct1", "a:ref", rest)); e.ID != without.ID || e.ID == seen.ID {
			t.Errorf("%s: it is %s, and was %s", rest, e.ID, without.ID)
		}
	}
	settings := secretsOf([]string{hexKey(0)})
	settings.Naming = &Naming{Type: []string{"text:payment"}}
	if e := takes(t, "with a naming of one's own", open(t, "adyen", settings), item("true", "psp1", "orig1", "acct1", "a:ref", `,"success":"true"`)); e.ID != seen.ID {
		t.Errorf("it is %s, and was %s", e.ID, seen.ID)
	}
	settings.Naming.ID = []string{"json:notificationItems.0.NotificationRequestItem.reason"}
	if _, err := New("adyen", settings, Surroundings{}); fieldOf(err) != "naming.id" {
		t.Errorf("an id of what is not signed: %v", err)
	}
}

// adyenSignature is what Adyen writes for the eight fields joined by colons.
func adyenSignature(content string) string {
	key, _ := hex.DecodeString(hexKey(0))
	return encode("base64", hmacOf(sha256.New, string(key), content))
}

// unsignedIDs are the providers that write the event's id into a header which is not signed and nowhere else, so that a repeat can be told
// by nothing better; or that sign nothing at all.
var unsignedIDs = []string{"bitbucket", "cloudevents", "forgejo", "gitea", "github", "gogs", "jira", "linear", "razorpay", "sanity", "sentry", "shopify", "snyk", "sparkpost", "woocommerce"}

// A header that is not signed makes no other event of one that has a signed id.
func TestUnsignedHeadersMakeNoEvent(t *testing.T) {
	bodies := map[string]string{"zendesk": `{"type":"zen:event-type:user.active_changed","id":"2b24ef10","zendesk_event_version":"2022-06-20","subject":"zen:user:1"}`}
	for _, p := range Providers() {
		s, ok := senders()[p.Name]
		if !ok {
			continue
		}
		body := bodies[p.Name]
		if body == "" {
			body = matrixBody
		}
		v, r, _ := sendAs(t, p.Name, body)
		seen, forged := takes(t, p.Name, v, r), clone(r)
		for _, list := range p.naming.ID {
			for part := range strings.SplitSeq(list, "+") {
				name, ok := strings.CutPrefix(part, "header:")
				if ok && !slices.ContainsFunc(s.signed, func(signed string) bool { return strings.EqualFold(signed, name) }) {
					forged.Header.Set(name, "forged-1")
				}
			}
		}
		e, known := takes(t, p.Name+" with forged headers", v, forged), slices.Contains(unsignedIDs, p.Name)
		if (e.ID != seen.ID) != known {
			t.Errorf("%s: the id is %s, and was %s; among those without a signed id: %v", p.Name, e.ID, seen.ID, known)
		}
	}
}

// GitLab's signed id may come under Svix's name for it as well as its own.
func TestGitLabIDIsSigned(t *testing.T) {
	v, r, _ := sendAs(t, "gitlab", `{"object_kind":"push"}`)
	r.Header.Set("Idempotency-Key", "msg_1")
	renamed := clone(r)
	for _, part := range []string{"id", "timestamp", "signature"} {
		renamed.Header.Set("svix-"+part, r.Header.Get("webhook-"+part))
		renamed.Header.Del("webhook-" + part)
	}
	for _, again := range []*Request{r, renamed} {
		again.Header.Set("Idempotency-Key", "forged-1")
		again.Header.Set("X-Gitlab-Event-UUID", "forged-2")
		if e := takes(t, "with another key", v, again); e.ID != "msg_1" {
			t.Errorf("the id is %s", e.ID)
		}
	}
}

// Twilio signs the ids of messages and of the progress of calls. For what has none its own token, which it does not sign, tells a repeat from
// another: the same digit can be pressed twice in a call.
func TestTwilioIDs(t *testing.T) {
	v, _, _ := sendAs(t, "twilio", "{}")
	for _, c := range []struct {
		form url.Values
		id   string
	}{
		{url.Values{"MessageSid": {"SM1"}, "MessageStatus": {"sent"}}, "SM1.sent"},
		{url.Values{"MessageSid": {"SM1"}, "SmsStatus": {"received"}}, "SM1.received"},
		{url.Values{"CallSid": {"CA1"}, "CallStatus": {"completed"}, "SequenceNumber": {"3"}, "CallbackSource": {"call-progress-events"}}, "CA1.completed.3.call-progress-events"},
		{url.Values{"CallSid": {"CA1"}, "CallStatus": {"in-progress"}, "SequenceNumber": {"3"}, "UnstableSpeechResult": {"he"}}, "token-1"},
		{url.Values{"CallSid": {"CA1"}, "CallStatus": {"in-progress"}, "Digits": {"1"}}, "token-1"},
	} {
		var content strings.Builder
		for _, name := range sortedNames(c.form) {
			content.WriteString(name + c.form.Get(name))
		}
		r := formRequest(c.form, "X-Twilio-Signature", encode("base64", hmacOf(sha1.New, textKey(0), testURL+content.String())), "I-Twilio-Idempotency-Token", "token-1")
		if e := takes(t, c.id, v, r); e.ID != c.id {
			t.Errorf("%v: the id is %s, want %s", c.form, e.ID, c.id)
		}
	}
}

// What is joined without a separator can be cut at another place, unless its parts cannot be longer or shorter than they were.
func TestSignedTextIsCutAtOnePlace(t *testing.T) {
	v, r, _ := sendAs(t, "sendgrid", `[{"sg_event_id":"a","event":"open"}]`)
	const header = "X-Twilio-Email-Event-Webhook-Timestamp"
	at := r.Header.Get(header)
	takes(t, "as SendGrid sends", v, r)
	for n := 1; n < len(at); n++ {
		moved := clone(r)
		moved.Header.Set(header, at[:n])
		moved.Body = append([]byte(at[n:]), r.Body...)
		refuses(t, "digits of the time before the body", v, moved, "", ReasonHeaderMalformed)
	}

	around, _ := snsSurroundings()
	sns := snsVerifier(t, around)
	takes(t, "a message of several lines", sns, notification(map[string]string{"Message": "hello\nMessageId\nmid-0"}))
	moved := notification(map[string]string{"Message": "hello\nMessageId\nmid-0"})
	moved.Body = []byte(strings.NewReplacer(`hello\nMessageId\nmid-0`, "hello", `"mid-1"`, `"mid-0\nMessageId\nmid-1"`).Replace(string(moved.Body)))
	refuses(t, "lines of the message in the id", sns, moved, "", ReasonBody)
}
