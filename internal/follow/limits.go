package follow

import (
	"fmt"
	"sync"

	"github.com/eventhose/eventhose"
)

// The most streams that are open at once over all doors, and of one tenant.
const (
	MaxStreams       = 20_000
	MaxTenantStreams = 5_000
)

// Streams is what all doors share: how many streams are open, and whose turn it is to be handed a page. It is safe for concurrent use.
type Streams struct {
	all, each int
	// turn is held while a page is handed to many readers.
	turn *turns

	mu   sync.Mutex
	open int
	of   map[eventhose.TenantID]int
}

// NewStreams bounds them by all together and by each tenant's; 0 is MaxStreams and MaxTenantStreams.
func NewStreams(all, each int) *Streams {
	if all == 0 {
		all = MaxStreams
	}
	if each == 0 {
		each = MaxTenantStreams
	}
	return &Streams{all: all, each: each, turn: newTurns(), of: map[eventhose.TenantID]int{}}
}

// Open counts one more; end must be called once when it has ended. CodeLimit.
func (s *Streams) Open(tenant eventhose.TenantID) (end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[tenant] >= s.each {
		return nil, &eventhose.Error{Code: eventhose.CodeLimit, Message: fmt.Sprintf("the tenant has %d streams open", s.each), Fix: "close some, or read with GET …/events"}
	}
	if s.open >= s.all {
		return nil, &eventhose.Error{Code: eventhose.CodeLimit, Message: "the server has as many streams open as it takes", Fix: "read with GET …/events, or come back"}
	}
	s.open++
	s.of[tenant]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.open--
		if s.of[tenant]--; s.of[tenant] == 0 {
			delete(s.of, tenant)
		}
	}, nil
}

// Count answers how many are open.
func (s *Streams) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}
