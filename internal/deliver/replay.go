package deliver

import (
	"context"
	"errors"
	"slices"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/filter"
	"github.com/eventhose/eventhose/internal/store"
)

// replayWindow is how many events of a replay are in memory, and at most under way, at once; with batches it has room for
// two.
const replayWindow = 64

func (l *lane) replayWindow() int {
	if !l.sub.Batch.Batched() {
		return replayWindow
	}
	return max(replayWindow, 2*l.sub.Batch.MaxEvents)
}

// statusPage is how many events of a replay with a status are read at once: what became of them is looked up.
const statusPage = 64

// lookback is how far before a replay's position the event before it is looked for.
const lookback = 1000

// replay is a second, bounded cursor beside live order. What fails in it is parked like everything else, but blocks
// nothing: its order was kept when it was live.
type replay struct {
	eventhose.Replay
	window   []*entry // read and not settled; its first is never done
	examined eventhose.Sequence
	lastDue  eventhose.Sequence
	primed   bool // lastDue is known
}

// restart forgets what was read and comes after all that was sent, to read it again.
func (r *replay) restart(e *Engine) {
	kept := 0
	for i, n := range r.window {
		if n.sending || n.done {
			kept = i + 1
		} else {
			e.unpin(n)
		}
	}
	clear(r.window[kept:])
	r.window = r.window[:kept]
	r.examined, r.primed = r.At, false
	if kept > 0 {
		r.examined = r.window[kept-1].seq
	}
}

// next is the next event to send, nil if there is none now.
func (r *replay) next(o eventhose.Ordering) *entry {
	for _, n := range r.window {
		if !n.sending && !n.done {
			return n
		}
		if o != eventhose.OrderingNone && n.sending {
			return nil
		}
	}
	return nil
}

// replayed takes a settled event out of its replay.
func (l *lane) replayed(r *replay, n *entry) {
	n.sending, n.done = false, true
	l.tenant.engine.unpin(n)
	r.Sent++
	r.trim()
	l.change()
	l.endReplays()
}

func (r *replay) trim() {
	done := 0
	for done < len(r.window) && r.window[done].done {
		done++
	}
	clear(r.window[:done])
	r.window = r.window[done:]
	r.At = r.examined
	if len(r.window) > 0 {
		r.At = r.window[0].seq - 1
	}
}

// endReplays drops the replays that have come to their end.
func (l *lane) endReplays() {
	kept := l.replays[:0]
	for _, r := range l.replays {
		if r.At < r.To || len(r.window) > 0 {
			kept = append(kept, r)
		}
	}
	clear(l.replays[len(kept):])
	l.replays = kept
}

func (l *lane) wantsReplayRead() bool {
	if !l.loaded || l.gone || !l.sub.active() {
		return false
	}
	for _, r := range l.replays {
		if l.wantsPage(r) {
			return true
		}
	}
	return false
}

func (l *lane) wantsPage(r *replay) bool {
	return r.examined < r.To && len(r.window) < l.replayWindow()/2
}

// readReplays reads one page for a replay that has room, for each in its turn.
func (t *tenant) readReplays(ctx context.Context, l *lane) error {
	t.mu.Lock()
	if !l.wantsReplayRead() {
		t.mu.Unlock()
		return nil
	}
	from := slices.Index(l.replays, l.lastRead) + 1
	var r *replay
	for i := range l.replays {
		if r = l.replays[(from+i)%len(l.replays)]; l.wantsPage(r) {
			break
		}
	}
	l.lastRead = r
	t.mu.Unlock()
	err := t.readReplay(ctx, l, r)
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.wantsReplayRead() {
		l.needRead()
	}
	return err
}

