package egress

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"time"

	"github.com/eventhose/eventhose"
)

// Limits of every HTTP exchange, beside the deadline of its context.
const (
	tlsTimeout = 5 * time.Second
	// headerTimeout is the longest time-out that a subscription may ask for: its own is the context's deadline.
	headerTimeout = time.Duration(eventhose.MaxTimeout)
	// maxHeaderBytes is for all headers of an answer, those of 1xx answers included.
	maxHeaderBytes  = 64 << 10
	maxConnsPerHost = 256
	maxIdleConns    = 1024
	maxIdlePerHost  = 64
	// idleTimeout is below the 5 s after which common servers close: a request that meets a closing connection has failed,
	// and is a failed attempt.
	idleTimeout       = 4 * time.Second
	requestBufferSize = 8 << 10
)

// ClientOptions make a Client. The zero value is good.
type ClientOptions struct {
	// RootCAs are the authorities that certificates are verified with; nil is the system's.
	RootCAs *x509.CertPool
}

// Client speaks HTTP over its policy's dialer: https to whatever the policy allows, http only to the operator's
// networks. It follows no redirect, asks no proxy of the environment (that would decide about names in our place), keeps no
// cookies, decompresses nothing, and retries nothing but a kept connection that was closed before a byte was sent.
//
// It speaks HTTP/1.1 only. HTTP/2 would put the requests of all tenants to one host on one connection, whose flow control
// and resets belong to the receiver, and on one request at a time per connection it is slower.
type Client struct {
	https, http *http.Transport
}

// NewClient makes a Client. Its connections are its own: a connection that was opened under one policy is never used
// under another. Close it when done.
func NewClient(p *Policy, o ClientOptions) *Client {
	transport := func(d *Dialer) *http.Transport {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(true)
		return &http.Transport{
			Proxy:                  nil,
			DialContext:            d.DialContext,
			Protocols:              protocols,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
			TLSHandshakeTimeout:    tlsTimeout,
			ResponseHeaderTimeout:  headerTimeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
			DisableCompression:     true,
			MaxConnsPerHost:        maxConnsPerHost,
			MaxIdleConns:           maxIdleConns,
			MaxIdleConnsPerHost:    maxIdlePerHost,
			IdleConnTimeout:        idleTimeout,
			WriteBufferSize:        requestBufferSize,
		}
	}
	return &Client{https: transport(p.Dialer()), http: transport(p.ListedDialer())}
}

// Do sends a request and answers what came back, as http.RoundTripper does: any status is no error, and the caller closes
// the body. The request's context must have a deadline. Errors never hold the URL; those of the guard wrap ErrBlocked.
func (c *Client) Do(r *http.Request) (*http.Response, error) {
	if _, ok := r.Context().Deadline(); !ok {
		return nil, errors.New("egress: a request without a deadline")
	}
	if r.URL.Scheme == "https" {
		return c.https.RoundTrip(r)
	}
	return c.http.RoundTrip(r)
}

// Close closes the connections that are kept. Requests under way go on.
func (c *Client) Close() {
	c.https.CloseIdleConnections()
	c.http.CloseIdleConnections()
}
