package gateway

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Provider is a company, or a convention, whose webhooks can be verified.
type Provider struct {
	// Name is what sources call it: "stripe".
	Name string
	// Title is its name as it writes it.
	Title string
	// Doc says in one line how it signs.
	Doc string
	// Source is the URL of the document, or the code, that says so.
	Source string
	// Checked says which code it was held against, beside that document and the vectors of our tests; "" if none.
	Checked string
	// Needs are the settings that it uses. PublicURL may be given to any.
	Needs []Need
	// Repeats says what tells a repeat from another event, where its naming does not; "" if that does.
	Repeats string
	// Tolerance is how far the signed time may be off if the source does not say; 0 if no time is checked then.
	Tolerance time.Duration

	// timed says that a time is signed though it is not checked unless the source asks for it.
	timed bool
	// chosen says that people make up the secret.
	chosen bool
	naming Naming
	open   func(c *configuration) (scheme, error)
}

// Need is a setting that a provider uses.
type Need struct {
	// Field is its name: "secrets", "public_keys", "public_url", "verify_token", "scheme", "options.NAME".
	Field    string
	Required bool
	// Doc says what it is, and where the provider shows it.
	Doc string
}

// defaultTolerance is that of providers that say none.
const defaultTolerance = 5 * time.Minute

var (
	needSecrets   = Need{fieldSecrets, true, "the signing secret, or several during a rotation"}
	needPublicURL = Need{fieldPublicURL, true, "the URL as the provider was given it, which is part of what is signed"}
)

// Providers lists every provider, by name.
func Providers() []Provider {
	all := append(rows(),
		adyen(), adyenPlatform(), bitbucket(), clerk(), cloudEvents(), discord(), docusign(), fedex(), fedexSupplyChain(), generic(), github(), gitlab(),
		hubspot(), inspect(), intercom(), linear(), mailgun(), mandrill(), meta(), okta(), openAI(), paddle(), paypal(),
		postmark(), razorpay(), resend(), sendgrid(), shopify(), slack(), sns(), sparkpost(), square(), standard(), stripe(),
		svix(), twilio(), whatsapp(), x(), xero(), zendesk(), zoom(),
	)
	slices.SortFunc(all, func(a, b Provider) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Find answers the provider of a name.
func Find(name string) (Provider, bool) {
	for _, p := range Providers() {
		if p.Name == name {
			return p, true
		}
	}
	return Provider{}, false
}

// signed is a provider with an HMAC in a header.
func signed(p Provider, s Scheme) Provider {
	if len(p.Needs) == 0 {
		p.Needs = []Need{needSecrets}
	}
	if strings.Contains(s.Content, partURL) {
		p.Needs = append(p.Needs, needPublicURL)
	}
	p.timed = s.timed()
	if p.Doc == "" {
		p.Doc = s.doc()
	}
	p.open = func(c *configuration) (scheme, error) {
		sc, err := s.open(c, p.Tolerance)
		sc.probe = challenge(s.Challenge)
		return sc, err
	}
	return p
}

// extended adds to the scheme that a provider's open makes.
func (p Provider) extended(extend func(c *configuration, s *scheme) error) Provider {
	open := p.open
	p.open = func(c *configuration) (scheme, error) {
		s, err := open(c)
		if err == nil {
			err = extend(c, &s)
		}
		return s, err
	}
	return p
}

// doc says in a line how a scheme signs.
func (s *Scheme) doc() string {
	content, hash, encoding := s.Content, s.Hash, s.Encoding
	if content == "" {
		content = partBody
	}
	if hash == "" {
		hash = SHA256
	}
	if encoding == "" {
		encoding = Hex
	}
	return s.Header + ": " + s.Prefix + string(encoding) + " of HMAC-" + strings.ToUpper(string(hash)) + " over " + content
}

// probed answers HEAD, by which some providers see that an address is there.
func probed(_ *configuration, s *scheme) error {
	s.probe = func(_ context.Context, r *Request, _ *Verifier) Verdict {
		if r.Method != http.MethodHead {
			return rejected(reject(ReasonMethod, "the method is %s, and webhooks of this provider are POST", quoted(r.Method)))
		}
		return handshake(Answer{Status: http.StatusOK})
	}
	return nil
}
