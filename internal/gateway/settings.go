package gateway

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/eventhose/eventhose"
)

// Limits of a source's settings.
const (
	// MaxSecrets is how many secrets, and how many public keys, one source may have: the one, and those of a rotation.
	MaxSecrets   = 10
	maxSecret    = 4096
	maxOption    = 2048
	maxOptions   = 32
	maxURL       = 2048
	MinTolerance = time.Second
	MaxTolerance = 7 * 24 * time.Hour
)

// Settings are what a source knows of its provider. Provider.Needs says which of them a provider uses; others are refused.
type Settings struct {
	// Secrets are shared with the provider. A request is taken if any of them verifies it.
	Secrets []eventhose.Secret `json:"secrets,omitempty"`
	// PublicKeys are the provider's, for schemes in which it signs with a private one.
	PublicKeys []string `json:"public_keys,omitempty"`
	// VerifyToken is what the provider shows when it tries the address.
	VerifyToken eventhose.Secret `json:"verify_token,omitempty"`
	// PublicURL is the URL that the provider was given, which some sign. Its query is not used: a request has its own.
	PublicURL string `json:"public_url,omitempty"`
	// Tolerance is how far a signed time may be from ours, before or after; 0 is the provider's usual one.
	Tolerance eventhose.Duration `json:"tolerance,omitempty"`
	// Options are particular to a provider, and no secrets.
	Options map[string]string `json:"options,omitempty"`
	// TypePrefix begins the types of the source's events; "" is the provider's name.
	TypePrefix string `json:"type_prefix,omitempty"`
	// Scheme is how requests are signed, for the provider "generic".
	Scheme *Scheme `json:"scheme,omitempty"`
	// Naming is where the events' names stand, in place of what the provider has.
	Naming *Naming `json:"naming,omitempty"`
}

// The names of settings, as Need has them and errors name them.
const (
	fieldSecrets     = "secrets"
	fieldPublicKeys  = "public_keys"
	fieldVerifyToken = "verify_token"
	fieldPublicURL   = "public_url"
	fieldTolerance   = "tolerance"
	fieldScheme      = "scheme"
	optionPrefix     = "options."
)

// configuration is a source's settings while its verifier is made.
type configuration struct {
	Settings
	Surroundings
	provider *Provider
	shown    shownPlaces
}

// validate checks what all providers have in common.
func (c *configuration) validate() error {
	p := c.provider
	given := map[string]bool{
		fieldSecrets:     len(c.Secrets) > 0,
		fieldPublicKeys:  len(c.PublicKeys) > 0,
		fieldVerifyToken: c.VerifyToken != "",
		fieldPublicURL:   c.PublicURL != "",
		fieldTolerance:   c.Tolerance != 0,
		fieldScheme:      c.Scheme != nil,
	}
	if len(c.Options) > maxOptions {
		return eventhose.Invalid("options", "must be at most %d", maxOptions)
	}
	for name, value := range c.Options {
		given[optionPrefix+name] = true
		if value == "" || len(value) > maxOption || !printable(value) {
			return eventhose.Invalid(optionPrefix+name, "must be 1 to %d bytes of printable UTF-8", maxOption)
		}
	}
	used := map[string]bool{fieldTolerance: p.Tolerance > 0 || p.timed || c.Scheme != nil, fieldPublicURL: true}
	for _, need := range p.Needs {
		used[need.Field] = true
		if need.Required && !given[need.Field] {
			return eventhose.Invalid(need.Field, "is required: %s", need.Doc)
		}
	}
	for _, field := range slices.Sorted(maps.Keys(given)) {
		if given[field] && !used[field] {
			return eventhose.Invalid(field, "is not used by %s", p.Name)
		}
	}
	if err := c.validateKeys(); err != nil {
		return err
	}
	if t := time.Duration(c.Tolerance); t != 0 && (t < MinTolerance || t > MaxTolerance) {
		return eventhose.Invalid(fieldTolerance, "must be %s to %s", MinTolerance, MaxTolerance)
	}
	if c.TypePrefix != "" && (!eventhose.ValidType(c.TypePrefix) || len(c.TypePrefix) > maxPrefix || strings.HasPrefix(c.TypePrefix+".", eventhose.SystemPrefix)) {
		return eventhose.Invalid("type_prefix", "must be parts of letters, digits, _ - / : joined by full stops, at most %d bytes, and not begin with %s", maxPrefix, eventhose.SystemPrefix)
	}
	return c.validateURL()
}

