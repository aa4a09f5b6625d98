package gateway

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/eventhose/eventhose"
)

// showing is a request that shows a secret, beside those of the senders.
type showing struct {
	settings func(s *Settings)
	request  func(secret string) *Request
}

func inHeader(name, before string) func(secret string) *Request {
	return func(secret string) *Request { return post([]byte(matrixBody), name, before+secret) }
}

func inQuery(method, query string) func(secret string) *Request {
	return func(secret string) *Request {
		r := post([]byte(matrixBody))
		r.Method, r.Query = method, query+url.QueryEscape(secret)
		return r
	}
}

func basic(name string) func(secret string) *Request {
	return func(secret string) *Request {
		r := &http.Request{Header: http.Header{}}
		user, password, _ := strings.Cut(secret, ":")
		r.SetBasicAuth(user, password)
		return post([]byte(matrixBody), name, r.Header.Get("Authorization"))
	}
}

const shownSecret = "user:shown-secret-0123456789"

func secretShown(s *Settings) { s.Secrets = []eventhose.Secret{shownSecret} }

// verifyTokenShown leaves the secrets, which are another's.
func verifyTokenShown(s *Settings) { s.VerifyToken = shownSecret }

// A secret that a provider shows is withheld wherever it is compared. A provider that compares one and does not say where fails: if it has none of the
// places that its sender has, if it has a verify_token, or lets one choose a header, and has no row here.
func TestWhereSecretsAreShown(t *testing.T) {
	metaQuery := showing{verifyTokenShown, inQuery("GET", "hub.mode=subscribe&hub.challenge=1&hub.verify_token=")}
	more := map[string][]showing{
		"adyen": {{verifyTokenShown, func(secret string) *Request {
			r, _ := adyenSender().send(message{key: hexKey(0), body: []byte(matrixBody), at: testNow})
			r.Header.Set("Authorization", basic("Authorization")(secret).Header.Get("Authorization"))
			return r
		}}},
		"cloudevents": {{secretShown, inQuery("POST", "access_token=")}, {secretShown, basic("Authorization")}},
		"gitlab":      {{secretShown, inHeader("X-Gitlab-Token", "")}},
		"meta":        {metaQuery},
		"whatsapp":    {metaQuery},
	}
	comparing := 0
	for _, p := range Providers() {
		s, ok := senders()[p.Name]
		if !ok {
			continue
		}
		shows := append([]showing{{func(*Settings) {}, func(string) *Request {
			r, _ := s.send(message{key: s.keyOf(0), body: []byte(matrixBody), at: testNow})
			return r
		}}}, more[p.Name]...)
		for _, need := range p.Needs {
			switch {
			case need.Field == fieldVerifyToken && more[p.Name] == nil:
				t.Errorf("%s has a verify_token, and no row", p.Name)
			case need.Field == optionHeader:
				shows = append(shows, showing{func(s *Settings) { secretShown(s); s.Options = map[string]string{"header": "X-Own"} }, inHeader("X-Own", "")}, showing{secretShown, basic("Authorization")})
			}
		}
		for _, show := range shows {
			settings := s.settingsOf(s.keyOf(0))
			show.settings(&settings)
			v, err := New(p.Name, settings, s.around)
			if err != nil {
				t.Fatal(err)
			}
			r := show.request(shownSecret)
			if verdict := v.Verify(t.Context(), r); verdict.Rejection != nil {
				t.Errorf("%s does not take what shows its secret: %v", p.Name, verdict.Rejection)
			}
			isSecret := func(value string) bool {
				return slices.ContainsFunc([]string{shownSecret, s.keyOf(0)}, func(secret string) bool {
					return len(secret) >= minChosen && (strings.Contains(value, secret) || strings.Contains(credential(value), secret))
				})
			}
			for name, values := range r.Header {
				if slices.ContainsFunc(values, isSecret) {
					comparing++
					if !v.WithholdsHeader(name) || !v.WithholdsHeader(strings.ToLower(name)) {
						t.Errorf("%s shows its secret in the header %s, which is not withheld", p.Name, name)
					}
				}
			}
			query, _ := url.ParseQuery(r.Query)
			for name, values := range query {
				if slices.ContainsFunc(values, isSecret) {
					comparing++
					if !v.WithholdsParameter(name) {
						t.Errorf("%s shows its secret in the parameter %s, which is not withheld", p.Name, name)
					}
				}
			}
			if isSecret(string(r.Body)) {
				t.Errorf("%s shows its secret in the body, of which nothing is withheld", p.Name)
			}
			if v.WithholdsHeader("Content-Type") || v.WithholdsParameter("a") || v.WithholdsHeader("") {
				t.Errorf("%s withholds what is no secret", p.Name)
			}
		}
	}
	if comparing < 15 {
		t.Errorf("%d secrets are shown: the test sees too few", comparing)
	}
}
