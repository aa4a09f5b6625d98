package gateway

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
)

// What providers send is named as they name it.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		provider, body           string
		headers                  []string
		id, kind, key, at, media string
	}{
		{"stripe", `{"id":"evt_1","type":"charge.succeeded","created":1700000000,"data":{"object":{"id":"ch_1"}}}`, nil, "evt_1", "stripe.charge.succeeded", "ch_1", "2023-11-14T22:13:20Z", "application/json"},
		{"github", `{"repository":{"full_name":"a/b"}}`, []string{"X-GitHub-Delivery", "72d3162e", "X-GitHub-Event", "pull_request"}, "72d3162e", "github.pull_request", "a/b", "", "application/json"},
		{"slack", `{"type":"event_callback","event_id":"Ev1","event_time":1355517523.000005,"event":{"type":"message","channel":"C1"}}`, nil, "Ev1", "slack.message", "C1", "2012-12-14T20:38:43.000005Z", "application/json"},
		{"square", `{"event_id":"e1","type":"payment.updated","created_at":"2020-02-06T21:27:30.792Z","data":{"id":"p1"}}`, nil, "e1", "square.payment.updated", "p1", "2020-02-06T21:27:30.792Z", "application/json"},
		{"hubspot", `[{"eventId":1,"subscriptionId":2,"occurredAt":1700000000000,"subscriptionType":"contact.creation","objectId":123}]`, nil, "1.2.1700000000000", "hubspot.contact.creation", "123", "2023-11-14T22:13:20Z", "application/json"},
		{"sendgrid", `[{"sg_event_id":"a","event":"open","timestamp":1700000000},{"sg_event_id":"b","event":"click"}]`, nil, "", "sendgrid.batch", "", "2023-11-14T22:13:20Z", "application/json"},
		{"linear", `{"type":"Issue","action":"update","data":{"id":"i1"},"createdAt":"2020-01-23T12:53:18.084Z"}`, []string{"Linear-Delivery", "234d1a4e"}, "234d1a4e", "linear.Issue.update", "i1", "2020-01-23T12:53:18.084Z", "application/json"},
		{"okta", `{"eventId":"o1","eventTime":"2018-03-28T22:23:07.777Z","data":{"events":[{"eventType":"user.lifecycle.create","actor":{"id":"a1"}}]}}`, nil, "o1", "okta.user.lifecycle.create", "a1", "2018-03-28T22:23:07.777Z", "application/json"},
		{"postmark", `{"RecordType":"Bounce","ID":42,"MessageID":"m1","BouncedAt":"2018-01-02T00:00:00Z"}`, nil, "Bounce.42", "postmark.Bounce", "m1", "2018-01-02T00:00:00Z", "application/json"},
		{"whatsapp", `{"object":"whatsapp_business_account","entry":[{"id":"0","changes":[{"field":"messages","value":{"messages":[{"from":"4912","id":"wamid.1","timestamp":"1700000000"}]}}]}]}`, nil, "", "whatsapp.messages", "4912", "2023-11-14T22:13:20Z", "application/json"},
		{"meta", `{"object":"page","entry":[{"id":"p1","time":1458692752478,"changes":[{"field":"feed"}]}]}`, nil, "", "meta.page.feed", "p1", "2016-03-23T00:25:52.478Z", "application/json"},
		{"mandrill", `{"event":"open","_id":"m1","ts":1700000000}`, nil, "m1.open.1700000000.body-f86a3570fa6c9c5d556613b82771041d3184aa0614b9463d5edc4d7fbbecf552", "mandrill.open", "m1", "2023-11-14T22:13:20Z", formType},
		{"sparkpost", `[{"msys":{"message_event":{"type":"delivery","event_id":"9","message_id":"000","timestamp":"1700000000"}}}]`, []string{"X-MessageSystems-Batch-ID", "b1"}, "b1", "sparkpost.delivery", "000", "2023-11-14T22:13:20Z", "application/json"},
		{"stripe", `{"\u0069d":"evt_2","type":"charge.\u0073ucceeded","data":{"object":{"\u0069d":"ch_\u0032"}}}`, nil, "evt_2", "stripe.charge.succeeded", "ch_2", "", "application/json"},
		{"flutterwave-v4", `{"type":"charge.completed","data":{"id":"chg_1","status":"succeeded","reference":"order-1","created_datetime":"2026-05-24T15:34:09.001Z"}}`, nil,
			"charge.completed.chg_1.succeeded", "flutterwave-v4.charge.completed", "order-1", "2026-05-24T15:34:09.001Z", "application/json"},
		{"twilio", `hello`, nil, "SM1.sent", "twilio.sent", "SM1", "", formType},
		{"github", "not json", []string{"X-GitHub-Event", "a b\x01c..d."}, "", "github.a_b_c.d", "", "", "application/octet-stream"},
		{"github", `{"a":1,"a":2}`, []string{"X-GitHub-Event", "push"}, "", "github.push", "", "", "application/json"},
		{"github", "{\"a\":\"\xff\"}", []string{"X-GitHub-Event", "push"}, "", "github.push", "", "", "application/octet-stream"},
		{"stripe", `{"id":"evt_3","type":"charge.failed","note":"\ud83d","data":{"object":{"id":"ch_3"}},"created":1,"created":1700000000}`, nil, "evt_3", "stripe.charge.failed", "ch_3", "2023-11-14T22:13:20Z", "application/json"},
		{"stripe", `{"id":"evt_4","type":"a","data":{"object":{"id":"ch_4"}},"type":"b","id":"evt_5","data":{"object":{}}}`, nil, "evt_5", "stripe.b", "", "", "application/json"},
		{"stripe", `{"id":"evt_\ud83d","type":"a","data":{"object":{"id":"ch_\ud83d"}}}`, nil, "ids-2ca64345f3a0478719344e5c5d6936d17bd5c7cf619e00e5fd9fc95481363795", "stripe.a", "", "", "application/json"},
		{"stripe", `{"id":"stream","type":"a"}`, nil, "ids-ecef3f7595961a5a245194ceb08ec89ca89ee02c9c6cb38000001b37087bc634", "stripe.a", "", "", "application/json"},
		{"mandrill", `{"event":"open","_id":"m1","ts":1700000000,"event":"click","note":"\udc00"}`, nil, "m1.click.1700000000.body-8bfc6b32e5d2c4241ebe11ef0b7eeec2e8571a1f328d2f290a730c0a73f313b3", "mandrill.click", "m1", "2023-11-14T22:13:20Z", formType},
		{"github", `{}`, []string{"X-GitHub-Event", strings.Repeat("x", 400)}, "", "github." + strings.Repeat("x", 191), "", "", "application/json"},
		{"github", `{}`, []string{"X-GitHub-Delivery", strings.Repeat("x", 257)}, "", "github.event", "", "", "application/json"},
	} {
		v, r, _ := sendAs(t, c.provider, c.body)
		for i := 0; i < len(c.headers); i += 2 {
			r.Header.Set(c.headers[i], c.headers[i+1])
		}
		e := takes(t, c.provider+" "+c.body, v, r)
		at := ""
		if !e.Time.IsZero() {
			at = e.Time.Format(time.RFC3339Nano)
		}
		if c.id != "" && e.ID != c.id || e.Type != c.kind || e.Key != c.key || at != c.at || e.ContentType != c.media {
			t.Errorf("%s: %s %s %q %s %s, want %+v", c.provider, e.ID, e.Type, e.Key, at, e.ContentType, c)
		}
	}
}

