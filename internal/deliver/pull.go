package deliver

// Pull. A subscription without a destination is the same lane: its events are handed to workers that ask instead of being
// sent. An event in a worker's hands is parked as leased, which is committed, with the end of the lease and the count of
// deliveries, before the worker gets it. So nothing needs to remember workers: a lease that ends, after a crash or a lost
// answer, is an event that is due again, and what waits behind it in its key waits as it would behind one that is retried.

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	// pullPoll is how often a worker that waits looks again without a hint. At a node that must ask another it looks after askedPoll, and
	// then seldomer, up to askedMost: the store is told of each time, and all nodes.
	pullPoll  = 5 * time.Second
	askedPoll = 500 * time.Millisecond
	askedMost = 2 * time.Second
	// pullTime bounds one look.
	pullTime = 30 * time.Second
)

// pulls are the workers that wait, by lane, those that have waited longest first.
type pulls struct {
	mu      sync.Mutex
	waiting map[store.LaneRef][]chan struct{}
}

// wait answers a channel that closes when the lane may have something for this worker. Unless the worker looks again then,
// leave must be called, which passes the hint on if it came.
func (p *pulls) wait(ref store.LaneRef) (told <-chan struct{}, leave func()) {
	mine := make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		p.waiting = map[store.LaneRef][]chan struct{}{}
	}
	p.waiting[ref] = append(p.waiting[ref], mine)
	return mine, func() {
		p.mu.Lock()
		at := slices.Index(p.waiting[ref], mine)
		if at >= 0 {
			p.waiting[ref] = slices.Delete(p.waiting[ref], at, at+1)
			if len(p.waiting[ref]) == 0 {
				delete(p.waiting, ref)
			}
		}
		p.mu.Unlock()
		if at < 0 {
			p.tell(ref)
		}
	}
}

// tell lets the worker that has waited longest look.
func (p *pulls) tell(ref store.LaneRef) {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting := p.waiting[ref]
	if len(waiting) == 0 {
		return
	}
	close(waiting[0])
	if p.waiting[ref] = waiting[1:]; len(waiting) == 1 {
		delete(p.waiting, ref)
	}
}

func (l *lane) ref() store.LaneRef {
	return store.LaneRef{Tenant: l.tenant.id, Subscription: l.id}
}

func (p *parked) leased() bool { return p.State == eventhose.ParkedLeased }

// handing is what one delivery of one event to a worker is known by.
type handing struct {
	Lease      string             `json:"lease"`
	Sequence   eventhose.Sequence `json:"sequence"`
	Deliveries int                `json:"deliveries"`
	Until      time.Time          `json:"until"`
	Previous   eventhose.Sequence `json:"previous,omitempty"`
	Replay     string             `json:"replay,omitempty"`
	event      *eventhose.Event
}

// lease names a delivery by the place, when the event was set aside, and how often it was handed over: whatever happens to
// it, none has a name that another had.
func (p *parked) lease() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(p.Sequence))
	binary.BigEndian.PutUint64(b[8:], uint64(p.Since.UnixMicro())<<16|uint64(uint16(p.Tries)))
	return "lse_" + eventhose.IDText(b)
}

func leaseSequence(lease string) (eventhose.Sequence, bool) {
	text, ok := strings.CutPrefix(lease, "lse_")
	b, is := eventhose.IDBytes(text)
	return eventhose.Sequence(binary.BigEndian.Uint64(b[:])), ok && is
}

// Pull hands over at most p.Max events of a pull subscription, waiting for the first for p.Wait; fewer if they have more than
// MaxPageBytes of data together. What it hands over is leased durably. CodeInvalid with the field, CodeConflict if the
// subscription has a destination, CodeNotFound, CodeUnavailable.
func (e *Engine) Pull(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, p eventhose.Pull) ([]eventhose.Leased, error) {
	switch {
	case p.Max < 1 || p.Max > eventhose.MaxPull:
		return nil, eventhose.Invalid("max", "must be between 1 and %d", eventhose.MaxPull)
	case p.Lease < eventhose.MinLease || p.Lease > eventhose.MaxLease:
		return nil, eventhose.Invalid("lease", "must be between %v and %v", eventhose.MinLease, eventhose.MaxLease)
	case p.Wait < 0:
		return nil, eventhose.Invalid("wait", "must not be negative")
	}
	if err := e.pullable(ctx, tenant, sub); err != nil {
		return nil, err
	}
	ref := store.LaneRef{Tenant: tenant, Subscription: sub}
	waiting, cancel := context.WithTimeout(ctx, p.Wait)
	defer cancel()
	for asked := askedPoll; ; asked = min(2*asked, askedMost) {
		told, leave := e.pulls.wait(ref)
		there := e.elsewhere(tenant)
		list, err := e.pullOnce(ctx, tenant, sub, p, there)
		if err != nil || len(list) > 0 {
			leave()
			if ctx.Err() != nil {
				e.takeBack(tenant, sub, leasesOf(list))
				return nil, ctx.Err()
			}
			return list, err
		}
		poll := pullPoll
		if there {
			poll = asked
		}
		timer := time.NewTimer(poll)
		again := false
		select {
		case <-told:
			again = true
		case <-timer.C:
		case <-waiting.Done():
		case <-e.reading.Done():
		}
		timer.Stop()
		if again && waiting.Err() == nil && e.reading.Err() == nil {
			continue
		}
		leave()
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case waiting.Err() != nil:
			return nil, nil
		case e.reading.Err() != nil:
			return nil, &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "this node is stopping", RetryAfter: time.Second}
		}
	}
}

