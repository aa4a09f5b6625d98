package gateway

// What providers do when they send, written from their documents and not from the verifiers: nothing here uses the code
// that is tested.

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"hash"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
)

const testURL = "https://in.example.com/in/src_1"

var testNow = time.Unix(1_700_000_000, 0).UTC()

// message is what is to be sent.
type message struct {
	key   string
	body  []byte
	at    time.Time
	stamp string // the timestamp as text, in place of at
}

// sender sends as one provider does.
type sender struct {
	// send answers the request, and the signature's text as it stands in it.
	send func(m message) (r *Request, signature string)
	// key makes the n-th key, as the provider shows it; a text if nil.
	key func(n int) string
	// settings are those of a source with some keys; they are its secrets if nil.
	settings func(keys []string) Settings
	around   Surroundings

	// needed are the headers without which nothing verifies, signed those of them that are signed and hold no signature.
	needed, signed []string
	// unsigned says why the body may be changed; covered are the parts of it that may not.
	unsigned string
	covered  []string
	// unit is how the time is written, "" if none is signed. tolerance is the usual one; 0 if the source has to give one.
	unit      string
	tolerance time.Duration
	// encoding of the signature: hex, base64, base64url; "" for a token.
	encoding string
	// fixed says why there is one key only.
	fixed string
	// like groups the providers that sign in the same way.
	like string
}

func textKey(n int) string { return "test_secret_0123456789abcdef_" + strconv.Itoa(n) }

func (s *sender) keyOf(n int) string {
	if s.key != nil {
		return s.key(n)
	}
	return textKey(n)
}

func (s *sender) settingsOf(keys ...string) Settings {
	if s.settings != nil {
		return s.settings(keys)
	}
	return secretsOf(keys)
}

func secretsOf(keys []string) (s Settings) {
	for _, k := range keys {
		s.Secrets = append(s.Secrets, eventhose.Secret(k))
	}
	return s
}

func withURL(keys []string) Settings {
	s := secretsOf(keys)
	s.PublicURL = testURL
	return s
}

func (m message) time(unit string) string {
	if m.stamp != "" {
		return m.stamp
	}
	switch unit {
	case "ms":
		return strconv.FormatInt(m.at.UnixMilli(), 10)
	case "rfc3339":
		return m.at.UTC().Format(time.RFC3339)
	}
	return strconv.FormatInt(m.at.Unix(), 10)
}

func post(body []byte, headers ...string) *Request {
	h := http.Header{"Content-Type": {"application/json"}}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	return &Request{Method: "POST", Header: h, Body: body, Received: testNow}
}

func hmacOf(h func() hash.Hash, key, content string) []byte {
	mac := hmac.New(h, []byte(key))
	mac.Write([]byte(content))
	return mac.Sum(nil)
}

func encode(encoding string, b []byte) string {
	switch encoding {
	case "hex":
		return hex.EncodeToString(b)
	case "base64url":
		return base64.RawURLEncoding.EncodeToString(b)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// plain signs the body.
func plain(header, prefix string, h func() hash.Hash, encoding string) sender {
	return sender{
		needed: []string{header}, encoding: encoding,
		send: func(m message) (*Request, string) {
			s := encode(encoding, hmacOf(h, m.key, string(m.body)))
			return post(m.body, header, prefix+s), s
		},
	}
}

// stamped signs a time that stands in a header.
func stamped(header, prefix, timestamp, unit string, tolerance time.Duration, encoding string, content func(ts, body string) string) sender {
	return sender{
		needed: []string{header, timestamp}, signed: []string{timestamp}, encoding: encoding, unit: unit, tolerance: tolerance,
		send: func(m message) (*Request, string) {
			ts := m.time(unit)
			s := encode(encoding, hmacOf(sha256.New, m.key, content(ts, string(m.body))))
			return post(m.body, header, prefix+s, timestamp, ts), s
		},
	}
}

// paired signs a time that stands beside the signature.
func paired(header, timestamp, signature, separator, unit string, tolerance time.Duration, encoding, joint string) sender {
	return sender{
		needed: []string{header}, encoding: encoding, unit: unit, tolerance: tolerance,
		send: func(m message) (*Request, string) {
			ts := m.time(unit)
			s := encode(encoding, hmacOf(sha256.New, m.key, ts+joint+string(m.body)))
			return post(m.body, header, timestamp+"="+ts+separator+signature+"="+s), s
		},
	}
}

// shown shows the secret in a header.
func shown(header, before string) sender {
	return sender{
		needed: []string{header}, unsigned: "there is no signature", like: "token " + header,
		send: func(m message) (*Request, string) { return post(m.body, header, before+m.key), m.key },
	}
}

func standardSender() sender {
	return sender{
		needed: []string{"webhook-id", "webhook-timestamp", "webhook-signature"}, signed: []string{"webhook-id", "webhook-timestamp"},
		encoding: "base64", unit: "s", tolerance: 5 * time.Minute, like: "standard",
		key: func(n int) string {
			return "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcde"+strconv.Itoa(n)))
		},
		send: func(m message) (*Request, string) {
			ts := m.time("s")
			key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.key, "whsec_"))
			s := encode("base64", hmacOf(sha256.New, string(key), "msg_1."+ts+"."+string(m.body)))
			return post(m.body, "webhook-id", "msg_1", "webhook-timestamp", ts, "webhook-signature", "v1,"+s), s
		},
	}
}

