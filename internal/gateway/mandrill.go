package gateway

import (
	"context"
	"net/http"
	"slices"

	"github.com/eventhose/eventhose"
)

// mandrillProbeKey signs the probe that is sent when a webhook is made, before it has a key.
const mandrillProbeKey = "test-webhook"

// mandrillParameter is the one parameter of a webhook, a list of events.
const mandrillParameter = "mandrill_events"

// mandrill is Mailchimp Transactional: a form with one parameter that is a list of events.
func mandrill() Provider {
	return Provider{
		Name: "mandrill", Title: "Mailchimp Transactional (Mandrill)", Source: "https://mailchimp.com/developer/transactional/guides/track-respond-activity-webhooks/",
		Doc:     "X-Mandrill-Signature: base64 of HMAC-SHA1 over {url} and the sorted parameters",
		Repeats: "`_id+event+ts` of each event and a digest of the events, or that alone if they have `ts`, or nothing",
		Needs:   []Need{{fieldSecrets, true, "the webhook's key"}, needPublicURL},
		open: func(c *configuration) (scheme, error) {
			if slices.Contains(c.Secrets, mandrillProbeKey) {
				return scheme{}, eventhose.Invalid(fieldSecrets, "must be the webhook's own key, not that of Mandrill's test")
			}
			keys, err := c.keys(Text, "")
			if err != nil {
				return scheme{}, err
			}
			m := newMACs(SHA1, keys...)
			s := scheme{describe: describeMandrill, check: func(_ context.Context, r *Request) *Rejection { return checkMandrill(c, m, r) }}
			s.reply = func(r *Request) *Answer {
				if mandrillEvents(r) == "[]" {
					return &Answer{Status: http.StatusOK}
				}
				return nil
			}
			return s, nil
		},
	}.extended(probed)
}

func checkMandrill(c *configuration, m *macs, r *Request) *Rejection {
	const header = "X-Mandrill-Signature"
	value, rejection := one(r.Header, header)
	if rejection != nil {
		return rejection
	}
	signature, ok := Base64.decode(value)
	if !ok || len(signature) != m.size {
		return malformed(header, value, "base64 of 20 bytes")
	}
	f, rejection := readForm(r)
	if rejection != nil {
		return rejection
	}
	// Names and values are signed one behind the other: were there others, the same signature would be right for what is cut elsewhere.
	if len(f.values) != 1 || len(f.values[mandrillParameter]) != 1 {
		return reject(ReasonBody, "the form must have the parameter %s once and no other", mandrillParameter)
	}
	parts := [][]byte{[]byte(c.signedURL(r)), []byte(mandrillParameter), []byte(f.get(mandrillParameter))}
	if m.match([][]byte{signature}, parts...) {
		return nil
	}
	// The probe says nothing, so that anybody may send it.
	if probe := newMACs(SHA1, []byte(mandrillProbeKey)); f.get(mandrillParameter) == "[]" && probe.match([][]byte{signature}, parts...) {
		return nil
	}
	return reject(ReasonNoMatch, "the key does not match: it is another webhook's, public_url is not the URL that Mandrill was given, or the request was changed on the way")
}

func mandrillEvents(r *Request) string {
	f, _ := readForm(r) // it was verified, so it is one
	return f.get(mandrillParameter)
}

func describeMandrill(e *eventhose.Event, prefix string, r *Request) {
	events := []byte(mandrillEvents(r))
	tree := &fieldTree{}
	for _, path := range [][]string{{"*", "_id"}, {"*", "event"}, {"*", "ts"}} {
		tree.add(path)
	}
	fields, ok := tree.readVerified(events)
	if !ok {
		return
	}
	digest := digestID("body-", events) // not of the body, in which the same events can stand in many ways
	if len(fields[0]) > 0 {
		// A message is opened and clicked many times, also in one second: what, when and all the rest belong to what it is.
		ids := make([]string, 0, len(fields[0]))
		for i, id := range fields[0] {
			if len(fields[1]) == len(fields[0]) && len(fields[2]) == len(fields[0]) {
				id += "." + fields[1][i] + "." + fields[2][i]
			}
			ids = append(ids, id)
		}
		e.ID = eventID([]string{eventID(ids) + "." + digest})
	} else if len(fields[2]) > 0 {
		e.ID = digest
	}
	e.Type = prefix + "." + topicOf(fields[1])
	if len(fields[2]) > 0 {
		e.Time, _ = anyTime(fields[2][0])
	}
	if same(fields[0]) && len(fields[0][0]) <= eventhose.MaxKey && printable(fields[0][0]) {
		e.Key = fields[0][0]
	}
}
