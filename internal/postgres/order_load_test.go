package postgres_test

// Who appends and who reads in the tests of order.

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	orderHot    eventhose.TenantID = "hot"
	orderParent eventhose.TenantID = "platform"
)

// orderParents are the tenants that have one.
var orderParents = map[eventhose.TenantID]eventhose.TenantID{"c0": orderParent, "c1": orderParent}

// orderTenants are those that are appended to, the hot one first. The parent's log gets what its children's get.
var orderTenants = []eventhose.TenantID{orderHot, "t0", "t1", "t2", "t3", "t4", "t5", "c0", "c1"}

// everyLog is what is read.
var everyLog = append(append([]eventhose.TenantID{}, orderTenants...), orderParent)

// tenants are those of the tests, as eventlog.Tenants.
type tenants []eventhose.TenantID

func (all tenants) Tenant(_ context.Context, id eventhose.TenantID) (eventhose.Tenant, error) {
	for _, t := range all {
		if t == id {
			return eventhose.Tenant{ID: id, Parent: orderParents[id]}, nil
		}
	}
	return eventhose.Tenant{}, eventhose.NotFound("tenant")
}

func (all tenants) Tenants(_ context.Context, after eventhose.TenantID, _ int) (list []eventhose.Tenant, err error) {
	if after == "" {
		for _, id := range all {
			list = append(list, eventhose.Tenant{ID: id, Parent: orderParents[id]})
		}
	}
	return list, nil
}

// makeTenants has the database know them, too.
func makeTenants(ctx context.Context, st store.Records, ids ...eventhose.TenantID) error {
	var changes []store.RecordChange
	for _, id := range ids {
		changes = append(changes, store.RecordChange{Record: store.Record{Kind: "tenant", ID: string(id), Value: []byte("{}")}})
	}
	return st.Save(ctx, changes, nil)
}

// appender appends groups for several tenants, one after the other.
type appender struct {
	number int // of no other appender, application or process
	rng    *rand.Rand
	made   uint32
	// repeat is a group with ids that was appended.
	repeat []store.Append
}

func (a *appender) token() token {
	a.made++
	return token(a.number)<<32 | token(a.made)
}

// tenant picks one, every other time the hot one.
func (a *appender) tenant() eventhose.TenantID {
	if a.rng.IntN(2) == 0 {
		return orderHot
	}
	return orderTenants[a.rng.IntN(len(orderTenants))]
}

// group makes the next group. again says that it is one that was appended before.
func (a *appender) group() (group []store.Append, again bool) {
	if a.repeat != nil && a.rng.IntN(10) == 0 {
		return a.repeat, true
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	ids := a.rng.IntN(3) == 0
	for range 1 + a.rng.IntN(5) {
		tenant := a.tenant()
		entry := store.Append{Tenant: tenant, Parent: orderParents[tenant]}
		for range 1 + a.rng.IntN(40) {
			k := a.token()
			e := store.NewEvent{Event: eventhose.Event{Type: "order.paid", Time: now, Appended: now, Data: k.data()}}
			if ids {
				e.Event.ID = fmt.Sprint("id-", k)
				e.Digest[0] = 1
			}
			entry.Events = append(entry.Events, e)
		}
		group = append(group, entry)
	}
	return group, false
}

// appendTo appends one group to a log and notes it.
func (a *appender) appendTo(ctx context.Context, st store.Log, h *history) error {
	group, again := a.group()
	return a.appendGroup(ctx, st, h, group, again)
}

func (a *appender) appendGroup(ctx context.Context, st store.Log, h *history, group []store.Append, again bool) error {
	var floors []eventhose.Sequence
	if !again {
		floors = h.begun(group)
	}
	call := h.now()
	results, err := st.Append(ctx, group)
	if err != nil {
		return err
	}
	h.ended(group, results, floors, call, again)
	if a.repeat = nil; group[0].Events[0].Event.ID != "" {
		a.repeat = group
	}
	return nil
}

// reader follows all logs by one node.
type reader struct {
	rng *rand.Rand
	at  map[eventhose.TenantID]eventhose.Sequence
}

// turn reads a page of each log. It reports whether it found anything.
func (r *reader) turn(ctx context.Context, st store.Log, h *history, logs []eventhose.TenantID) (found bool, err error) {
	for _, tenant := range logs {
		// What was acknowledged by whatever node, and what this one says is there.
		floor := h.acked(tenant)
		if r.rng.IntN(4) == 0 {
			head, err := st.Head(ctx, tenant)
			if err != nil {
				return false, err
			}
			floor = max(floor, head.Last)
		}
		call := h.now()
		page, err := st.Read(ctx, tenant, r.at[tenant], store.ReadLimit{Events: 1 + r.rng.IntN(2000), Bytes: 1 << 20})
		if err != nil {
			return false, err
		}
		r.at[tenant] = h.page(tenant, r.at[tenant], floor, page, call)
		found = found || len(page) > 0
	}
	return found, nil
}

// application appends in transactions of its own, which it keeps open for a while.
type application struct {
	appender
	conn *pgx.Conn
	held *atomic.Int64 // how many transactions were open while others appended
}

// transact makes one transaction. moved waits until others have appended some more.
func (a *application) transact(ctx context.Context, h *history, moved func(ctx context.Context, events int)) error {
	x := transaction{tokens: map[eventhose.TenantID][]token{}, committed: a.rng.IntN(4) > 0}
	since := h.now()
	tx, err := a.conn.Begin(ctx)
	if err != nil {
		return err
	}
	for range 1 + a.rng.IntN(12) {
		tenant, k := a.tenant(), a.token()
		id := ""
		if a.rng.IntN(3) == 0 {
			id = fmt.Sprint("app-", k)
		}
		h.mu.Lock()
		h.since[k] = since
		h.mu.Unlock()
		if _, err := tx.Exec(ctx, "SELECT eventhose.append($1, 'order.paid', $2, id => $3)", string(tenant), string(k.data()), id); err != nil {
			return err
		}
		x.tokens[tenant] = append(x.tokens[tenant], k)
	}
	if a.rng.IntN(2) == 0 {
		a.held.Add(1)
		moved(ctx, 1+a.rng.IntN(1000))
	}
	if x.committed {
		err = tx.Commit(ctx)
	} else {
		err = tx.Rollback(ctx)
	}
	if err == nil {
		h.done(x)
	}
	return err
}

// readAll answers whole logs.
func readAll(ctx context.Context, st store.Log, tenants []eventhose.TenantID) (map[eventhose.TenantID][]*eventhose.Event, error) {
	logs := map[eventhose.TenantID][]*eventhose.Event{}
	for _, tenant := range tenants {
		for {
			log := logs[tenant]
			page, err := st.Read(ctx, tenant, eventhose.Sequence(len(log)), store.ReadLimit{Events: 5000, Bytes: 4 << 20})
			if err != nil {
				return nil, err
			}
			if len(page) == 0 {
				break
			}
			logs[tenant] = append(log, page...)
		}
	}
	return logs, nil
}
