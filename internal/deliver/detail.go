package deliver

// One attempt, as a person looks at it: what was sent, made once more by what sends, and what its outcome means.

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/diagnose"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// Attempt answers one attempt of a subscription. CodeNotFound.
func (e *Engine) Attempt(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, id string) (eventhose.AttemptDetail, error) {
	s, err := e.lanes.Subscription(ctx, tenant, sub)
	if err != nil {
		return eventhose.AttemptDetail{}, err
	}
	// Behind its id comes itself.
	list, err := e.store.Attempts(ctx, tenant, store.AttemptQuery{Subscription: sub, Before: id + "0", Limit: 1})
	if err != nil {
		return eventhose.AttemptDetail{}, err
	}
	if len(list) == 0 || list[0].ID != id {
		return eventhose.AttemptDetail{}, eventhose.NotFound("attempt")
	}
	a := list[0]
	d := eventhose.AttemptDetail{Attempt: a, Diagnosis: diagnose.Attempt(&a)}
	items, err := e.sentItems(ctx, &a)
	if err != nil {
		return eventhose.AttemptDetail{}, err
	}
	if d.EventGone = items == nil; !d.EventGone && a.URL != "" {
		d.Request = e.rebuild(s, &a, items)
	}
	return d, nil
}

// sentItems reads the events of an attempt; nil if one of them is trimmed or erased.
func (e *Engine) sentItems(ctx context.Context, a *eventhose.Attempt) ([]sink.Item, error) {
	if a.Kind == eventhose.AttemptTest && len(a.Events) == 1 {
		event, ok := testEvent(a.Tenant, a.Events[0])
		if !ok {
			return nil, nil
		}
		return []sink.Item{{Event: event}}, nil
	}
	wanted := make([]item, len(a.Sequences))
	for i, seq := range a.Sequences {
		wanted[i].seq = seq
	}
	if err := e.readAll(ctx, a.Tenant, wanted); err != nil {
		return nil, err
	}
	items := make([]sink.Item, len(wanted))
	for i := range wanted {
		event := wanted[i].event
		if event == nil || event.Erased || i < len(a.Events) && event.ID != a.Events[i] {
			return nil, nil
		}
		items[i].Event = event
		if i < len(a.Previous) {
			items[i].Previous = a.Previous[i]
		}
	}
	return items, nil
}

// rebuild makes an attempt's request once more; nil if its sink cannot tell.
func (e *Engine) rebuild(s eventhose.Subscription, a *eventhose.Attempt, items []sink.Item) *eventhose.SentRequest {
	renderer, ok := e.sinks[s.Destination.Type].(sink.Renderer)
	if !ok || len(items) == 0 {
		return nil
	}
	b := &sink.Batch{ID: a.Batch, Subscription: &s, Items: items, Kind: a.Kind, Number: a.Number, Replay: a.Replay}
	if batched := a.Batch != ""; batched != s.Batch.Batched() {
		// It was of another policy. Without a version nothing of the present one is used.
		s.Batch.MaxEvents, s.Version = 1, 0
		if batched {
			s.Batch.MaxEvents = eventhose.MaxBatchEvents
		}
	}
	if a.Batch == "" {
		b.ID = items[0].Event.WebhookID()
	}
	request, ok := renderer.Render(b, a.Started, signedAlike(&s, a.Started))
	if !ok {
		return nil
	}
	shown := sink.CutUTF8(string(request.Body), eventhose.MaxShownBody)
	return &eventhose.SentRequest{Method: request.Method, URL: a.URL, Headers: request.Headers, Body: shown,
		BodyTruncated: len(request.Body) > eventhose.MaxShownBody, Changed: s.Updated.After(a.Started)}
}

// signedAlike reports whether it is certain that a request was signed at a time by the secrets that a subscription has now:
// nothing was changed since, and no secret can have ended since.
func signedAlike(s *eventhose.Subscription, at time.Time) bool {
	if s.Updated.After(at) {
		return false
	}
	return s.Updated.Equal(s.Created) || at.Sub(s.Updated) > time.Duration(eventhose.MaxOverlap)
}

const testPrefix = "test_"

// newTestID names a test event that is made at a time.
func (e *Engine) newTestID(now time.Time) string {
	return testPrefix + idAt(uint64(now.UnixMicro()), e.opts.Random())
}

// testEvent is the test event of an id, which says all that is not the same for all of them.
func testEvent(tenant eventhose.TenantID, id string) (*eventhose.Event, bool) {
	text, is := strings.CutPrefix(id, testPrefix)
	b, ok := eventhose.IDBytes(text)
	at := time.UnixMicro(int64(binary.BigEndian.Uint64(b[:8]))).UTC()
	return &eventhose.Event{ID: id, Tenant: tenant, Type: eventhose.TestType, Time: at, Appended: at,
		Data: []byte(`{"message":"a test event from Eventhose"}`)}, is && ok
}

