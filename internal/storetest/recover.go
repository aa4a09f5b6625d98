package storetest

import (
	"context"
	"errors"
	"fmt"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// Recover answers what the store would have answered to o, had it answered: for an operation whose answer a failure took
// away, and that may have been stored all the same. The model stands before o. Whether the answer is right, Apply and
// Check then say.
func (s *Script) Recover(ctx context.Context, st store.Store, o Op) (a Answer, err error) {
	switch {
	case o.Append != nil:
		return s.recoverAppend(ctx, st, o.Append)
	case o.Trim != nil:
		return s.recoverTrim(ctx, st, *o.Trim)
	case o.Erase != nil && s.Model.log(o.Erase.Tenant).find(o.Erase.Sequence) == nil:
		a.Err = store.ErrNotFound
	case o.Save != nil:
		for _, r := range o.Save.Records {
			if s.Model.records[keyOf(r.Record)].Version != r.Version {
				a.Err = store.ErrVersion
			}
		}
	}
	return a, nil
}

func (s *Script) recoverAppend(ctx context.Context, st store.Store, group []store.Append) (a Answer, err error) {
	next := map[eventhose.TenantID]eventhose.Sequence{}
	known := map[eventhose.TenantID]map[idKey]remembered{}
	a.Heads = map[eventhose.TenantID]eventhose.Head{}
	for _, entry := range group {
		tenant, l := entry.Tenant, s.Model.log(entry.Tenant)
		for _, t := range []eventhose.TenantID{tenant, entry.Parent} {
			if t != "" && next[t] == 0 {
				next[t] = s.Model.log(t).last + 1
				known[t] = map[idKey]remembered{}
			}
		}
		var r store.AppendResult
		fresh := map[idKey]remembered{}
		seq := next[tenant]
		for i, e := range entry.Events {
			key := idKey{e.Event.Scope, e.Event.ID}
			before, ok := l.ids[key]
			if !ok {
				before, ok = known[tenant][key]
			}
			if !ok {
				before, ok = fresh[key]
			}
			if ok && e.Event.ID != "" {
				if before.digest != e.Digest {
					r = store.AppendResult{Err: store.ErrDifferent, Index: i}
					break
				}
				r.Placements = append(r.Placements, eventhose.Placement{ID: e.Event.ID, Sequence: before.seq, Duplicate: true})
				continue
			}
			p := eventhose.Placement{ID: e.Event.ID, Sequence: seq}
			fresh[key] = remembered{seq, e.Digest}
			r.Placements = append(r.Placements, p)
			seq++
		}
		if r.Err == nil {
			next[entry.Parent] += seq - next[tenant]
			next[tenant] = seq
			for key, x := range fresh {
				known[tenant][key] = x
			}
		}
		for i, p := range r.Placements {
			if p.ID != "" || r.Err != nil {
				continue
			}
			found, err := st.Lookup(ctx, tenant, store.Ref{Sequence: p.Sequence})
			if err != nil {
				return a, fmt.Errorf("event %d of %s: %w", p.Sequence, tenant, err)
			}
			r.Placements[i].ID = found.ID
		}
		a.Results = append(a.Results, r)
		for _, t := range []eventhose.TenantID{tenant, entry.Parent} {
			if t == "" {
				continue
			}
			if a.Heads[t], err = st.Head(ctx, t); err != nil {
				return a, err
			}
		}
	}
	return a, nil
}

func (s *Script) recoverTrim(ctx context.Context, st store.Store, o TrimOp) (a Answer, err error) {
	h, err := st.Head(ctx, o.Tenant)
	if err != nil {
		return a, err
	}
	l := s.Model.log(o.Tenant)
	a.Recovered, a.Trimmed.First = true, h.First
	for seq := l.first; seq < h.First && l.events[seq] != nil; seq++ {
		a.Trimmed.Removed++
		a.Trimmed.Bytes += size(l.events[seq])
	}
	size := int64(0)
	kept := map[eventhose.Sequence]bool{}
	for ref, lane := range s.Model.lanes {
		if ref.Tenant != o.Tenant {
			continue
		}
		for seq := range lane.parked {
			if seq >= h.First {
				continue
			}
			e, err := st.Lookup(ctx, o.Tenant, store.Ref{Sequence: seq})
			switch p := (store.LostParked{Subscription: ref.Subscription, Sequence: seq}); {
			case errors.Is(err, store.ErrNotFound):
				a.Trimmed.Lost = append(a.Trimmed.Lost, p)
			case err != nil:
				return a, err
			case !kept[seq]:
				kept[seq] = true
				size += int64(len(e.Data))
				a.Trimmed.Over = append(a.Trimmed.Over, p)
			}
		}
	}
	if size <= o.Trim.Keep {
		a.Trimmed.Over = nil
	}
	return a, nil
}
