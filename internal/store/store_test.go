package store_test

import (
	"fmt"
	"testing"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// Tenants are spread evenly over the shards, whatever their ids look like, and always in the same way.
func TestShardOf(t *testing.T) {
	for tenant, want := range map[eventhose.TenantID]uint8{"": 197, "acme": 102, "default": 45, "tenant-1": 85} {
		if got := store.ShardOf(tenant); got != want {
			t.Errorf("%q is in shard %d, and was in %d", tenant, got, want)
		}
	}
	const each = 400
	for _, form := range []string{"%d", "tenant-%d", "acct_%08x", "%07d.example.com"} {
		var count [store.Shards]int
		for i := range each * store.Shards {
			count[store.ShardOf(eventhose.TenantID(fmt.Sprintf(form, i)))]++
		}
		for shard, n := range count {
			if n < each*3/4 || n > each*5/4 {
				t.Errorf("ids like %s: %d in shard %d, and %d are a fair share", form, n, shard, each)
			}
		}
	}
}
