package gateway

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"hash/crc32"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/eventhose/eventhose"
)

var (
	paypalHost = regexp.MustCompile(`^([a-z0-9-]+\.)*paypal\.com$`)
	paypalCert = certificateURL(`api(-m)?(\.sandbox)?\.paypal\.com`, `/v1/notifications/certs/CERT(-[0-9a-f]{8}){3}`)
)

// paypal is verified with PayPal's certificate or, if the source gives a client, by asking PayPal.
//
// What is signed has a CRC of the body and not the body: whoever has one signed message can make another body of the same
// CRC. Asking PayPal closes that, at the price of a request for each webhook.
func paypal() Provider {
	return Provider{
		Name: "paypal", Title: "PayPal", Source: "https://developer.paypal.com/api/rest/webhooks/rest/", timed: true,
		Doc: "PAYPAL-TRANSMISSION-SIG: base64 of RSA with SHA-256 over {id}|{time}|{webhook id}|{crc32 of body}; or PayPal is asked",
		Needs: []Need{{optionPrefix + "webhook_id", true, "the webhook's id, as PayPal shows it"},
			{optionPrefix + "client_id", false, "the app's client id: PayPal is asked about each webhook"}, {fieldSecrets, false, "the app's secret, with options.client_id"},
			{optionPrefix + "sandbox", false, "true to ask PayPal's sandbox"}},
		naming: Naming{ID: []string{"json:id"}, Type: []string{"json:event_type"}, Key: []string{"json:resource.supplementary_data.related_ids.order_id", "json:resource.parent_payment", "json:resource.id"},
			Time: []string{"json:create_time", "header:Paypal-Transmission-Time"}, Keep: []string{"Paypal-Transmission-Id"}},
		open: func(c *configuration) (scheme, error) {
			s := &paypalScheme{webhook: c.Options["webhook_id"], client: c.Options["client_id"], fetcher: c.Fetcher, tolerance: c.tolerance(0), api: "https://api-m.paypal.com"}
			if strings.Contains(s.webhook, "|") {
				return scheme{}, eventhose.Invalid(optionPrefix+"webhook_id", "must not hold |")
			}
			if (s.client == "") != (len(c.Secrets) == 0) || len(c.Secrets) > 1 {
				return scheme{}, eventhose.Invalid(fieldSecrets, "must be the one secret of options.client_id")
			}
			for _, secret := range c.Secrets {
				s.secret = secret
			}
			sandbox, err := c.flag("sandbox")
			if err != nil {
				return scheme{}, err
			}
			if sandbox {
				s.api = "https://api-m.sandbox.paypal.com"
			}
			s.certificates, err = newCertificates(c, func(certificate *x509.Certificate) bool {
				return certifiedFor(certificate, paypalHost.MatchString)
			})
			return scheme{networked: true, check: s.check, stamp: paypalStamp}, err
		},
	}
}

type paypalScheme struct {
	webhook, client, api string
	secret               eventhose.Secret
	certificates         *certificates
	fetcher              Fetcher
	tolerance            time.Duration
}

// paypalHeaders are what a webhook carries, in the order in which the check of PayPal names them.
var paypalHeaders = []string{"Paypal-Auth-Algo", "Paypal-Cert-Url", "Paypal-Transmission-Id", "Paypal-Transmission-Sig", "Paypal-Transmission-Time"}

