package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/eventhose/eventhose/internal/store"
)

// Ready reports whether the database answers and takes writes.
func (s *Store) Ready(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	var standby bool
	if err := s.row(ctx, "ask the database", "SELECT pg_is_in_recovery()", nil, &standby); err != nil {
		return err
	}
	if standby {
		return errors.Join(store.ErrUnavailable, errors.New("the database is a standby, which takes no writes"))
	}
	return nil
}

// Connections are those of this node.
type Connections struct {
	Open, InUse, Max int
	// Waited is how long calls have waited for one, since the start.
	Waited time.Duration
}

// Connections tells how many there are.
func (s *Store) Connections() Connections {
	st := s.pool.Stat()
	return Connections{Open: int(st.TotalConns()), InUse: int(st.AcquiredConns()), Max: int(st.MaxConns()), Waited: st.EmptyAcquireWaitTime()}
}
