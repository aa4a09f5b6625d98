package deliver

import (
	"container/heap"
	"sync"
	"time"
)

// wakeups calls due lanes at their time, with one goroutine and one timer for all.
type wakeups struct {
	call func([]*lane)

	mu      sync.Mutex
	heap    wakeHeap
	places  map[*lane]*wakeup
	poke    chan struct{}
	stopped chan struct{}
}

type wakeup struct {
	lane  *lane
	at    time.Time
	index int
}

func newWakeups(call func([]*lane)) *wakeups {
	return &wakeups{call: call, places: map[*lane]*wakeup{}, poke: make(chan struct{}, 1), stopped: make(chan struct{})}
}

// set wakes a lane at a time instead of whenever it was to be woken before; the zero time means never.
func (w *wakeups) set(l *lane, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := w.places[l]
	switch {
	case u == nil && at.IsZero():
		return
	case u == nil:
		u = &wakeup{lane: l, at: at}
		w.places[l] = u
		heap.Push(&w.heap, u)
	case at.IsZero():
		heap.Remove(&w.heap, u.index)
		delete(w.places, l)
		return
	case u.at.Equal(at):
		return
	default:
		u.at = at
		heap.Fix(&w.heap, u.index)
	}
	if w.heap[0] == u {
		select {
		case w.poke <- struct{}{}:
		default:
		}
	}
}

func (w *wakeups) stop() { close(w.stopped) }

func (w *wakeups) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		w.mu.Lock()
		var due []*lane
		now := time.Now()
		for len(w.heap) > 0 && !w.heap[0].at.After(now) {
			u := heap.Pop(&w.heap).(*wakeup)
			delete(w.places, u.lane)
			due = append(due, u.lane)
		}
		if len(w.heap) > 0 {
			timer.Reset(w.heap[0].at.Sub(now))
		} else {
			timer.Stop()
		}
		w.mu.Unlock()
		if len(due) > 0 {
			w.call(due)
			continue
		}
		select {
		case <-timer.C:
		case <-w.poke:
		case <-w.stopped:
			return
		}
	}
}

type wakeHeap []*wakeup

func (h wakeHeap) Len() int           { return len(h) }
func (h wakeHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h wakeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *wakeHeap) Push(x any) { u := x.(*wakeup); u.index = len(*h); *h = append(*h, u) }
func (h *wakeHeap) Pop() any {
	old := *h
	u := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return u
}