// Without an id, what the body is tells a repeat from another event.
func TestDigestIDs(t *testing.T) {
	id := func(body string) string {
		v, r, _ := sendAs(t, "docusign", body)
		return takes(t, body, v, r).ID
	}
	if a, b := id(`{"a":1}`), id(`{"a":2}`); a == b || a != id(`{"a":1}`) || !strings.HasPrefix(a, "body-") {
		t.Errorf("%s and %s", a, b)
	}
}

func TestInspect(t *testing.T) {
	v := open(t, "inspect", Settings{})
	for _, method := range []string{"GET", "POST", "DELETE", "OPTIONS", "MÜLL\x00"} {
		r := post([]byte("\x00\xff"), "X-Custom", "a\x01b", "Content-Encoding", "gzip")
		r.Method, r.Query = method, "a=1&b=%zz"
		e := takes(t, method, v, r)
		if e.ID != "" || !strings.HasPrefix(e.Type, "inspect.") || e.Attributes["query"] != "a=1&b=%zz" || e.Attributes["header.x-custom"] != "a?b" || string(e.Data) != "\x00\xff" {
			t.Errorf("%+v", e)
		}
	}
	// JSON that is deeper than an event's may be is taken as bytes.
	for n, want := range map[int]string{eventhose.MaxNesting: "application/json", eventhose.MaxNesting + 1: "application/octet-stream"} {
		if e := takes(t, "deep", v, post([]byte(strings.Repeat("[", n)+strings.Repeat("]", n)))); e.ContentType != want {
			t.Errorf("%d levels are %s", n, e.ContentType)
		}
	}
	many := post(nil)
	for i := range 100 {
		many.Header.Set(fmt.Sprint("X-", i), strings.Repeat("é", 2000))
	}
	takes(t, "many headers", v, many)
	refuses(t, "too large", v, post(make([]byte, MaxBody+1)), "", ReasonTooLarge)
}

