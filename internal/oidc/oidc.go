// Package oidc signs operators in with an identity provider (OpenID Connect Core 1.0): the authorization code flow with PKCE
// (RFC 7636), a state and a nonce.
//
// Nothing is kept here between the two halves of a sign-in. What the second half needs (state, nonce, the verifier, where the browser wants
// to be) the browser keeps in a cookie that only this server can read or write, for ten minutes; that it is used once is
// written down where all nodes see it. Whom the provider vouches for may come in if the operator has listed him: by an e-mail address that the
// provider has verified, by the domain of one, or by any other claim.
package oidc

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/egress"
)

const (
	// signInTime is how long a browser has between the two halves.
	signInTime = 10 * time.Minute
	// exchangeTime is how long one half may wait for the provider.
	exchangeTime = 20 * time.Second
	// maxKept bounds what a browser brings back, in bytes.
	maxKept = 4096
	// maxSubject bounds what a person is called, in bytes.
	maxSubject = 256
)

// Options of a Provider. All but ClientSecret are required.
type Options struct {
	// Issuer is the provider's URL, as its tokens name it.
	Issuer       string
	ClientID     string
	ClientSecret eventhose.Secret
	// Allow are who may come in: "ana@example.com", "@example.com", or "claim=value", where the claim is a text or a list that
	// holds it.
	Allow []string
	// Key, 32 bytes, seals what browsers keep. Nodes that share it finish each other's sign-ins.
	Key eventhose.Secret
	// Policy and Client are how the provider is reached.
	Policy *egress.Policy
	Client *egress.Client
	// Once answers whether it is asked an id for the first time, until a time, at any node.
	Once func(ctx context.Context, id string, until time.Time) (bool, error)
}

// Provider is safe for concurrent use. It starts nothing that outlives its calls, and needs no closing.
type Provider struct {
	o      Options
	allow  []rule
	name   string
	http   context.Context // the way out, as the libraries look for it
	sealed cipher.AEAD
	found  atomic.Pointer[discovered]
}

// discovered is what the provider says of itself.
type discovered struct {
	config   oauth2.Config
	verifier *gooidc.IDTokenVerifier
}

// New checks the options; it asks nothing of the provider yet, so that a server starts without it. CodeInvalid, with the flag as its field.
func New(o Options) (*Provider, error) {
	u, err := o.Policy.ParseURL("--oidc-issuer", o.Issuer)
	if err != nil {
		return nil, err
	}
	p := &Provider{o: o, name: u.Hostname(), http: gooidc.ClientContext(context.Background(), newClient(o.Policy, o.Client))}
	if o.ClientID == "" {
		return nil, eventhose.Invalid("--oidc-client-id", "is required with --oidc-issuer")
	}
	if p.allow, err = parseRules(o.Allow); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher([]byte(o.Key))
	if err == nil {
		p.sealed, err = cipher.NewGCMWithRandomNonce(block)
	}
	if err != nil {
		return nil, fmt.Errorf("make the cipher of sign-ins: %w", err)
	}
	return p, nil
}

// Rules are those that Finish answers: who was let in by one that is no more among them is in no more.
func (p *Provider) Rules() []string {
	rules := make([]string, len(p.allow))
	for i, r := range p.allow {
		rules[i] = p.ruleName(r)
	}
	return rules
}

func (p *Provider) ruleName(r rule) string { return p.o.Issuer + " " + p.o.ClientID + " " + r.text }

// Name is the provider's host.
func (p *Provider) Name() string { return p.name }

// keptState is what a browser keeps between the two halves.
type keptState struct {
	State    string    `json:"s"`
	Nonce    string    `json:"n"`
	Verifier string    `json:"v"`
	Callback string    `json:"c"`
	Back     string    `json:"b"`
	Expires  time.Time `json:"e"`
}

// sealedAs binds what is sealed to what it is for.
var sealedAs = []byte("eventhose: a sign-in with OIDC")

// Begin answers where a browser is to go, and what it is to keep until it comes back to callback. back is answered by Finish.
// CodeUnavailable if the provider cannot be asked what it wants.
func (p *Provider) Begin(ctx context.Context, callback, back string) (address string, kept eventhose.Secret, err error) {
	d, err := p.discover(ctx)
	if err != nil {
		return "", "", err
	}
	k := keptState{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Callback: callback, Back: back, Expires: time.Now().Add(signInTime)}
	text, err := json.Marshal(k)
	if err != nil {
		return "", "", fmt.Errorf("write a sign-in: %w", err)
	}
	kept = eventhose.Secret(base64.RawURLEncoding.EncodeToString(p.sealed.Seal(nil, nil, text, sealedAs)))
	if len(kept) > maxKept {
		return "", "", eventhose.Invalid("return", "is too long")
	}
	return d.config.AuthCodeURL(k.State, gooidc.Nonce(k.Nonce), oauth2.S256ChallengeOption(k.Verifier), oauth2.SetAuthURLParam("redirect_uri", callback)), kept, nil
}

