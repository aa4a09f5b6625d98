package deliver

import (
	"encoding/binary"
	"strings"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
)

// attemptIDs makes ids whose text order is the order in which they were made, also within a microsecond.
type attemptIDs struct {
	random func() uint64
	mu     sync.Mutex
	last   int64
}

func (a *attemptIDs) next(now time.Time) string {
	a.mu.Lock()
	a.last = max(a.last+1, now.UnixMicro())
	at := a.last
	a.mu.Unlock()
	return "att_" + idAt(uint64(at), a.random())
}

// raise has the ids to come lie above one that was made elsewhere, by a clock that may be ahead.
func (a *attemptIDs) raise(id string) {
	at, ok := eventhose.EventIDSequence("evt_" + strings.TrimPrefix(id, "att_")) // it has the same form
	if !ok {
		return
	}
	a.mu.Lock()
	a.last = max(a.last, int64(at))
	a.mu.Unlock()
}

// idAt is the text of what was made at a time, whose order is that of the times.
func idAt(at, random uint64) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], at)
	binary.BigEndian.PutUint64(b[8:], random)
	return eventhose.IDText(b)
}
