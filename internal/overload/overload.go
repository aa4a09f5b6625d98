// Package overload refuses appends that cannot be written soon. One Limit is shared by all doors that append.
//
// Appends that come faster than they can be written must not make each other late until all have given up: what cannot be
// taken soon is refused at once, before it is parsed and where possible before it is read, and what was taken is answered
// soon.
//
// How many may be under way at once is found out by how long they take. A burst makes some late, and a slow fsync makes all
// late for a moment; only when even the quickest of a while is late is there a queue that stays (this is what CoDel, RFC
// 8289, looks at), and then fewer are let in. A tenant is only refused while it has its share of those that are under way, so one
// that floods is refused and the others are not.
package overload

import (
	"sync"
	"time"

	"github.com/eventhose/eventhose"
)

const (
	// lateAfter is how long an append may take from its body's being there to its being durable.
	lateAfter = 100 * time.Millisecond
	// overloadWindow is how long the quickest append is looked for.
	overloadWindow = 100 * time.Millisecond
	leastAppends   = 16
	mostAppends    = 4096
	firstAppends   = 512
	// overloadRetry is when who was refused is told to come again.
	overloadRetry = time.Second
)

// Limit bounds the appends under way. It is safe for concurrent use.
type Limit struct {
	mu       sync.Mutex
	limit    float64
	underWay int
	tenants  map[eventhose.TenantID]int // under way, of each that has some
	// Of the present window, which begins when the first of its appends ends:
	began   time.Time
	ended   int           // appends that tell something
	least   time.Duration // that one of them took
	reached bool          // as many as the limit were under way
}

// New makes one that lets in 512 at once, until it knows better.
func New() *Limit {
	return &Limit{limit: firstAppends, tenants: map[eventhose.TenantID]int{}}
}

// Refuses reports whether an append of a tenant would be refused now.
func (o *Limit) Refuses(tenant eventhose.TenantID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.full(tenant)
}

// full reports whether a tenant has its share of what may be under way. o.mu is held.
func (o *Limit) full(tenant eventhose.TenantID) bool {
	if o.underWay < int(o.limit) {
		return false
	}
	o.reached = true
	mine := o.tenants[tenant]
	others := len(o.tenants)
	if mine == 0 {
		others++
	}
	return mine >= max(1, int(o.limit)/others) || o.underWay >= 2*mostAppends
}

// Take lets an append of a tenant in whose events are there, or answers Refused. done must be called once when it is durable, or has failed;
// written says which: what was refused at once tells nothing of how long writing takes.
func (o *Limit) Take(tenant eventhose.TenantID) (done func(written bool), err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.full(tenant) {
		return nil, Refused()
	}
	o.underWay++
	o.tenants[tenant]++
	began := time.Now()
	return func(written bool) { o.done(tenant, began, written) }, nil
}

func (o *Limit) done(tenant eventhose.TenantID, began time.Time, written bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.underWay--
	if o.tenants[tenant]--; o.tenants[tenant] == 0 {
		delete(o.tenants, tenant)
	}
	took := now.Sub(began)
	if !written && took <= lateAfter {
		return
	}
	if o.ended == 0 {
		o.began, o.least = now, took // one that is late after a pause is judged with what follows it
	}
	o.least = min(o.least, took)
	if o.ended++; now.Sub(o.began) < overloadWindow {
		return
	}
	switch {
	case o.least > lateAfter:
		o.limit = max(leastAppends, min(o.limit, float64(o.underWay+1))*0.85)
	case o.reached:
		o.limit = min(mostAppends, o.limit*1.1+1)
	}
	o.ended, o.reached = 0, false
}

// Refused is what who is refused gets: CodeUnavailable, with RetryAfter.
func Refused() error {
	return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "appends come faster than they can be written", Fix: "send less at once, in batches, and try again", RetryAfter: overloadRetry}
}
