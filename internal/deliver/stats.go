package deliver

import (
	"time"

	"github.com/eventhose/eventhose"
)

// Stats is what the engine holds at one moment, over all tenants that it has worked for.
type Stats struct {
	// Pending counts the places of logs that lanes have still to look at or to deliver, and the retrying and waiting events, of
	// active subscriptions.
	Pending int
	// Oldest is when the oldest event that is known to be due to an active subscription and is not delivered was appended or
	// parked, zero if there is none. An event counts until it is taken or dead, also while its next try is to come.
	Oldest time.Time
	// InFlight counts the attempts under way or not yet recorded.
	InFlight int
	// Subscriptions counts them by state; "failing" are active ones whose circuit is open.
	Subscriptions map[string]int
}

// Failing is the state, in Stats, of an active subscription whose circuit is open.
const Failing = "failing"

// Stats looks at every lane in memory. It takes a moment when there are many.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	st := Stats{InFlight: e.inFlight, Subscriptions: map[string]int{}}
	tenants := make([]*tenant, 0, len(e.tenants))
	for _, t := range e.tenants {
		tenants = append(tenants, t)
	}
	e.mu.Unlock()
	for _, t := range tenants {
		t.mu.Lock()
		for id, sub := range t.subs {
			state := string(sub.State)
			if l := t.lanes[id]; l != nil && sub.active() && l.circuit.open {
				state = Failing
			}
			st.Subscriptions[state]++
		}
		for _, l := range t.lanes {
			l.addTo(&st)
		}
		t.mu.Unlock()
	}
	return st
}

// addTo counts nothing of a lane whose subscription is paused or disabled.
func (l *lane) addTo(st *Stats) {
	if !l.sub.active() {
		return
	}
	older := func(at time.Time) {
		if !at.IsZero() && (st.Oldest.IsZero() || at.Before(st.Oldest)) {
			st.Oldest = at
		}
	}
	st.Pending += len(l.parked)
	for _, n := range l.window {
		if !n.done {
			st.Pending++
		}
	}
	if len(l.window) > 0 {
		older(l.window[0].appended)
	}
	if ahead := l.tenant.matched; ahead > l.examinedTo() {
		st.Pending += int(ahead - l.examinedTo())
	}
	for _, k := range l.keys {
		st.Pending += k.Count
	}
	for _, p := range l.parked {
		older(p.Since)
	}
}

// States lists what Stats.Subscriptions is counted by.
func States() []string {
	return []string{string(eventhose.StateActive), string(eventhose.StatePaused), string(eventhose.StateDisabled), Failing}
}
