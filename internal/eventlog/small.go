package eventlog

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
)

// Small logs are those that may hold little, for whose readers a minute more or less is much. They are looked at more often
// than others, but no more than maxSmallTurn of them at once, whatever there are: all are looked at with the others too.
const (
	smallAge     = eventhose.Duration(2 * time.Minute)
	smallBytes   = 16 << 20
	maxSmall     = 10_000
	maxSmallTurn = 100
)

func bounded(t eventhose.Tenant) bool { return t.Retention.Age > 0 || t.Retention.Bytes > 0 }

func isSmall(t eventhose.Tenant) bool {
	r := t.Retention
	return r.Age > 0 && r.Age < smallAge || r.Bytes > 0 && r.Bytes < smallBytes
}

// smallLogs are the tenants with small logs that this node has met, and those whose bounds have changed, which may be so.
type smallLogs struct {
	mu    sync.Mutex
	of    map[eventhose.TenantID]struct{}
	noted chan struct{}
}

func newSmallLogs() smallLogs {
	return smallLogs{of: map[eventhose.TenantID]struct{}{}, noted: make(chan struct{}, 1)}
}

func (s *smallLogs) add(t eventhose.TenantID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.of) < maxSmall {
		s.of[t] = struct{}{}
	}
}

func (s *smallLogs) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.of) > 0
}

// take takes some out. Those that stay small are added again.
func (s *smallLogs) take() (some []eventhose.TenantID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.of { // in an order that is another each time, so that all have their turn
		if len(some) == maxSmallTurn {
			break
		}
		some = append(some, t)
		delete(s.of, t)
	}
	return some
}

// Bounded hints that a tenant's retention may have changed. It does not block.
func (l *Log) Bounded(tenant eventhose.TenantID) {
	l.small.add(tenant)
	select {
	case l.small.noted <- struct{}{}:
	default:
	}
}

func (l *Log) retainSmall(ctx context.Context) error {
	var failed []error // at most maxSmallTurn
	for _, id := range l.small.take() {
		t, err := l.tenants.Tenant(ctx, id)
		if err == nil && bounded(t) && l.owns(id) {
			if isSmall(t) {
				l.small.add(id)
			}
			err = l.retain(ctx, t)
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
