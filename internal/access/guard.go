package access

import (
	"context"
	"time"

	"github.com/eventhose/eventhose"
)

// Holders is a Directory that also knows who holds a key by the key's id. It is safe for concurrent use.
type Holders interface {
	Directory
	// Holder answers who holds the key with an id, as Authenticate would if it were given the key.
	Holder(ctx context.Context, id string) (eventhose.Principal, error)
}

// Guard looks now and then whether the key and the tenant of a stream are still good. It is used by one goroutine at a time.
type Guard struct {
	holders Holders
	key     string
	wish    Wish
	every   time.Duration
	looked  time.Time
}

// NewGuard watches over one who was allowed what he wished just now.
func NewGuard(h Holders, p eventhose.Principal, w Wish, every time.Duration) *Guard {
	return &Guard{holders: h, key: p.KeyID, wish: w, every: every, looked: time.Now()}
}

// Check answers why the stream must end, if it must: CodeUnauthenticated, CodeForbidden, CodeNotFound. A store that is away ends
// nothing. It looks at most once in the time that NewGuard was given, and is called at least as often.
func (g *Guard) Check(ctx context.Context) error {
	if time.Since(g.looked) < g.every {
		return nil
	}
	g.looked = time.Now()
	p, err := g.holders.Holder(ctx, g.key)
	if err == nil {
		err = Permit(ctx, g.holders, p, g.wish)
	}
	switch eventhose.CodeOf(err) {
	case eventhose.CodeUnauthenticated, eventhose.CodeForbidden, eventhose.CodeNotFound:
		return err
	}
	return nil
}
