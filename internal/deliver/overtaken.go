package deliver

import (
	"context"
	"encoding/json"
	"time"

	"github.com/eventhose/eventhose"
)

// overtaken moves a lane that retention has overtaken to the first event left, and tells.
func (t *tenant) overtaken(ctx context.Context, l *lane) error {
	head, err := t.engine.store.Head(ctx, t.id)
	if err != nil {
		return err
	}
	if err := l.tellOvertaken(ctx, head.First); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !l.tailing && l.examined < head.First-1 {
		l.examined, l.lastDue = head.First-1, 0 // whether what is gone was due nobody knows any more
	}
	l.change()
	l.update()
	return nil
}

// tellOvertaken tells a lane's owner of the first event left, once for each such place.
func (l *lane) tellOvertaken(ctx context.Context, first eventhose.Sequence) error {
	return l.tellOnce(ctx, first, func() (eventhose.Sequence, error) { return first, nil })
}

// tellOnce tells a lane's owner of the first event left, which find answers, unless one at least that far was told of. Who comes
// while another tells waits for what comes of that: what is not told of must not be passed over.
func (l *lane) tellOnce(ctx context.Context, least eventhose.Sequence, find func() (eventhose.Sequence, error)) error {
	t := l.tenant
	t.mu.Lock()
	for l.told < least && l.telling != nil {
		telling := l.telling
		t.mu.Unlock()
		select {
		case <-telling:
		case <-ctx.Done():
			return ctx.Err()
		}
		t.mu.Lock()
	}
	if l.told >= least {
		t.mu.Unlock()
		return nil
	}
	telling := make(chan struct{})
	l.telling = telling
	t.mu.Unlock()
	first, err := find()
	if err == nil {
		err = t.tellOvertaken(ctx, l.id, first)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		l.told = max(l.told, first)
	}
	l.telling = nil
	close(telling)
	return err
}

// overtakenTail moves the matcher to the first event left and tells every active subscription's owner.
func (t *tenant) overtakenTail(ctx context.Context) error {
	head, err := t.engine.store.Head(ctx, t.id)
	if err != nil {
		return err
	}
	var told []eventhose.SubscriptionID
	t.mu.Lock()
	for id, sub := range t.subs {
		if l := t.lanes[id]; sub.active() && (l == nil || l.tailing && l.examined+1 < head.First) {
			told = append(told, id)
		}
	}
	t.mu.Unlock()
	for _, id := range told {
		if err := t.tellOvertaken(ctx, id, head.First); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.matched = max(t.matched, head.First-1)
	for _, id := range told {
		sub := t.subs[id]
		if sub == nil {
			continue
		}
		// Also the row of one that rests is to say that what is due next comes after nothing that is known.
		l := t.lane(sub)
		l.told, l.lastDue = max(l.told, head.First), 0
		if l.loaded {
			l.change()
		} else {
			l.needRead()
		}
	}
	return nil
}

func (t *tenant) tellOvertaken(ctx context.Context, sub eventhose.SubscriptionID, first eventhose.Sequence) error {
	if !t.term.sends(time.Now()) {
		return errElsewhere
	}
	t.engine.logger.Warn("retention has overtaken a subscription", "tenant", t.id, "subscription", sub, "first", first)
	body, err := json.Marshal(map[string]any{"subscription": sub, "first": first})
	if err != nil {
		return err
	}
	return t.engine.system.AppendSystem(ctx, t.id, Overtaken, body)
}
