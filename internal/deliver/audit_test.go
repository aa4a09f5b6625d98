package deliver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/store"
)

// heal makes every receiver well and everything active, and waits until nothing is left to do.
func (c *chaos) heal() {
	ctx := context.Background()
	c.mu.Lock()
	for _, s := range c.subs {
		c.moods[s.id] = mood{healthy: true}
	}
	c.mu.Unlock()
	synctest.Wait() // what a 410 from before disables is disabled
	for _, s := range c.subs {
		if _, err := c.w.ctl.SetState(ctx, tenant, s.id, eventhose.StateActive); err != nil && !s.deleted {
			c.bad("enable %s: %v", s.id, err)
		}
	}
	for _, s := range c.subs {
		if _, err := c.w.ctl.Subscription(ctx, tenant, s.id); eventhose.CodeOf(err) == eventhose.CodeNotFound {
			s.deleted = true
			continue
		}
		c.drain(s)
	}
	pass(time.Minute)
	c.learn()
	taken, suspect, waiting := c.w.eng.Slots()
	if taken != 0 || suspect != 0 || waiting != 0 {
		c.bad("nothing is under way, and %d slots are taken, %d of them by suspects; %d lanes wait for one", taken, suspect, waiting)
	}
	if n := c.w.eng.Pinned(); n != 0 {
		c.bad("nothing is under way, and %d bytes of events are held in memory", n)
	}
}

func (c *chaos) drain(s *watched) {
	for range 2000 {
		synctest.Wait()
		st := c.w.status(s.id)
		if s.blocks && st.Dead > 0 {
			if _, err := c.w.eng.Redrive(context.Background(), tenant, s.id, nil); err != nil {
				c.bad("redrive %s: %v", s.id, err)
			}
		} else if st.Lag == 0 && st.InFlight == 0 && st.Retrying == 0 && st.Waiting == 0 && st.BlockedKeys == 0 && len(st.Replays) == 0 {
			return
		}
		pass(5 * time.Second)
	}
	c.bad("%s (%s) never drains: %+v", s.id, s.ordering, c.w.status(s.id))
}

// told gathers from the log what subscriptions were told of events that are gone.
func (c *chaos) told() (first map[eventhose.SubscriptionID]eventhose.Sequence, lost map[store.LostParked]bool) {
	first, lost = map[eventhose.SubscriptionID]eventhose.Sequence{}, map[store.LostParked]bool{}
	for _, e := range c.events {
		switch e.Type {
		case deliver.Overtaken:
			var body struct {
				Subscription eventhose.SubscriptionID
				First        eventhose.Sequence
			}
			if json.Unmarshal(e.Data, &body) == nil {
				first[body.Subscription] = max(first[body.Subscription], body.First)
			}
		case eventlog.ParkedLost:
			var body struct {
				Count  int
				Parked []store.LostParked
			}
			if json.Unmarshal(e.Data, &body) == nil {
				for _, p := range body.Parked {
					lost[p] = true
				}
			}
		}
	}
	return first, lost
}

// audit holds what was taken against what was promised.
func (c *chaos) audit() {
	for id, seq := range c.acked {
		if e := c.events[seq]; e == nil || e.ID != id {
			c.bad("event %s was acknowledged at %d and is not there", id, seq)
		}
	}
	first, lost := c.told()
	perCut := map[int]int{}
	for _, s := range c.subs {
		if s.deleted || s.due == nil {
			continue
		}
		var due []eventhose.Sequence
		for seq := s.begin + 1; seq <= eventhose.Sequence(len(c.events)); seq++ {
			if e := c.events[seq]; e != nil && !strings.HasPrefix(e.Type, eventhose.SystemPrefix) && s.due(e) {
				due = append(due, seq)
			}
		}
		a := s.arrivals(c)
		for _, seq := range due {
			if len(a.all[seq]) > 0 || a.replayed[seq] || s.discarded[seq] || c.erased[seq] || c.parked(s, seq) || lost[store.LostParked{Subscription: s.id, Sequence: seq}] {
				continue
			}
			if seq < c.trimmed && seq < first[s.id] {
				continue
			}
			var tries []string
			as, _ := c.w.eng.Attempts(context.Background(), tenant, s.id, "", 10_000)
			for _, at := range as {
				if slices.Contains(at.Sequences, seq) {
					tries = append(tries, fmt.Sprintf("%s %s %s %d", at.Started.Format("15:04:05.000"), at.Kind, at.Outcome, at.Status))
				}
			}
			c.bad("%s (%s): sequence %d never came; the first left is %d, and it was told of %d and of %d lost; tries: %q; past: %q", s.id, s.ordering, seq, c.trimmed, first[s.id], len(lost), tries, c.past)
		}
		a.repeats(c, s, perCut)
		a.order(c, s)
		a.previous(c, s, due)
	}
	for life, n := range perCut {
		if n > slotsInAll {
			c.bad("%d repeats after the cut that ended life %d, with %d in flight at most", n, life, slotsInAll)
		}
	}
}

