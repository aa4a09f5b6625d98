package egress

import (
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/eventhose/eventhose"
)

func TestParseURL(t *testing.T) {
	closed, _ := deaf(t)
	open, _ := deaf(t, "127.0.0.0/8", "10.1.0.0/16", "fd12::/16")
	both := []*Policy{closed, open}
	const no = ""
	for _, c := range []struct {
		policies []*Policy
		raw      string
		want     string // "" is refused
	}{
		{both, "https://example.com/hook?a=1", "https://example.com/hook?a=1"},
		{both, "HTTPS://EXAMPLE.com./a%2Fb", "https://example.com/a%2Fb"},
		{both, "https://example.com:443/", "https://example.com/"},
		{both, "https://example.com:80/", "https://example.com:80/"},
		{both, "https://example.com:8443", "https://example.com:8443"},
		{both, "https://bücher.example/", "https://xn--bcher-kva.example/"},
		{both, "https://8.8.8.8/", "https://8.8.8.8/"},
		{both, "https://[2606:4700:4700:0::1111]:8443/", "https://[2606:4700:4700::1111]:8443/"},
		{both, "https://[2606:4700:4700::1111]/", "https://[2606:4700:4700::1111]/"},
		{both, "", no}, {both, "example.com", no}, {both, "/hook", no}, {both, "https:", no}, {both, "https://", no}, {both, "https:///a", no},
		{both, "https:example.com", no}, {both, "ftp://example.com", no}, {both, "file:///etc/passwd", no}, {both, "gopher://example.com", no},
		{both, "https://user@example.com", no}, {both, "https://user:pass@example.com", no}, {both, "https://:@example.com", no}, {both, "https://@example.com", no},
		{both, "https://example.com/#a", no}, {both, "https://example.com/#", no},
		{both, "https://example.com:0/", no}, {both, "https://example.com:65536/", no}, {both, "https://example.com:/", no}, {both, "https://example.com:https/", no}, {both, "https://example.com:+443/", no},
		{both, "https://example.com:22/", no}, {both, "https://example.com:25/", no}, {both, "https://example.com:1023/", no}, {both, "https://example.com:6379/", no}, {both, "https://example.com:2375/", no}, {both, "https://example.com:9200/", no}, {both, "https://example.com:11211/", no},
		{both, "https://exa mple.com/", no}, {both, "https://example..com/", no}, {both, "https://.example.com/", no}, {both, "https://-a.com/", no}, {both, "https://example.com../", no}, {both, "https://./", no},
		{both, "https://exam\nple.com/", no}, {both, "https://example.com\\@evil.com/", no}, {both, "https://" + strings.Repeat("a.", 130) + "com/", no},
		{both, "https://2130706433/", no}, {both, "https://0x7f000001/", no}, {both, "https://0x7f.1/", no}, {both, "https://0177.0.0.1/", no}, {both, "https://127.1/", no}, {both, "https://127.0.1/", no}, {both, "https://0/", no}, {both, "https://1.2.3.4.5/", no}, {both, "https://256.1.1.1/", no}, {both, "https://example.1/", no}, {both, "https://0x/", no}, {both, "https://example.0xa/", no},
		{both, "https://[::1%25lo]/", no}, {both, "https://[fe80::1%25eth0]/", no}, {both, "https://[::1/", no}, {both, "https://::1/", no},
		{both, "https://169.254.169.254/latest", no}, {both, "https://192.168.0.1/", no}, {both, "https://[::1]/", no}, {both, "https://[::ffff:192.168.0.1]/", no}, {both, "https://[::ffff:a9fe:a9fe]/", no}, {both, "https://[64:ff9b::a9fe:a9fe]/", no}, {both, "https://[2002:a9fe:a9fe::]/", no}, {both, "https://168.63.129.16/", no},
		{both, "https://１６９。２５４。１６９。２５４/", no}, {both, "https://169.254.169.254./", no}, {both, "https://%31%36%39.254.169.254/", no},
		{both, "http://8.8.8.8/", no},
		{[]*Policy{closed}, "http://example.com/", no}, {[]*Policy{open}, "http://example.com/", "http://example.com/"},
		{[]*Policy{open}, "http://example.com:6379/", no}, {[]*Policy{open}, "http://example.com:443/", "http://example.com:443/"},
		{[]*Policy{closed}, "http://127.0.0.1/", no}, {[]*Policy{open}, "http://127.0.0.1/", "http://127.0.0.1/"},
		{[]*Policy{closed}, "https://127.0.0.1/", no}, {[]*Policy{open}, "https://127.0.0.1:9000/", "https://127.0.0.1:9000/"},
		{[]*Policy{closed}, "http://10.1.2.3:22/", no}, {[]*Policy{open}, "http://10.1.2.3:22/", "http://10.1.2.3:22/"},
		{[]*Policy{open}, "http://10.2.2.3/", no}, {[]*Policy{open}, "http://[fd12::1]:80/", "http://[fd12::1]/"}, {[]*Policy{open}, "http://[fd13::1]/", no},
		{[]*Policy{closed}, "https://localhost/", no}, {[]*Policy{closed}, "https://a.LOCALHOST./", no}, {[]*Policy{open}, "http://localhost:6379/", "http://localhost:6379/"},
	} {
		for i, p := range c.policies {
			u, err := p.ParseURL("destination.url", c.raw)
			if c.want == no {
				var e *eventhose.Error
				if !errors.As(err, &e) || e.Code != eventhose.CodeInvalid || e.Field != "destination.url" || e.Message == "" || errors.Is(err, ErrBlocked) && !strings.Contains(e.Fix, "--allow-networks") {
					t.Errorf("%d: %q: %v, %v", i, c.raw, u, err)
				}
			} else if err != nil || u.String() != c.want {
				t.Errorf("%d: %q: %v, %v; want %s", i, c.raw, u, err, c.want)
			}
		}
	}
}

