package oidc

import (
	"math"
	"strconv"
	"strings"

	"github.com/eventhose/eventhose"
)

// rule lets people in.
type rule struct {
	text string
	// email is a whole address, or from its @ on all of a domain; in lower case.
	email string
	// claim must be value, or a list that holds it.
	claim, value string
}

// parseRules reads --oidc-allow. CodeInvalid.
func parseRules(allow []string) ([]rule, error) {
	const field, wanted = "--oidc-allow", "must be an e-mail address, @domain or claim=value"
	if len(allow) == 0 {
		return nil, &eventhose.Error{Code: eventhose.CodeInvalid, Field: field, Message: "is required with --oidc-issuer: without it nobody may come in",
			Fix: "--oidc-allow ana@example.com,@ops.example.com,groups=operators"}
	}
	var rules []rule
	for _, text := range allow {
		text = strings.TrimSpace(text)
		r := rule{text: text}
		claim, value, isClaim := strings.Cut(text, "=")
		at := strings.LastIndexByte(text, '@')
		switch {
		case isClaim && claim != "" && value != "":
			if claim == "email" {
				return nil, &eventhose.Error{Code: eventhose.CodeInvalid, Field: field, Message: "email= would take addresses that nobody has verified", Fix: "write the address alone"}
			}
			r.claim, r.value = claim, value
		case !isClaim && at >= 0 && at < len(text)-1 && strings.Count(text, "@") == 1 && !strings.ContainsAny(text, " *"):
			r.email = strings.ToLower(text)
		default:
			return nil, eventhose.Invalid(field, "%q %s", text, wanted)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// admits answers the first rule that lets in whom claims are of.
func admits(rules []rule, claims map[string]any) (rule, bool) {
	email, verified := verifiedEmail(claims)
	email = strings.ToLower(email)
	for _, r := range rules {
		switch {
		case r.claim != "":
			if holds(claims[r.claim], r.value) {
				return r, true
			}
		case !verified:
		case r.email[0] == '@':
			if at := strings.LastIndexByte(email, '@'); at > 0 && email[at:] == r.email {
				return r, true
			}
		case email == r.email:
			return r, true
		}
	}
	return rule{}, false
}

// verifiedEmail answers an e-mail address that the provider says it has verified. Some write true as a text.
func verifiedEmail(claims map[string]any) (string, bool) {
	email, _ := claims["email"].(string)
	v := claims["email_verified"]
	return email, strings.Count(email, "@") == 1 && (v == true || v == "true")
}

// holds reports whether a claim is value, or a list that holds it.
func holds(claim any, value string) bool {
	switch c := claim.(type) {
	case string:
		return c == value
	case bool:
		return strconv.FormatBool(c) == value
	case float64: // beyond that one number stands for several
		return math.Abs(c) < 1<<53 && strconv.FormatFloat(c, 'f', -1, 64) == value
	case []any:
		for _, one := range c {
			if s, ok := one.(string); ok && s == value {
				return true
			}
		}
	}
	return false
}
