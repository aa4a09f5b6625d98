package postgres_test

// The model of a log that Porcupine checks histories against: https://github.com/anishathalye/porcupine. Each operation happens at one moment
// between its call and its answer: an append puts its events at the end, a read answers what is directly after a place, and something if
// there is anything.

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/eventhose/eventhose"
)

// appendOp is an append that was told its first place; again says that the events were there before it.
type appendOp struct {
	tenant eventhose.TenantID
	first  eventhose.Sequence
	tokens []token
	again  bool
}

// end is the last place.
func (op appendOp) end() eventhose.Sequence { return op.first + eventhose.Sequence(len(op.tokens)) - 1 }

// readOp is a read; its output are the tokens.
type readOp struct {
	tenant eventhose.TenantID
	after  eventhose.Sequence
}

// logState is a log: its last event, and what was before it. Nil is the empty one.
type logState struct {
	before *logState
	last   token
	n      eventhose.Sequence
	hash   uint64 // of all tokens
}

func (s *logState) len() eventhose.Sequence {
	if s == nil {
		return 0
	}
	return s.n
}

func (s *logState) push(k token) *logState {
	hash := uint64(14695981039346656037)
	if s != nil {
		hash = s.hash
	}
	return &logState{before: s, last: k, n: s.len() + 1, hash: (hash ^ uint64(k)) * 1099511628211}
}

// holds reports whether the tokens are in the log from a place on.
func (s *logState) holds(first eventhose.Sequence, tokens []token) bool {
	end := first + eventhose.Sequence(len(tokens)) - 1
	if s.len() < end {
		return false
	}
	for ; s != nil && s.n >= first; s = s.before {
		if s.n <= end && s.last != tokens[s.n-first] {
			return false
		}
	}
	return true
}

var logModel = porcupine.Model{
	Partition: func(ops []porcupine.Operation) (parts [][]porcupine.Operation) {
		index := map[eventhose.TenantID]int{}
		for _, op := range ops {
			tenant := eventhose.TenantID("")
			switch in := op.Input.(type) {
			case appendOp:
				tenant = in.tenant
			case readOp:
				tenant = in.tenant
			}
			i, known := index[tenant]
			if !known {
				i = len(parts)
				index[tenant] = i
				parts = append(parts, nil)
			}
			parts[i] = append(parts[i], op)
		}
		return parts
	},
	Init: func() any { return (*logState)(nil) },
	Step: func(state, input, output any) (bool, any) {
		s := state.(*logState)
		switch in := input.(type) {
		case appendOp:
			if in.again {
				return s.holds(in.first, in.tokens), s
			}
			if in.first != s.len()+1 {
				return false, s
			}
			for _, k := range in.tokens {
				s = s.push(k)
			}
			return true, s
		case readOp:
			page := output.([]token)
			if len(page) == 0 {
				return s.len() <= in.after, s
			}
			return s.holds(in.after+1, page), s
		}
		return false, s
	},
	Equal: func(a, b any) bool {
		x, y := a.(*logState), b.(*logState)
		return x == y || x != nil && y != nil && x.n == y.n && x.hash == y.hash
	},
	Hash: func(state any) uint64 {
		if s := state.(*logState); s != nil {
			return s.hash
		}
		return 0
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %v", input, output) },
}

// modelDeadline bounds what the model may think about.
const modelDeadline = 2 * time.Minute

// checkModel answers what is wrong if the operations have no order in which a log would have answered the same.
func checkModel(ops []porcupine.Operation) error {
	narrowed := make([]porcupine.Operation, 0, len(ops))
	for _, part := range logModel.Partition(ops) {
		narrowed = append(narrowed, narrow(part)...)
	}
	if result := porcupine.CheckOperationsTimeout(logModel, narrowed, modelDeadline); result != porcupine.Ok {
		return fmt.Errorf("porcupine answers %s on %d operations", result, len(ops))
	}
	return nil
}

// narrow has the operations of one log begin no earlier than they can have happened by what others were answered: an append, after those
// whose places are before its own, and after who found nothing at its place; a read, after the append of its last event. So it
// takes away no order that the model would accept. Without it the search goes astray for minutes among operations that may have happened at any
// time; a mistake in it could only make the model refuse more.
func narrow(ops []porcupine.Operation) []porcupine.Operation {
	ops = slices.Clone(ops)
	var appends []*porcupine.Operation
	for i := range ops {
		ops[i].Call, ops[i].Return = 4*ops[i].Call, 4*ops[i].Return // room between, for what is before at the same moment
		if in, ok := ops[i].Input.(appendOp); ok && !in.again {
			appends = append(appends, &ops[i])
		}
	}
	slices.SortFunc(appends, func(a, b *porcupine.Operation) int {
		return cmp.Compare(a.Input.(appendOp).first, b.Input.(appendOp).first)
	})
	// holding answers the append that put an event to a place, nil if there is none.
	holding := func(seq eventhose.Sequence) *porcupine.Operation {
		i, found := slices.BinarySearchFunc(appends, seq, func(op *porcupine.Operation, seq eventhose.Sequence) int {
			return cmp.Compare(op.Input.(appendOp).first, seq)
		})
		if !found {
			i--
		}
		if i < 0 || appends[i].Input.(appendOp).end() < seq {
			return nil
		}
		return appends[i]
	}
	after := func(op *porcupine.Operation, call int64) { op.Call = min(op.Return, max(op.Call, call+1)) }
	for i := range ops {
		if in, ok := ops[i].Input.(readOp); ok && len(ops[i].Output.([]token)) == 0 {
			if op := holding(in.after + 1); op != nil {
				after(op, ops[i].Call)
			}
		}
	}
	for i := 1; i < len(appends); i++ {
		after(appends[i], appends[i-1].Call)
	}
	for i := range ops {
		last := eventhose.Sequence(0)
		switch in := ops[i].Input.(type) {
		case readOp:
			last = in.after + eventhose.Sequence(len(ops[i].Output.([]token)))
		case appendOp:
			if in.again {
				last = in.end()
			}
		}
		if op := holding(last); op != nil {
			after(&ops[i], op.Call)
		}
	}
	return ops
}

// parentOps are what a child's appends did to its parent's log: the events get places there at the same moment, one after the other.
func parentOps(ops []porcupine.Operation, child, parent eventhose.TenantID, up []*eventhose.Event) (all []porcupine.Operation) {
	places := map[eventhose.Sequence]eventhose.Sequence{}
	for _, e := range up {
		if e.Origin.Tenant == child {
			places[e.Origin.Sequence] = e.Sequence
		}
	}
	for _, op := range ops {
		if in, ok := op.Input.(appendOp); ok && !in.again && places[in.first] > 0 {
			op.Input = appendOp{tenant: parent, first: places[in.first], tokens: in.tokens}
			op.Output = []token(nil)
			all = append(all, op)
		}
	}
	return all
}
