package app

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/control"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/httpapi"
	"github.com/eventhose/eventhose/internal/oidc"
)

// OIDC is an identity provider, and whom it may vouch for.
type OIDC struct {
	Issuer, ClientID string
	ClientSecret     eventhose.Secret
	// Allow are e-mail addresses, @domain, or claim=value.
	Allow []string
}

// identityProvider is whom operators may sign in with, nil if there is none, and the rules that let them in.
func (a *App) identityProvider(secretKey []byte, policy *egress.Policy, client *egress.Client, once func(context.Context, string, time.Time) (bool, error)) (httpapi.OIDC, []string, error) {
	o := a.opts.OIDC
	if o.Issuer == "" {
		return nil, nil, nil
	}
	key, err := hkdf.Key(sha256.New, secretKey, nil, "eventhose: sign-ins with an identity provider", sha256.Size)
	if err != nil {
		return nil, nil, fmt.Errorf("derive the key of sign-ins: %w", err)
	}
	p, err := oidc.New(oidc.Options{Issuer: o.Issuer, ClientID: o.ClientID, ClientSecret: o.ClientSecret, Allow: o.Allow,
		Key: eventhose.Secret(key), Policy: policy, Client: client, Once: once})
	if err != nil {
		return nil, nil, err
	}
	return p, p.Rules(), nil
}

// usesInterval is how often it is written down when keys were used last.
const usesInterval = time.Minute

// noteUses begins to write down when keys were used last.
func (a *App) noteUses(ctl *control.Control) {
	noting, stop := context.WithCancel(context.Background())
	var crew sync.WaitGroup
	crew.Go(func() {
		ctl.RunUses(noting, usesInterval, func(err error) { a.logger.Warn("cannot note when API keys were used", "error", err) })
	})
	a.onStop("uses of keys", func(context.Context) error { stop(); crew.Wait(); return nil })
}
