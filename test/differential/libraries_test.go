package differential

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	paddle "github.com/PaddleHQ/paddle-go-sdk/v4"
	"github.com/bwmarrin/discordgo"
	"github.com/google/go-github/v75/github"
	line "github.com/line/line-bot-sdk-go/v8/linebot/webhook"
	razorpay "github.com/razorpay/razorpay-go/utils"
	"github.com/sendgrid/sendgrid-go/helpers/eventwebhook"
	"github.com/slack-go/slack"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	stripe "github.com/stripe/stripe-go/v83/webhook"
	svix "github.com/svix/svix-webhooks/go"
	twilio "github.com/twilio/twilio-go/client"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/gateway"
)

const (
	secret   = "test_secret_0123456789abcdef"
	standard = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	public   = "https://in.example.com/in/src_1"
)

func secrets(s string) gateway.Settings {
	return gateway.Settings{Secrets: []eventhose.Secret{eventhose.Secret(s)}}
}

func sum(h func() hash.Hash, key []byte, parts ...string) []byte {
	mac := hmac.New(h, key)
	for _, p := range parts {
		io.WriteString(mac, p)
	}
	return mac.Sum(nil)
}

func request(body []byte, headers ...string) *gateway.Request {
	r := &gateway.Request{Body: body, Header: http.Header{"Content-Type": {"application/json"}}}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func httpRequest(r *gateway.Request) *http.Request {
	return &http.Request{Method: http.MethodPost, Header: r.Header, Body: io.NopCloser(bytes.NewReader(r.Body))}
}

var (
	sendgridKey = sync.OnceValue(func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		return k
	})
	discordKey = ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))
)

// upperHex: a signature in upper case is the same bytes; these libraries compare text.
func upperHex(header string) difference {
	return difference{"hexadecimal digits of either case are the same signature", func(r *gateway.Request, _ *gateway.Rejection) bool {
		return r.Header.Get(header) != strings.ToLower(r.Header.Get(header))
	}}
}

// looseBase64: the library passes over bits behind the last byte.
var looseBase64 = difference{"base64 with bits behind the last byte is not what anybody writes", because(gateway.ReasonHeaderMalformed)}

func standardLibrary(provider, prefix string, takes func(r *gateway.Request) bool) library {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(standard, "whsec_"))
	if err != nil {
		panic(err)
	}
	zeros := func(r *gateway.Request) bool { return strings.HasPrefix(r.Header.Get(prefix+"timestamp"), "0") }
	return library{
		provider: provider, settings: secrets(standard), takes: takes,
		sign: func(body []byte, ts string) *gateway.Request {
			s := sum(sha256.New, key, "msg_1.", ts, ".", string(body))
			return request(body, prefix+"id", "msg_1", prefix+"timestamp", ts, prefix+"signature", "v1,"+base64.StdEncoding.EncodeToString(s))
		},
		stricter: []difference{
			{"a time with a sign, or of more than 13 digits", malformedTime(prefix + "timestamp")},
			{"the header is what is signed, the library writes the number anew", func(r *gateway.Request, j *gateway.Rejection) bool {
				return j.Reason == gateway.ReasonNoMatch && zeros(r)
			}},
			{"a signature is two parts, not three", func(r *gateway.Request, j *gateway.Rejection) bool {
				return j.Reason == gateway.ReasonNoMatch && slices.ContainsFunc(strings.Split(r.Header.Get(prefix+"signature"), " "), func(s string) bool { return strings.Count(s, ",") > 1 })
			}},
		},
		wider: []difference{{"the header is what is signed, zeros before the number included", func(r *gateway.Request, _ *gateway.Rejection) bool { return zeros(r) }}},
	}
}