func (t *tenant) readReplay(ctx context.Context, l *lane, r *replay) error {
	t.mu.Lock()
	if l.gone || !l.wantsPage(r) {
		t.mu.Unlock()
		return nil
	}
	after, f, primed, spec := r.examined, l.sub.filter, r.primed, r.Replay
	t.mu.Unlock()

	lastDue := eventhose.Sequence(0)
	if !primed {
		var err error
		if lastDue, err = t.dueBefore(ctx, f, after); err != nil {
			return err
		}
	}
	limit := readLimit
	if spec.Status != "" {
		limit.Events = statusPage
	}
	events, err := t.engine.store.Read(ctx, t.id, after, limit)
	if errors.Is(err, store.ErrTrimmed) {
		head, err := t.engine.store.Head(ctx, t.id)
		if err != nil {
			return err
		}
		if err := l.tellOvertaken(ctx, head.First); err != nil {
			return err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if r.examined < head.First-1 {
			r.examined, r.lastDue = head.First-1, 0
		}
		r.trim()
		l.endReplays()
		l.change()
		l.update()
		return nil
	}
	if err != nil {
		return err
	}
	due := t.matches(f, events)
	wanted, err := t.replayWants(ctx, l.id, spec, events, due)
	if err != nil {
		return err
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if l.gone || r.examined != after || l.sub.filter != f {
		return nil
	}
	if !primed {
		r.lastDue, r.primed = lastDue, true
	}
	for i, e := range events {
		if e.Sequence > r.To || len(r.window) >= l.replayWindow() {
			break
		}
		r.examined = e.Sequence
		if wanted[i] && l.parked[e.Sequence] == nil && !l.waits(e) {
			r.window = append(r.window, t.engine.pin(&entry{seq: e.Sequence, prev: r.lastDue, key: e.Key}, e))
		}
		if due[i] {
			r.lastDue = e.Sequence
		}
	}
	if len(events) == 0 {
		r.examined = r.To
	}
	r.trim()
	l.endReplays()
	l.change()
	l.update()
	return nil
}

// waits reports whether an event was not handed over yet because an earlier one of its key holds it up.
func (l *lane) waits(e *eventhose.Event) bool {
	k := l.keys[e.Key]
	return k != nil && k.First > 0 && e.Sequence >= k.First && e.Sequence <= k.Last
}

// dueBefore finds the last due sequence up to a place, looking back a bounded way; 0 if there is none in it.
func (t *tenant) dueBefore(ctx context.Context, f *filter.Filter, at eventhose.Sequence) (eventhose.Sequence, error) {
	head, err := t.engine.store.Head(ctx, t.id)
	if err != nil {
		return 0, err
	}
	after := max(head.First-1, at-min(at, lookback))
	last := eventhose.Sequence(0)
	for after < at {
		events, err := t.engine.store.Read(ctx, t.id, after, readLimit)
		if errors.Is(err, store.ErrTrimmed) {
			return last, nil
		}
		if err != nil || len(events) == 0 {
			return last, err
		}
		for i, due := range t.matches(f, events) {
			if after = events[i].Sequence; due && after <= at {
				last = after
			}
		}
	}
	return last, nil
}

// replayWants says which due events of a page a replay sends.
func (t *tenant) replayWants(ctx context.Context, sub eventhose.SubscriptionID, r eventhose.Replay, events []*eventhose.Event, due []bool) ([]bool, error) {
	types, err := filter.Compile(eventhose.Filter{Types: r.Types})
	if err != nil {
		return nil, err
	}
	wanted := make([]bool, len(events))
	for i, e := range events {
		if !due[i] || e.Sequence > r.To {
			continue
		}
		if e.Erased {
			if trimmed, err := t.engine.trimmed(ctx, e); err != nil || !trimmed { // that is told of when it is its turn
				if err != nil {
					return nil, err
				}
				continue
			}
		}
		if len(r.Types) > 0 {
			if ok, err := types.Match(e); err != nil || !ok {
				continue
			}
		}
		wanted[i] = true
	}
	if r.Status != "" {
		return wanted, t.engine.haveStatus(ctx, t.id, sub, r.Status, events, wanted)
	}
	return wanted, nil
}

// haveStatus takes out of the wanted events of a page those whose delivery does not stand as a replay asks: delivered, failed or dead.
func (e *Engine) haveStatus(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, status string, events []*eventhose.Event, wanted []bool) error {
	open := map[eventhose.Sequence]int{} // whose attempts say it
	for i, ev := range events {
		if wanted[i] {
			open[ev.Sequence] = i
		}
	}
	if len(open) == 0 {
		return nil
	}
	first, last := events[0].Sequence, events[len(events)-1].Sequence
	rows, err := e.store.Parked(ctx, tenant, sub, store.ParkedQuery{After: first - 1, Limit: len(events)})
	if err != nil {
		return err
	}
	for i := range rows {
		if at, is := open[rows[i].Sequence]; is {
			wanted[at] = status == "failed" || status == string(rows[i].State)
			delete(open, rows[i].Sequence)
		}
	}
	for _, i := range open {
		wanted[i] = false
	}
	if status == string(eventhose.ParkedDead) {
		return nil
	}
	for q := (store.AttemptQuery{Subscription: sub, Sequence: first, Through: last, Limit: attemptChunk}); len(open) > 0; {
		attempts, err := e.store.Attempts(ctx, tenant, q)
		if err != nil {
			return err
		}
		for i := range attempts {
			a := &attempts[i]
			for _, seq := range a.Sequences {
				if at, is := open[seq]; is && (status == "failed" || a.Took(seq)) { // of those that failed the newest counts
					wanted[at] = (status == "failed") != a.Took(seq)
					delete(open, seq)
				}
			}
			q.Before = a.ID
		}
		if len(attempts) < q.Limit {
			return nil
		}
	}
	return nil
}