func (s *paypalScheme) check(ctx context.Context, r *Request) *Rejection {
	values := map[string]string{}
	for _, name := range paypalHeaders {
		value, rejection := one(r.Header, name)
		if rejection != nil {
			return rejection
		}
		if strings.Contains(value, "|") {
			return malformed(name, value, "without |")
		}
		values[name] = value
	}
	if algo := values["Paypal-Auth-Algo"]; algo != "SHA256withRSA" {
		return malformed("Paypal-Auth-Algo", algo, "SHA256withRSA")
	}
	at := values["Paypal-Transmission-Time"]
	if rejection := checkClock("header Paypal-Transmission-Time", at, RFC3339, r.Received, s.tolerance); rejection != nil {
		return rejection
	}
	from := values["Paypal-Cert-Url"]
	if !paypalCert.MatchString(from) {
		return reject(ReasonCertificate, "header Paypal-Cert-Url is %s, which is not PayPal's", quoted(from))
	}
	signature, ok := Base64.decode(values["Paypal-Transmission-Sig"])
	if !ok {
		return malformed("Paypal-Transmission-Sig", values["Paypal-Transmission-Sig"], "base64")
	}
	key, rejection := s.certificates.key(ctx, from, r.Received)
	if rejection != nil {
		return rejection
	}
	sum := sha256.Sum256([]byte(paypalContent(values["Paypal-Transmission-Id"], at, s.webhook, r.Body)))
	if rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) != nil {
		return reject(ReasonNoMatch, "the signature is not the certificate's: options.webhook_id is another webhook's, or the body was changed on the way")
	}
	s.certificates.proved(from)
	if s.client != "" {
		return s.ask(ctx, r, values)
	}
	return nil
}

func paypalContent(id, at, webhook string, body []byte) string {
	return id + "|" + at + "|" + webhook + "|" + strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10)
}

// paypalStamp is what is signed beside the CRC, which many bodies share.
func paypalStamp(r *Request) [][]byte {
	return [][]byte{[]byte(r.Header.Get("Paypal-Transmission-Id") + "|" + r.Header.Get("Paypal-Transmission-Time"))}
}

// ask has PayPal verify a webhook that our own check has passed, so that strangers cannot make us ask.
func (s *paypalScheme) ask(ctx context.Context, r *Request, values map[string]string) *Rejection {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	token, rejection := s.token(ctx)
	if rejection != nil {
		return rejection
	}
	question, err := json.Marshal(map[string]string{
		"auth_algo": values["Paypal-Auth-Algo"], "cert_url": values["Paypal-Cert-Url"], "transmission_id": values["Paypal-Transmission-Id"],
		"transmission_sig": values["Paypal-Transmission-Sig"], "transmission_time": values["Paypal-Transmission-Time"], "webhook_id": s.webhook,
	})
	if err != nil || !utf8.Valid(r.Body) || !jsontext.Value(r.Body).IsValid(jsontext.AllowInvalidUTF8(true)) { // half of a surrogate pair is PayPal's to judge
		return reject(ReasonBody, "the body is not JSON, or a name is given twice in it")
	}
	// The event goes as it came: encoding it again would be another one.
	body := slices.Concat(question[:len(question)-1], []byte(`,"webhook_event":`), r.Body, []byte("}"))
	var answer struct {
		Status string `json:"verification_status"`
	}
	header := http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}}
	status, reply, err := s.fetcher.Fetch(ctx, http.MethodPost, s.api+"/v1/notifications/verify-webhook-signature", header, body)
	if err != nil || status != http.StatusOK || json.Unmarshal(reply, &answer) != nil {
		return reject(ReasonUnavailable, "PayPal cannot be asked: status %d", status)
	}
	if answer.Status != "SUCCESS" {
		return reject(ReasonNoMatch, "PayPal says %s", quoted(answer.Status))
	}
	return nil
}

func (s *paypalScheme) token(ctx context.Context) (string, *Rejection) {
	credentials := base64.StdEncoding.EncodeToString([]byte(s.client + ":" + string(s.secret)))
	header := http.Header{"Authorization": {"Basic " + credentials}, "Content-Type": {formType}}
	var answer struct {
		Token string `json:"access_token"`
	}
	form := url.Values{"grant_type": {"client_credentials"}}.Encode()
	status, reply, err := s.fetcher.Fetch(ctx, http.MethodPost, s.api+"/v1/oauth2/token", header, []byte(form))
	if err != nil || status != http.StatusOK || json.Unmarshal(reply, &answer) != nil || answer.Token == "" || !printable(answer.Token) {
		return "", reject(ReasonUnavailable, "PayPal gives no token for options.client_id: status %d", status)
	}
	return answer.Token, nil
}