func TestFieldTree(t *testing.T) {
	tree := &fieldTree{}
	paths := []string{"a", "b.c", "list.*.id", "list.0.id", "list.1.x.y", "n", "t", "deep.*.*.k"}
	for _, p := range paths {
		tree.add(strings.Split(p, "."))
	}
	got, ok := tree.read([]byte(`{"a":"\u00e9","x":{"a":1},"b":{"c":-1.50e2,"d":[]},"list":[{"id":"1"},{"id":2,"x":{"y":true}},{"id":null},{"id":{}},"s"],"n":null,"t":"","deep":[[{"k":"p"}],[{"k":"q"}]]}`))
	want := [][]string{{"é"}, {"-1.50e2"}, {"1", "2"}, {"1"}, {"true"}, nil, {""}, {"p", "q"}}
	if !ok || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, bad := range []string{"", "{", `{"a":1}{}`, `{"a":1,"a":2}`, `{"x":{"y":1,"y":2}}`, "\xff", `{"a":"\ud800"}`, `[1,]`, "nul", strings.Repeat("[", 100_000)} {
		if _, ok := tree.read([]byte(bad)); ok {
			t.Errorf("%.40q is read", bad)
		}
	}
}

// What is verified is read by the grammar of JSON alone; of a name that is given twice the last counts, with all that is in it.
func TestVerifiedFields(t *testing.T) {
	tree := &fieldTree{}
	for _, p := range []string{"a", "b.c", "list.*.id", "list.0.id"} {
		tree.add(strings.Split(p, "."))
	}
	for body, want := range map[string][][]string{
		`{"a":"1","a":2}`:                                                {{"2"}, nil, nil, nil},
		`{"a":"1","\u0061":null}`:                                        {nil, nil, nil, nil},
		`{"b":{"c":1},"b":{"x":2}}`:                                      {nil, nil, nil, nil},
		`{"b":{"c":1,"c":2},"a":1}`:                                      {{"1"}, {"2"}, nil, nil},
		`{"list":[{"id":1},{"id":2,"id":3}],"x":"\ud800"}`:               {nil, nil, {"1", "3"}, {"1"}},
		`{"list":[{"id":1,"id":2},{"id":3}],"list":[{"id":4,"id":5},6]}`: {nil, nil, {"5"}, {"5"}},
		`{"a":"x\ud800","\ud800":{"c":1},"b":{"c":"\ud83d\ude00"}}`:      {{"\xffx\\ud800"}, {"😀"}, nil, nil},
	} {
		if got, ok := tree.readVerified([]byte(body)); !ok || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Errorf("%s: %q (%v), want %q", body, got, ok, want)
		}
		if _, ok := tree.read([]byte(body)); ok {
			t.Errorf("%s is read where nothing is verified", body)
		}
	}
	for _, bad := range []string{"", "{", `{"a":1}{}`, "{\"a\":\"\xff\"}", `{"a":"\ud8"}`, `[1,]`, strings.Repeat("[", 100_000)} {
		if _, ok := tree.readVerified([]byte(bad)); ok {
			t.Errorf("%.40q is read", bad)
		}
	}
}

