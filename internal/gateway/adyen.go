package gateway

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/eventhose/eventhose"
)

// adyen is the payments webhook: one item, which is signed in eight fields. Nothing else in it is signed.
func adyen() Provider {
	const item = "json:notificationItems.0.NotificationRequestItem."
	return Provider{
		Name: "adyen", Title: "Adyen payments", Source: "https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures/",
		Checked: "PyPI Adyen 16.0.0, Adyen's own",
		Doc:     "additionalData.hmacSignature of the one item: base64 of HMAC-SHA256 over eight fields joined by :",
		Repeats: "`pspReference+eventCode+success`",
		Needs: []Need{{fieldSecrets, true, "the HMAC key, hex"},
			{fieldVerifyToken, false, "user:password of Basic authentication, if the webhook has it"}},
		naming: Naming{Type: []string{item + "eventCode"}, Key: []string{item + "originalReference", item + "pspReference"}, Time: []string{item + "eventDate"}},
		open: func(c *configuration) (scheme, error) {
			keys, err := c.keys(Hex, "")
			m := newMACs(SHA256, keys...)
			check := func(_ context.Context, r *Request) *Rejection { return checkAdyen(m, r.Body) }
			if c.VerifyToken != "" {
				basic := c.headerShows("Authorization", []eventhose.Secret{c.VerifyToken})
				check = func(ctx context.Context, r *Request) *Rejection {
					if rejection := basic(ctx, r); rejection != nil {
						return rejection
					}
					return checkAdyen(m, r.Body)
				}
			}
			return scheme{answer: text("[accepted]"), id: adyenID, check: check}, err
		},
	}
}

// adyenPlatform is the webhooks of the balance platform and of management, signed as a whole.
func adyenPlatform() Provider {
	p := signed(Provider{
		Name: "adyen-platform", Title: "Adyen balance platform and management", Source: "https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures/",
		naming: Naming{ID: []string{"json:data.id+json:type+json:data.sequenceNumber"}, Type: []string{"json:type"}, Key: []string{"json:data.id", "json:data.reference"}, Time: []string{"json:timestamp", "json:createdAt"}},
	}, Scheme{Header: "HmacSignature", Encoding: Base64, Key: Hex})
	return p.extended(func(_ *configuration, s *scheme) error {
		s.answer = Answer{Status: http.StatusOK}
		return nil
	})
}

type adyenItem struct {
	PSPReference        string `json:"pspReference"`
	OriginalReference   string `json:"originalReference"`
	MerchantAccountCode string `json:"merchantAccountCode"`
	MerchantReference   string `json:"merchantReference"`
	Amount              struct {
		Value    jsontext.Value `json:"value"`
		Currency string         `json:"currency"`
	} `json:"amount"`
	EventCode      string         `json:"eventCode"`
	Success        jsontext.Value `json:"success"` // "true", or true
	AdditionalData struct {
		HMACSignature string `json:"hmacSignature"`
	} `json:"additionalData"`
}

// texts are the signed fields that are texts, but for merchantReference.
func (i *adyenItem) texts() []string {
	return []string{i.PSPReference, i.OriginalReference, i.MerchantAccountCode, i.Amount.Currency, i.EventCode}
}

// checkAdyen verifies the item.
func checkAdyen(m *macs, body []byte) *Rejection {
	item, rejection := readAdyen(body)
	if rejection != nil {
		return rejection
	}
	value, okValue := integer(item.Amount.Value)
	success, okSuccess := word(item.Success)
	if !okValue || !okSuccess {
		return reject(ReasonBody, "the item has an amount or success of another kind than Adyen's")
	}
	signature, ok := Base64.decode(item.AdditionalData.HMACSignature)
	if !ok || len(signature) != m.size {
		return reject(ReasonBody, "the hmacSignature is not base64 of 32 bytes")
	}
	// The fields are joined without escapes: only one of them may have a colon, or they could be cut at another place.
	for _, field := range item.texts() {
		if strings.Contains(field, ":") {
			return reject(ReasonBody, "the item has a colon in a signed field, where Adyen writes none but in merchantReference")
		}
	}
	content := strings.Join([]string{item.PSPReference, item.OriginalReference, item.MerchantAccountCode, item.MerchantReference,
		value, item.Amount.Currency, item.EventCode, success}, ":")
	if !m.match([][]byte{signature}, []byte(content)) {
		return noMatch(len(m.made))
	}
	return nil
}

// readAdyen reads the one item there may be: several that were seen, or one several times, would be other events with signatures that are
// right. Names are matched exactly, and one that comes twice makes the body unreadable. Half of a surrogate pair may be in what is not signed.
func readAdyen(body []byte) (*adyenItem, *Rejection) {
	type notification struct {
		Items []struct {
			Item *adyenItem `json:"NotificationRequestItem"`
		} `json:"notificationItems"`
	}
	var document notification
	err := json.Unmarshal(body, &document)
	halves := err != nil && utf8.Valid(body)
	if halves {
		document = notification{}
		err = json.Unmarshal(body, &document, jsontext.AllowInvalidUTF8(true))
	}
	var kind *json.SemanticError
	switch {
	case errors.As(err, &kind):
		return nil, reject(ReasonBody, "%s is of another kind than Adyen's", quoted(string(kind.JSONPointer)))
	case err != nil:
		return nil, reject(ReasonBody, "the body is not JSON, or a name is given twice in it")
	case len(document.Items) == 0:
		return nil, reject(ReasonBody, "the body has no notificationItems")
	case len(document.Items) > 1:
		return nil, reject(ReasonBody, "the body has %d notificationItems, and Adyen sends one: the signature of each says nothing of the others", len(document.Items))
	}
	item := document.Items[0].Item
	if item == nil || item.AdditionalData.HMACSignature == "" {
		return nil, reject(ReasonBody, "the item has no hmacSignature")
	}
	if halves && strings.ContainsRune(strings.Join(append(item.texts(), item.MerchantReference), ""), utf8.RuneError) {
		return nil, reject(ReasonBody, "the item has half of a surrogate pair in a signed field")
	}
	return item, nil
}

// adyenID is made of signed fields, of which a verified item may have some empty.
func adyenID(r *Request) string {
	item, rejection := readAdyen(r.Body)
	if rejection != nil {
		return ""
	}
	success, _ := word(item.Success)
	return item.PSPReference + "." + item.EventCode + "." + success
}

// integer answers a whole number as it is written; an absent one is "".
func integer(v jsontext.Value) (string, bool) {
	s := string(v)
	if s == "null" {
		s = ""
	}
	return s, strings.Trim(strings.TrimPrefix(s, "-"), "0123456789") == ""
}

// word answers true or false, with or without quotes; an absent one is "".
func word(v jsontext.Value) (string, bool) {
	switch s := strings.Trim(string(v), `"`); s {
	case "true", "false", "":
		return s, true
	case "null":
		return "", true
	}
	return "", false
}
