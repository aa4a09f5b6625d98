package egress

import "net/netip"

// What is public is decided by default denial: IPv4 outside of the list below, IPv6 inside of 2000::/3 and outside of
// it. The lists are IANA's special-purpose registries as of 2026, and what clouds keep at public-looking addresses. Go's
// own IsPrivate and IsGlobalUnicast cover far less.

var notPublic4 = prefixes(
	"0.0.0.0/8",        // this network (RFC 791)
	"10.0.0.0/8",       // private (RFC 1918)
	"100.64.0.0/10",    // carrier-grade NAT (RFC 6598); Alibaba's metadata service
	"127.0.0.0/8",      // loopback (RFC 1122)
	"168.63.129.16/32", // Azure's WireServer
	"169.254.0.0/16",   // link-local (RFC 3927); most clouds' metadata services
	"172.16.0.0/12",    // private (RFC 1918)
	"192.0.0.0/24",     // protocol assignments (RFC 6890)
	"192.0.2.0/24",     // documentation (RFC 5737)
	"192.31.196.0/24",  // AS112 (RFC 7535)
	"192.52.193.0/24",  // AMT (RFC 7450)
	"192.88.99.0/24",   // 6to4 relays (RFC 7526)
	"192.168.0.0/16",   // private (RFC 1918)
	"192.175.48.0/24",  // AS112 (RFC 7534)
	"198.18.0.0/15",    // benchmarks (RFC 2544)
	"198.51.100.0/24",  // documentation (RFC 5737)
	"203.0.113.0/24",   // documentation (RFC 5737)
	"224.0.0.0/4",      // multicast (RFC 5771)
	"240.0.0.0/4",      // reserved, and broadcast (RFC 1112)
)

var (
	global6 = netip.MustParsePrefix("2000::/3")
	// nat64 addresses carry an IPv4 address in their last 32 bits, whose verdict they share (RFC 6052).
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
)

// notPublic6 lies within global6, except for what is named so that the reason can be read: default denial covers it.
var notPublic6 = prefixes(
	"::/8",              // unspecified, loopback, IPv4-compatible, -mapped and -translated; 64:ff9b:1::/48 (RFC 8215)
	"100::/64",          // discard (RFC 6666)
	"2001::/23",         // protocol assignments (RFC 2928), Teredo among them
	"2001:db8::/32",     // documentation (RFC 3849)
	"2002::/16",         // 6to4: embeds any IPv4 address (RFC 3056)
	"2620:4f:8000::/48", // AS112 (RFC 7534)
	"3fff::/20",         // documentation (RFC 9637)
	"5f00::/16",         // segment routing (RFC 9602)
	"fc00::/7",          // unique local (RFC 4193); AWS's metadata service fd00:ec2::254
	"fe80::/10",         // link-local (RFC 4291)
	"fec0::/10",         // site-local (RFC 3879)
	"ff00::/8",          // multicast (RFC 4291)
)

// public reports whether an unmapped address without zone is one of the public internet.
func public(addr netip.Addr) bool {
	if addr.Is4() {
		return !within(notPublic4, addr)
	}
	if end := behindNAT64(addr); end != addr {
		return public(end)
	}
	return global6.Contains(addr) && !within(notPublic6, addr) && !isatap(addr)
}

// behindNAT64 answers the IPv4 address that a NAT64 address leads to, and any other as it is.
func behindNAT64(addr netip.Addr) netip.Addr {
	if !nat64.Contains(addr) {
		return addr
	}
	b := addr.As16()
	return netip.AddrFrom4([4]byte(b[12:]))
}

// isatap reports whether an address carries an IPv4 address in its interface identifier (RFC 5214, section 6.1), which a
// tunnel could unwrap.
func isatap(addr netip.Addr) bool {
	b := addr.As16()
	return b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

func within(list []netip.Prefix, addr netip.Addr) bool {
	for _, p := range list {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func prefixes(list ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(list))
	for i, s := range list {
		all[i] = netip.MustParsePrefix(s)
	}
	return all
}