// like puts a sender into a group.
func like(group string, s sender) sender { s.like = group; return s }

func with(settings func([]string) Settings, s sender) sender { s.settings = settings; return s }

func version0(ts, body string) string { return "v0:" + ts + ":" + body }

// senders has a row for each provider: one without fails TestMatrix.
var senders = sync.OnceValue(func() map[string]sender {
	all := map[string]sender{
		"standard": standardSender(), "svix": standardSender(), "clerk": standardSender(), "resend": standardSender(), "openai": standardSender(), "gitlab": standardSender(),

		"stripe":     paired("Stripe-Signature", "t", "v1", ",", "s", 300*time.Second, "hex", "."),
		"paddle":     paired("Paddle-Signature", "ts", "h1", ";", "s", 5*time.Second, "hex", ":"),
		"github":     like("hub256", plain("X-Hub-Signature-256", "sha256=", sha256.New, "hex")),
		"meta":       with(verifyToken, like("hub256", plain("X-Hub-Signature-256", "sha256=", sha256.New, "hex"))),
		"whatsapp":   with(verifyToken, like("hub256", plain("X-Hub-Signature-256", "sha256=", sha256.New, "hex"))),
		"bitbucket":  like("hub", plain("X-Hub-Signature", "sha256=", sha256.New, "hex")),
		"jira":       like("hub", plain("X-Hub-Signature", "sha256=", sha256.New, "hex")),
		"snyk":       like("hub", plain("X-Hub-Signature", "sha256=", sha256.New, "hex")),
		"intercom":   plain("X-Hub-Signature", "sha1=", sha1.New, "hex"),
		"shopify":    plain("X-Shopify-Hmac-Sha256", "", sha256.New, "base64"),
		"slack":      stamped("X-Slack-Signature", "v0=", "X-Slack-Request-Timestamp", "s", 300*time.Second, "hex", version0),
		"zoom":       stamped("x-zm-signature", "v0=", "x-zm-request-timestamp", "s", 300*time.Second, "hex", version0),
		"frameio":    stamped("X-Frameio-Signature", "v0=", "X-Frameio-Request-Timestamp", "s", 300*time.Second, "hex", version0),
		"customerio": stamped("X-CIO-Signature", "", "X-CIO-Timestamp", "s", 300*time.Second, "hex", version0),
		"zendesk": stamped("X-Zendesk-Webhook-Signature", "", "X-Zendesk-Webhook-Signature-Timestamp", "rfc3339", 300*time.Second, "base64",
			func(ts, body string) string { return ts + body }),
		"airwallex": stamped("x-signature", "", "x-timestamp", "ms", 300*time.Second, "hex", func(ts, body string) string { return ts + body }),
		"webflow":   stamped("x-webflow-signature", "", "x-webflow-timestamp", "ms", 300*time.Second, "hex", func(ts, body string) string { return ts + ":" + body }),
		"box": stamped("BOX-SIGNATURE-PRIMARY", "", "BOX-DELIVERY-TIMESTAMP", "rfc3339", 600*time.Second, "base64",
			func(ts, body string) string { return body + ts }),
		"razorpay":           plain("X-Razorpay-Signature", "", sha256.New, "hex"),
		"linear":             plain("Linear-Signature", "", sha256.New, "hex"), // its time has tests of its own
		"fedex":              plain("fdx-signature", "", sha256.New, "base64"),
		"fedex-supply-chain": plain("X-Fdx-Sc-Signature", "", sha256.New, "base64"),
		"docusign":           plain("X-DocuSign-Signature-1", "", sha256.New, "base64"),
		"xero":               plain("x-xero-signature", "", sha256.New, "base64"),
		"x":                  plain("x-twitter-webhooks-signature", "sha256=", sha256.New, "base64"),
		"square":             with(withURL, urlSigned("x-square-hmacsha256-signature", sha256.New, func(body string) string { return testURL + body })),
		"trello":             with(withURL, urlSigned("X-Trello-Webhook", sha1.New, func(body string) string { return body + testURL })),
		"hubspot": with(withURL, stamped("X-HubSpot-Signature-v3", "", "X-HubSpot-Request-Timestamp", "ms", 300*time.Second, "base64",
			func(ts, body string) string { return "POST" + testURL + body + ts })),
		"generic": with(genericSettings, paired("X-Acme-Signature", "t", "v1", ",", "s", 300*time.Second, "hex", ".")),

		"postmark":    shown("Authorization", "Bearer "),
		"sparkpost":   shown("Authorization", "Bearer "),
		"okta":        shown("Authorization", ""),
		"cloudevents": shown("Authorization", "Bearer "),
		"telegram":    shown("X-Telegram-Bot-Api-Secret-Token", ""),
		"flutterwave": shown("verif-hash", ""),

		"twilio": twilioSender(), "mandrill": mandrillSender(), "mailgun": mailgunSender(), "sendgrid": sendgridSender(), "discord": discordSender(),
		"adyen": adyenSender(), "adyen-platform": adyenPlatformSender(), "sns": snsSender(), "paypal": paypalSender(),

		"calendly":  paired("Calendly-Webhook-Signature", "t", "v1", ",", "s", 180*time.Second, "hex", "."),
		"mux":       paired("Mux-Signature", "t", "v1", ",", "s", 300*time.Second, "hex", "."),
		"workos":    paired("WorkOS-Signature", "t", "v1", ", ", "ms", 180*time.Second, "hex", "."),
		"sanity":    paired("sanity-webhook-signature", "t", "v1", ",", "ms", 300*time.Second, "base64url", "."),
		"buildkite": paired("X-Buildkite-Signature", "timestamp", "signature", ",", "s", 300*time.Second, "hex", "."),
		"twitch":    twitchSender(),

		"calcom":            plain("X-Cal-Signature-256", "", sha256.New, "hex"),
		"checkout":          plain("Cko-Signature", "", sha256.New, "hex"),
		"circleci":          plain("circleci-signature", "v1=", sha256.New, "hex"),
		"clickup":           like("x-signature", plain("X-Signature", "", sha256.New, "hex")),
		"lemonsqueezy":      like("x-signature", plain("X-Signature", "", sha256.New, "hex")),
		"segment":           plain("X-Signature", "", sha1.New, "hex"),
		"coinbase-commerce": plain("X-CC-Webhook-Signature", "", sha256.New, "hex"),
		"doppler":           plain("X-Doppler-Signature", "sha256=", sha256.New, "hex"),
		"dropbox":           plain("X-Dropbox-Signature", "", sha256.New, "hex"),
		"easypost":          plain("X-Hmac-Signature", "hmac-sha256-hex=", sha256.New, "hex"),
		"fastspring":        plain("X-FS-Signature", "", sha256.New, "base64"),
		"forgejo":           plain("X-Forgejo-Signature", "", sha256.New, "hex"),
		"gitea":             plain("X-Gitea-Signature", "", sha256.New, "hex"),
		"gogs":              plain("X-Gogs-Signature", "", sha256.New, "hex"),
		"gocardless":        plain("Webhook-Signature", "", sha256.New, "hex"),
		"helpscout":         plain("X-HelpScout-Signature", "", sha1.New, "base64"),
		"heroku":            plain("Heroku-Webhook-Hmac-SHA256", "", sha256.New, "base64"),
		"launchdarkly":      plain("X-LD-Signature", "", sha256.New, "hex"),
		"line":              plain("x-line-signature", "", sha256.New, "base64"),
		"notion":            plain("X-Notion-Signature", "sha256=", sha256.New, "hex"),
		"nylas":             plain("X-Nylas-Signature", "", sha256.New, "hex"),
		"pagerduty":         plain("X-PagerDuty-Signature", "v1=", sha256.New, "hex"),
		"paystack":          plain("x-paystack-signature", "", sha512.New, "hex"),
		"pusher":            plain("X-Pusher-Signature", "", sha256.New, "hex"),
		"sentry":            plain("Sentry-Hook-Signature", "", sha256.New, "hex"),
		"tally":             plain("Tally-Signature", "", sha256.New, "base64"),
		"terraform":         plain("X-TFE-Notification-Signature", "", sha512.New, "hex"),
		"typeform":          plain("Typeform-Signature", "sha256=", sha256.New, "base64"),
		"vercel":            plain("x-vercel-signature", "", sha1.New, "hex"),
		"flutterwave-v4":    plain("flutterwave-signature", "", sha256.New, "base64"),
		"viber":             plain("X-Viber-Content-Signature", "", sha256.New, "hex"),
		"woocommerce":       plain("X-WC-Webhook-Signature", "", sha256.New, "base64"),
	}
	airtable := plain("X-Airtable-Content-MAC", "hmac-sha256=", sha256.New, "hex")
	airtable.key = func(n int) string { return base64.StdEncoding.EncodeToString([]byte(textKey(n))) }
	send := airtable.send
	airtable.send = func(m message) (*Request, string) {
		key, _ := base64.StdEncoding.DecodeString(m.key)
		m.key = string(key)
		return send(m)
	}
	all["airtable"] = airtable
	return all
})

