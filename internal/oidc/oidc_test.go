package oidc

import (
	"encoding/base64"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/egress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAdmits(t *testing.T) {
	type claims = map[string]any
	mail := func(address string, verified any) claims { return claims{"email": address, "email_verified": verified} }
	for _, c := range []struct {
		allow  string
		claims claims
		in     bool
	}{
		{"ana@example.com", mail("ana@example.com", true), true},
		{"Ana@Example.com", mail("aNA@eXAMPLE.com", true), true},
		{"ana@example.com", mail("ana@example.com", "true"), true},
		{"ana@example.com", mail("ana@example.com", false), false},
		{"ana@example.com", mail("ana@example.com", "false"), false},
		{"ana@example.com", mail("ana@example.com", 1.0), false},
		{"ana@example.com", mail("ana@example.com", nil), false},
		{"ana@example.com", claims{"email": []any{"ana@example.com"}, "email_verified": true}, false},
		{"ana@example.com", mail("bob@example.com", true), false},
		{"ana@example.com", mail("", true), false},
		{"ana@example.com", claims{}, false},
		{"ana@example.com", claims{"preferred_username": "ana@example.com", "email_verified": true}, false},
		{"@example.com", mail("bob@example.com", true), true},
		{"@example.com", mail("bob@example.com", false), false},
		{"@example.com", mail("bob@example.com.evil.example", true), false},
		{"@example.com", mail("bob@sub.example.com", true), false},
		{"@example.com", mail("bob@notexample.com", true), false},
		{"@example.com", mail("@example.com", true), false},
		{"@example.com", mail("evil@evil.example,x@example.com", true), false},
		{"groups=ops", claims{"groups": []any{"dev", "ops"}}, true},
		{"groups=ops", claims{"groups": "ops"}, true},
		{"groups=ops", claims{"groups": []any{"ops2", 1.0}}, false},
		{"groups=ops", claims{"groups": "dev,ops"}, false},
		{"groups=ops", claims{"groups": map[string]any{"ops": true}}, false},
		{"groups=ops", claims{"group": "ops"}, false},
		{"tid=a=b", claims{"tid": "a=b"}, true},
		{"admin=true", claims{"admin": true}, true},
		{"admin=true", claims{"admin": false}, false},
		{"org=42", claims{"org": 42.0}, true},
		{"org=12345678", claims{"org": 12345678.0}, true},
		{"org=1.2345678e+07", claims{"org": 12345678.0}, false},
		{"org=9007199254740993", claims{"org": 9007199254740993.0}, false}, // more digits than the number holds
	} {
		rules, err := parseRules([]string{"@other.example", c.allow})
		if err != nil {
			t.Fatal(err)
		}
		if r, in := admits(rules, c.claims); in != c.in || in && r.text != c.allow {
			t.Errorf("%s lets in %v: %v by %q", c.allow, c.claims, in, r.text)
		}
	}
	for _, bad := range [][]string{nil, {""}, {"everybody"}, {"@"}, {"a@"}, {"a@b@c.example"}, {"*@example.com"}, {"=a"}, {"a="}, {"email=a@example.com"}, {"a b@example.com"}} {
		if _, err := parseRules(bad); eventhose.CodeOf(err) != eventhose.CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func newProvider(t *testing.T, key string) *Provider {
	t.Helper()
	policy := egress.New(egress.Options{})
	client := egress.NewClient(policy, egress.ClientOptions{})
	t.Cleanup(client.Close)
	p, err := New(Options{Issuer: "https://id.example.com", ClientID: "a", Allow: []string{"@example.com"}, Key: eventhose.Secret(strings.Repeat(key, 32)), Policy: policy, Client: client})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What a browser keeps only this server can read or write, and it is good for ten minutes.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, "k")
		write := func(p *Provider, text string) eventhose.Secret {
			return eventhose.Secret(base64.RawURLEncoding.EncodeToString(p.sealed.Seal(nil, nil, []byte(text), sealedAs)))
		}
		expires := time.Now().Add(signInTime).Format(time.RFC3339Nano)
		good := write(p, `{"s":"state","b":"/ui/","e":"`+expires+`"}`)
		if k, err := p.open(good); err != nil || k.State != "state" || k.Back != "/ui/" {
			t.Fatalf("got %+v, %v", k, err)
		}
		for what, bad := range map[string]eventhose.Secret{
			"empty": "", "text": "hello", "of another server": write(newProvider(t, "l"), `{"s":"state","e":"`+expires+`"}`),
			"long": eventhose.Secret(strings.Repeat("a", maxKept+1)), "cut": good[:len(good)-2], "twice": good + good, "no JSON": write(p, `{`), "no time": write(p, `{"s":"state"}`),
			"for something else": eventhose.Secret(base64.RawURLEncoding.EncodeToString(p.sealed.Seal(nil, nil, []byte(`{"s":"state","e":"`+expires+`"}`), []byte("else")))),
		} {
			if _, err := p.open(bad); eventhose.CodeOf(err) != eventhose.CodeUnauthenticated {
				t.Errorf("%s: %v", what, err)
			}
		}
		<-time.After(signInTime)
		if _, err := p.open(good); eventhose.CodeOf(err) != eventhose.CodeUnauthenticated {
			t.Errorf("after ten minutes: %v", err)
		}
	})
}
