package inbound

import (
	"context"
	"time"

	"github.com/eventhose/eventhose"
)

const (
	// maxExamined is about how many places of the log one request for the inbox looks at.
	maxExamined = 10_000
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
	filter := eventhose.Filter{}
	if q.Source != "" {
		filter.Attributes = map[string]string{eventhose.SourceAttribute: string(q.Source)}
	} else if q.Provider != "" {
		filter.Attributes = map[string]string{"provider": q.Provider}
	}
	items, next = []eventhose.InboxItem{}, q.After
	for examined := uint64(0); ; {
		page, err := d.log.Page(ctx, tenant, next, filter, eventhose.PageLimit{Events: min(inboxPage, q.Limit-len(items)), Bytes: 0})
		if err != nil {
			return fail(err)
		}
		found, err := d.inboxItems(ctx, tenant, q.Status, sources, page.Events)
		if err != nil {
			return fail(err)
		}
		items = append(items, found...)
		examined += uint64(page.Cursor.Sequence - min(next.Sequence, page.Cursor.Sequence))
		next = page.Cursor
		if !page.HasMore || len(items) >= q.Limit || examined >= maxExamined {
			return items, next, page.HasMore, nil
		}
	}
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

// inboxItems tells of those events that came through one of the sources, in order, and are in a status.
func (d *Door) inboxItems(ctx context.Context, tenant eventhose.TenantID, status eventhose.InboxStatus, sources map[string]eventhose.Source, events []eventhose.Event) ([]eventhose.InboxItem, error) {
	of := map[string][]eventhose.Event{}
	for _, e := range events {
		if s, ok := sources[e.Scope]; ok && e.Attributes[eventhose.SourceAttribute] == string(s.ID) {
			of[e.Scope] = append(of[e.Scope], e)
		}
	}
	became := map[eventhose.Sequence]eventhose.InboxStatus{}
	for scope, list := range of {
		states, err := d.delivery.InboxStatus(ctx, tenant, sources[scope].Subscription, list)
		if err != nil {
			return nil, err
		}
		for i, state := range states {
			became[list[i].Sequence] = state
		}
	}
	var items []eventhose.InboxItem
	for _, e := range events {
		state, ok := became[e.Sequence]
		if !ok || status != "" && state != status {
			continue
		}
		s := sources[e.Scope]
		item := eventhose.InboxItem{Event: e.ID, Sequence: e.Sequence, Source: s.ID, Provider: s.Provider, Topic: e.Type, Key: e.Key, Status: state, Received: e.Appended}
		attempts, err := d.delivery.AttemptsAt(ctx, tenant, s.Subscription, e.Sequence, inboxAttempts)
		if err != nil {
			return nil, err
		}
		item.Attempts = len(attempts)
		for _, a := range attempts { // newest first
			if a.Took(e.Sequence) {
				if state == eventhose.InboxProcessed && item.Processed.IsZero() {
					item.Processed = a.Started.Add(time.Duration(a.Duration))
				}
			} else if item.LastError == "" {
				item.LastError = a.Message
			}
		}
		items = append(items, item)
	}
	return items, nil
}
