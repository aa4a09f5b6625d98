package inbound

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/eventhose/eventhose"
)

const (
	// maxExamined is about how many places of the log one request for the inbox looks at, unless its time is over before.
	maxExamined = eventhose.MaxExamined
	// maxLanes is about how many times it looks where the delivery of a source stands.
	maxLanes = 1000
	// inboxPage is how many events of it are looked at in one step.
	inboxPage = 500
	// inboxAttempts is how many attempts of an event are looked at.
	inboxAttempts = 100
)

// Inbox answers what came in through a tenant's sources and what became of it, oldest first, and the cursor to go on from.
// It may answer fewer than asked for, and none, while there is more. CodeInvalid with the field, CodeNotFound (no such
// source), CodeCursorGone.
func (d *Door) Inbox(ctx context.Context, tenant eventhose.TenantID, q eventhose.InboxQuery) (items []eventhose.InboxItem, next eventhose.Cursor, more bool, err error) {
	fail := func(err error) ([]eventhose.InboxItem, eventhose.Cursor, bool, error) {
		return nil, eventhose.Cursor{}, false, err
	}
	switch q.Status {
	case "", eventhose.InboxPending, eventhose.InboxProcessed, eventhose.InboxFailed, eventhose.InboxDead:
	default:
		return fail(eventhose.Invalid("status", "must be pending, processed, failed or dead"))
	}
	if q.Limit < 1 || q.Limit > 1000 {
		return fail(eventhose.Invalid("limit", "must be between 1 and 1000"))
	}
	sources, err := d.inboxSources(ctx, tenant, q)
	if err != nil {
		return fail(err)
	}
	if q.Status == eventhose.InboxFailed || q.Status == eventhose.InboxDead {
		return d.setAside(ctx, tenant, q, sources)
	}
	filter := eventhose.Filter{}
	if q.Source != "" {
		filter.Attributes = map[string]string{eventhose.SourceAttribute: string(q.Source)}
	} else if q.Provider != "" {
		filter.Attributes = map[string]string{"provider": q.Provider}
	}
	items, next = []eventhose.InboxItem{}, q.After
	until := time.Now().Add(eventhose.SearchTime)
	for examined, lanes := uint64(0), 0; ; {
		page, err := d.log.Page(ctx, tenant, next, filter, eventhose.PageLimit{Events: inboxPage})
		if err != nil {
			return fail(err)
		}
		found, touched, err := d.became(ctx, tenant, q.Status, sources, page.Events)
		if err != nil {
			return fail(err)
		}
		room := q.Limit - len(items)
		for i := range found[:min(room, len(found))] {
			if err := d.addAttempts(ctx, tenant, sources[string(found[i].Source)].Subscription, &found[i]); err != nil {
				return fail(err)
			}
			items = append(items, found[i])
			if i+1 < len(found) && !time.Now().Before(until) {
				room = i + 1
				break
			}
		}
		if len(found) > room {
			next = eventhose.Cursor{Incarnation: page.Cursor.Incarnation, Sequence: items[len(items)-1].Sequence}
			return items, next, true, nil
		}
		examined += uint64(page.Cursor.Sequence - min(next.Sequence, page.Cursor.Sequence))
		lanes += touched
		next = page.Cursor
		if !page.HasMore || len(items) == q.Limit || examined >= maxExamined || lanes >= maxLanes || !time.Now().Before(until) {
			return items, next, page.HasMore, nil
		}
	}
}

