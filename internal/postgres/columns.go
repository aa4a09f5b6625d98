package postgres

import (
	"strconv"
	"strings"
	"time"

	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

// marks are n question marks.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// numbered writes $1, $2 … for question marks.
func numbered(sql string) string {
	var b strings.Builder
	n := 0
	for _, part := range strings.SplitAfter(sql, "?") {
		if strings.HasSuffix(part, "?") {
			n++
			part = part[:len(part)-1] + "$" + strconv.Itoa(n)
		}
		b.WriteString(part)
	}
	return b.String()
}

// lanesOf makes the arguments of eventhose._lanes.
func lanesOf(changes []store.LaneChange) []any {
	n := len(changes)
	var (
		tenant, sub, op         = make([]string, n), make([]string, n), make([]string, n)
		cursor                  = make([]int64, n)
		due                     = make([]*time.Time, n)
		retrying, dead, waiting = make([]int32, n), make([]int32, n), make([]int32, n)
		behind                  = make([]bool, n)
		value                   = make([][]byte, n)
		pLane, uLane, bLane     = []int32{}, []int32{}, []int32{}
		nLane                   = []int32{}
		pSeq, uSeq              []int64
		pState, bKey, nKey      []string
		pRow, bRow              [][]byte
		attempts                attemptColumns
	)
	attempts.lane = []int32{}
	for i := range changes {
		c := &changes[i]
		l := &c.Lane
		at := int32(i + 1)
		tenant[i], sub[i], op[i] = string(l.Tenant), string(l.Subscription), "u"
		if value[i] = []byte{}; c.Delete {
			op[i] = "d"
			continue
		}
		if c.Create {
			op[i] = "c"
		}
		cursor[i], behind[i], value[i] = signed(l.Cursor), l.Behind, row.EncodeLane(l)
		retrying[i], dead[i], waiting[i] = int32(l.Retrying), int32(l.Dead), int32(l.Waiting)
		if !l.Due.IsZero() {
			due[i] = &l.Due
		}
		for j := range c.Park {
			p := &c.Park[j]
			pLane, pSeq, pState, pRow = append(pLane, at), append(pSeq, signed(p.Sequence)), append(pState, string(p.State)), append(pRow, row.EncodeParked(p))
		}
		for _, seq := range c.Unpark {
			uLane, uSeq = append(uLane, at), append(uSeq, signed(seq))
		}
		for j := range c.Block {
			bLane, bKey, bRow = append(bLane, at), append(bKey, c.Block[j].Key), append(bRow, row.EncodeBlocked(&c.Block[j]))
		}
		for _, key := range c.Unblock {
			nLane, nKey = append(nLane, at), append(nKey, key)
		}
		attempts.add(at, c.Attempts)
	}
	a := &attempts
	return []any{tenant, sub, op, cursor, due, retrying, dead, waiting, behind, value, pLane, pSeq, pState, pRow, uLane, uSeq, bLane, bKey, bRow, nLane, nKey,
		a.lane, a.first, a.hi, a.at, a.wide, a.seqs, a.taken, a.runs}
}
