package access

import (
	"net/http"
	"testing"
)

func TestWithoutCookies(t *testing.T) {
	for given, want := range map[string]string{
		"": "", "a=1; b=2": "a=1; b=2", "eventhose_session=x": "eventhose_session=***", "a=1;eventhose_oidc=x=y;b": "a=1;eventhose_oidc=***;b",
		" __Host-eventhose_session = x ; __Host-eventhose_oidc": " __Host-eventhose_session =***; __Host-eventhose_oidc=***", "eventhose_session2=x": "eventhose_session2=x",
	} {
		h := http.Header{"Cookie": {"c=3", given}, "X": {"eventhose_session=x"}}
		got := WithoutCookies(h)
		if len(got) != 2 || got["Cookie"][0] != "c=3" || got["Cookie"][1] != want || got.Get("X") != "eventhose_session=x" {
			t.Errorf("%q: %q", given, got)
		}
		if h["Cookie"][1] != given {
			t.Errorf("%q was changed to %q", given, h["Cookie"][1])
		}
	}
	if got := WithoutCookies(http.Header{"X": {"y"}}); len(got) != 1 {
		t.Errorf("got %q", got)
	}
}
