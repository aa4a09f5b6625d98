package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"
)

// What tells a repeat from another event where a request holds no id.
const (
	byBody    = "the body, which has a time or an id of its own"
	bySigned  = "what is signed, a time or an id in it"
	byNothing = "nothing"
)

// example is a request without an id, and what tells its repeats.
type example struct{ by, body string }

// withoutID has an example for each provider that writes no id of the event, whose naming therefore has none or a digest of the body. One that is
// not here fails: it has to be found out whether it sends the same bytes for two events.
var withoutID = map[string][]example{
	"airtable":  {{byBody, `{"base":{"id":"app1"},"webhook":{"id":"ach1"},"timestamp":"2023-11-14T22:13:20.123Z"}`}, {byNothing, `{"base":{"id":"app1"},"webhook":{"id":"ach1"}}`}},
	"buildkite": {{bySigned, `{"event":"ping","service":{"id":"1","settings":{"url":"https://in.example.com"}},"organization":{"id":"1"},"sender":{"id":"1"}}`}},
	"calcom":    {{byBody, `{"triggerEvent":"BOOKING_CREATED","createdAt":"2023-05-24T09:30:00.538Z","payload":{"uid":"b1"}}`}, {byNothing, `{"content":"a template of one's own"}`}},
	"calendly": {{byBody, `{"event":"invitee.created","created_at":"2020-11-23T17:51:19.000000Z","payload":{"uri":"https://api.calendly.com/invitees/1"}}`},
		{bySigned, `{"event":"invitee.created"}`}},
	"discord":  {{byBody, `{"version":1,"application_id":"1","type":1,"event":{"type":"ENTITLEMENT_CREATE","timestamp":"2024-10-18T18:41:21.109604","data":{}}}`}},
	"docusign": {{byBody, `{"event":"envelope-sent","retryCount":0,"generatedDateTime":"2023-05-18T15:20:11.4600000Z","data":{"envelopeId":"e1"}}`}},
	"doppler":  {{byNothing, `{"type":"config.secrets.update","config":{"name":"prd"},"project":{"id":"p1"},"diff":{"added":[],"removed":[],"updated":["KEY"]}}`}},
	"dropbox":  {{byNothing, `{"list_folder":{"accounts":["dbid:AAH4f99T0taONIb-OurWxbNQ6ywGRopQngc"]},"delta":{"users":[12345678]}}`}},
	"fedex":    {{byNothing, `{"trackingNumber":"123456789012"}`}}, "fedex-supply-chain": {{byNothing, `{"orderNumber":"1"}`}},
	"frameio": {{bySigned, `{"account":{"id":"a1"},"project":{"id":"p1"},"resource":{"id":"f1","type":"file"},"type":"file.updated","user":{"id":"u1"},"workspace":{"id":"w1"}}`}},
	// Two topics of one change have the same body, and the topic is in a header that is not signed.
	"helpscout": {{byNothing, `{"id":291938,"type":"email","status":"active","tags":[]}`}},
	"lemonsqueezy": {{byBody, `{"meta":{"event_name":"subscription_updated"},"data":{"type":"subscriptions","id":"1","attributes":{"status":"active","updated_at":"2021-08-11T13:54:19.000000Z"}}}`},
		{byNothing, `{"meta":{"event_name":"subscription_updated"},"data":{"type":"subscriptions","id":"1"}}`}},
	"gitlab":   {}, // TestGitLabTokens and TestGitLabIDIsSigned have its kinds
	"linear":   {{byBody, `{"type":"Issue","action":"update","webhookTimestamp":1700000000000}`}, {byNothing, `{"type":"Issue","action":"update"}`}},
	"meta":     {{byBody, `{"object":"page","entry":[{"id":"p1","time":1458692752478,"changes":[{"field":"feed"}]}]}`}, {byNothing, `{"object":"page","entry":[{"id":"p1"}]}`}},
	"mandrill": {{byBody, `{"type":"blacklist","action":"add","ts":1700000000}`}, {byNothing, `{"type":"blacklist","action":"add"}`}},
	"paystack": {{byBody, `{"event":"charge.success","data":{"id":302961,"reference":"qTPrJoy9Bx","paid_at":"2016-09-30T21:10:19.000Z"}}`},
		{byBody, `{"event":"transfer.success","data":{"reference":"1","updatedAt":"2020-10-26T12:28:57.000Z"}}`},
		{byNothing, `{"event":"refund.processed","data":{"status":"processed","transaction_reference":"1","amount":10000,"currency":"NGN"}}`}},
	"postmark": {{byBody, `{"RecordType":"Delivery","MessageID":"m1","Recipient":"a@example.com","DeliveredAt":"2026-03-01T10:00:00Z"}`}},
	"pusher":   {{byBody, `{"time_ms":1327078148132,"events":[{"name":"channel_occupied","channel":"test_channel"}]}`}, {byNothing, `{"events":[{"name":"channel_occupied","channel":"test_channel"}]}`}},
	"terraform": {{byBody, `{"run_id":"run-1","workspace_id":"ws-1","notifications":[{"trigger":"run:errored","run_status":"canceled","run_updated_at":"2019-01-25T18:37:04.000Z"}]}`},
		{byNothing, `{"run_id":null,"notifications":[{"message":"Verification of test","trigger":"verification","run_status":null,"run_updated_at":null}]}`}},
	"webflow": {{bySigned, `{"triggerType":"site_publish","payload":{"domains":["example.com"],"site":"s1","publishedBy":{"displayName":"A"}}}`}},
	"whatsapp": {{byBody, `{"entry":[{"id":"0","changes":[{"field":"messages","value":{"messages":[{"from":"4912","id":"wamid.1","timestamp":"1700000000"}]}}]}]}`},
		{byBody, `{"entry":[{"id":"0","changes":[{"field":"messages","value":{"statuses":[{"id":"wamid.1","status":"read"}]}}]}]}`},
		{byNothing, `{"entry":[{"id":"0","changes":[{"field":"account_update","value":{"event":"VERIFIED_ACCOUNT"}}]}]}`}},
	"woocommerce": {{byNothing, `{"id":727,"status":"completed"}`}},
	"x":           {{byBody, `{"for_user_id":"2244994945","favorite_events":[{"id":"a7ba59eab0bfcba386f7acedac279542","timestamp_ms":1517588749178}]}`}, {byNothing, `{"data":{"event_type":"profile.update.bio"}}`}},
	"zoom":        {{byBody, `{"event":"meeting.started","event_ts":1626230691572,"payload":{"object":{"uuid":"u1"}}}`}, {bySigned, `{"event":"meeting.started"}`}},
}

