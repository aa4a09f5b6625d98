package overload

import (
	"errors"
	"io"
	"sync"

	"github.com/eventhose/eventhose"
)

// Shares is a bound on what the requests of all tenants hold, and on those of each: who makes senders stall holds up nobody
// else's. It is safe for concurrent use; without Set nothing is to be had of it.
type Shares struct {
	mu          sync.Mutex
	max, each   int64
	kept, first int64
	all         int64
	of          map[eventhose.TenantID]int64
}

// Set says how much there is for all together, and for one tenant. It is called before the first Take.
func (s *Shares) Set(all, each int64) {
	s.max, s.each, s.of = all, each, map[eventhose.TenantID]int64{}
}

// Keep keeps a part of it all for those of whom each holds no more than first: as many tenants as have their whole share cannot take all.
// It is called before the first Take.
func (s *Shares) Keep(part, first int64) { s.kept, s.first = part, first }

// Take answers whether there was room; what was taken must be given back.
func (s *Shares) Take(tenant eventhose.TenantID, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine, room := s.of[tenant]+n, s.max
	if mine > s.first {
		room -= s.kept
	}
	if s.all+n > room || mine > s.each {
		return false
	}
	s.all += n
	s.of[tenant] = mine
	return true
}

// Give gives back what was taken.
func (s *Shares) Give(tenant eventhose.TenantID, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all -= n
	if s.of[tenant] -= n; s.of[tenant] == 0 {
		delete(s.of, tenant)
	}
}

// ErrNoRoom: what is held under a bound takes as much as it may.
var ErrNoRoom = errors.New("overload: too many bodies are under way")

// firstRead is what a body takes before more of it has come.
const firstRead = 64 << 10

// Read reads a body of a declared length, or -1, into memory that is taken as the body comes: what was only declared takes
// none. give must be called in any case, once the body is done with. The error is ErrNoRoom, or that of in.
func (s *Shares) Read(in io.Reader, declared int64, tenant eventhose.TenantID) (body []byte, give func(), err error) {
	size := int64(firstRead)
	if declared >= 0 {
		size = min(size, declared+1) // one more, to see the end
	}
	taken := int64(0)
	give = func() { s.Give(tenant, taken) }
	for {
		if !s.Take(tenant, size-taken) {
			return nil, give, ErrNoRoom
		}
		taken = size
		body = append(make([]byte, 0, size), body...)
		for len(body) < cap(body) {
			n, err := in.Read(body[len(body):cap(body)])
			body = body[:len(body)+n]
			if errors.Is(err, io.EOF) {
				return body, give, nil
			}
			if err != nil {
				return nil, give, err
			}
		}
		if size *= 2; declared >= 0 {
			size = min(size, max(declared, taken)+1)
		}
	}
}