func leasesOf(list []eventhose.Leased) (leases []string) {
	for i := range list {
		leases = append(leases, list[i].Lease)
	}
	return leases
}

// takeBack undoes leases of a worker that has left before it was told of them, or cannot be told of them.
func (e *Engine) takeBack(tenant eventhose.TenantID, sub eventhose.SubscriptionID, leases []string) {
	if len(leases) == 0 {
		return
	}
	back := eventhose.Answer{Verdict: eventhose.AnswerRelease, Leases: leases}
	ctx, cancel := context.WithTimeout(context.Background(), pullTime)
	defer cancel()
	var err error
	if e.elsewhere(tenant) {
		err = e.ask(ctx, opAnswer, tenant, sub, back, new([]string))
	} else {
		_, err = e.answerHere(ctx, tenant, sub, back)
	}
	if err != nil {
		e.logger.Warn("cannot take back what a worker was to get; its leases end by themselves", "tenant", tenant, "subscription", sub, "events", len(leases), "error", err)
	}
}

// pullable says what is wrong with pulling from a subscription.
func (e *Engine) pullable(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID) error {
	s, err := e.lanes.Subscription(ctx, tenant, sub)
	if err == nil && !s.Pull() {
		err = &eventhose.Error{Code: eventhose.CodeConflict, Message: "the subscription has a destination, which it sends to", Fix: "create a subscription without a destination to pull from"}
	}
	return err
}

// pullOnce asks once. It does not end with ctx: what is being leased then is given back when it is known.
func (e *Engine) pullOnce(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, p eventhose.Pull, there bool) ([]eventhose.Leased, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pullTime)
	defer cancel()
	var list []handing
	var err error
	if there {
		if err = e.ask(ctx, opPull, tenant, sub, p, &list); err == nil {
			list, err = e.fetch(ctx, tenant, sub, list)
		}
	} else {
		list, err = e.pullHere(ctx, tenant, sub, p)
	}
	if err != nil {
		return nil, err
	}
	leased := make([]eventhose.Leased, len(list))
	for i, h := range list {
		leased[i] = eventhose.Leased{Lease: h.Lease, Event: *h.event, Deliveries: h.Deliveries, Until: h.Until, Previous: h.Previous, Replay: h.Replay}
	}
	return leased, nil
}

// fetch reads the events of leases that another node gave. One that is gone meanwhile is left out, and its lease ends; if they
// cannot be read all are taken back.
func (e *Engine) fetch(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, list []handing) ([]handing, error) {
	items, leases := make([]item, len(list)), make([]string, len(list))
	for i, h := range list {
		items[i].seq, leases[i] = h.Sequence, h.Lease
	}
	if err := e.readItems(ctx, tenant, items); err != nil {
		e.takeBack(tenant, sub, leases)
		return nil, err
	}
	for i := range items {
		for j := range list {
			if list[j].Sequence == items[i].seq {
				list[j].event = items[i].event
			}
		}
	}
	return slices.DeleteFunc(list, func(h handing) bool { return h.event == nil }), nil
}

// readItems sorts items by sequence and fills in their events; those that are gone stay nil.
func (e *Engine) readItems(ctx context.Context, tenant eventhose.TenantID, items []item) error {
	sortItems(items)
	return e.readAll(ctx, tenant, items)
}

func sortItems(items []item) {
	slices.SortFunc(items, func(a, b item) int { return cmp.Compare(a.seq, b.seq) })
}

