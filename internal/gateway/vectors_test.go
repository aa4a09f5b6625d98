package gateway

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
)

// vector is one of testdata/vectors.json: what providers publish, and what was computed from their rules.
type vector struct {
	Provider, Source               string
	Secret                         eventhose.Secret
	SecretHex                      eventhose.Secret `json:"secret_hex"`
	PublicKey                      string           `json:"public_key"`
	PublicKeyHex                   string           `json:"public_key_hex"`
	ID, Timestamp, Body, Signature string
	Method, URL, Token             string
	WebhookID                      string `json:"webhook_id"`
	SignedContent                  string `json:"signed_content"`
	PlainToken, EncryptedToken     string
	Params, Headers                map[string]string
}

func readVectors(t *testing.T) (vectors []vector) {
	t.Helper()
	b, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	return vectors
}

// request is the request of a vector that has one.
func (v *vector) request() *Request {
	r := post([]byte(v.Body))
	for name, value := range v.Headers {
		r.Header.Set(name, value)
	}
	if v.Method != "" {
		r.Method = v.Method
	}
	_, r.Query, _ = strings.Cut(v.URL, "?")
	r.Received = testNow
	return r
}

func TestVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		t.Run(strings.ReplaceAll(v.Provider, " ", "-"), func(t *testing.T) {
			name, kind, _ := strings.Cut(v.Provider, " ")
			s := Settings{PublicURL: v.URL}
			if v.Secret != "" {
				s.Secrets = []eventhose.Secret{v.Secret}
			}
			r := v.request()
			at := func(seconds string) {
				n, err := strconv.ParseInt(seconds, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				r.Received = time.Unix(n, 0)
			}
			switch name {
			case "standard-webhooks":
				name = "standard"
				if kind == "v1a" {
					s.PublicKeys = []string{v.PublicKey}
				}
				for header, value := range map[string]string{"webhook-id": v.ID, "webhook-timestamp": v.Timestamp, "webhook-signature": v.Signature} {
					r.Header.Set(header, value)
				}
				at(v.Timestamp)
			case "slack":
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				at(v.Headers["X-Slack-Request-Timestamp"])
			case "paddle":
				at(strings.TrimPrefix(strings.Split(v.Headers["Paddle-Signature"], ";")[0], "ts="))
			case "adyen":
				// "pspReference:originalReference:merchantAccount:reference:1000:EUR:EVENT:true"
				f := strings.Split(v.SignedContent, ":")
				s.Secrets = []eventhose.Secret{v.SecretHex}
				r.Body = []byte(`{"notificationItems":[{"NotificationRequestItem":{"pspReference":"` + f[0] + `","originalReference":"` + f[1] + `","merchantAccountCode":"` + f[2] +
					`","merchantReference":"` + f[3] + `","amount":{"value":` + f[4] + `,"currency":"` + f[5] + `"},"eventCode":"` + f[6] + `","success":"` + f[7] +
					`","additionalData":{"hmacSignature":"` + v.Signature + `"}}}]}`)
			case "hubspot":
				s.Options = map[string]string{"legacy": kind}
				s.PublicURL = "https://www.example.com/webhook_uri"
			case "paypal":
				paypalVector(t, v)
				return
			case "meta":
				s.VerifyToken = "verify-token-1"
			case "zoom":
				if kind == "challenge" {
					zoomVector(t, v, s)
					return
				}
			case "mailgun":
				r.Body = []byte(`{"signature":{"timestamp":"` + v.Timestamp + `","token":"` + v.Token + `","signature":"` + v.Signature + `"},"event-data":{"event":"opened"}}`)
			case "mandrill":
				form := url.Values{}
				for name, value := range v.Params {
					form.Set(name, value)
				}
				r.Body = []byte(form.Encode())
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			case "discord":
				s.PublicKeys = []string{v.PublicKeyHex}
				verdict := open(t, name, s).Verify(t.Context(), r)
				if verdict.Rejection != nil || string(verdict.Answer.Body) != `{"type":1}` {
					t.Errorf("%+v", verdict)
				}
				return
			}
			takes(t, v.Source, open(t, name, s), r)
			r.Body = append(bytes.Clone(r.Body), 'x')
			if name != "mailgun" && name != "adyen" {
				refuses(t, "with one more byte", open(t, name, s), r, string(v.Secret))
			}
		})
	}
}

func open(t *testing.T, name string, s Settings) *Verifier {
	t.Helper()
	v, err := New(name, s, Surroundings{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// The certificate of PayPal's own example cannot be had, so that only what is signed is compared.
func paypalVector(t *testing.T, v vector) {
	if got := paypalContent(v.Headers["PAYPAL-TRANSMISSION-ID"], v.Headers["PAYPAL-TRANSMISSION-TIME"], v.WebhookID, []byte(v.Body)); got != v.SignedContent {
		t.Errorf("signed is %q, want %q", got, v.SignedContent)
	}
}

func zoomVector(t *testing.T, v vector, s Settings) {
	body := `{"event":"endpoint.url_validation","payload":{"plainToken":"` + v.PlainToken + `"},"event_ts":1654503849680}`
	z := stamped("x-zm-signature", "v0=", "x-zm-request-timestamp", "s", 0, "hex", version0)
	r, _ := z.send(message{key: string([]byte(v.Secret)), body: []byte(body), at: testNow})
	verdict := open(t, "zoom", s).Verify(context.Background(), r)
	var answer struct{ PlainToken, EncryptedToken string }
	if err := json.Unmarshal(verdict.Answer.Body, &answer); err != nil || verdict.Answer.Status != http.StatusOK {
		t.Fatalf("%+v, %v", verdict, err)
	}
	if answer.PlainToken != v.PlainToken || answer.EncryptedToken != v.EncryptedToken {
		t.Errorf("%+v, want %s", answer, v.EncryptedToken)
	}
}

// The seed of Discord's vector makes the key that is written beside it.
func TestDiscordVectorKey(t *testing.T) {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	public := encode("hex", ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	for _, v := range readVectors(t) {
		if v.Provider == "discord" && v.PublicKeyHex != public {
			t.Errorf("%s, want %s", v.PublicKeyHex, public)
		}
	}
}
