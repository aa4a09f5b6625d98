package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/access"
)

// A browser sends cookies by itself, whichever page has made the request. So what is done by cookie must come from a page of this
// very origin (ownPage, on every method), and no page of another origin may read what it answers.

// cookieName is what a cookie is called: over https by a name that only this host can set.
func cookieName(name string, secure bool) string {
	if secure {
		return access.HostPrefix + name
	}
	return name
}

// sessionToken answers the token in a request's cookie, "" if there is none.
func sessionToken(r *http.Request, secure bool) eventhose.Secret {
	c, err := r.Cookie(cookieName(access.SessionCookie, secure))
	if err != nil {
		return ""
	}
	return eventhose.Secret(c.Value)
}

// cookie makes one that lives for a time; 0 or less takes it away.
func cookie(name string, value eventhose.Secret, lives time.Duration, secure bool, site http.SameSite) *http.Cookie {
	c := &http.Cookie{Name: cookieName(name, secure), Value: string(value), Path: "/", MaxAge: int(lives / time.Second), HttpOnly: true, Secure: secure, SameSite: site}
	if lives <= 0 {
		c.Value, c.MaxAge = "", -1
	}
	return c
}

// secure reports whether the client has sent a request by https, perhaps to a proxy before this server. Who lies about it
// harms nobody but himself.
func (a *API) secure(r *http.Request) bool {
	return r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") || a.public != nil && a.public.Scheme == "https" && a.public.Host == r.Host
}

// base is where the client has reached this server, without a slash at its end, unless the operator has said where the world does.
func (a *API) base(x *exchange) string {
	switch {
	case a.public != nil:
		return a.public.String()
	case x.secure:
		return "https://" + x.host
	}
	return "http://" + x.host
}

// ownPage answers CodeForbidden for what a browser has sent for a page of another origin, reads included.
func (a *API) ownPage(r *http.Request) error {
	judged := *r
	judged.Method = http.MethodPost // the library lets GET pass, since cookies read nothing across origins there
	if a.cross.Check(&judged) != nil {
		return &eventhose.Error{Code: eventhose.CodeForbidden, Message: "the request comes from a page of another origin", Fix: "send an API key in the Authorization header instead of a cookie"}
	}
	return nil
}

// newCrossOrigin makes the judge of ownPage: it goes by Sec-Fetch-Site, which browsers send, else by Origin against Host. The
// public URL is this server's too, whatever Host a proxy makes of it.
func newCrossOrigin(public *url.URL) (*http.CrossOriginProtection, error) {
	cross := http.NewCrossOriginProtection()
	if public == nil {
		return cross, nil
	}
	return cross, cross.AddTrustedOrigin(public.Scheme + "://" + public.Host)
}

// clientAddress is the address that a request came from, without its port.
func clientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// Sign-ins that one address may try: so many at once, and then one after each pause.
const (
	signInBurst = 20
	signInPause = 3 * time.Second
	// maxVisitors bounds the addresses that are remembered.
	maxVisitors = 10_000
)

// visitors limits how often addresses may try something. It is safe for concurrent use.
type visitors struct {
	mu    sync.Mutex
	tried map[netip.Prefix]*rate.Limiter
}

// try answers CodeLimit if an address has tried too often. A network of IPv6 that one customer has counts as one.
func (v *visitors) try(address string) error {
	var from netip.Prefix
	if a, err := netip.ParseAddr(address); err == nil {
		a = a.Unmap().WithZone("")
		bits := a.BitLen()
		if a.Is6() {
			bits = 64
		}
		from, _ = a.Prefix(bits) // no bits are more than the address has
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	l := v.tried[from]
	if l == nil {
		if len(v.tried) >= maxVisitors {
			v.forget()
		}
		if v.tried == nil {
			v.tried = map[netip.Prefix]*rate.Limiter{}
		}
		l = rate.NewLimiter(rate.Every(signInPause), signInBurst)
		v.tried[from] = l
	}
	if !l.Allow() {
		return &eventhose.Error{Code: eventhose.CodeLimit, Message: "too many sign-ins were tried from this address", RetryAfter: signInPause}
	}
	return nil
}

// forget drops those that could try all over again, or if there are none anyone.
func (v *visitors) forget() {
	var anyone netip.Prefix
	for from, l := range v.tried {
		anyone = from
		if l.Tokens() >= signInBurst {
			delete(v.tried, from)
		}
	}
	if len(v.tried) >= maxVisitors {
		delete(v.tried, anyone)
	}
}