// offer answers what the next worker is handed, nil if there is nothing. It changes nothing.
func (l *lane) offer(now time.Time) *job {
	if !l.delivers(now) || l.paced.After(now) {
		return nil
	}
	return l.following(now)
}

// pullHere is Pull on the node that delivers, without waiting.
func (e *Engine) pullHere(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, p eventhose.Pull) ([]handing, error) {
	var list []handing
	var failed error
	err := e.withLane(ctx, tenant, sub, func(l *lane) error {
		now := time.Now()
		l.expire(now)
		l.order()
		var jobs []*job
		var chosen portion
		for len(jobs) < p.Max {
			next := l.offer(now)
			if next == nil {
				break
			}
			// Parked ones come first, and how large they are is not known yet.
			if n := next.one[0].entry; n != nil && !chosen.add(n.size) {
				break
			}
			j := new(job)
			*j = *next
			j.items = j.one[:]
			l.begin(j)
			jobs = append(jobs, j)
		}
		if len(jobs) == 0 {
			return errNothing
		}
		l.tenant.mu.Unlock()
		failed = e.fillIn(ctx, tenant, jobs)
		l.tenant.mu.Lock()
		list = l.handOut(jobs, p.Lease)
		return nil
	})
	switch {
	case errors.Is(err, errNothing):
		return nil, failed
	case err != nil:
		e.untold(tenant, sub, list)
		return nil, err
	case len(list) == 0:
		return nil, failed
	}
	return list, nil
}

// untold has what was leased for a worker that is not told of it wait again. It does not wait until that is stored: the store may be
// why the worker is not told.
func (e *Engine) untold(tenant eventhose.TenantID, sub eventhose.SubscriptionID, list []handing) {
	t := e.lock(tenant)
	if t == nil {
		return
	}
	defer t.mu.Unlock()
	l := t.lanes[sub]
	if l == nil || !l.loaded {
		return
	}
	for _, h := range list {
		l.answer(h.Lease, eventhose.Answer{Verdict: eventhose.AnswerRelease}, time.Now())
	}
	l.update()
}

// portion is how much one pull hands over: MaxPageBytes of data together, unless one event alone has more.
type portion struct {
	events, bytes int
	full          bool
}

// add reports whether there was room. After the first that there was none for there is none for smaller ones either: those
// would always pass by it.
func (p *portion) add(size int) bool {
	p.full = p.full || p.events > 0 && p.bytes+size > eventhose.MaxPageBytes
	if p.full {
		return false
	}
	p.events++
	p.bytes += size
	return true
}

// fillIn reads what jobs of one event are about and decides what becomes of each. What a portion has no room for is kept.
func (e *Engine) fillIn(ctx context.Context, tenant eventhose.TenantID, jobs []*job) error {
	var room portion
	events, err := e.readParked(ctx, tenant, jobs, &room)
	var unread []item
	for _, j := range jobs {
		switch it := &j.one[0]; {
		case it.parked != nil:
		case !room.add(it.entry.size):
			j.keep(0)
		case it.event == nil:
			unread = append(unread, *it)
		}
	}
	if err == nil {
		err = e.readItems(ctx, tenant, unread)
	}
	for i := range unread {
		events[unread[i].seq] = unread[i].event
	}
	for _, j := range jobs {
		it, read := &j.one[0], true
		if it.event == nil {
			it.event, read = events[it.seq]
		}
		if err != nil || !read {
			j.keep(0)
		}
		if it.verdict != kept {
			e.prepare(j)
		}
	}
	return err
}

// readParked reads the parked events of jobs that there is room for, nil for those that are gone. Their sizes show when they are
// read, so it reads by the page, and no further than the room goes.
func (e *Engine) readParked(ctx context.Context, tenant eventhose.TenantID, jobs []*job, room *portion) (map[eventhose.Sequence]*eventhose.Event, error) {
	var items []item
	for _, j := range jobs {
		if j.one[0].parked != nil {
			items = append(items, j.one[0])
		}
	}
	sortItems(items)
	events := map[eventhose.Sequence]*eventhose.Event{}
	for len(items) > 0 && !room.full {
		n, err := e.readPage(ctx, tenant, items)
		if err != nil {
			return events, err
		}
		for _, it := range items[:n] {
			if it.event == nil || room.add(len(it.event.Data)) {
				events[it.seq] = it.event
			}
		}
		items = items[n:]
	}
	return events, nil
}

