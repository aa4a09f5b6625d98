package gateway

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
)

// Limits of fetching.
const (
	// fetchTimeout is for all that one request makes us fetch.
	fetchTimeout = 5 * time.Second
	// maxFetching is how many certificates one source fetches at once: a stranger's request is enough to start one.
	maxFetching = 2
	// maxCertificates is how many certificates one source keeps.
	maxCertificates = 16
	maxCertificate  = 32 << 10
	// certificateAge is how long one is kept before it is fetched again, and refusedAge how long one that was no good is not.
	certificateAge = 24 * time.Hour
	refusedAge     = time.Minute
)

// certificates are the keys that one source's provider signs with, by the URL of the certificate. No lock is held while
// one is fetched.
type certificates struct {
	fetcher Fetcher
	roots   *x509.CertPool
	// named reports whether a certificate is in the provider's name.
	named    func(*x509.Certificate) bool
	fetching chan struct{}

	mu    sync.Mutex
	known map[string]knownCertificate
}

type knownCertificate struct {
	key       *rsa.PublicKey
	rejection *Rejection // in place of a key
	until     time.Time
}

func newCertificates(c *configuration, named func(*x509.Certificate) bool) (*certificates, error) {
	if c.Fetcher == nil {
		return nil, eventhose.Errorf(eventhose.CodeInternal, "gateway: %s needs a Fetcher", c.provider.Name)
	}
	return &certificates{fetcher: c.Fetcher, roots: c.Roots, named: named, fetching: make(chan struct{}, maxFetching), known: map[string]knownCertificate{}}, nil
}

// key answers the key of the certificate at a URL that the caller has found to be the provider's.
func (c *certificates) key(ctx context.Context, url string, now time.Time) (*rsa.PublicKey, *Rejection) {
	c.mu.Lock()
	known, ok := c.known[url]
	c.mu.Unlock()
	if ok && now.Before(known.until) {
		return known.key, known.rejection
	}
	select {
	case c.fetching <- struct{}{}:
		defer func() { <-c.fetching }()
	default:
		return nil, reject(ReasonUnavailable, "too many certificates are being fetched")
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	status, body, err := c.fetcher.Fetch(ctx, http.MethodGet, url, nil, nil)
	if err != nil {
		return nil, reject(ReasonUnavailable, "the certificate at %s cannot be fetched", quoted(url))
	}
	if status >= 500 || status == http.StatusTooManyRequests {
		return nil, reject(ReasonUnavailable, "the certificate at %s cannot be fetched: status %d", quoted(url), status)
	}
	certificate, err := c.read(status, body, now)
	known = knownCertificate{until: now.Add(refusedAge)}
	if err != nil {
		known.rejection = reject(ReasonCertificate, "the certificate at %s: %s", quoted(url), err)
	} else {
		known.key, known.until = certificate.PublicKey.(*rsa.PublicKey), now.Add(certificateAge)
		if certificate.NotAfter.Before(known.until) {
			known.until = certificate.NotAfter
		}
	}
	c.keep(url, known, now)
	return known.key, known.rejection
}

func (c *certificates) keep(url string, known knownCertificate, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for other, old := range c.known {
		if !now.Before(old.until) {
			delete(c.known, other)
		}
	}
	for other := range c.known { // any one: there are few, and it is fetched again if it is needed
		if len(c.known) < maxCertificates {
			break
		}
		delete(c.known, other)
	}
	c.known[url] = known
}

var (
	errStatus      = errors.New("it is not there")
	errPEM         = errors.New("it is no certificate in PEM")
	errRSA         = errors.New("its key is not RSA of 2048 bits or more")
	errCertName    = errors.New("it is not in the provider's name")
	errCertInvalid = errors.New("no known authority vouches for it now")
)

// read answers the first certificate of a PEM file, with an RSA key and in the provider's name, that an authority vouches
// for through the others.
func (c *certificates) read(status int, body []byte, now time.Time) (*x509.Certificate, error) {
	switch {
	case status != http.StatusOK:
		return nil, errStatus
	case len(body) > maxCertificate:
		return nil, errPEM
	}
	var leaf *x509.Certificate
	between := x509.NewCertPool()
	for block, rest := pem.Decode(body); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			return nil, errPEM
		}
		if leaf == nil {
			leaf = certificate
		} else {
			between.AddCert(certificate)
		}
	}
	if leaf == nil {
		return nil, errPEM
	}
	if k, ok := leaf.PublicKey.(*rsa.PublicKey); !ok || k.Size() < 256 {
		return nil, errRSA
	}
	if !c.named(leaf) {
		return nil, errCertName
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: c.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return nil, errCertInvalid
	}
	return leaf, nil
}

// certifiedFor reports whether a certificate is for a name that matches.
func certifiedFor(certificate *x509.Certificate, name func(string) bool) bool {
	if len(certificate.DNSNames) == 0 {
		return name(certificate.Subject.CommonName)
	}
	for _, n := range certificate.DNSNames {
		if name(n) {
			return true
		}
	}
	return false
}

// providerURL reports whether a URL that came in a request is https, on a host that matches, at its usual port, with
// nothing in it that is not needed. What connects judges the address again.
func providerURL(raw string, host *regexp.Regexp, path *regexp.Regexp) bool {
	u, err := url.Parse(raw)
	return err == nil && len(raw) <= maxURL && u.Scheme == "https" && u.User == nil && u.Opaque == "" && u.Fragment == "" && !strings.Contains(raw, "#") &&
		host.MatchString(u.Host) && path.MatchString(u.EscapedPath())
}
