package client

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
)

// Trust has a client that New made by itself trust a test's server, and changes nothing else of it.
func (c *Client) Trust(roots *x509.CertPool) {
	t := c.http.Transport.(*http.Transport)
	t.TLSClientConfig, t.ForceAttemptHTTP2 = &tls.Config{RootCAs: roots}, true // which is what it does without a configuration
}
