package deliver

// Writing what a commit holds. Each commit relies on the leases of all shards that it is about; one of them that is lost
// must not keep the others from being recorded.

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/eventhose/eventhose/internal/store"
)

// progress is what one commit writes, and which term each of its lanes and positions relies on; with a store of one process
// there are none.
type progress struct {
	store.Progress
	lanesOf, matchedOf []*term
}

// write commits what relies on some terms (none with a store of one process), and tries again while the store has no room
// or is away. It gives up when commitEnd is closed and one more try has failed, when the store has failed, and on what relies on
// a term that is over, whose tenants then leave memory. It answers why something was not written, by term.
func (e *Engine) write(p progress, terms []*term) (failed map[*term]error) {
	last := false
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		p, terms, failed = e.lasting(p, terms, failed)
		if len(p.Lanes) == 0 && len(p.Matched) == 0 {
			return failed
		}
		err := e.store.Commit(context.Background(), p.Progress)
		switch {
		case err == nil:
			return failed
		case errors.Is(err, store.ErrFenced) && len(terms) == 1:
			e.logger.Warn("what was delivered is not recorded: another node has the lease", "shard", terms[0].shard)
			e.abandon(terms...)
			signal(e.leases.now)
			return fail(failed, terms, errElsewhere)
		case errors.Is(err, store.ErrFenced) && len(terms) > 1:
			for _, m := range terms {
				for m, err := range e.write(p.part(m), []*term{m}) {
					failed = fail(failed, []*term{m}, err)
				}
			}
			return failed
		case errors.Is(err, store.ErrFailed) || !errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrUnavailable):
			e.opts.Fatal(err)
			return fail(failed, terms, err)
		}
		if last {
			e.logger.Error("cannot record deliveries: what was not recorded is sent again after the next start", "error", err)
			return fail(failed, terms, err)
		}
		e.logger.Error("cannot record deliveries, trying again", "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-e.commitEnd:
			timer.Stop()
			last = true
		}
	}
}

func fail(failed map[*term]error, terms []*term, err error) map[*term]error {
	if failed == nil {
		failed = map[*term]error{}
	}
	if len(terms) == 0 {
		terms = []*term{nil}
	}
	for _, m := range terms {
		failed[m] = err
	}
	return failed
}

// lasting leaves out what relies on terms that are over, and relies on the leases of the others.
func (e *Engine) lasting(p progress, terms []*term, failed map[*term]error) (progress, []*term, map[*term]error) {
	if len(terms) == 0 {
		return p, nil, failed
	}
	now := time.Now()
	var last, over []*term
	for _, m := range terms {
		if m.lasts(now) {
			last = append(last, m)
		} else {
			over = append(over, m)
		}
	}
	if len(over) > 0 {
		e.abandon(over...)
		failed = fail(failed, over, errElsewhere)
		p = p.part(last...)
	}
	p.Fence = nil
	for _, m := range last {
		p.Fence = append(p.Fence, store.Lease{Shard: m.shard, Epoch: m.epoch, Until: m.began.Add(time.Duration(m.until.Load()))})
	}
	return p, last, failed
}

// terms are those that it relies on.
func (p *progress) terms() (terms []*term) {
	if len(p.lanesOf)+len(p.matchedOf) == 0 {
		return nil
	}
	seen := map[*term]bool{}
	for _, of := range [][]*term{p.lanesOf, p.matchedOf} {
		for _, m := range of {
			if !seen[m] {
				seen[m] = true
				terms = append(terms, m)
			}
		}
	}
	return terms
}

// part is what of a commit relies on some terms.
func (p *progress) part(terms ...*term) (some progress) {
	for i, m := range p.lanesOf {
		if slices.Contains(terms, m) {
			some.Lanes, some.lanesOf = append(some.Lanes, p.Lanes[i]), append(some.lanesOf, m)
		}
	}
	for i, m := range p.matchedOf {
		if slices.Contains(terms, m) {
			some.Matched, some.matchedOf = append(some.Matched, p.Matched[i]), append(some.matchedOf, m)
		}
	}
	return some
}
