package graphql

import (
	"context"
	"sync"

	"github.com/eventhose/eventhose"
)

// shares has places for what is executed at once, and of them a share for each tenant: one that has its share under way waits for
// its own, and holds up nobody else's.
type shares struct {
	places chan struct{}
	each   int
	mu     sync.Mutex
	of     map[eventhose.TenantID]*share
}

type share struct {
	places chan struct{}
	users  int // who have a place or wait for one
}

func newShares(all, each int) *shares {
	return &shares{places: make(chan struct{}, all), each: each, of: map[eventhose.TenantID]*share{}}
}

// take waits for a place of a tenant, which give must give back. The error is that of ctx.
func (s *shares) take(ctx context.Context, tenant eventhose.TenantID) (give func(), err error) {
	own := s.join(tenant)
	select {
	case own.places <- struct{}{}:
	case <-ctx.Done():
		s.leave(tenant, own)
		return nil, ctx.Err()
	}
	leave := func() {
		<-own.places
		s.leave(tenant, own)
	}
	select {
	case s.places <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
	return func() {
		<-s.places
		leave()
	}, nil
}

func (s *shares) join(tenant eventhose.TenantID) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.of[tenant]
	if own == nil {
		own = &share{places: make(chan struct{}, s.each)}
		s.of[tenant] = own
	}
	own.users++
	return own
}

func (s *shares) leave(tenant eventhose.TenantID, own *share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own.users--; own.users == 0 {
		delete(s.of, tenant)
	}
}
