package overload

import (
	"testing"

	"github.com/eventhose/eventhose"
)

// What some hold is never the room of others: of another tenant, of all tenants, or of strangers.
func TestRoomIsParted(t *testing.T) {
	const all = 64
	var r Room
	r.Set(all)
	of := func(key, tenant string) Share {
		return r.Of(eventhose.Principal{KeyID: key, Tenant: eventhose.TenantID(tenant)})
	}
	takeAll := func(s Share) (n int64) {
		for s.Take(1) {
			n++
		}
		return n
	}
	acme, globex, operator, stranger := of("key_1", "acme"), of("key_2", "globex"), of("admin", ""), of("", "")
	total := int64(0)
	for _, c := range []struct {
		name string
		of   Share
		want int64
	}{{"acme", acme, 16}, {"acme's other key", of("key_3", "acme"), 0}, {"globex", globex, 16}, {"a third", of("key_4", "initech"), 8}, {"a fourth", of("key_5", "hooli"), 0},
		{"operator", operator, 16}, {"stranger", stranger, 8}} {
		n := takeAll(c.of)
		if total += n; n != c.want {
			t.Errorf("%s had room for %d, want %d", c.name, n, c.want)
		}
	}
	if total != all {
		t.Errorf("%d of %d are taken", total, all)
	}
	acme.Give(16)
	if n := takeAll(acme); n != 16 || operator.Take(1) || stranger.Take(1) {
		t.Errorf("acme had room for %d after it gave back 16, and others for some of it", n)
	}
}