// A source's own settings are told exactly what is wrong with them.
func TestSettings(t *testing.T) {
	good := secretsOf([]string{"0123456789"})
	for field, change := range map[string]func(s *Settings){
		"secrets":    func(s *Settings) { s.Secrets = slices.Repeat(s.Secrets, MaxSecrets+1) },
		"secrets[0]": func(s *Settings) { s.Secrets = []eventhose.Secret{"short"} },
		"secrets[1]": func(s *Settings) { s.Secrets = append(s.Secrets, "***") },
		"secrets[2]": func(s *Settings) { s.Secrets = append(s.Secrets, "abcdefgh", "abcdefgh\n") },
		"secrets[3]": func(s *Settings) { s.Secrets = append(s.Secrets, "abcdefgh", "abcdefgh", "ab\x00cdefgh") },
		"secrets[4]": func(s *Settings) {
			s.Secrets = append(s.Secrets, "abcdefgh", "abcdefgh", "abcdefgh", eventhose.Secret(strings.Repeat("x", 5000)))
		},
		"public_keys":    func(s *Settings) { s.PublicKeys = []string{"x"} },
		"verify_token":   func(s *Settings) { s.VerifyToken = "0123456789" },
		"tolerance":      func(s *Settings) { s.Tolerance = eventhose.Duration(time.Minute) },
		"options.x":      func(s *Settings) { s.Options = map[string]string{"x": "1"} },
		"options.y":      func(s *Settings) { s.Options = map[string]string{"y": ""} },
		"scheme":         func(s *Settings) { s.Scheme = &Scheme{} },
		"type_prefix":    func(s *Settings) { s.TypePrefix = "a..b" },
		"public_url":     func(s *Settings) { s.PublicURL = "in.example.com/x" },
		"naming.id[0]":   func(s *Settings) { s.Naming = &Naming{ID: []string{"body:id"}} },
		"naming.type":    func(s *Settings) { s.Naming = &Naming{Type: slices.Repeat([]string{"json:a"}, 9)} },
		"naming.key[1]":  func(s *Settings) { s.Naming = &Naming{Key: []string{"json:a", "json:a+json:b+json:c+json:d+json:e"}} },
		"naming.time[0]": func(s *Settings) { s.Naming = &Naming{Time: []string{"json:"}} },
		"naming.keep[0]": func(s *Settings) { s.Naming = &Naming{Keep: []string{"a b"}} },
		"naming.type[0]": func(s *Settings) { s.Naming = &Naming{Type: []string{strings.Repeat("x", 300)}} },
		"naming.keep":    func(s *Settings) { s.Naming = &Naming{Keep: slices.Repeat([]string{"a"}, 30)} },
		"options": func(s *Settings) {
			s.Options = map[string]string{}
			for i := range 40 {
				s.Options[fmt.Sprint(i)] = "x"
			}
		},
		"options.control": func(s *Settings) { s.Options = map[string]string{"control": "a\x00"} },
	} {
		s := good
		change(&s)
		if _, err := New("github", s, Surroundings{}); eventhose.CodeOf(err) != eventhose.CodeInvalid || fieldOf(err) != field {
			t.Errorf("%s: %v (%s)", field, err, fieldOf(err))
		} else if strings.Contains(err.Error(), "0123456789") {
			t.Errorf("%s: the error tells the secret: %v", field, err)
		}
	}
	s := good
	s.TypePrefix, s.Naming = "eventhose.x", nil
	if _, err := New("github", s, Surroundings{}); fieldOf(err) != "type_prefix" {
		t.Errorf("the types of system events: %v", err)
	}
	text := fmt.Sprintf("%v %+v %#v", good, good, good)
	marshalled, _ := json.Marshal(good)
	if strings.Contains(text+string(marshalled), "0123456789") {
		t.Errorf("settings show their secret: %s %s", text, marshalled)
	}
}