func (c *configuration) validateKeys() error {
	if len(c.Secrets) > MaxSecrets {
		return eventhose.Invalid(fieldSecrets, "must be at most %d", MaxSecrets)
	}
	for i, s := range c.Secrets {
		if err := checkSecret(element(fieldSecrets, i), string(s), c.provider.chosen); err != nil {
			return err
		}
	}
	if c.VerifyToken != "" {
		if err := checkSecret(fieldVerifyToken, string(c.VerifyToken), true); err != nil {
			return err
		}
	}
	if len(c.PublicKeys) > MaxSecrets {
		return eventhose.Invalid(fieldPublicKeys, "must be at most %d", MaxSecrets)
	}
	for i, k := range c.PublicKeys {
		if strings.TrimSpace(k) == "" || len(k) > maxSecret {
			return eventhose.Invalid(element(fieldPublicKeys, i), "must be 1 to %d bytes", maxSecret)
		}
	}
	return nil
}

// minChosen is the shortest secret that people may make up. What a provider issues is as long as the provider makes it.
const minChosen = 8

func checkSecret(field, s string, chosen bool) error {
	switch {
	case strings.TrimSpace(s) == "":
		return eventhose.Invalid(field, "is empty")
	case s == eventhose.Secret(s).String():
		return eventhose.Invalid(field, "is a redacted secret, not a secret")
	case strings.TrimSpace(s) != s:
		return eventhose.Invalid(field, "begins or ends with white space")
	case len(s) > maxSecret:
		return eventhose.Invalid(field, "must be at most %d bytes", maxSecret)
	case !printable(s):
		return eventhose.Invalid(field, "must be printable UTF-8")
	case chosen && len(s) < minChosen:
		return eventhose.Invalid(field, "must be at least %d bytes, so that it cannot be guessed", minChosen)
	}
	return nil
}

func (c *configuration) validateURL() error {
	if c.PublicURL == "" {
		return nil
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || len(c.PublicURL) > maxURL || u.Host == "" || u.Opaque != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return eventhose.Invalid(fieldPublicURL, "must be an absolute URL, as the provider was given it, without a fragment")
	}
	return nil
}

// signedURL is the URL that the provider sent a request to.
func (c *configuration) signedURL(r *Request) string {
	base, _, _ := strings.Cut(c.PublicURL, "?")
	if r.Query == "" {
		return base
	}
	return base + "?" + r.Query
}

// tolerance is the source's, or else the usual one; 0 if the time is not checked.
func (c *configuration) tolerance(usual time.Duration) time.Duration {
	if c.Tolerance != 0 {
		return time.Duration(c.Tolerance)
	}
	return usual
}

// option answers an option, or what stands for it if it is not given.
func (c *configuration) option(name, usual string) string {
	if value, ok := c.Options[name]; ok {
		return value
	}
	return usual
}

// flag answers an option that is true or false.
func (c *configuration) flag(name string) (bool, error) {
	switch c.option(name, "false") {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, eventhose.Invalid(optionPrefix+name, "must be true or false")
}

// list answers an option that is a list separated by commas.
func (c *configuration) list(name string) (values []string) {
	for value := range strings.SplitSeq(c.Options[name], ",") {
		if value = strings.TrimSpace(value); value != "" {
			values = append(values, value)
		}
	}
	return values
}

func element(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }

func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}

// SettingsOf are the settings of a source.
func SettingsOf(s *eventhose.Source) Settings {
	settings := Settings{Secrets: s.Secrets, PublicKeys: s.PublicKeys, VerifyToken: s.VerifyToken, PublicURL: s.PublicURL, Tolerance: s.Tolerance,
		Options: s.Options, TypePrefix: s.TypePrefix, Naming: (*Naming)(s.Naming)}
	if c := s.Scheme; c != nil {
		settings.Scheme = &Scheme{Header: c.Header, Prefix: c.Prefix, Separator: c.Separator, SignatureName: c.SignatureName, TimestampName: c.TimestampName,
			Content: c.Content, Hash: Hash(c.Hash), Encoding: Encoding(c.Encoding), Key: Encoding(c.Key), KeyPrefix: c.KeyPrefix,
			TimestampHeader: c.TimestampHeader, Unit: Unit(c.Unit), IDHeader: c.IDHeader, Challenge: c.Challenge}
	}
	return settings
}