func TestInternalPortsAreSorted(t *testing.T) {
	if !slices.IsSorted(internalPorts) {
		t.Error("binary search needs them ascending")
	}
	for port, want := range map[uint16]bool{443: true, 80: true, 1: false, 22: false, 1023: false, 1024: true, 8080: true, 8443: true, 9200: false, 65535: true} {
		if usualPort(port) != want {
			t.Errorf("port %d: %t", port, !want)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"https://example.com/", "http://[::ffff:127.0.0.1]:80/?a#b", "https://0x7f.1", "https://a@b", "https://１２７.1/", "https://[fe80::1%25a]/", "https://a.localhost:22", "https://xn--a/", "https://ⓛocalhost"} {
		f.Add(s)
	}
	closed, _ := deaf(f)
	open, _ := deaf(f, "127.0.0.0/8", "::1/128")
	f.Fuzz(func(t *testing.T, raw string) {
		for _, p := range []*Policy{closed, open} {
			u, err := p.ParseURL("url", raw)
			if err != nil {
				if eventhose.CodeOf(err) != eventhose.CodeInvalid {
					t.Fatalf("%q: %v", raw, err)
				}
				continue
			}
			// What was taken is taken again, as itself, and its host is a plain name or an address that may be reached.
			again, err := p.ParseURL("url", u.String())
			if err != nil || again.String() != u.String() {
				t.Fatalf("%q became %q, which became %v, %v", raw, u, again, err)
			}
			if _, err := url.Parse(u.String()); err != nil || u.User != nil || u.Fragment != "" || u.Host == "" {
				t.Fatalf("%q: %+v, %v", raw, u, err)
			}
			host := u.Hostname()
			if a, err := netip.ParseAddr(host); err == nil {
				if p.Check(netip.AddrPortFrom(a, 443)) != nil {
					t.Fatalf("%q leads to %s", raw, a)
				}
			} else if strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" || numeric(host) {
				t.Fatalf("%q has the host %q", raw, host)
			} else if p == closed && localhost(host) {
				t.Fatalf("%q leads to this machine", raw)
			}
			if p == closed && u.Scheme != "https" {
				t.Fatalf("%q is plain", raw)
			}
		}
	})
}