func libraries() []library {
	standardHook, err := standardwebhooks.NewWebhook(standard)
	if err != nil {
		panic(err)
	}
	svixHook, err := svix.NewWebhook(standard)
	if err != nil {
		panic(err)
	}
	return []library{
		stripeLibrary(),
		{
			provider: "github", settings: secrets(secret),
			sign: func(body []byte, _ string) *gateway.Request {
				return request(body, "X-Hub-Signature-256", "sha256="+hex.EncodeToString(sum(sha256.New, []byte(secret), string(body))))
			},
			takes: func(r *gateway.Request) bool {
				return github.ValidateSignature(r.Header.Get("X-Hub-Signature-256"), r.Body, []byte(secret)) == nil
			},
		},
		slackLibrary(),
		twilioLibrary(),
		sendgridLibrary(),
		standardLibrary("standard", "webhook-", func(r *gateway.Request) bool { return standardHook.Verify(r.Body, r.Header) == nil }),
		standardLibrary("svix", "svix-", func(r *gateway.Request) bool { return svixHook.Verify(r.Body, r.Header) == nil }),
		paddleLibrary(),
		{
			provider: "razorpay", settings: secrets(secret),
			sign: func(body []byte, _ string) *gateway.Request {
				return request(body, "X-Razorpay-Signature", hex.EncodeToString(sum(sha256.New, []byte(secret), string(body))))
			},
			takes: func(r *gateway.Request) bool {
				return razorpay.VerifyWebhookSignature(string(r.Body), r.Header.Get("X-Razorpay-Signature"), secret)
			},
			wider: []difference{upperHex("X-Razorpay-Signature")},
		},
		{
			provider: "line", settings: secrets(secret),
			sign: func(body []byte, _ string) *gateway.Request {
				return request(body, "X-Line-Signature", base64.StdEncoding.EncodeToString(sum(sha256.New, []byte(secret), string(body))))
			},
			takes: func(r *gateway.Request) bool {
				return line.ValidateSignature(secret, r.Header.Get("X-Line-Signature"), r.Body)
			},
			stricter: []difference{looseBase64},
		},
		{
			provider: "discord", settings: gateway.Settings{PublicKeys: []string{hex.EncodeToString(discordKey.Public().(ed25519.PublicKey))}},
			sign: func(body []byte, ts string) *gateway.Request {
				s := ed25519.Sign(discordKey, append([]byte(ts), body...))
				return request(body, "X-Signature-Ed25519", hex.EncodeToString(s), "X-Signature-Timestamp", ts)
			},
			takes: func(r *gateway.Request) bool {
				return discordgo.VerifyInteraction(httpRequest(r), discordKey.Public().(ed25519.PublicKey))
			},
			stricter: []difference{{"the library does not look at the time", because(gateway.ReasonClock)},
				{"the library does not look at the time", malformedTime("X-Signature-Timestamp")}},
		},
	}
}

func stripeLibrary() library {
	const header = "Stripe-Signature"
	has := func(r *gateway.Request, what func(name, value string) bool) bool {
		return slices.ContainsFunc(strings.Split(r.Header.Get(header), ","), func(pair string) bool {
			name, value, _ := strings.Cut(pair, "=")
			return what(name, value)
		})
	}
	times := func(r *gateway.Request) (n int) {
		has(r, func(name, _ string) bool {
			if name == "t" {
				n++
			}
			return false
		})
		return n
	}
	return library{
		provider: "stripe", settings: secrets(secret),
		sign: func(body []byte, ts string) *gateway.Request {
			return request(body, header, "t="+ts+",v1="+hex.EncodeToString(sum(sha256.New, []byte(secret), ts, ".", string(body))))
		},
		takes: func(r *gateway.Request) bool {
			return stripe.ValidatePayload(r.Body, r.Header.Get(header), secret) == nil
		},
		stricter: []difference{
			{"a time in the future is as wrong as one in the past", func(_ *gateway.Request, j *gateway.Rejection) bool {
				return j.Reason == gateway.ReasonClock && strings.Contains(j.Detail, "future")
			}},
			{"a time with a sign, or of more than 13 digits", func(r *gateway.Request, j *gateway.Rejection) bool {
				return j.Reason == gateway.ReasonHeaderMalformed && has(r, func(name, value string) bool { return name == "t" && !digits(value) })
			}},
			{"a time that is there twice", func(r *gateway.Request, j *gateway.Rejection) bool {
				return j.Reason == gateway.ReasonHeaderMalformed && times(r) > 1
			}},
			{"a pair without a name", func(r *gateway.Request, j *gateway.Rejection) bool {
				return j.Reason == gateway.ReasonHeaderMalformed && has(r, func(name, _ string) bool { return name == "" })
			}},
			{"the header is what is signed, the library writes the number anew", func(r *gateway.Request, j *gateway.Rejection) bool {
				return j.Reason == gateway.ReasonNoMatch && has(r, func(name, value string) bool { return name == "t" && strings.HasPrefix(value, "0") })
			}},
		},
		wider: []difference{{"the header is what is signed, zeros before the number included", func(r *gateway.Request, _ *gateway.Rejection) bool {
			return has(r, func(name, value string) bool { return name == "t" && strings.HasPrefix(value, "0") })
		}}},
	}
}