func (c *chaos) parked(s *watched, seq eventhose.Sequence) bool {
	rows, err := c.w.store.Parked(context.Background(), tenant, s.id, store.ParkedQuery{After: seq - 1, Limit: 1})
	return err == nil && len(rows) == 1 && rows[0].Sequence == seq && rows[0].State == eventhose.ParkedDead
}

// arrivals are what came to one receiver, in order, and what of it was taken; replays are apart.
type arrivals struct {
	in       []arrival
	all      map[eventhose.Sequence][]arrival
	replayed map[eventhose.Sequence]bool
}

func (s *watched) arrivals(c *chaos) arrivals {
	a := arrivals{all: map[eventhose.Sequence][]arrival{}, replayed: map[eventhose.Sequence]bool{}}
	for _, d := range c.took {
		switch {
		case d.sub != s.id:
		case d.replay != "":
			a.replayed[d.seq] = a.replayed[d.seq] || d.taken
		default:
			a.in = append(a.in, d)
			if d.taken {
				a.all[d.seq] = append(a.all[d.seq], d)
			}
		}
	}
	return a
}

// repeats checks that what came twice was in flight when the power was cut in between.
func (a arrivals) repeats(c *chaos, s *watched, perCut map[int]int) {
	mine := map[int]map[int64]bool{} // by life, requests of which something came again
	for seq, times := range a.all {
		if e := c.events[seq]; e == nil || !s.due(e) || seq <= s.begin {
			c.bad("%s: sequence %d is not due to it", s.id, seq)
		}
		for i := 1; i < len(times); i++ {
			cut := -1
			for life := times[i-1].life; life < times[i].life; life++ {
				if c.after[life] {
					cut = life
					break
				}
			}
			if cut < 0 {
				c.bad("%s (%s): sequence %d came twice without a cut between: %+v, %+v", s.id, s.ordering, seq, times[i-1], times[i])
				continue
			}
			if mine[cut] == nil {
				mine[cut] = map[int64]bool{}
			}
			mine[cut][times[i-1].request] = true
		}
		for _, d := range times {
			if d.id != times[0].id {
				c.bad("%s: sequence %d came as %s and as %s", s.id, seq, times[0].id, d.id)
			}
		}
	}
	for life, again := range mine {
		n := len(again)
		if perCut[life] += n; n > 8*s.inFlight { // those that were answered and not recorded included
			c.bad("%s: %d repeats after the cut that ended life %d, with %d in flight at most", s.id, n, life, 8*s.inFlight)
		}
	}
}

// order checks when events were taken first. What was dead and redriven has left the order, unless it held its key or
// lane. What came and was not taken before a cut, so that others went on, may be taken after it: its death was not durable.
func (a arrivals) order(c *chaos, s *watched) {
	if s.ordering == eventhose.OrderingNone {
		return
	}
	last, seen := map[string]arrival{}, map[eventhose.Sequence]bool{}
	for _, d := range a.in {
		key := d.key
		if s.ordering == eventhose.OrderingStrict {
			key = "all"
		}
		if seen[d.seq] || key == "" || s.redriven[d.seq] && !s.blocks {
			continue
		}
		seen[d.seq] = true
		before := last[key]
		undone := before.life < d.life && c.after[before.life] && c.first[place{s.id, d.seq}] <= before.life+1
		if d.seq < before.seq && !undone {
			c.bad("%s (%s): sequence %d (key %q) first came after %d: %+v", s.id, s.ordering, d.seq, d.key, before.seq, d)
		}
		if d.seq > before.seq {
			last[key] = d
		}
	}
}

// previous checks the sequence that each arrival says was due before it; it may be less only where retention took what
// lies between.
func (a arrivals) previous(c *chaos, s *watched, due []eventhose.Sequence) {
	before := map[eventhose.Sequence]eventhose.Sequence{}
	for i := 1; i < len(due); i++ {
		before[due[i]] = due[i-1]
	}
	for _, d := range a.in {
		if want := before[d.seq]; d.prev != want && !(d.prev < want && want < c.trimmed) {
			c.bad("%s (%s): sequence %d says that %d was due before it, and it was %d: %+v", s.id, s.ordering, d.seq, d.prev, want, d)
		}
	}
}
