package deliver

// Parked events of batches. What failed together is due together and is tried in one request again. Several parked events
// may hold one key, or with strict order the lane; each then waits for the earlier ones, unless they are tried with it. This
// matters when they have come apart: a person has redriven some, or the policy allows smaller batches than before.

import (
	"container/heap"
	"maps"
	"slices"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// parked is a retrying event, or one that a worker has.
type parked struct {
	store.Parked
	handed  time.Time // to the worker, as far as it is remembered
	sending bool
	index   int    // in the heap; -1 while it is sent, or waits for earlier ones
	group   *group // what it is tried with, nil if alone
}

// group is what is tried in one request: its members wait, by sequence.
type group struct {
	groupKey
	members []*parked
}

// groupKey says which parked events belong together. It is stored with them, so that a restart changes nothing.
type groupKey struct {
	batch string
	due   int64
}

// hang adds a retrying event.
func (l *lane) hang(p *parked) {
	l.parked[p.Sequence] = p
	p.index = -1
	if p.leased() {
		heap.Push(&l.leases, p)
		if p.Blocks && l.holding(p.Key) > 1 {
			l.disorder(p.Key)
		}
		return
	}
	l.join(p)
	if p.Blocks && l.holding(p.Key) > 1 {
		l.disorder(p.Key) // update decides
		return
	}
	heap.Push(&l.retries, p)
}

// back notes that a parked event is under way no more.
func (l *lane) back(p *parked) {
	p.sending = false
	l.trying--
}

// takeDown takes a waiting event out of the heap and out of its group.
func (l *lane) takeDown(p *parked) {
	switch {
	case p.index >= 0 && p.leased():
		heap.Remove(&l.leases, p.index)
	case p.index >= 0:
		heap.Remove(&l.retries, p.index)
	}
	g := p.group
	if g == nil {
		return
	}
	p.group = nil
	if at := slices.Index(g.members, p); at == 0 {
		g.members = g.members[1:]
	} else if at > 0 {
		g.members = slices.Delete(g.members, at, at+1)
	}
	if len(g.members) == 0 && l.groups[g.groupKey] == g {
		delete(l.groups, g.groupKey)
	}
}

// join puts a waiting event together with those that it is tried with.
func (l *lane) join(p *parked) {
	if p.Batch == "" || !l.sub.Batch.Batched() {
		return
	}
	key := groupKey{p.Batch, p.Due.UnixNano()}
	g := l.groups[key]
	if g == nil || len(g.members) >= l.sub.Batch.MaxEvents {
		if l.groups == nil {
			l.groups = map[groupKey]*group{}
		}
		g = &group{groupKey: key}
		l.groups[key] = g
	}
	p.group = g
	at := len(g.members)
	for at > 0 && g.members[at-1].Sequence > p.Sequence {
		at--
	}
	g.members = slices.Insert(g.members, at, p)
}

// mates are those that are tried with a waiting event, itself included.
func (p *parked) mates() []*parked {
	if p.group == nil {
		return []*parked{p}
	}
	var free []*parked
	for _, m := range p.group.members {
		if m.index >= 0 {
			free = append(free, m)
		}
	}
	return free
}

// regroup forms all groups anew: the subscription's policy or the lane's ordering has changed.
func (l *lane) regroup() {
	clear(l.groups)
	for _, seq := range slices.Sorted(maps.Keys(l.parked)) {
		p := l.parked[seq]
		if p.group = nil; p.sending || p.leased() {
			continue
		}
		l.join(p)
		if p.index < 0 {
			heap.Push(&l.retries, p) // update decides which of them wait
		}
		if p.Blocks {
			l.disorder(p.Key)
		}
	}
}

// holders are the parked events that hold a key, or the lane, by sequence.
func (l *lane) holders(key string) []eventhose.Sequence {
	switch l.ordering {
	case eventhose.OrderingStrict:
		return slices.Sorted(maps.Keys(l.blocking))
	case eventhose.OrderingKey:
		if k := l.keys[key]; k != nil {
			return k.holders
		}
	}
	return nil
}

// holding counts them.
func (l *lane) holding(key string) int {
	switch l.ordering {
	case eventhose.OrderingStrict:
		return len(l.blocking)
	case eventhose.OrderingKey:
		if k := l.keys[key]; k != nil {
			return len(k.holders)
		}
	}
	return 0
}

// disorder notes that the holders of a key, or of the lane, have changed.
func (l *lane) disorder(key string) {
	if l.ordering == eventhose.OrderingStrict {
		key = ""
	}
	if l.disordered == nil {
		l.disordered = map[string]bool{}
	}
	l.disordered[key] = true
}

// order decides, wherever something has changed, which parked events may be tried.
func (l *lane) order() {
	for key := range l.disordered {
		delete(l.disordered, key)
		var first *parked
		free := true
		for _, seq := range l.holders(key) {
			p := l.parked[seq]
			if p == nil || p.sending || p.leased() { // dead, or under way
				free = false
				continue
			}
			if first == nil {
				first = p
			}
			free = free && (p == first || p.group != nil && p.group == first.group)
			switch {
			case free && p.index < 0:
				heap.Push(&l.retries, p)
			case !free && p.index >= 0:
				heap.Remove(&l.retries, p.index)
			}
		}
	}
}

// hold, holds and letGo keep sequences of holders.
func hold(holders []eventhose.Sequence, seq eventhose.Sequence) []eventhose.Sequence {
	at, found := slices.BinarySearch(holders, seq)
	if found {
		return holders
	}
	return slices.Insert(holders, at, seq)
}

func holds(holders []eventhose.Sequence, seq eventhose.Sequence) bool {
	_, is := slices.BinarySearch(holders, seq)
	return is
}

func letGo(holders []eventhose.Sequence, seq eventhose.Sequence) ([]eventhose.Sequence, bool) {
	at, found := slices.BinarySearch(holders, seq)
	if !found {
		return holders, false
	}
	if at == 0 {
		return holders[1:], true
	}
	return slices.Delete(holders, at, at+1), true
}

// retryHeap orders retrying events by due time, then sequence.
type retryHeap []*parked

func (h retryHeap) Len() int { return len(h) }
func (h retryHeap) Less(i, j int) bool {
	if c := h[i].Due.Compare(h[j].Due); c != 0 {
		return c < 0
	}
	return h[i].Sequence < h[j].Sequence
}
func (h retryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *retryHeap) Push(x any) { p := x.(*parked); p.index = len(*h); *h = append(*h, p) }
func (h *retryHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	p.index = -1
	return p
}
