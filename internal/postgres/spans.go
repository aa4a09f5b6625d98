package postgres

import (
	"context"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
)

// spans remembers which partition logs' events are in, since a partition is much quicker to read than all of them. What it
// says may be old: a log may have gone on into another partition, a partition may have been dropped. Who finds
// nothing where something must be asks again.
type spans struct {
	mu   sync.Mutex
	of   map[tenantID][]span
	size int
}

type span struct {
	first sequence
	part  int32
}

// maxSpans bounds what is remembered, over all logs.
const maxSpans = 200_000

// find answers the partition that holds a sequence, and the first sequence of the next one, 0 if there is none.
func (s *spans) find(tenant tenantID, seq sequence) (part int32, next sequence, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return locate(s.of[tenant], seq)
}

func locate(of []span, seq sequence) (part int32, next sequence, ok bool) {
	i, found := slices.BinarySearchFunc(of, seq, func(x span, seq sequence) int {
		switch {
		case x.first < seq:
			return -1
		case x.first > seq:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	if i < 0 {
		return 0, 0, false
	}
	if i+1 < len(of) {
		next = of[i+1].first
	}
	return of[i].part, next, true
}

// loadSpans reads a log's spans and remembers them.
func (s *Store) loadSpans(ctx context.Context, tenant tenantID) ([]span, error) {
	var of []span
	err := s.query(ctx, "read where events are", "SELECT first, part FROM eventhose.spans WHERE tenant = $1 ORDER BY first", []any{string(tenant)},
		func() { of = nil }, func(r pgx.Rows) error {
			var x span
			err := r.Scan(&x.first, &x.part)
			of = append(of, x)
			return err
		})
	if err != nil {
		return nil, err
	}
	m := &s.spans
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.size > maxSpans || m.of == nil {
		m.of, m.size = map[tenantID][]span{}, 0
	}
	m.size += len(of) + 1 - len(m.of[tenant])
	m.of[tenant] = of
	return of, nil
}
