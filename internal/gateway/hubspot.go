package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"strings"

	"github.com/eventhose/eventhose"
)

// hubspotDecoder undoes the escapes that HubSpot undoes in the URL before it signs.
var hubspotDecoder = strings.NewReplacer("%3A", ":", "%2F", "/", "%3F", "?", "%40", "@", "%21", "!", "%24", "$", "%27", "'",
	"%28", "(", "%29", ")", "%2A", "*", "%2C", ",", "%3B", ";",
	"%3a", ":", "%2f", "/", "%3f", "?", "%2a", "*", "%2c", ",", "%3b", ";")

// hubspot takes version 3. Versions 1 and 2 are digests without a time, so that what was once seen can be sent again; a
// source must ask for them.
func hubspot() Provider {
	const v3, v2, timestamp, version = "X-HubSpot-Signature-v3", "X-HubSpot-Signature", "X-HubSpot-Request-Timestamp", "X-HubSpot-Signature-Version"
	s := Scheme{
		Header: v3, Encoding: Base64, TimestampHeader: timestamp, Unit: Milliseconds, Content: "{method}{url}{body}{timestamp}",
		urls: func(url string) []string { return []string{hubspotDecoder.Replace(url)} },
	}
	p := signed(Provider{
		Name: "hubspot", Title: "HubSpot", Source: "https://developers.hubspot.com/docs/apps/legacy-apps/authentication/validating-requests", Tolerance: defaultTolerance,
		Needs: []Need{{fieldSecrets, true, "the app's client secret"}, {optionPrefix + "legacy", false, `"v1", "v2" or "v1,v2": versions without a time that are taken too`}},
		naming: Naming{ID: []string{"json:*.eventId+json:*.subscriptionId+json:*.occurredAt", "json:eventId"}, Type: []string{"json:*.subscriptionType", "json:subscriptionType"},
			Key: []string{"json:*.objectId", "json:objectId"}, Time: []string{"json:0.occurredAt", "json:occurredAt"}},
	}, s)
	return p.extended(func(c *configuration, sc *scheme) error {
		legacy := c.list("legacy")
		for _, name := range legacy {
			if name != "v1" && name != "v2" {
				return eventhose.Invalid(optionPrefix+"legacy", `must be "v1", "v2" or "v1,v2"`)
			}
		}
		newest := sc.check
		sc.check = func(ctx context.Context, r *Request) *Rejection {
			if len(r.Header.Values(v3)) > 0 || len(legacy) == 0 {
				return newest(ctx, r)
			}
			value, rejection := one(r.Header, v2)
			if rejection != nil {
				return rejection
			}
			used := "v1"
			if len(r.Header.Values(version)) > 0 {
				if used, rejection = one(r.Header, version); rejection != nil {
					return rejection
				}
			}
			if !slices.Contains(legacy, used) {
				return reject(ReasonHeaderMalformed, "header %s is %s, which the source does not take (options.legacy)", version, quoted(used))
			}
			signature, ok := Hex.decode(value)
			if !ok || len(signature) != sha256.Size {
				return malformed(v2, value, "64 hex digits")
			}
			content := string(r.Body)
			if used == "v2" {
				content = r.Method + c.signedURL(r) + content
			}
			for _, secret := range c.Secrets {
				sum := sha256.Sum256([]byte(string(secret) + content))
				if subtle.ConstantTimeCompare(sum[:], signature) == 1 {
					return nil
				}
			}
			return noMatch(len(c.Secrets))
		}
		return nil
	})
}