func verifyToken(keys []string) Settings {
	s := secretsOf(keys)
	s.VerifyToken = "verify-token-1"
	return s
}

func genericSettings(keys []string) Settings {
	s := secretsOf(keys)
	s.Scheme = &Scheme{Header: "X-Acme-Signature", Separator: ",", SignatureName: "v1", TimestampName: "t", Content: "{timestamp}.{body}"}
	return s
}

func urlSigned(header string, h func() hash.Hash, content func(body string) string) sender {
	return sender{
		needed: []string{header}, encoding: "base64",
		send: func(m message) (*Request, string) {
			s := encode("base64", hmacOf(h, m.key, content(string(m.body))))
			return post(m.body, header, s), s
		},
	}
}

func twitchSender() sender {
	const id, ts = "Twitch-Eventsub-Message-Id", "Twitch-Eventsub-Message-Timestamp"
	return sender{
		needed: []string{"Twitch-Eventsub-Message-Signature", id, ts}, signed: []string{id, ts}, encoding: "hex", unit: "rfc3339", tolerance: 10 * time.Minute,
		send: func(m message) (*Request, string) {
			at := m.time("rfc3339")
			s := encode("hex", hmacOf(sha256.New, m.key, "id-1"+at+string(m.body)))
			return post(m.body, "Twitch-Eventsub-Message-Signature", "sha256="+s, id, "id-1", ts, at), s
		},
	}
}

