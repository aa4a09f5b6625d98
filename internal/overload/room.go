package overload

import "github.com/eventhose/eventhose"

// Room is a bound on what the requests of all hold, parted so that nobody's take the room of others: tenants have five eighths of it
// together and each of them two at most, who is bound to no tenant, such as the operator, has two, and who has not said yet
// who it is has one. It is safe for concurrent use; without Set nothing is to be had of it.
type Room struct{ tenants, unbound, strangers Shares }

// Set says how much there is. It is called before the first Of.
func (r *Room) Set(all int64) {
	r.tenants.Set(all*5/8, all/4)
	r.unbound.Set(all/4, all/4)
	r.strangers.Set(all/8, all/8)
}

// Of answers the share that the requests of somebody take of; the zero Principal is a stranger.
func (r *Room) Of(p eventhose.Principal) Share {
	switch {
	case p.KeyID == "":
		return Share{of: &r.strangers}
	case p.Tenant == "":
		return Share{of: &r.unbound}
	}
	return Share{&r.tenants, p.Tenant}
}

// Share is what there is of a bound for one. It is safe for concurrent use.
type Share struct {
	of     *Shares
	tenant eventhose.TenantID
}

// Take answers whether there was room; what was taken must be given back.
func (s Share) Take(n int64) bool { return s.of.Take(s.tenant, n) }

// Give gives back what was taken.
func (s Share) Give(n int64) { s.of.Give(s.tenant, n) }
