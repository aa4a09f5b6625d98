package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// trader is a node as the database sees it.
type trader struct {
	*testing.T
	db   *pgx.Conn
	name string
	came [store.Shards]float32
}

// comes sets how much has come in at the node for some shards.
func (n *trader) comes(events float32, shards ...int) {
	for _, s := range shards {
		n.came[s] = events
	}
}

// claim claims, gives some shards, and answers what the node holds then and what it is to give.
func (n *trader) claim(give ...int16) (held, trade []int16) {
	n.Helper()
	rows, err := n.db.Query(n.Context(), "SELECT o_shard, o_trade FROM eventhose._claim_near($1, $2, '1 minute', $3, '') WHERE o_shard IS NOT NULL", n.name, append([]int16{}, give...), n.came[:])
	if err != nil {
		n.Fatal(err)
	}
	var shard int16
	var far bool
	if _, err := pgx.ForEachRow(rows, []any{&shard, &far}, func() error {
		if held = append(held, shard); far {
			trade = append(trade, shard)
		}
		return nil
	}); err != nil {
		n.Fatal(err)
	}
	return held, trade
}

// trades claims and checks what the node is to give, and that it holds some shards, or, if they are negative, does not.
func (n *trader) trades(want []int16, holds ...int16) {
	n.Helper()
	held, trade := n.claim()
	if !slices.Equal(trade, want) {
		n.Errorf("%s is to give %v, want %v", n.name, trade, want)
	}
	n.holds(held, holds...)
}

func (n *trader) holds(held []int16, want ...int16) {
	n.Helper()
	for _, s := range want {
		if slices.Contains(held, max(s, -s)) != (s > 0) {
			n.Errorf("%s holds %v, want %d", n.name, held, s)
		}
	}
}

// halves lets two nodes have half of the shards each, a the greater ones.
func halves(t *testing.T) (a, b *trader, url string) {
	url = pgtest.Database(t)
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.WithoutCancel(t.Context())) })
	a, b = &trader{T: t, db: db, name: "a"}, &trader{T: t, db: db, name: "b"}
	a.claim()
	b.claim()
	var half []int16
	for i := range store.Shards / 2 {
		half = append(half, int16(i))
	}
	a.claim(half...)
	b.claim()
	return a, b, url
}

// Two nodes trade those shards whose events come in at the other, one for one, once they have had them for a while.
func TestTrade(t *testing.T) {
	a, b, url := halves(t)
	a.comes(1000, 5, 6, 7)
	b.comes(1000, 200, 201)
	a.comes(1000, 8, 202)
	b.comes(900, 8, 202) // everywhere about alike
	b.comes(50, 203)     // hardly anything
	a.trades(nil)
	b.trades(nil)
	a.trades(nil)
	settled := "UPDATE eventhose.leases SET since = clock_timestamp() - interval '1 hour'"
	run(t, url, settled)
	a.trades([]int16{200, 201})
	b.trades([]int16{5, 6}, 5, 6, 7, -200)

	// One gives, and does not take it again, though it has room; the other is still to give.
	held, trade := a.claim(200, 201)
	a.holds(held, -200, -201, -5, 202)
	if trade != nil {
		t.Errorf("a is to give %v more", trade)
	}
	a.trades(nil, -200, -201)
	b.trades([]int16{5, 6}, -200)
	held, trade = b.claim(5, 6)
	b.holds(held, -5, -6, 7, 200, 201)
	if trade != nil {
		t.Errorf("b is to give %v more", trade)
	}
	a.trades(nil, 5, 6, 202)
	b.trades(nil, 7, 8, 200, 201)
	run(t, url, settled)
	a.trades(nil, 5, 6)
	b.trades(nil, 7, 200)
}

// What nobody takes is taken back, and what a node left alone is near to it counts for nothing.
func TestTradeIsTakenBack(t *testing.T) {
	a, b, url := halves(t)
	b.comes(1000, 200)
	b.claim()
	a.claim(200) // by whatever mistake: b has no room
	b.trades(nil, -200)
	a.trades(nil, -200)
	run(t, url, "UPDATE eventhose.leases SET since = clock_timestamp() - interval '31 seconds' WHERE shard = 200")
	a.trades(nil, 200)

	a.comes(1000, 5)
	run(t, url, "UPDATE eventhose.leases SET since = '-infinity'")
	a.trades([]int16{200})
	run(t, url, "UPDATE eventhose.nodes SET until = '-infinity' WHERE node = 'b'")
	a.trades(nil, 200)
	run(t, url, "UPDATE eventhose.leases SET until = '-infinity' WHERE node = 'b'")
	a.trades(nil, 5, 7, 200, 255)
}

// A store tells how much it has appended, and what it is to trade.
func TestStoresTrade(t *testing.T) {
	url := pgtest.Database(t)
	var nodes [2]*postgres.Store
	for i := range nodes {
		st, err := postgres.Open(t.Context(), url, postgres.Options{MaxConns: 4, Upkeep: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		nodes[i] = st
	}
	// Of half of the shards each, a tenant in the other's.
	tenantOf := func(shard uint8) eventhose.TenantID {
		for i := 0; ; i++ {
			if id := eventhose.TenantID(fmt.Sprint("t", i)); store.ShardOf(id) == shard {
				return id
			}
		}
	}
	claim := func(i int, give ...uint8) store.Claimed {
		c, err := nodes[i].Claim(t.Context(), fmt.Sprint("node", i), give, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var half []uint8
	for i := range uint8(128) {
		half = append(half, i)
	}
	claim(0)
	claim(1)
	claim(0, half...)
	claim(1)
	run(t, url, "UPDATE eventhose.leases SET since = '-infinity'")
	for i, shard := range []uint8{7, 200} {
		var events []store.NewEvent
		for n := range 5000 {
			events = append(events, growthEvent(int64(n), false))
		}
		if _, err := nodes[i].Append(t.Context(), []store.Append{{Tenant: tenantOf(shard), Events: events}}); err != nil {
			t.Fatal(err)
		}
	}
	if c := claim(0); c.Trade != nil {
		t.Errorf("node0 is to give %v before node1 has told", c.Trade)
	}
	if c := claim(1); !slices.Equal(c.Trade, []uint8{7}) {
		t.Errorf("node1 is to give %v", c.Trade)
	}
	if c := claim(0); !slices.Equal(c.Trade, []uint8{200}) {
		t.Errorf("node0 is to give %v", c.Trade)
	}
}