// withoutIDHere are requests without an id of providers that write one as a rule.
var withoutIDHere = map[string][]example{
	"clickup":  {{byNothing, `{"event":"spaceUpdated","space_id":"54650507","webhook_id":"7fa3ec74-69a8-4530-a251-8a13730bd204"}`}},
	"generic":  {{bySigned, `{"type":"order.created"}`}},
	"github":   {{byNothing, `{"action":"opened"}`}},
	"okta":     {{byNothing, `{"eventType":"com.okta.event_hook"}`}},
	"sendgrid": {{bySigned, `[{"event":"open"}]`}},
	"slack":    {{bySigned, `payload=%7B%22type%22%3A%22block_actions%22%7D`}},
	"stripe":   {{bySigned, `{"type":"charge.succeeded"}`}},
}

// No event is taken for a repeat of another: the same bytes are one only where two events cannot have them, or where more than the body is
// signed. What is signed is taken once, however often it is sent.
func TestRepeatsAreTold(t *testing.T) {
	for _, p := range Providers() {
		s, tried := senders()[p.Name]
		if !tried {
			continue // inspect, which verifies nothing
		}
		v, err := New(p.Name, s.settingsOf(s.keyOf(0)), s.around)
		if err != nil {
			t.Fatal(err)
		}
		writesNone := v.scheme.id == nil && (len(p.naming.ID) == 0 || slices.ContainsFunc(p.naming.ID, func(place string) bool { return strings.Contains(place, "body:") }))
		if _, listed := withoutID[p.Name]; listed != writesNone {
			t.Errorf("%s writes no id of its own: %v; among those that do not: %v", p.Name, writesNone, listed)
		}
		for _, e := range slices.Concat(withoutID[p.Name], withoutIDHere[p.Name]) {
			sent := func(body string, after time.Duration) string {
				r, _ := s.send(message{key: s.keyOf(0), body: []byte(body), at: testNow.Add(after)})
				return takes(t, p.Name+" "+body, v, r).ID
			}
			id, later, other := sent(e.body, 0), sent(e.body, time.Second), sent(e.body+" ", 0)
			if again := sent(e.body, 0); again != id {
				t.Errorf("%s %s: the same request is %s, and was %s", p.Name, e.body, again, id)
			}
			by := byNothing
			switch {
			case id == "" && later == "" && other == "":
			case id != "" && later == id && other != id:
				by = byBody
			case id != "" && later != id && other != id && later != "":
				by = bySigned
			default:
				by = "something else"
			}
			if by != e.by {
				t.Errorf("%s %s: a repeat is told by %s, and should be by %s: %q, a second later %q, with another body %q", p.Name, e.body, by, e.by, id, later, other)
			}
		}
	}
}