func formRequest(values url.Values, headers ...string) *Request {
	r := post([]byte(values.Encode()), headers...)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func twilioSender() sender {
	return sender{
		settings: withURL, needed: []string{"X-Twilio-Signature"}, encoding: "base64",
		covered: []string{"MessageSid", "SM1", "Body", "evt_1"},
		send: func(m message) (*Request, string) {
			values := url.Values{"MessageSid": {"SM1"}, "Body": {string(m.body)}, "MessageStatus": {"sent"}}
			content := testURL + "Body" + string(m.body) + "MessageSid" + "SM1" + "MessageStatus" + "sent"
			s := encode("base64", hmacOf(sha1.New, m.key, content))
			r := formRequest(values, "X-Twilio-Signature", s)
			if len(m.body) == 0 {
				r.Body = nil
			}
			return r, s
		},
	}
}

func mandrillSender() sender {
	return sender{
		settings: withURL, needed: []string{"X-Mandrill-Signature"}, encoding: "base64", covered: []string{"mandrill_events", "evt_1"},
		send: func(m message) (*Request, string) {
			events := "[" + string(m.body) + "]"
			s := encode("base64", hmacOf(sha1.New, m.key, testURL+"mandrill_events"+events))
			r := formRequest(url.Values{"mandrill_events": {events}}, "X-Mandrill-Signature", s)
			if len(m.body) == 0 {
				r.Body = nil
			}
			return r, s
		},
	}
}

func mailgunSender() sender {
	return sender{
		unsigned: "only the time and the token are signed", covered: []string{"a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0", `"timestamp"`, `"token"`},
		encoding: "hex", unit: "s", tolerance: 15 * time.Minute,
		send: func(m message) (*Request, string) {
			ts, token := m.time("s"), "a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0"
			s := encode("hex", hmacOf(sha256.New, m.key, ts+token))
			if len(m.body) == 0 {
				return post(nil), s
			}
			signature, _ := json.Marshal(map[string]string{"timestamp": ts, "token": token, "signature": s})
			return post([]byte(`{"signature":` + string(signature) + `,"event-data":` + string(m.body) + `}`)), s
		},
	}
}

var ecdsaKeys = sync.OnceValue(func() (keys [4]*ecdsa.PrivateKey) {
	for i := range keys {
		keys[i], _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return keys
})

// numbered is the n of a key that stands for a pair.
func numbered(key string) int {
	n, _ := strconv.Atoi(key)
	return n
}

func sendgridSender() sender {
	return sender{
		key: strconv.Itoa,
		settings: func(keys []string) (s Settings) {
			for _, k := range keys {
				if strings.TrimSpace(k) == "" {
					s.PublicKeys = append(s.PublicKeys, k)
					continue
				}
				der, _ := x509.MarshalPKIXPublicKey(&ecdsaKeys()[numbered(k)].PublicKey)
				s.PublicKeys = append(s.PublicKeys, base64.StdEncoding.EncodeToString(der))
			}
			return s
		},
		needed:   []string{"X-Twilio-Email-Event-Webhook-Signature", "X-Twilio-Email-Event-Webhook-Timestamp"},
		signed:   []string{"X-Twilio-Email-Event-Webhook-Timestamp"},
		encoding: "base64", unit: "s",
		send: func(m message) (*Request, string) {
			ts := m.time("s")
			sum := sha256.Sum256([]byte(ts + string(m.body)))
			der, _ := ecdsa.SignASN1(rand.Reader, ecdsaKeys()[numbered(m.key)], sum[:])
			s := encode("base64", der)
			return post(m.body, "X-Twilio-Email-Event-Webhook-Signature", s, "X-Twilio-Email-Event-Webhook-Timestamp", ts), s
		},
	}
}

func discordKey(key string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(key))
	return ed25519.NewKeyFromSeed(seed[:])
}

func discordSender() sender {
	return sender{
		settings: func(keys []string) (s Settings) {
			for _, k := range keys {
				if strings.TrimSpace(k) == "" {
					s.PublicKeys = append(s.PublicKeys, k)
					continue
				}
				s.PublicKeys = append(s.PublicKeys, hex.EncodeToString(discordKey(k).Public().(ed25519.PublicKey)))
			}
			return s
		},
		needed: []string{"X-Signature-Ed25519", "X-Signature-Timestamp"}, signed: []string{"X-Signature-Timestamp"},
		encoding: "hex", unit: "s", tolerance: 5 * time.Minute,
		send: func(m message) (*Request, string) {
			ts := m.time("s")
			s := encode("hex", ed25519.Sign(discordKey(m.key), []byte(ts+string(m.body))))
			return post(m.body, "X-Signature-Ed25519", s, "X-Signature-Timestamp", ts), s
		},
	}
}

func hexKey(n int) string {
	return strings.Repeat("DFB1EB5485895CFA84146406857104ABB4CBCABDC8AAF103A624C8F6A3EAAB0"+strconv.Itoa(n), 1)
}

func adyenSender() sender {
	return sender{
		key: hexKey, encoding: "base64", unsigned: "only eight fields of an item are signed",
		covered: []string{"psp1", "orig1", "acct1", "ref1", "1000", "EUR", "AUTHORISATION", "true"},
		send: func(m message) (*Request, string) {
			key, _ := hex.DecodeString(m.key)
			s := encode("base64", hmacOf(sha256.New, string(key), "psp1:orig1:acct1:ref1:1000:EUR:AUTHORISATION:true"))
			if len(m.body) == 0 {
				return post(nil), s
			}
			return post([]byte(`{"live":"false","notificationItems":[{"NotificationRequestItem":{"additionalData":{"hmacSignature":"` + s + `"},"note":` + string(m.body) + `,` +
				`"pspReference":"psp1","originalReference":"orig1","merchantAccountCode":"acct1","merchantReference":"ref1",` +
				`"amount":{"value":1000,"currency":"EUR"},"eventCode":"AUTHORISATION","success":"true"}}]}`)), s
		},
	}
}

func adyenPlatformSender() sender {
	s := plain("HmacSignature", "", sha256.New, "base64")
	s.key = hexKey
	send := s.send
	s.send = func(m message) (*Request, string) {
		key, _ := hex.DecodeString(m.key)
		m.key = string(key)
		return send(m)
	}
	return s
}
