// Package rollup counts what happens, minute by minute, and keeps it for a while in the store, so that there are charts
// without anything beside the server.
//
// Counting is on the way of every append and every attempt, so it is a short mutex, of one of several parts, around
// additions. Once a minute the minute that is over is taken out of all parts and added to what the hour of each
// series has so far (flush.go), and that is written as a record: one for each series, hour and node. Nobody else writes a
// node's record, so that none is read before it is written; each start is a node of its own. Who asks gets the records
// of all nodes added up, and from this node's memory what is not written yet (read.go). A crash loses the minute under way.
//
// There are as many series as there are tenants and subscriptions with something to do, so their number is bounded: what
// is beyond is counted for its tenant, or at least for the platform, and Stats tells.
package rollup

import (
	"crypto/rand"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// Kind is the kind of the records. They belong to the tenant, or to none what is of the whole platform.
const Kind = "rollup"

// all is the series of a whole tenant.
const all = "all"

const (
	// shards is in how many parts is counted.
	shards = 16
	// maxSeries is how many series one minute, and one hour, has at a node; of single subscriptions three quarters of it.
	maxSeries = 10_000
)

// Options of Rollups.
type Options struct {
	// Retention is how long a minute is kept, eventhose.DefaultMetricsRetention if 0.
	Retention time.Duration
	Logger    *slog.Logger

	// MaxSeries is for tests: 10,000 if 0.
	MaxSeries int
}

// Rollups counts. It is safe for concurrent use.
type Rollups struct {
	store     store.Records
	retention time.Duration
	logger    *slog.Logger
	most      int64

	parts [shards]part
	// counting is how many series the parts hold; left is how often something was counted without a series of its own.
	counting, left atomic.Int64

	mu    sync.Mutex
	hours map[hourOf]*hour
	// node is what the records of hours that begin are named by, before the minute that was not yet over at the last flush.
	node   string
	before int64
}

// New makes Rollups over a store, which it does not close.
func New(st store.Records, o Options) *Rollups {
	if o.Retention == 0 {
		o.Retention = eventhose.DefaultMetricsRetention
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxSeries == 0 {
		o.MaxSeries = maxSeries
	}
	return &Rollups{store: st, retention: o.Retention, logger: o.Logger, node: newNode(), most: int64(o.MaxSeries), hours: map[hourOf]*hour{}}
}

// newNode makes a name that no other node has, also not this one at its next start.
func newNode() string { return strings.ToLower(rand.Text()) }

// key names a series: all of a tenant, or one of its subscriptions. That of the whole platform has no tenant.
type key struct {
	tenant eventhose.TenantID
	series string
}

var platform = key{"", all}

// part counts for some of the tenants.
type part struct {
	mu  sync.Mutex
	now minute
	// over are minutes that wait to be taken.
	over []minute
	_    [64]byte // each on a cache line of its own
}

// minute is what was counted in one.
type minute struct {
	at       int64 // since 1970
	platform counts
	series   map[key]*counts
}

// Appended counts events that one request has appended to a tenant's log, and by reference to its parent's ("": it has
// none). It does not block.
func (r *Rollups) Appended(tenant, parent eventhose.TenantID, events, bytes int) {
	if events == 0 {
		return
	}
	p := r.lock(tenant)
	p.now.platform.append(events, bytes)
	if c := r.of(p, key{tenant, all}); c != nil {
		c.append(events, bytes)
	}
	p.mu.Unlock()
	if parent == "" {
		return
	}
	p = r.lock(parent)
	if c := r.of(p, key{parent, all}); c != nil {
		c.append(events, bytes)
	}
	p.mu.Unlock()
}

// Attempted counts an attempt that has ended; appended is when its first event was, zero if that is not known. Test
// events are not counted. It does not block, and does not keep a.
func (r *Rollups) Attempted(a *eventhose.Attempt, appended time.Time) {
	if a.Kind == eventhose.AttemptTest {
		return
	}
	lag := time.Duration(-1)
	if a.Outcome == eventhose.OutcomeTaken && a.Kind == eventhose.AttemptFirst && !appended.IsZero() {
		lag = max(0, a.Started.Add(time.Duration(a.Duration)).Sub(appended))
	}
	p := r.lock(a.Tenant)
	defer p.mu.Unlock()
	p.now.platform.attempt(a, lag)
	if c := r.of(p, key{a.Tenant, all}); c != nil {
		c.attempt(a, lag)
	}
	if c := r.of(p, key{a.Tenant, string(a.Subscription)}); c != nil {
		c.attempt(a, lag)
	}
}

// lock answers the part that counts for a tenant, in the present minute, with its mutex held.
func (r *Rollups) lock(tenant eventhose.TenantID) *part {
	now := minuteOf(time.Now())
	p := &r.parts[store.ShardOf(tenant)%shards]
	p.mu.Lock()
	p.turn(now)
	return p
}

// turn begins a minute, unless it is under way. Who looked at the clock just before another began the next minute counts in that.
// p.mu is held.
func (p *part) turn(now int64) {
	if now == p.now.at || now == p.now.at-1 {
		return
	}
	if len(p.now.series) > 0 || !p.now.platform.empty() {
		p.over = append(p.over, p.now)
	}
	p.now = minute{at: now, series: make(map[key]*counts, len(p.now.series))}
}

// of answers the counts of a series, or nil if there are too many. p.mu is held.
func (r *Rollups) of(p *part, k key) *counts {
	if c := p.now.series[k]; c != nil {
		return c
	}
	if r.counting.Add(1) > r.room(k) {
		r.counting.Add(-1)
		r.left.Add(1)
		return nil
	}
	c := &counts{}
	p.now.series[k] = c
	return c
}

// room is how many series there may be for one of this kind to become one more.
func (r *Rollups) room(k key) int64 {
	if k.series == all {
		return r.most
	}
	return r.most / 4 * 3
}

// Left answers how often something was counted for its tenant or the platform only, since there are too many series.
func (r *Rollups) Left() int64 { return r.left.Load() }

// minuteOf is a time's minute since 1970.
func minuteOf(t time.Time) int64 { return t.Unix() / 60 }