// A naming of one's own without an id has no other rule.
func TestNamingWithoutID(t *testing.T) {
	for name, by := range map[string]string{"github": byNothing, "stripe": bySigned, "generic": bySigned, "standard": bySigned, "twitch": bySigned, "sns": bySigned, "paypal": bySigned, "hubspot": bySigned} {
		s := senders()[name]
		settings := s.settingsOf(s.keyOf(0))
		settings.Naming = &Naming{Type: []string{"text:any"}}
		v, err := New(name, settings, s.around)
		if err != nil {
			t.Fatal(err)
		}
		r, _ := s.send(message{key: s.keyOf(0), body: []byte(matrixBody), at: testNow})
		id := takes(t, name, v, r).ID
		if (id != "") != (by == bySigned) || id != takes(t, name+" again", v, r).ID {
			t.Errorf("%s: the id is %q, and a repeat should be told by %s", name, id, by)
		}
	}
	settings := secretsOf([]string{textKey(0)})
	settings.Scheme = &Scheme{Header: "X-Sig"}
	for _, c := range []struct {
		id   []string
		want string
	}{
		{nil, ""},
		{[]string{"json:order.id"}, ""},
		{[]string{"json:order.id+body:sha256"}, ""},
		{[]string{"json:order.id", "body:sha256"}, "body-f1266e3a"},
		{[]string{"json:type+body:sha256"}, "order.created.body-f1266e3a"},
	} {
		settings.Naming = &Naming{ID: c.id}
		r, _ := plain("X-Sig", "", sha256.New, "hex").send(message{key: textKey(0), body: []byte(matrixBody), at: testNow})
		if e := takes(t, "a scheme without a time", open(t, "generic", settings), r); c.want == "" && e.ID != "" || !strings.HasPrefix(e.ID, c.want) {
			t.Errorf("%v: the id is %q, want %s…", c.id, e.ID, c.want)
		}
	}
	settings.Naming = &Naming{ID: []string{"body:md5"}}
	if _, err := New("generic", settings, Surroundings{}); fieldOf(err) != "naming.id[0]" {
		t.Errorf("a digest that there is none of: %v", err)
	}
}

// HubSpot's versions without a time have none to be told by, whatever stands in a header that they do not sign.
func TestUnsignedTimeTellsNothing(t *testing.T) {
	settings := withURL([]string{textKey(0)})
	settings.Options = map[string]string{"legacy": "v1"}
	v := open(t, "hubspot", settings)
	const body = `{"objectId":1}`
	sum := sha256.Sum256([]byte(textKey(0) + body))
	for _, at := range []string{"1700000000000", "1700000000001"} {
		r := post([]byte(body), "X-HubSpot-Signature", hex.EncodeToString(sum[:]), "X-HubSpot-Request-Timestamp", at)
		if e := takes(t, at, v, r); e.ID != "" {
			t.Errorf("the id is %s", e.ID)
		}
	}
}
