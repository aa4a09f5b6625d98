package egress

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/eventhose/eventhose"
)

// internalPorts are those of well-known services that are not meant for the public and misbehave, or obey, when HTTP is
// spoken to them. Ascending.
var internalPorts = []uint16{
	1099, 1433, 1521, 1883, 2049, 2181, 2375, 2376, 2377, 2379, 2380, 3268, 3306, 3389, 4369, 5037, 5432, 5433, 5555,
	5671, 5672, 5900, 5901, 5984, 5985, 5986, 6000, 6001, 6379, 6380, 6443, 6667, 7000, 7001, 7199, 8300, 8301, 8302,
	8500, 8600, 9042, 9092, 9093, 9160, 9200, 9300, 10250, 10255, 10256, 11211, 15672, 16379, 25672, 26379, 27017,
	27018, 27019, 28015, 29015, 50000, 50070, 61613, 61616,
}

// ParseURL reads a URL that a tenant wants us to send to and answers it with its host in ASCII and lower case and without
// a final full stop. It connects to nothing and asks no DNS; what it lets pass is judged again at connect. It refuses,
// as CodeInvalid with the given field, what can never be allowed: another scheme than https (http is for the operator's
// networks), user and password, a fragment, a host that is no name and no plain address, an address that is not allowed
// (which wraps ErrBlocked), and ports below 1024 other than 443 and 80 or of well-known internal services (the operator's
// networks, if named by address, may use any). Names within this process (Options.Within) take plain http without a port.
func (p *Policy) ParseURL(field, raw string) (*url.URL, error) {
	bad := func(format string, args ...any) (*url.URL, error) {
		return nil, eventhose.Invalid(field, format, args...)
	}
	schemes := "https://"
	if len(p.allow) > 0 {
		schemes = "https:// or http://"
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil, u.Opaque != "", u.Host == "":
		return bad("must be an absolute https URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return bad("must begin with %s", schemes)
	case u.User != nil:
		return bad("must not hold a user or a password; send credentials in a header")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return bad("must not have a fragment")
	}
	host, addr, why := canonicalHost(u.Hostname())
	if why != "" {
		return bad("%s", why)
	}
	usual := uint16(443)
	if u.Scheme == "http" {
		usual = 80
	}
	port := usual
	if text := u.Port(); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return bad("has no usable port")
		}
		port = uint16(n)
	} else if strings.HasSuffix(u.Host, ":") {
		return bad("has no usable port")
	}
	inProcess := p.within[host] != nil
	if inProcess && (u.Scheme != "http" || port != withinPort) {
		return bad("must begin with http://%s/: it is within this server, and has no other port", host)
	}
	listed := inProcess || addr.IsValid() && p.Listed(addr)
	denied := addr.IsValid() && p.Check(netip.AddrPortFrom(addr, port)) != nil
	if localhost(host) {
		listed = len(p.loopback()) > 0
		denied = !listed
	}
	switch {
	case denied:
		e := eventhose.Errorf(eventhose.CodeInvalid, "%w: it is neither on the public internet nor in a network that the operator allows", ErrBlocked)
		e.Field, e.Fix = field, "use an address on the public internet, or have the operator allow its network with --allow-networks"
		return nil, e
	case u.Scheme == "http" && !listed && (addr.IsValid() || len(p.allow) == 0):
		return bad("must begin with https://; http is only for networks that the operator allows")
	case !listed && !usualPort(port):
		return bad("must use port 443, 80, or one from 1024 up that is not a well-known internal service's")
	}
	switch {
	case port != usual:
		u.Host = net.JoinHostPort(host, strconv.Itoa(int(port)))
	case addr.Is6():
		u.Host = "[" + host + "]"
	default:
		u.Host = host
	}
	return u, nil
}

func usualPort(port uint16) bool {
	if port < 1024 {
		return port == 443 || port == 80
	}
	_, internal := slices.BinarySearch(internalPorts, port)
	return !internal
}

// canonicalHost answers the host as it is looked up, its address if it is one, or why it cannot be used.
func canonicalHost(host string) (ascii string, addr netip.Addr, why string) {
	if strings.ContainsAny(host, ":%") {
		addr, err := netip.ParseAddr(host)
		if err != nil || addr.Zone() != "" {
			return "", addr, "has a host that is not an address"
		}
		return addr.String(), addr, ""
	}
	ascii, err := idna.Lookup.ToASCII(host)
	if err == nil {
		_, err = idna.Lookup.ToASCII(ascii) // it lets some bytes pass on the way in that it does not know on the way out
	}
	if err != nil || !utf8.ValidString(host) {
		return "", addr, "has a host that is not a domain name"
	}
	ascii = strings.ToLower(strings.TrimSuffix(ascii, "."))
	if addr, err := netip.ParseAddr(ascii); err == nil {
		return addr.String(), addr, ""
	}
	switch {
	case ascii == "" || len(ascii) > 253 || strings.HasPrefix(ascii, ".") || strings.HasSuffix(ascii, ".") || strings.Contains(ascii, ".."):
		return "", addr, "has a host that is not a domain name"
	case numeric(ascii):
		return "", addr, fmt.Sprintf("has the host %q, a way to write an address that is not taken; write four numbers with full stops", ascii)
	}
	return ascii, addr, ""
}

// localhost reports whether a name is one that stands for this machine without asking anybody (RFC 6761, section 6.3).
func localhost(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// loopback answers the addresses that localhost has here: those that the operator allows.
func (p *Policy) loopback() (listed []netip.Addr) {
	for _, addr := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		if p.Listed(addr) {
			listed = append(listed, addr)
		}
	}
	return listed
}

// numeric reports whether some resolver would take a host for an IPv4 address although netip does not: "127.1", "0x7f.1",
// "2130706433", "0177.0.0.1". As browsers do (WHATWG URL, "ends in a number"), it looks at the last label.
func numeric(host string) bool {
	last := strings.TrimSuffix(host, ".")
	last = strings.ToLower(last[strings.LastIndexByte(last, '.')+1:])
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}
