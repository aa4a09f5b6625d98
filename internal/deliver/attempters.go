package deliver

// Attempts are made by goroutines that each pick one, make it, settle it and pick the next: nothing is handed from one
// goroutine to another on the way of an event, since a hand-over costs about as much as all else that the engine does for
// it. There are as many as were ever needed at once, MaxInFlight at most; those that find nothing to do wait.

// attemptLoop makes one attempt after another until the engine stops.
func (e *Engine) attemptLoop() {
	for {
		j := e.next()
		if j == nil {
			return
		}
		e.attempt(j)
	}
}

// next takes a slot and picks an attempt for it, by turns over the ready tenants. It waits for one; nil says that there
// will be no more.
func (e *Engine) next() *job {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		for !e.stopping && (e.ready.len() == 0 || e.inFlight >= e.opts.MaxInFlight) {
			e.idle++
			e.canSend.Wait()
			e.idle--
		}
		if e.stopping {
			return nil
		}
		t := e.ready.pop()
		if t.deficit <= 0 {
			t.deficit += quantum
			e.ready.push(t)
			continue
		}
		t.isReady = false
		e.inFlight++
		e.mu.Unlock()

		j, more := t.pick()

		e.mu.Lock()
		if j != nil {
			t.deficit -= j.cost()
		}
		if more && !t.isReady {
			t.isReady = true
			if t.deficit > 0 && e.ready.head > 0 {
				e.ready.again(t)
			} else {
				e.ready.push(t)
			}
		} else if !more {
			t.deficit = min(t.deficit, 0) // nothing is saved up while there is nothing to do
		}
		if j == nil {
			e.inFlight--
			continue
		}
		e.wakeAttempter()
		return j
	}
}

// wakeAttempter has one more attempter look for work if there is some: one that waits, or a new one. Whoever finds work
// wakes the next, so one call is enough however much there is. e.mu is held.
func (e *Engine) wakeAttempter() {
	switch {
	case e.ready.len() == 0 || e.inFlight >= e.opts.MaxInFlight || e.stopping:
	case e.idle > 0:
		e.canSend.Signal()
	case e.attempters < e.opts.MaxInFlight:
		e.attempters++
		e.attempts.Go(e.attemptLoop)
	}
}