// SearchAttempts reads attempts newest first. It looks at no more than eventhose.MaxExamined and for about
// eventhose.SearchTime, and answers what it has found by then, or about eventhose.MaxPageBytes, with the place to go on from.
func (e *Engine) SearchAttempts(ctx context.Context, tenant eventhose.TenantID, q eventhose.AttemptSearch) (page eventhose.AttemptPage, err error) {
	before, until := q.Before, time.Now().Add(eventhose.SearchTime)
	if !q.Until.IsZero() {
		if last := eventhose.AttemptIDAt(q.Until.Add(time.Microsecond)); before == "" || last < before {
			before = last
		}
	}
	since := ""
	if !q.Since.IsZero() {
		since = eventhose.AttemptIDAt(q.Since)
	}
	head, err := e.store.Head(ctx, tenant)
	if err != nil {
		return page, err
	}
	for examined, size := 0, 0; ; {
		// The filter may want few of them, so more are read at once than are wanted; but not so many that the time is far over.
		limit := min(max(q.Limit+1, 100), attemptChunk)
		list, err := e.store.Attempts(ctx, tenant, store.AttemptQuery{Subscription: q.Subscription, Before: before, Limit: limit})
		if err != nil {
			return page, err
		}
		for i := range list {
			a := &list[i]
			if a.ID < since {
				return page, nil
			}
			if len(page.Attempts) == q.Limit || size >= eventhose.MaxPageBytes {
				page.Next = before
				return page, nil
			}
			before = a.ID
			if page.SearchedTo, err = attemptEnd(a.ID); err != nil {
				return page, err
			}
			if wanted(a, &q, head.First) {
				page.Attempts = append(page.Attempts, *a)
				size += a.Size()
			}
		}
		if len(list) < limit {
			return page, nil
		}
		if examined += len(list); examined >= eventhose.MaxExamined || !time.Now().Before(until) {
			page.Next = before
			return page, nil
		}
	}
}

// attemptChunk is how many attempts are read in one step at most.
const attemptChunk = 500

var errAttemptID = errors.New("an attempt is stored under what is no attempt's id")

func attemptEnd(id string) (time.Time, error) {
	at, ok := eventhose.AttemptIDTime(id)
	if !ok {
		return at, errAttemptID
	}
	return at, nil
}

// wanted reports whether a search is for an attempt. One without a subscription stands for some that are gone.
func wanted(a *eventhose.Attempt, q *eventhose.AttemptSearch, first eventhose.Sequence) bool {
	if a.Subscription == "" || len(a.Sequences) > 0 && a.Sequences[len(a.Sequences)-1] < first {
		return false
	}
	return (q.Outcome == "" || a.Outcome == q.Outcome) && (q.Reason == "" || a.Reason == q.Reason)
}

// SearchParked lists what all of a tenant's subscriptions have set aside, by sequence and subscription, those after a place,
// in one state or with "" in any. Waiting events are not among them: they lie in the log. It looks at no more than
// eventhose.MaxExamined and for about eventhose.SearchTime; more says that there may be others behind next.
func (e *Engine) SearchParked(ctx context.Context, tenant eventhose.TenantID, state eventhose.ParkedState, after eventhose.ParkedPlace, limit int) (list []eventhose.Parked, next eventhose.ParkedPlace, more bool, err error) {
	until := time.Now().Add(eventhose.SearchTime)
	for chunk, examined := limit+1, 0; ; chunk = min(2*chunk, max(parkedChunk, limit+1)) {
		rows, err := e.store.Parked(ctx, tenant, "", store.ParkedQuery{After: after.Sequence, AfterSubscription: after.Subscription, Limit: chunk})
		if err != nil {
			return nil, after, false, err
		}
		for i := range rows {
			if len(list) == limit {
				return list, after, true, nil
			}
			p := &rows[i].Parked
			if after = (eventhose.ParkedPlace{Sequence: p.Sequence, Subscription: p.Subscription}); state == "" || p.State == state {
				list = append(list, *p)
			}
		}
		if len(rows) < chunk {
			return list, after, false, nil
		}
		if examined += len(rows); examined >= eventhose.MaxExamined || !time.Now().Before(until) {
			return list, after, true, nil
		}
	}
}

// parkedChunk is how many parked rows are read in one step at most, unless a page may hold more.
const parkedChunk = 500