// handOut leases what jobs hold, and puts back what is kept.
func (l *lane) handOut(jobs []*job, lease time.Duration) []handing {
	now := time.Now()
	until := now.Add(lease).UTC().Truncate(time.Microsecond)
	list := make([]handing, 0, len(jobs))
	for _, j := range slices.Backward(jobs) { // so that each is put before those that it was before
		if j.one[0].verdict == kept {
			l.spend(-1)
			l.settleAll(j, fate{})
		}
	}
	for _, j := range jobs {
		l.sending--
		l.under--
		l.unsettled--
		it := &j.one[0]
		if l.gone || it.verdict == kept {
			continue
		}
		if it.verdict != sent {
			l.settleAll(j, fate{})
			continue
		}
		if j.replay != nil {
			if l.parked[it.seq] != nil { // a worker has it, or will have it again, without the replay
				it.verdict = nothing
				l.settleAll(j, fate{})
				continue
			}
			delete(l.dead, it.seq)
		}
		charge := 1
		if it.parked != nil {
			charge += it.parked.Attempts
		}
		l.settleAll(j, fate{failed: true, state: eventhose.ParkedLeased, now: now.UTC().Truncate(time.Microsecond), due: until, result: &sink.Result{}, charge: charge})
		p := l.parked[it.seq]
		p.handed = now
		list = append(list, handing{Lease: p.lease(), Sequence: it.seq, Deliveries: charge, Until: until, Previous: p.Previous, Replay: p.Replay, event: it.event})
	}
	l.change()
	return list
}

// Answer does with leases what a worker says, and answers those that are its no more: they have ended and the event was handed
// to another, or was answered before. CodeInvalid with the field, CodeConflict, CodeNotFound, CodeUnavailable.
func (e *Engine) Answer(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, a eventhose.Answer) (lost []string, err error) {
	switch {
	case len(a.Leases) == 0:
		return nil, eventhose.Invalid("leases", "must not be empty")
	case len(a.Leases) > eventhose.MaxPull:
		return nil, eventhose.Invalid("leases", "must be at most %d", eventhose.MaxPull)
	case a.Verdict == eventhose.AnswerNack && a.Delay > eventhose.MaxNackDelay:
		return nil, eventhose.Invalid("delay", "must be at most %v", eventhose.MaxNackDelay)
	case a.Verdict == eventhose.AnswerExtend && (a.Delay < eventhose.MinLease || a.Delay > eventhose.MaxLease):
		return nil, eventhose.Invalid("lease", "must be between %v and %v", eventhose.MinLease, eventhose.MaxLease)
	}
	for i, lease := range a.Leases {
		if _, ok := leaseSequence(lease); !ok {
			return nil, eventhose.Invalid(fmt.Sprintf("leases[%d]", i), "is not a lease")
		}
	}
	if len(a.Message) > eventhose.MaxKeptTaken {
		a.Message = a.Message[:eventhose.MaxKeptTaken]
	}
	a.Message = strings.ToValidUTF8(a.Message, "")
	if err := e.pullable(ctx, tenant, sub); err != nil {
		return nil, err
	}
	if e.elsewhere(tenant) {
		err = e.ask(ctx, opAnswer, tenant, sub, a, &lost)
		return lost, err
	}
	return e.answerHere(ctx, tenant, sub, a)
}

func (e *Engine) answerHere(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, a eventhose.Answer) ([]string, error) {
	lost := []string{}
	err := e.withLane(ctx, tenant, sub, func(l *lane) error {
		now := time.Now()
		for _, lease := range a.Leases {
			if !l.answer(lease, a, now) {
				lost = append(lost, lease)
			}
		}
		if len(lost) == len(a.Leases) {
			return errNothing
		}
		return nil
	})
	if errors.Is(err, errNothing) {
		err = nil
	}
	return lost, err
}

// answer does with one lease what its worker says, and reports whether it is that worker's. One that has ended still is,
// until the event is handed over again.
func (l *lane) answer(lease string, a eventhose.Answer, now time.Time) bool {
	seq, _ := leaseSequence(lease)
	p := l.parked[seq]
	if p == nil || p.sending || p.lease() != lease {
		return false
	}
	row, handed := p.Parked, p.handed
	switch a.Verdict {
	case eventhose.AnswerExtend:
		if !p.leased() {
			return false // it may be handed over at any moment
		}
		l.takeDown(p)
		row.Due = now.Add(a.Delay).UTC().Truncate(time.Microsecond)
		l.setAside(row)
		l.parked[seq].handed = handed
	case eventhose.AnswerAck:
		l.takeDown(p)
		delete(l.parked, seq)
		l.unparkRow(seq)
		l.unblock(seq)
		l.lastTaken = now.UTC()
		l.noteLease(row, handed, now, eventhose.OutcomeTaken, "", "")
	case eventhose.AnswerRelease:
		if !p.leased() {
			return true // it waits already
		}
		l.takeDown(p)
		row.State, row.Due, row.Attempts = eventhose.ParkedRetrying, now.UTC().Truncate(time.Microsecond), row.Attempts-1
		l.setAside(row)
	default:
		if !p.leased() {
			return true // it waits already
		}
		l.giveUp(p, a.Delay, now, eventhose.ReasonNack, a.Message)
	}
	return true
}