func slackLibrary() library {
	return library{
		provider: "slack", settings: secrets(secret),
		sign: func(body []byte, ts string) *gateway.Request {
			return request(body, "X-Slack-Request-Timestamp", ts, "X-Slack-Signature", "v0="+hex.EncodeToString(sum(sha256.New, []byte(secret), "v0:", ts, ":", string(body))))
		},
		takes: func(r *gateway.Request) bool {
			v, err := slack.NewSecretsVerifier(r.Header, secret)
			if err != nil {
				return false
			}
			if _, err := v.Write(r.Body); err != nil {
				return false
			}
			return v.Ensure() == nil
		},
		stricter: []difference{{"a time with a sign, or of more than 13 digits", malformedTime("X-Slack-Request-Timestamp")}},
	}
}

func twilioLibrary() library {
	validator := twilio.NewRequestValidator(secret)
	settings := secrets(secret)
	settings.PublicURL = public
	repeated := func(r *gateway.Request) bool {
		values, err := url.ParseQuery(string(r.Body))
		for _, v := range values {
			if err == nil && len(v) > 1 {
				return true
			}
		}
		return false
	}
	return library{
		provider: "twilio", settings: settings,
		sign: func(body []byte, ts string) *gateway.Request {
			values, content := url.Values{"Body": {string(body)}, "MessageSid": {"SM" + ts}}, "Body"+string(body)
			switch text := string(body); {
			case strings.HasPrefix(text, "&"): // as Twilio and its other libraries do: each value once, sorted
				values.Add("Body", "\x00")
				values.Add("Body", text)
				content = "Body\x00" + content
			case strings.HasPrefix(text, "="): // added by somebody
				values.Add("Body", "more")
			}
			r := request([]byte(values.Encode()), "X-Twilio-Signature",
				base64.StdEncoding.EncodeToString(sum(sha1.New, []byte(secret), public, "?a=1", content, "MessageSid", "SM"+ts)))
			r.Query = "a=1"
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			return r
		},
		takes: func(r *gateway.Request) bool {
			return validator.ValidateBody(public+"?"+r.Query, r.Body, r.Header.Get("X-Twilio-Signature"))
		},
		stricter: []difference{{"of a name that comes several times the library looks at the first value only: what is behind it may be anybody's", func(r *gateway.Request, j *gateway.Rejection) bool {
			return j.Reason == gateway.ReasonNoMatch && repeated(r)
		}}},
		wider: []difference{{"of a name that comes several times Twilio signs each value", func(r *gateway.Request, _ *gateway.Rejection) bool { return repeated(r) }}},
	}
}

