package gateway

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"hash/crc32"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// authority issues certificates for providers. No system knows it, as none knows Amazon's intermediate authorities, and what it issues comes
// without it, as theirs does.
type authority struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

var testAuthority = sync.OnceValue(newAuthority)

func newAuthority() *authority {
	a := &authority{}
	a.key, _ = rsa.GenerateKey(rand.Reader, 2048)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: testNow.Add(-24 * time.Hour), NotAfter: testNow.Add(1000 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, _ := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	a.cert, _ = x509.ParseCertificate(der)
	return a
}

var leafKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, _ := rsa.GenerateKey(rand.Reader, 2048)
	return k
})

// issue answers a certificate in PEM of leafKey's for a name.
func (a *authority) issue(name string, until time.Time) []byte {
	return a.issueFor(&leafKey().PublicKey, name, testNow.Add(-time.Hour), until)
}

// issueFor answers one of any key.
func (a *authority) issueFor(key crypto.PublicKey, name string, from, until time.Time) []byte {
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: from, NotAfter: until}
	der, _ := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// web is a Fetcher of fixed pages. It writes down what was asked for.
type web struct {
	mu    sync.Mutex
	pages map[string]page
	asked []string
	sent  [][]byte
}

type page struct {
	status int
	body   []byte
}

func (w *web) Fetch(_ context.Context, method, url string, _ http.Header, body []byte) (int, []byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, method+" "+url)
	w.sent = append(w.sent, bytes.Clone(body))
	p, ok := w.pages[url]
	if !ok {
		return 0, nil, errors.New("no such host")
	}
	return p.status, p.body, nil
}

const (
	snsCertURL    = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
	snsTopic      = "arn:aws:sns:eu-central-1:123456789012:orders"
	paypalCertURL = "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-a5cafa77"
)

func snsSurroundings() (Surroundings, *web) {
	w := &web{pages: map[string]page{snsCertURL: {200, testAuthority().issue("sns.amazonaws.com", testNow.Add(time.Hour))}}}
	return Surroundings{Fetcher: w}, w
}

func paypalSurroundings() (Surroundings, *web) {
	w := &web{pages: map[string]page{paypalCertURL: {200, testAuthority().issue("messageverificationcerts.paypal.com", testNow.Add(time.Hour))}}}
	return Surroundings{Fetcher: w}, w
}

func rsaSign(content string) string {
	sum := sha256.Sum256([]byte(content))
	s, _ := rsa.SignPKCS1v15(rand.Reader, leafKey(), crypto.SHA256, sum[:])
	return base64.StdEncoding.EncodeToString(s)
}

// snsMessage signs a message as SNS does: the fields in the order of their names.
func snsMessage(fields map[string]string) (body []byte, signature string) {
	var content strings.Builder
	for _, name := range []string{"Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"} {
		if value, ok := fields[name]; ok {
			content.WriteString(name + "\n" + value + "\n")
		}
	}
	signature = rsaSign(content.String())
	all := map[string]string{"SignatureVersion": "2", "SigningCertURL": snsCertURL, "Signature": signature}
	for name, value := range fields {
		all[name] = value
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.Encode(all)
	return bytes.TrimSpace(b.Bytes()), signature
}

func snsSender() sender {
	around, _ := snsSurroundings()
	return sender{
		fixed: "the key is a certificate's", around: around, encoding: "base64", unit: "rfc3339",
		unsigned: "only the values of the fields are signed", covered: []string{"evt_1", "mid-1", snsTopic, "Notification"},
		settings: func([]string) Settings { return Settings{Options: map[string]string{"topics": snsTopic}} },
		send: func(m message) (*Request, string) {
			body, s := snsMessage(map[string]string{"Type": "Notification", "Message": string(m.body), "MessageId": "mid-1", "TopicArn": snsTopic, "Timestamp": m.time("rfc3339")})
			if len(m.body) == 0 {
				body = nil
			}
			r := post(body)
			r.Header.Set("Content-Type", "text/plain; charset=UTF-8")
			return r, s
		},
	}
}

func paypalSender() sender {
	around, _ := paypalSurroundings()
	return sender{
		fixed: "the key is a certificate's", around: around, encoding: "base64", unit: "rfc3339",
		settings: func([]string) Settings {
			return Settings{Options: map[string]string{"webhook_id": "4JH86294D6297924G"}}
		},
		needed: []string{"PAYPAL-TRANSMISSION-ID", "PAYPAL-TRANSMISSION-TIME", "PAYPAL-TRANSMISSION-SIG", "PAYPAL-CERT-URL", "PAYPAL-AUTH-ALGO"},
		signed: []string{"PAYPAL-TRANSMISSION-ID", "PAYPAL-TRANSMISSION-TIME"},
		send: func(m message) (*Request, string) {
			ts := m.time("rfc3339")
			s := rsaSign("tid-1|" + ts + "|4JH86294D6297924G|" + strconv.FormatUint(uint64(crc32.ChecksumIEEE(m.body)), 10))
			return post(m.body, "PAYPAL-TRANSMISSION-ID", "tid-1", "PAYPAL-TRANSMISSION-TIME", ts, "PAYPAL-TRANSMISSION-SIG", s,
				"PAYPAL-CERT-URL", paypalCertURL, "PAYPAL-AUTH-ALGO", "SHA256withRSA"), s
		},
	}
}
