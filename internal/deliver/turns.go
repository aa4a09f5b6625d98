package deliver

// Turns: deficit round robin (Shreedhar and Varghese, 1995), over tenants and within a tenant over its lanes. What counts is
// what an attempt costs, so that who sends large batches gets no more than who sends small events. Whoever is first may go
// on until what it was given is used up; then it goes to the end of the queue and is given as much again.

const (
	// quantum is given for a round, attemptCost is charged for each attempt beside the bytes of its data, and unknownSize for an
	// event whose size is not in memory.
	quantum     = 64 << 10
	attemptCost = 8 << 10
	unknownSize = 4 << 10
)

// cost is what an attempt is charged.
func (j *job) cost() int {
	n := attemptCost
	for i := range j.items {
		if e := j.items[i].entry; e != nil && e.size > 0 {
			n += e.size
		} else {
			n += unknownSize
		}
	}
	return n
}

// turns is a queue of those that are ready, first come first.
type turns[T any] struct {
	list []T
	head int
}

func (q *turns[T]) len() int { return len(q.list) - q.head }

func (q *turns[T]) push(v T) {
	if q.head > 64 && q.head > len(q.list)/2 {
		n := copy(q.list, q.list[q.head:])
		clear(q.list[n:])
		q.list, q.head = q.list[:n], 0
	}
	q.list = append(q.list, v)
}

func (q *turns[T]) pop() T {
	var none T
	v := q.list[q.head]
	q.list[q.head] = none
	q.head++
	return v
}

// again puts what pop answered back to where it was.
func (q *turns[T]) again(v T) {
	q.head--
	q.list[q.head] = v
}