// Finish judges what a browser has come back with, and what it has kept; of both it may come once. It answers who it is, the rule that lets him in, and
// what Begin was given as back. CodeUnauthenticated if anything about it is wrong, CodeForbidden if nobody lets him in, CodeUnavailable.
func (p *Provider) Finish(ctx context.Context, kept eventhose.Secret, query url.Values) (subject, by, back string, err error) {
	k, err := p.open(kept)
	if err != nil {
		return "", "", "", err
	}
	if subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(k.State)) != 1 {
		return "", "", "", refused("the state is not that of this sign-in", nil)
	}
	if first, err := p.o.Once(ctx, "oidc "+k.State, k.Expires); err != nil {
		return "", "", "", err
	} else if !first {
		return "", "", "", refused("this sign-in was finished before", nil)
	}
	if query.Get("error") != "" || query.Get("code") == "" {
		return "", "", "", refused("the identity provider has not let you in", nil)
	}
	d, err := p.discover(ctx)
	if err != nil {
		return "", "", "", err
	}
	token, err := p.exchange(ctx, d, k, query.Get("code"))
	if err != nil {
		return "", "", "", err
	}
	var claims map[string]any
	if err := token.Claims(&claims); err != nil {
		return "", "", "", refused("the identity provider's token cannot be read", err)
	}
	r, ok := admits(p.allow, claims)
	if !ok {
		return "", "", "", &eventhose.Error{Code: eventhose.CodeForbidden, Message: "you are not among those whom the operator lets in", Fix: "ask the operator to list you with --oidc-allow"}
	}
	return called(token.Subject, claims), p.ruleName(r), k.Back, nil
}

// exchange turns a code into a token that is verified: its signature, issuer, audience, time and nonce.
func (p *Provider) exchange(ctx context.Context, d *discovered, k keptState, code string) (*gooidc.IDToken, error) {
	ctx, cancel := p.outgoing(ctx)
	defer cancel()
	answer, err := d.config.Exchange(ctx, code, oauth2.VerifierOption(k.Verifier), oauth2.SetAuthURLParam("redirect_uri", k.Callback))
	var said *oauth2.RetrieveError
	switch {
	case errors.As(err, &said) && said.Response != nil: // its whole answer may hold secrets
		cause := fmt.Errorf("the token endpoint answers %d %s", said.Response.StatusCode, said.ErrorCode)
		if said.Response.StatusCode < 500 {
			return nil, refused("the identity provider does not take the code", cause)
		}
		return nil, unavailable(cause)
	case err != nil:
		return nil, unavailable(err)
	}
	raw, ok := answer.Extra("id_token").(string)
	if !ok {
		return nil, refused("the identity provider has sent no token", nil)
	}
	token, err := d.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, refused("the identity provider's token is not good", err)
	}
	if subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(k.Nonce)) != 1 {
		return nil, refused("the identity provider's token is not of this sign-in", nil)
	}
	return token, nil
}

// open reads what a browser has kept.
func (p *Provider) open(kept eventhose.Secret) (k keptState, err error) {
	wrong := refused("this browser has not begun to sign in here, or more than ten minutes ago", nil)
	if kept == "" || len(kept) > maxKept {
		return k, wrong
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(string(kept))
	if err != nil {
		return k, wrong
	}
	text, err := p.sealed.Open(nil, nil, sealed, sealedAs)
	if err != nil || json.Unmarshal(text, &k) != nil || !time.Now().Before(k.Expires) {
		return k, wrong
	}
	return k, nil
}

// discover answers what the provider says of itself, which it is asked once it is needed, and no more when it has answered.
func (p *Provider) discover(ctx context.Context) (*discovered, error) {
	if d := p.found.Load(); d != nil {
		return d, nil
	}
	ctx, cancel := p.outgoing(ctx)
	defer cancel()
	provider, err := gooidc.NewProvider(ctx, p.o.Issuer)
	if err != nil {
		return nil, unavailable(err)
	}
	d := &discovered{
		config:   oauth2.Config{ClientID: p.o.ClientID, ClientSecret: string(p.o.ClientSecret), Endpoint: provider.Endpoint(), Scopes: p.scopes()},
		verifier: provider.VerifierContext(p.http, &gooidc.Config{ClientID: p.o.ClientID}),
	}
	p.found.Store(d)
	return d, nil
}

// scopes are those that the rules need.
func (p *Provider) scopes() []string {
	scopes := []string{gooidc.ScopeOpenID, "email", "profile"}
	if slices.ContainsFunc(p.allow, func(r rule) bool { return r.claim == "groups" }) {
		scopes = append(scopes, "groups")
	}
	return scopes
}

// outgoing is ctx with the guarded way out, and a deadline.
func (p *Provider) outgoing(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTime)
	return context.WithValue(ctx, oauth2.HTTPClient, p.http.Value(oauth2.HTTPClient)), cancel
}

func refused(what string, cause error) error {
	return &eventhose.Error{Code: eventhose.CodeUnauthenticated, Message: what, Fix: "begin again with /v1/sessions/oidc", Err: cause}
}

func unavailable(cause error) error {
	return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "the identity provider cannot be asked now", RetryAfter: 5 * time.Second, Err: cause}
}

// called is what a person is called in lists: the verified e-mail address, else what the provider calls him.
func called(subject string, claims map[string]any) string {
	if email, ok := verifiedEmail(claims); ok {
		subject = email
	}
	if len(subject) > maxSubject {
		subject = subject[:maxSubject]
	}
	return strings.ToValidUTF8(subject, "")
}