// setAside answers what is failed or dead: it is parked, so it is found without looking through the log, and also what
// retention has taken from there.
func (d *Door) setAside(ctx context.Context, tenant eventhose.TenantID, q eventhose.InboxQuery, sources map[string]eventhose.Source) (items []eventhose.InboxItem, next eventhose.Cursor, more bool, err error) {
	fail := func(err error) ([]eventhose.InboxItem, eventhose.Cursor, bool, error) {
		return nil, eventhose.Cursor{}, false, err
	}
	head, err := d.log.Head(ctx, tenant)
	if err != nil {
		return fail(err)
	}
	after := q.After.Sequence
	if q.After != (eventhose.Cursor{}) && q.After.Incarnation != head.Incarnation {
		if after, err = head.Resolve(q.After); err != nil {
			return fail(err)
		}
	}
	state := eventhose.ParkedDead
	if q.Status == eventhose.InboxFailed {
		state = eventhose.ParkedRetrying
	}
	type row struct {
		eventhose.Parked
		source eventhose.Source
	}
	var rows []row
	for _, s := range sources {
		parked, err := d.delivery.Parked(ctx, tenant, s.Subscription, state, after, q.Limit+1)
		if err != nil {
			return fail(err)
		}
		for _, p := range parked {
			rows = append(rows, row{p, s})
		}
		// Of all only the first are wanted.
		slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.Sequence, b.Sequence) })
		rows = rows[:min(len(rows), q.Limit+1)]
	}
	if more = len(rows) > q.Limit; more {
		rows = rows[:q.Limit]
	}
	items = []eventhose.InboxItem{}
	for _, r := range rows {
		next = head.Cursor(r.Sequence)
		if state == eventhose.ParkedRetrying && r.Attempts == 0 {
			continue // it was given back before a worker had begun
		}
		e, err := d.log.Event(ctx, tenant, string(r.source.ID), r.Event)
		if eventhose.CodeOf(err) == eventhose.CodeNotFound {
			continue // it has been settled meanwhile, and is gone
		} else if err != nil {
			return fail(err)
		}
		item := inboxItem(&r.source, &e, q.Status)
		if err := d.addAttempts(ctx, tenant, r.source.Subscription, &item); err != nil {
			return fail(err)
		}
		if item.Attempts == 0 { // retention took the record of them with the event's place
			item.Attempts, item.LastError = r.Attempts, r.Message
		}
		items = append(items, item)
	}
	return items, next, more, nil
}

func inboxItem(s *eventhose.Source, e *eventhose.Event, status eventhose.InboxStatus) eventhose.InboxItem {
	return eventhose.InboxItem{Event: e.ID, Sequence: e.Sequence, Source: s.ID, Provider: s.Provider, Topic: e.Type, Key: e.Key, Status: status, Received: e.Appended}
}

// inboxSources are the sources that a query is about, by id.
func (d *Door) inboxSources(ctx context.Context, tenant eventhose.TenantID, q eventhose.InboxQuery) (map[string]eventhose.Source, error) {
	sources := map[string]eventhose.Source{}
	if q.Source != "" {
		s, err := d.sources.Source(ctx, tenant, q.Source)
		if err == nil && (q.Provider == "" || q.Provider == s.Provider) {
			sources[string(s.ID)] = s
		}
		return sources, err
	}
	list, err := d.sources.Sources(ctx, tenant, "", eventhose.MaxSources)
	for _, s := range list {
		if q.Provider == "" || q.Provider == s.Provider {
			sources[string(s.ID)] = s
		}
	}
	return sources, err
}

// became tells of those events that came through one of the sources, in order, and are in a status, but for what was tried. It
// answers too how many sources it looked at.
func (d *Door) became(ctx context.Context, tenant eventhose.TenantID, status eventhose.InboxStatus, sources map[string]eventhose.Source, events []eventhose.Event) (items []eventhose.InboxItem, touched int, err error) {
	of := map[string][]eventhose.Event{}
	for _, e := range events {
		if _, ok := sources[e.Scope]; ok && e.Attributes[eventhose.SourceAttribute] == e.Scope {
			of[e.Scope] = append(of[e.Scope], e)
		}
	}
	states := map[eventhose.Sequence]eventhose.InboxStatus{}
	for scope, list := range of {
		of, err := d.delivery.InboxStatus(ctx, tenant, sources[scope].Subscription, list)
		if err != nil {
			return nil, 0, err
		}
		for i := range list {
			states[list[i].Sequence] = of[i]
		}
	}
	for _, e := range events {
		state, ok := states[e.Sequence]
		if !ok || status != "" && state != status {
			continue
		}
		s := sources[e.Scope]
		items = append(items, inboxItem(&s, &e, state))
	}
	return items, len(of), nil
}

// addAttempts tells of an item what was tried.
func (d *Door) addAttempts(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, item *eventhose.InboxItem) error {
	attempts, err := d.delivery.AttemptsAt(ctx, tenant, sub, item.Sequence, inboxAttempts)
	if err != nil {
		return err
	}
	item.Attempts = len(attempts)
	for _, a := range attempts { // newest first
		switch took := a.Took(item.Sequence); {
		case took && item.Status == eventhose.InboxProcessed && item.Processed.IsZero():
			item.Processed = a.Started.Add(time.Duration(a.Duration))
		case !took && item.LastError == "":
			item.LastError = a.Message
		}
	}
	return nil
}
