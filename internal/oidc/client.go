package oidc

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/eventhose/eventhose/internal/egress"
)

// requestTime is how long one request to the provider may take.
const requestTime = 10 * time.Second

// newClient makes what the libraries speak HTTP with. It opens no connection of its own: its transport is egress's.
func newClient(p *egress.Policy, c *egress.Client) *http.Client {
	return &http.Client{Transport: transport{p, c}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// transport is an http.RoundTripper over egress. Answers are whole, and at most egress.MaxBody long.
type transport struct {
	policy *egress.Policy
	client *egress.Client
}

var errTooLong = errors.New("oidc: the identity provider's answer is too long")

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		body, err = io.ReadAll(io.LimitReader(r.Body, egress.MaxBody))
		r.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	u, err := t.policy.ParseURL("url", r.URL.String())
	if err != nil {
		return nil, err
	}
	target, err := egress.NewTarget(r.Method, u, r.Header)
	if err != nil {
		return nil, err
	}
	var a egress.Answer
	if err := t.client.Do(r.Context(), &egress.Request{Target: target, Body: body, Timeout: requestTime}, &a); err != nil {
		return nil, err
	}
	if len(a.Body) >= egress.MaxBody {
		return nil, errTooLong
	}
	if e := a.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, errors.New("oidc: the identity provider has compressed its answer, though nothing asked it to")
	}
	return &http.Response{
		Status: strconv.Itoa(a.Status) + " " + http.StatusText(a.Status), StatusCode: a.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.Header, Body: io.NopCloser(bytes.NewReader(a.Body)), ContentLength: int64(len(a.Body)), Request: r,
	}, nil
}
