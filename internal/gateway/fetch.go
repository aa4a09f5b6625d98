package gateway

import (
	"bytes"
	"context"
	"errors"
	"net/http"

	"github.com/eventhose/eventhose/internal/egress"
)

// egressFetcher is the Fetcher of a server.
type egressFetcher struct {
	policy *egress.Policy
	client *egress.Client
}

// NewFetcher makes a Fetcher that goes out through a policy and a client of it, which remain the caller's.
func NewFetcher(p *egress.Policy, c *egress.Client) Fetcher { return &egressFetcher{p, c} }

// errWhole: the answer is longer than egress reads, or broke off.
var errWhole = errors.New("gateway: the answer is not whole")

func (f *egressFetcher) Fetch(ctx context.Context, method, url string, header http.Header, body []byte) (int, []byte, error) {
	u, err := f.policy.ParseURL("url", url)
	if err != nil {
		return 0, nil, err
	}
	if u.Scheme != "https" {
		return 0, nil, errors.New("gateway: the URL must begin with https://")
	}
	target, err := egress.NewTarget(method, u, header)
	if err != nil {
		return 0, nil, err
	}
	var a egress.Answer
	if err := f.client.Do(ctx, &egress.Request{Target: target, Body: body, Timeout: fetchTimeout}, &a); err != nil {
		return a.Status, nil, err
	}
	if len(a.Body) >= egress.MaxBody {
		return a.Status, nil, errWhole
	}
	return a.Status, bytes.Clone(a.Body), nil
}
