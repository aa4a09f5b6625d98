package access

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Cookies that this server sets in browsers. Over https their names begin with HostPrefix.
const (
	SessionCookie = "eventhose_session"
	OIDCCookie    = "eventhose_oidc"
	// HostPrefix keeps a cookie to this host, this origin's scheme and all of its paths: browsers refuse it otherwise, so that no
	// neighbouring host can set one of ours.
	HostPrefix = "__Host-"
)

// ourCookies are the names of all of them.
var ourCookies = []string{SessionCookie, HostPrefix + SessionCookie, OIDCCookie, HostPrefix + OIDCCookie}

// WithoutCookies is h, in which the values of our own cookies read "***". A browser sends them along by itself when somebody who is
// signed in here looks at an address that shows a tenant what was sent to it, and the tenant must not get them. It does not change h.
func WithoutCookies(h http.Header) http.Header {
	lines := h["Cookie"]
	if len(lines) == 0 {
		return h
	}
	h = maps.Clone(h)
	h["Cookie"] = make([]string, len(lines))
	for i, line := range lines {
		h["Cookie"][i] = withoutCookies(line)
	}
	return h
}

func withoutCookies(line string) string {
	list := strings.Split(line, ";")
	for i, cookie := range list {
		name, _, _ := strings.Cut(cookie, "=")
		if slices.Contains(ourCookies, strings.TrimSpace(name)) {
			list[i] = name + "=***"
		}
	}
	return strings.Join(list, ";")
}