// A generic source says in data what a provider's file says.
func TestGenericScheme(t *testing.T) {
	base := Scheme{Header: "X-Sig", Content: "{id}.{timestamp}.{url}.{method}.{body}", Encoding: Base64, Key: Hex, KeyPrefix: "key_",
		Prefix: "v1=", Separator: " ", TimestampHeader: "X-Time", Unit: Milliseconds, IDHeader: "X-Id", Hash: SHA512}
	s := withURL([]string{"key_" + strings.ToLower(hexKey(0))})
	s.Scheme = &base
	s.Naming = &Naming{ID: []string{"header:X-Id"}, Type: []string{"json:kind"}, Key: []string{"json:order"}, Keep: []string{"X-Id"}}
	s.TypePrefix = "acme"
	v := open(t, "generic", s)
	key := string(must(Hex.decode(hexKey(0))))
	sum := encode("base64", hmacOf(SHA512.make(), key, "i1.1700000000000."+testURL+"?a=1.POST."+`{"kind":"paid","order":"o1"}`))
	r := post([]byte(`{"kind":"paid","order":"o1"}`), "X-Sig", "v1=AAAA v1="+sum, "X-Time", "1700000000000", "X-Id", "i1")
	r.Query = "a=1"
	if e := takes(t, "as described", v, r); e.ID != "i1" || e.Type != "acme.paid" || e.Key != "o1" || e.Attributes["x-id"] != "i1" {
		t.Errorf("%+v", e)
	}
	for _, name := range []string{"X-Sig", "X-Time", "X-Id"} {
		changed := clone(r)
		changed.Header.Del(name)
		refuses(t, "without "+name, v, changed, "", ReasonHeaderMissing)
	}
	for field, change := range map[string]func(s *Scheme){
		"header":           func(s *Scheme) { s.Header = "" },
		"id_header":        func(s *Scheme) { s.IDHeader = "" },
		"timestamp_header": func(s *Scheme) { s.TimestampHeader = "" },
		"timestamp_unit":   func(s *Scheme) { s.Unit = "days" },
		"hash":             func(s *Scheme) { s.Hash = "md5" },
		"encoding":         func(s *Scheme) { s.Encoding = Text },
		"key":              func(s *Scheme) { s.Key = "rot13" },
		"content":          func(s *Scheme) { s.Content = "{id}.{timestamp}" },
		"prefix":           func(s *Scheme) { s.Prefix = strings.Repeat("x", 65) },
		"signature_name":   func(s *Scheme) { s.SignatureName = "v1" },
		"separator": func(s *Scheme) {
			*s = Scheme{Header: "X", SignatureName: "v1", TimestampName: "t", Content: "{timestamp}{body}"}
		},
	} {
		changed := base
		change(&changed)
		s.Scheme = &changed
		if _, err := New("generic", s, Surroundings{}); fieldOf(err) != "scheme."+field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, content := range []string{"{body", "{BODY}", "{body}{secret}", "{", "{timestamp}{body}"} {
		s.Scheme = &Scheme{Header: "X", Content: content}
		if _, err := New("generic", s, Surroundings{}); err == nil {
			t.Errorf("%q is taken", content)
		}
	}
	s.Scheme = &Scheme{Header: "X", Content: "{url}{body}"}
	s.PublicURL = ""
	if _, err := New("generic", s, Surroundings{}); fieldOf(err) != fieldPublicURL {
		t.Errorf("%v", err)
	}
}

func must(b []byte, ok bool) []byte {
	if !ok {
		panic("not decoded")
	}
	return b
}

func TestAnyTime(t *testing.T) {
	for text, want := range map[string]string{
		"1700000000": "2023-11-14T22:13:20Z", "1700000000.5": "2023-11-14T22:13:20.5Z", "1700000000123": "2023-11-14T22:13:20.123Z", "2023-11-14T23:13:20+0100": "2023-11-14T22:13:20Z",
		"2023-11-14T23:13:20+01:00": "2023-11-14T22:13:20Z", "2023-11-14 22:13:20 UTC": "2023-11-14T22:13:20Z", "Tue, 14 Nov 2023 22:13:20 GMT": "2023-11-14T22:13:20Z",
		"": "", "0": "", "-5": "", "yesterday": "", "99999999999999999": "", "1e9": "", "0000-01-01T00:00:00Z": "", "9999-12-31T23:59:59-23:59": "",
	} {
		at, ok := anyTime(text)
		got := ""
		if ok {
			got = at.Format(time.RFC3339Nano)
		}
		if got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// A time that is signed is digits, and few of them.
func TestUnits(t *testing.T) {
	for _, bad := range []string{"", "+1700000000", "-1", "1700000000.0", "0x1", " 1", "1 ", "17000000000000", "00000000000000", "1_000", "١"} {
		for _, u := range []Unit{Seconds, Milliseconds} {
			if at, ok := u.read(bad); ok {
				t.Errorf("%q is %s", bad, at)
			}
		}
	}
	for u, text := range map[Unit]string{Seconds: "1700000000", Milliseconds: "1700000000000", RFC3339: "2023-11-14T22:13:20Z"} {
		if at, ok := u.read(text); !ok || !at.Equal(testNow) {
			t.Errorf("%q is %s", text, at)
		}
	}
}