// expire takes events back whose leases have ended.
func (l *lane) expire(now time.Time) {
	for len(l.leases) > 0 && !l.leases[0].Due.After(now) {
		l.giveUp(l.leases[0], 0, now, eventhose.ReasonExpired, "the worker did not answer before its lease ended")
	}
}

// giveUp has an event handed over again, or, if it was often enough, sets it aside as dead.
func (l *lane) giveUp(p *parked, delay time.Duration, now time.Time, reason eventhose.Reason, message string) {
	row, handed := p.Parked, p.handed
	l.takeDown(p)
	delete(l.parked, row.Sequence)
	row.Status, row.Reason, row.Message = 0, reason, message
	if schedule := l.sub.Retry.Schedule; row.Attempts >= len(schedule) {
		row.State, row.Due = eventhose.ParkedDead, time.Time{}
	} else {
		if delay < 0 {
			delay = l.tenant.engine.jittered(time.Duration(schedule[row.Attempts]))
		}
		row.State, row.Due = eventhose.ParkedRetrying, now.Add(delay).UTC().Truncate(time.Microsecond)
	}
	blocked := row.Blocks
	free := row.State == eventhose.ParkedDead && l.sub.OnExhausted == eventhose.OnExhaustedPark
	if free {
		row.Blocks = false
	}
	l.setAside(row)
	if blocked && free {
		l.unblock(row.Sequence)
	}
	l.noteLease(row, handed, now, eventhose.OutcomeFailed, reason, message)
}

// noteLease records the end of a lease as an attempt.
func (l *lane) noteLease(row store.Parked, handed, now time.Time, outcome eventhose.Outcome, reason eventhose.Reason, message string) {
	kind := eventhose.AttemptFirst
	switch {
	case row.Redriven:
		kind = eventhose.AttemptRedrive
	case row.Tries > 1:
		kind = eventhose.AttemptRetry
	case row.Replay != "":
		kind = eventhose.AttemptReplay
	}
	if handed.IsZero() { // by a process that is no more
		handed = now
	}
	a := eventhose.Attempt{ID: l.tenant.engine.lastID.next(now), Tenant: l.tenant.id, Subscription: l.id, Events: []string{row.Event}, Sequences: []eventhose.Sequence{row.Sequence},
		Kind: kind, Number: row.Tries, Outcome: outcome, Reason: reason, Message: message, Started: handed.UTC(), Duration: eventhose.Duration(now.Sub(handed)), Replay: row.Replay}
	if row.State == eventhose.ParkedRetrying && outcome != eventhose.OutcomeTaken {
		a.Next = row.Due
	}
	l.changes.attempts = append(l.changes.attempts, a)
	l.tenant.engine.opts.Worked(a)
	l.change()
}

// nextChange is when something changes for workers by itself: a lease ends, or an event that waits is due.
func (l *lane) nextChange(now time.Time) time.Time {
	var at time.Time
	if len(l.leases) > 0 {
		at = l.leases[0].Due
	}
	if len(l.retries) > 0 && l.retries[0].Due.After(now) && (at.IsZero() || l.retries[0].Due.Before(at)) {
		at = l.retries[0].Due
	}
	if l.paced.After(now) && (at.IsZero() || l.paced.Before(at)) {
		at = l.paced
	}
	return at
}

// countLeased counts the events of a lane that workers have.
func (e *Engine) countLeased(ctx context.Context, s eventhose.Subscription, row store.Lane) (n int, err error) {
	if !s.Pull() || row.Retrying == 0 {
		return 0, nil
	}
	for after := eventhose.Sequence(0); ; {
		page, err := e.store.Parked(ctx, s.Tenant, s.ID, store.ParkedQuery{State: eventhose.ParkedLeased, After: after, Limit: 1000})
		if n += len(page); err != nil || len(page) < 1000 {
			return n, err
		}
		after = page[len(page)-1].Sequence
	}
}
