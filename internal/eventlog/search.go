package eventlog

import (
	"context"
	"errors"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/filter"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	// searchChunk is how many events are read in one step backwards, at first no more than are likely wanted, and searchBytes
	// how much data at most.
	searchChunk = 512
	searchBytes = 4 << 20
	// searchGroup is how many matches are shown to keep at once.
	searchGroup = 32
	// searchSkew is how many places away an event may lie from where its time of append would put it: the clocks of nodes differ.
	searchSkew = 512
)

// Search reads a log backwards, newest first. It looks at no more than eventhose.MaxExamined events and for about
// eventhose.SearchTime, and answers what it has found by then with the place to go on from. keep, if not nil, says which of
// some matches, newest first, are answered; it does not keep them. CodeNotFound (tenant), CodeInvalid (field "filter.…").
func (l *Log) Search(ctx context.Context, tenant eventhose.TenantID, q eventhose.Search, keep func(context.Context, []eventhose.Event) ([]bool, error)) (eventhose.SearchPage, error) {
	compiled, err := filter.Compile(q.Filter)
	if err != nil {
		return eventhose.SearchPage{}, err
	}
	head, err := l.Head(ctx, tenant)
	if err != nil {
		return eventhose.SearchPage{}, err
	}
	s := search{log: l, tenant: tenant, query: q, filter: compiled, keep: keep, first: head.First, at: head.Last + 1, chunk: eventhose.Sequence(min(max(q.Limit, searchGroup), searchChunk)), until: time.Now().Add(eventhose.SearchTime)}
	switch {
	case q.Before > 0:
		s.at = min(s.at, q.Before)
	case !q.Until.IsZero():
		at, err := l.firstAt(ctx, tenant, head, q.Until.Add(time.Microsecond)) // which is the log's resolution
		if err != nil {
			return eventhose.SearchPage{}, err
		}
		s.at = min(s.at, at+searchSkew)
	}
	for s.more() {
		if err := s.step(ctx); err != nil {
			return eventhose.SearchPage{}, err
		}
	}
	if s.at > s.first && !s.ended {
		s.page.Next = s.at
	}
	return s.page, nil
}

// search is one page under way: everything from at on was looked at.
type search struct {
	log    *Log
	tenant eventhose.TenantID
	query  eventhose.Search
	filter *filter.Filter
	keep   func(context.Context, []eventhose.Event) ([]bool, error)

	first, at eventhose.Sequence
	chunk     eventhose.Sequence
	until     time.Time
	older     int  // how many in a row were older than what is asked for
	ended     bool // what is left is
	full      bool
	size      int // of what was found
	page      eventhose.SearchPage
}

func (s *search) more() bool {
	return s.at > s.first && !s.ended && !s.full && s.page.Examined < eventhose.MaxExamined && !s.late()
}

func (s *search) late() bool { return s.page.Examined > 0 && !time.Now().Before(s.until) }

// step reads the chunk before at, and looks at it from its end.
func (s *search) step(ctx context.Context) error {
	n := min(s.chunk, s.at-s.first, eventhose.Sequence(eventhose.MaxExamined-s.page.Examined))
	events, err := s.log.store.Read(ctx, s.tenant, s.at-n-1, store.ReadLimit{Events: int(n), Bytes: searchBytes})
	if errors.Is(err, store.ErrTrimmed) {
		head, err := s.log.store.Head(ctx, s.tenant)
		s.first, s.at = head.First, max(s.at, head.First)
		return wrap(err, "read the head")
	}
	if err != nil {
		return wrap(err, "read the log")
	}
	if got := eventhose.Sequence(len(events)); got < n {
		// There is so much data that the end of the chunk was not reached.
		s.chunk = max(1, min(got, n/2))
		return nil
	}
	s.chunk = min(2*s.chunk, searchChunk)
	var group []eventhose.Event
	for i := len(events) - 1; i >= 0 && !s.ended && !s.late(); i-- {
		e := events[i]
		if s.look(e) {
			group = append(group, *e)
		}
		if len(group) == searchGroup || len(group) > 0 && i == 0 {
			if full, err := s.take(ctx, group); err != nil || full {
				return err
			}
			group = group[:0]
		}
	}
	_, err = s.take(ctx, group)
	return err
}

// look looks at the event before at.
func (s *search) look(e *eventhose.Event) (matches bool) {
	if !s.query.Since.IsZero() && e.Appended.Before(s.query.Since) {
		s.older++
		s.ended = s.older >= searchSkew
	} else if s.older = 0; s.query.Until.IsZero() || !e.Appended.After(s.query.Until) {
		matches = wants(s.filter, e)
	}
	s.at = e.Sequence
	s.page.SearchedTo = e.Appended
	s.page.Examined++
	return matches
}

// take adds those of a group of matches that are kept to the page, and reports whether it is full; what lies behind its last
// event was then not looked at.
func (s *search) take(ctx context.Context, group []eventhose.Event) (full bool, err error) {
	if len(group) == 0 {
		return false, nil
	}
	var kept []bool
	if s.keep != nil {
		if kept, err = s.keep(ctx, group); err != nil {
			return false, err
		}
	}
	for i, e := range group {
		if kept != nil && !kept[i] {
			continue
		}
		found := eventhose.Found{Event: e, Size: len(e.Data)}
		if found.Size > s.query.MaxData {
			found.Event.Data = nil
		}
		s.page.Found = append(s.page.Found, found)
		s.size += found.Event.Size()
		if s.full = len(s.page.Found) == s.query.Limit || s.size >= eventhose.MaxPageBytes; s.full {
			s.at, s.page.SearchedTo, s.ended = e.Sequence, e.Appended, false
			return true, nil
		}
	}
	return false, nil
}

// firstAt finds, by halving, the first event that was appended at or after a time; the place behind the last one if none was.
func (l *Log) firstAt(ctx context.Context, tenant eventhose.TenantID, head eventhose.Head, at time.Time) (eventhose.Sequence, error) {
	low, high := head.First, head.Last+1 // the answer lies in [low, high]
	for low < high {
		middle := low + (high-low)/2
		events, err := l.store.Read(ctx, tenant, middle-1, store.ReadLimit{Events: 1, Bytes: 1})
		switch {
		case errors.Is(err, store.ErrTrimmed):
			low = middle + 1
		case err != nil:
			return 0, wrap(err, "read the log")
		case len(events) > 0 && events[0].Appended.Before(at):
			low = middle + 1
		default:
			high = middle
		}
	}
	return low, nil
}