func sendgridLibrary() library {
	const header, timestamp = "X-Twilio-Email-Event-Webhook-Signature", "X-Twilio-Email-Event-Webhook-Timestamp"
	der, err := x509.MarshalPKIXPublicKey(&sendgridKey().PublicKey)
	if err != nil {
		panic(err)
	}
	return library{
		provider: "sendgrid", settings: gateway.Settings{PublicKeys: []string{base64.StdEncoding.EncodeToString(der)}},
		sign: func(body []byte, ts string) *gateway.Request {
			digest := sha256.Sum256(append([]byte(ts), body...))
			s, err := ecdsa.SignASN1(rand.Reader, sendgridKey(), digest[:])
			if err != nil {
				panic(err)
			}
			return request(body, header, base64.StdEncoding.EncodeToString(s), timestamp, ts)
		},
		takes: func(r *gateway.Request) bool {
			key, err := eventwebhook.ConvertPublicKeyBase64ToECDSA(base64.StdEncoding.EncodeToString(der))
			if err != nil {
				return false
			}
			ok, err := eventwebhook.VerifySignature(key, r.Body, r.Header.Get(header), r.Header.Get(timestamp))
			return ok && err == nil
		},
		stricter: []difference{
			{"the library does not look at the time", malformedTime(timestamp)},
			looseBase64,
			{"the library passes over bytes behind the signature", func(r *gateway.Request, j *gateway.Rejection) bool {
				b, err := base64.StdEncoding.DecodeString(r.Header.Get(header))
				return j.Reason == gateway.ReasonNoMatch && err == nil && len(b) > 2 && len(b) > 2+int(b[1])
			}},
		},
	}
}

func paddleLibrary() library {
	const header = "Paddle-Signature"
	verifier := paddle.NewWebhookVerifier(secret, paddle.VerifierWithTimestampTolerance(tolerance))
	settings := secrets(secret)
	settings.Tolerance = eventhose.Duration(tolerance)
	return library{
		provider: "paddle", settings: settings,
		sign: func(body []byte, ts string) *gateway.Request {
			return request(body, header, "ts="+ts+";h1="+hex.EncodeToString(sum(sha256.New, []byte(secret), ts, ":", string(body))))
		},
		takes: func(r *gateway.Request) bool {
			ok, err := verifier.Verify(httpRequest(r))
			return ok && err == nil
		},
		stricter: []difference{{"a time of more than 13 digits", func(r *gateway.Request, j *gateway.Rejection) bool {
			ts, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get(header), "ts="), ";")
			return j.Reason == gateway.ReasonHeaderMalformed && !digits(ts)
		}}},
		wider: []difference{upperHex(header), {"several h1, as Paddle writes while a secret is changed, and other pairs, as it may write one day", func(r *gateway.Request, _ *gateway.Rejection) bool {
			return strings.Count(r.Header.Get(header), ";") > 1
		}}},
	}
}

// fuzz runs one library's comparison on whatever the fuzzer finds.
func fuzz(f *testing.F, provider string) {
	all := libraries()
	i := slices.IndexFunc(all, func(l library) bool { return l.provider == provider })
	if i < 0 {
		f.Fatalf("there is no library for %s", provider)
	}
	v := all[i].verifier(f)
	for _, program := range []string{"", "\x00", "\x01", "\x00\x02\x00\x03\x01", "\x00\x05\x00\x00\x00", "\x00\x08\x00\x00\x00", "\x00\x07\x00\x00\x00"} {
		f.Add([]byte(`{"id":"evt_1"}`), int64(0), []byte(program))
		f.Add([]byte("a=1&b=2"), int64(400), []byte(program))
		f.Add([]byte(nil), int64(-400), []byte(program))
	}
	f.Fuzz(func(t *testing.T, body []byte, offset int64, program []byte) {
		if len(body) <= 4096 && len(program) <= 256 {
			all[i].run(t, v, input{body, offset, program}, &tally{})
		}
	})
}

func FuzzStripe(f *testing.F)   { fuzz(f, "stripe") }
func FuzzGitHub(f *testing.F)   { fuzz(f, "github") }
func FuzzSlack(f *testing.F)    { fuzz(f, "slack") }
func FuzzTwilio(f *testing.F)   { fuzz(f, "twilio") }
func FuzzSendGrid(f *testing.F) { fuzz(f, "sendgrid") }
func FuzzStandard(f *testing.F) { fuzz(f, "standard") }
func FuzzSvix(f *testing.F)     { fuzz(f, "svix") }
func FuzzPaddle(f *testing.F)   { fuzz(f, "paddle") }
func FuzzRazorpay(f *testing.F) { fuzz(f, "razorpay") }
func FuzzLINE(f *testing.F)     { fuzz(f, "line") }
func FuzzDiscord(f *testing.F)  { fuzz(f, "discord") }
