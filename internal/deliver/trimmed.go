package deliver

// A place in a platform's log has no data of its own. Once the event that it stands for is gone from the connected tenant's
// log, it reads as erased, whichever the reason. But what was erased is not to be sent, and what that tenant's retention took
// was still to be: its place is told of before it is passed over, as all is that retention takes.

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// trimmed reports whether an event that reads as erased is a place whose event is no longer in its own log. One that was
// erased before it went counts, too: nothing tells them apart any more.
func (e *Engine) trimmed(ctx context.Context, ev *eventhose.Event) (bool, error) {
	if !ev.Erased || ev.Origin.Tenant == "" {
		return false, nil
	}
	_, err := e.store.Lookup(ctx, ev.Origin.Tenant, store.Ref{Sequence: ev.Origin.Sequence})
	if errors.Is(err, store.ErrNotFound) {
		return true, nil
	}
	return false, err
}

// tellTrimmed tells of those events of an attempt that read as erased and are trimmed where they come from: of parked ones by
// name, since their rows go with them, of others that retention has overtaken the subscription.
func (e *Engine) tellTrimmed(j *job, erased []*item) error {
	l := j.lane
	t := l.tenant
	var parked []store.LostParked
	last := eventhose.Sequence(0)
	for _, it := range erased {
		if trimmed, err := e.trimmed(e.sending, it.event); err != nil {
			return err
		} else if !trimmed {
			continue
		}
		t.mu.Lock()
		aside := it.parked != nil || l.dead[it.seq]
		t.mu.Unlock()
		if aside {
			parked = append(parked, store.LostParked{Subscription: l.id, Sequence: it.seq})
		} else {
			last = max(last, it.seq)
		}
	}
	if len(parked) > 0 {
		if err := t.tellLost(e.sending, parked); err != nil {
			return err
		}
	}
	if last == 0 {
		return nil
	}
	return l.tellOnce(e.sending, last+1, func() (eventhose.Sequence, error) {
		last, err := e.lastTrimmed(e.sending, t.id, last)
		return last + 1, err
	})
}

// lastTrimmed answers the last place of the page after a trimmed one that is trimmed as well: a backlog is told of by the page.
func (e *Engine) lastTrimmed(ctx context.Context, tenant eventhose.TenantID, seq eventhose.Sequence) (eventhose.Sequence, error) {
	page, err := e.store.Read(ctx, tenant, seq, readLimit)
	if errors.Is(err, store.ErrTrimmed) {
		return seq, nil
	}
	for _, ev := range page {
		trimmed, err := e.trimmed(ctx, ev)
		if err != nil {
			return 0, err
		}
		if trimmed {
			seq = ev.Sequence
		}
	}
	return seq, err
}

// tellLost tells of parked events that retention has taken.
func (t *tenant) tellLost(ctx context.Context, lost []store.LostParked) error {
	if !t.term.sends(time.Now()) {
		return errElsewhere
	}
	data := struct {
		Count  int                `json:"count"`
		Parked []store.LostParked `json:"parked"`
	}{len(lost), lost}
	body, err := json.Marshal(data)
	if err != nil {
		return err
	}
	t.engine.logger.Warn("retention has taken parked events of connected tenants", "tenant", t.id, "subscription", lost[0].Subscription, "events", len(lost))
	return t.engine.system.AppendSystem(ctx, t.id, ParkedLost, body)
}
