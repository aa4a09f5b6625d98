package gateway

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
)

// Limits of fetching.
const (
	// fetchTimeout is for all that one request makes us fetch.
	fetchTimeout = 5 * time.Second
	// maxFetching is how many certificates that are not known one source fetches at once: a stranger's request is enough to start one.
	maxFetching = 2
	// maxCertificates is how many certificates one source keeps: a topic in each of Amazon's regions has one. maxRefused is how many URLs it
	// keeps that have none.
	maxCertificates = 64
	maxRefused      = 16
	maxCertificate  = 32 << 10
	// certificateAge is after how long one is looked for again, and refusedAge after how long one that was no good.
	certificateAge = 24 * time.Hour
	refusedAge     = time.Minute
)

// certificates are the keys that one source's provider signs with, by the URL of the certificate. Anybody can have a request name any
// certificate of the provider's, and any URL that could have one. So what has verified a request, which is nothing that a stranger can bring
// about, gives way to nothing that was only named, and waits for none of it. No lock is held while one is fetched.
type certificates struct {
	fetcher Fetcher
	// named reports whether a certificate is in the provider's name.
	named    func(*x509.Certificate) bool
	fetching chan struct{} // those that are not known

	mu      sync.Mutex
	good    map[string]*goodCertificate
	refused map[string]refusedCertificate
}

// goodCertificate is one that is the provider's. Only proved and looking change.
type goodCertificate struct {
	key     *rsa.PublicKey
	expires time.Time
	fresh   time.Time // until when it is not looked for again
	looking bool      // somebody does
	proved  bool      // it has verified a request
}

type refusedCertificate struct {
	rejection *Rejection
	until     time.Time
}

func newCertificates(c *configuration, named func(*x509.Certificate) bool) (*certificates, error) {
	if c.Fetcher == nil {
		return nil, eventhose.Errorf(eventhose.CodeInternal, "gateway: %s needs a Fetcher", c.provider.Name)
	}
	return &certificates{fetcher: c.Fetcher, named: named, fetching: make(chan struct{}, maxFetching), good: map[string]*goodCertificate{},
		refused: map[string]refusedCertificate{}}, nil
}

// key answers the key of the certificate at a URL that the caller has found to be the provider's. The caller says so to proved
// if it is the right one.
func (c *certificates) key(ctx context.Context, url string, now time.Time) (*rsa.PublicKey, *Rejection) {
	c.mu.Lock()
	good, refused := c.good[url], c.refused[url]
	known := good != nil && now.Before(good.expires)
	look := !known || !good.looking && !now.Before(good.fresh)
	if known && look {
		good.looking = true
	}
	c.mu.Unlock()
	switch {
	case !look:
		return good.key, nil
	case known:
		return c.again(ctx, url, good, now)
	case now.Before(refused.until):
		return nil, refused.rejection
	}
	select {
	case c.fetching <- struct{}{}:
		defer func() { <-c.fetching }()
	default:
		return nil, reject(ReasonUnavailable, "too many certificates are being fetched")
	}
	found, rejection := c.fetch(ctx, url, now)
	return c.keep(url, found, rejection, now)
}

// again looks whether a certificate that is known is still there, while it goes on being used. That the provider cannot be
// reached takes nothing from it.
func (c *certificates) again(ctx context.Context, url string, good *goodCertificate, now time.Time) (*rsa.PublicKey, *Rejection) {
	found, rejection := c.fetch(ctx, url, now)
	if rejection != nil && rejection.Reason == ReasonUnavailable {
		found, rejection = &goodCertificate{key: good.key, expires: good.expires, fresh: now.Add(refusedAge)}, nil
	}
	return c.keep(url, found, rejection, now)
}

func (c *certificates) fetch(ctx context.Context, url string, now time.Time) (*goodCertificate, *Rejection) {
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
	if err != nil {
		return nil, reject(ReasonCertificate, "the certificate at %s: %s", quoted(url), err)
	}
	return &goodCertificate{key: certificate.PublicKey.(*rsa.PublicKey), expires: certificate.NotAfter, fresh: now.Add(certificateAge)}, nil
}

// keep puts what was found at a URL in the place of what was known of it, and answers it.
func (c *certificates) keep(url string, found *goodCertificate, rejection *Rejection, now time.Time) (*rsa.PublicKey, *Rejection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if rejection != nil && rejection.Reason == ReasonUnavailable {
		return nil, rejection
	}
	had := c.good[url]
	delete(c.good, url)
	if rejection != nil {
		for other := range c.refused { // any one: it is only looked for again
			if len(c.refused) < maxRefused {
				break
			}
			delete(c.refused, other)
		}
		c.refused[url] = refusedCertificate{rejection, now.Add(refusedAge)}
		return nil, rejection
	}
	delete(c.refused, url)
	found.proved = had != nil && had.proved
	if c.room(now) {
		c.good[url] = found
	}
	return found.key, nil
}

// room makes room for a certificate, and reports whether there is some: those give way that have expired, then those that were
// only named, then those that nobody has asked for in a day.
func (c *certificates) room(now time.Time) bool {
	for _, gives := range []func(*goodCertificate) bool{
		func(g *goodCertificate) bool { return !now.Before(g.expires) },
		func(g *goodCertificate) bool { return !g.proved },
		func(g *goodCertificate) bool { return !now.Before(g.fresh) },
	} {
		for url, g := range c.good {
			if len(c.good) < maxCertificates {
				return true
			}
			if gives(g) {
				delete(c.good, url)
			}
		}
	}
	return len(c.good) < maxCertificates
}

// proved is told that the key of the certificate at a URL has verified a request.
func (c *certificates) proved(url string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if good := c.good[url]; good != nil {
		good.proved = true
	}
}

var (
	errStatus      = errors.New("it is not there")
	errPEM         = errors.New("it is no certificate in PEM")
	errRSA         = errors.New("its key is not RSA of 2048 bits or more")
	errCertName    = errors.New("it is not in the provider's name")
	errCertInvalid = errors.New("it is not in force")
)

// read answers the first certificate of a PEM file, with an RSA key, in the provider's name and in force. Who has issued it is not asked: the files
// of Amazon and PayPal hold this one certificate, whose issuer is in no system's store. It is believed since it comes from the provider's own
// host, over TLS that was verified.
func (c *certificates) read(status int, body []byte, now time.Time) (*x509.Certificate, error) {
	switch {
	case status != http.StatusOK:
		return nil, errStatus
	case len(body) > maxCertificate:
		return nil, errPEM
	}
	block, _ := pem.Decode(body)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errPEM
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, errPEM
	}
	if k, ok := certificate.PublicKey.(*rsa.PublicKey); !ok || k.Size() < 256 {
		return nil, errRSA
	}
	if !c.named(certificate) {
		return nil, errCertName
	}
	if now.Before(certificate.NotBefore) || now.After(certificate.NotAfter) {
		return nil, errCertInvalid
	}
	return certificate, nil
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

// certificateURL is the pattern of the URLs at which a provider has its certificates, whole: on its own hosts and nowhere else, and
// with one spelling for each. What connects judges the address again.
func certificateURL(host, path string) *regexp.Regexp {
	return regexp.MustCompile("^https://" + host + path + "$")
}
