package storetest

import (
	"math"
	"time"

	"github.com/eventhose/eventhose/internal/store"
)

// What these cases ask holds for every driver; how several nodes share the shards is for those drivers that have several.

func (t *trial) claim(node string, give ...uint8) map[uint8]store.Lease {
	before := time.Now()
	c, err := t.s.Claim(t.ctx, node, give, time.Minute)
	t.ok("claim", err)
	after := time.Now()
	held := map[uint8]store.Lease{}
	for i, l := range c.Leases {
		if i > 0 && l.Shard <= c.Leases[i-1].Shard {
			t.fatalf("%s was answered shard %d after shard %d", node, l.Shard, c.Leases[i-1].Shard)
		}
		if l.Until.Before(before.Add(time.Minute-time.Millisecond)) || l.Until.After(after.Add(time.Minute)) {
			t.fatalf("the lease of shard %d ends in %v", l.Shard, l.Until.Sub(before))
		}
		held[l.Shard] = l
	}
	if c.Surplus < 0 || c.Surplus > len(held) {
		t.fatalf("%d of %d leases are said to be too many", c.Surplus, len(held))
	}
	return held
}

// leave gives everything back.
func (t *trial) leave(node string) {
	c, err := t.s.Claim(t.ctx, node, nil, 0)
	t.ok("leave", err)
	t.same("leases of who has left", len(c.Leases), 0)
}

// fenced commits, relying on some leases, and stops the case if that is not refused or changes anything.
func (t *trial) fenced(leases ...store.Lease) {
	err := t.s.Commit(t.ctx, store.Progress{Fence: leases, Lanes: []store.LaneChange{newLane(other, subB)}})
	t.is("commit", err, store.ErrFenced)
	t.noLane(other, subB)
}

// passes commits, relying on some leases.
func (t *trial) passes(leases ...store.Lease) {
	t.commit(store.Progress{Fence: leases, Lanes: []store.LaneChange{newLane(acme, subA)}})
	t.lane(acme, subA)
}

func all(held map[uint8]store.Lease) (leases []store.Lease) {
	for _, l := range held {
		leases = append(leases, l)
	}
	return leases
}

func leaseCases() []Case {
	return []Case{
		{"leases/claim", "a node alone is granted every shard, each once, for the time it asked", func(t *trial) {
			held := t.claim("node")
			t.same("shards", len(held), store.Shards)
			t.passes(all(held)...)
			for shard, l := range t.claim("node") {
				if l.Epoch != held[shard].Epoch {
					t.fatalf("shard %d changed its epoch without changing hands", shard)
				}
			}
			t.passes(all(held)...)
		}},
		{"leases/fenced", "a commit that relies on a lease that is not held changes nothing", func(t *trial) {
			held := t.claim("node")
			t.fenced(held[1], store.Lease{Shard: 0, Epoch: held[0].Epoch + 1, Until: held[0].Until})
			t.fenced(held[1], store.Lease{Shard: 0, Epoch: math.MaxUint64})
			if held[0].Epoch > 0 {
				t.fenced(store.Lease{Shard: 0, Epoch: held[0].Epoch - 1, Until: held[0].Until}, held[1])
			}
			t.passes(held[0], held[1])
		}},
		{"leases/given", "what was given back is fenced, also if its node takes it again, and nothing else is", func(t *trial) {
			held := t.claim("node")
			again := t.claim("node", 7, 200)
			for shard, l := range held {
				switch now, there := again[shard]; {
				case shard != 7 && shard != 200 && (!there || now.Epoch != l.Epoch):
					t.fatalf("shard %d was not given and is %+v, after %+v", shard, now, l)
				case (shard == 7 || shard == 200) && there && now.Epoch <= l.Epoch:
					t.fatalf("shard %d was given and taken again, and its epoch is %d after %d", shard, now.Epoch, l.Epoch)
				}
			}
			t.fenced(held[6], held[7])
			t.fenced(held[200])
			t.passes(all(again)...)
		}},
		{"leases/not held", "giving what is not held gives nothing", func(t *trial) {
			held := t.claim("node", 3)
			t.same("shards", len(held), store.Shards)
			t.leave("nobody")
			t.leave("nobody")
			t.passes(all(held)...)
		}},
		{"leases/left", "who leaves holds nothing, and the next who asks is granted it all at once, with greater epochs", func(t *trial) {
			held := t.claim("node")
			t.leave("node")
			t.fenced(held[0])
			t.fenced(all(held)...)
			next := t.claim("another")
			t.same("shards", len(next), store.Shards)
			for shard, l := range next {
				if l.Epoch <= held[shard].Epoch {
					t.fatalf("shard %d has epoch %d after %d", shard, l.Epoch, held[shard].Epoch)
				}
			}
			t.fenced(held[0])
			t.passes(all(next)...)
		}},
		{"leases/one", "a shard is one node's: what a second node is granted, the first has lost", func(t *trial) {
			first := t.claim("node")
			second := t.claim("another")
			for _, shard := range []uint8{0, 1, 99, 255} {
				if l, there := second[shard]; there {
					t.passes(l)
					t.fenced(first[shard])
				} else {
					t.passes(first[shard])
				}
			}
		}},
		{"leases/reopened", "epochs grow over a restart", func(t *trial) {
			held := t.claim("node")
			t.leave("node")
			t.reopen()
			t.fenced(held[0])
			for shard, l := range t.claim("node") {
				if l.Epoch <= held[shard].Epoch {
					t.fatalf("shard %d has epoch %d after %d", shard, l.Epoch, held[shard].Epoch)
				}
			}
		}},
	}
}
