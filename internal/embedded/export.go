package embedded

// A copy walks through the keyspace once, from its beginning to its end: the order of the spaces is one in which another
// store can take them, logs before events, events before what is about them. How far it has come is the last key.

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

// copied are the spaces that a copy takes; the others are indexes of these. outlined are those of which Reading does not
// answer everything for whoever knows the logs and the lanes.
var (
	copied   = []byte{spaceHead, spaceBatch, spaceID, spaceKept, spaceMatched, spaceLane, spaceParked, spaceBlocked, spaceAttempt, spaceRecord}
	outlined = []byte{spaceHead, spaceID, spaceKept, spaceMatched, spaceLane, spaceRecord}
)

// Export is a store that is only read, to be copied. Its methods are safe for concurrent use.
type Export struct {
	store.Reading
	s      *Store
	source store.Source
}

// OpenExport opens the store in dir without changing anything in it. As long as it is open nobody else can open it. ErrLocked,
// ErrNewer, ErrCorrupt; CodeInvalid, field "--from", if there is no store or only a backup of one.
func OpenExport(dir string, o Options) (*Export, error) {
	s := newStore(dir, o)
	f, err := s.startReadOnly()
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", s.dir, err)
	}
	id := make([]string, len(f.incarnations))
	for i, inc := range f.incarnations {
		id[i] = fmt.Sprintf("%08x", uint32(inc))
	}
	return &Export{Reading: s, s: s, source: store.Source{ID: strings.Join(id, "-"), Commits: f.counter}}, nil
}

func (s *Store) startReadOnly() (f found, err error) {
	name := s.fs.PathJoin(s.dir, formatFile)
	text, err := readSmall(s.fs, name)
	if errors.Is(err, os.ErrNotExist) {
		return f, &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--from", Message: s.dir + " holds no store", Fix: "name the data directory that the server was given with --data"}
	}
	if err == nil {
		err = checkFormat(name, text)
	}
	if err != nil {
		return f, err
	}
	if _, err := s.fs.Stat(s.fs.PathJoin(s.dir, backupFile)); err == nil {
		return f, &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--from", Message: s.dir + " is a backup", Fix: "make a data directory of it first: eventhose restore " + s.dir + " --data DIR"}
	}
	if s.lock, err = lock(s.fs, s.dir); err != nil {
		return f, err
	}
	if f, err = s.openReadOnly(); err == nil && len(f.incarnations) == 0 {
		err = &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--from", Message: s.dir + " holds nothing yet", Fix: "start the servers on the database without a copy"}
	}
	if err != nil {
		return f, errors.Join(err, s.abandon())
	}
	s.commits.counter, s.commits.durable = f.counter, f.counter
	s.incarnations, s.epoch = f.incarnations, f.opens
	s.cache.init()
	return f, nil
}

// Close gives the directory back. It may be called more than once.
func (x *Export) Close() error {
	x.s.open.Lock()
	defer x.s.open.Unlock()
	if x.s.closed {
		return nil
	}
	x.s.closed = true
	return x.s.abandon()
}

// Source tells which store it is, and in which state.
func (x *Export) Source() store.Source { return x.source }

// Extent counts the logs and what is in them.
func (x *Export) Extent(ctx context.Context) (e store.Extent, err error) {
	if err := x.s.begin(ctx); err != nil {
		return e, err
	}
	defer x.s.end()
	err = x.s.scan([]byte{spaceHead}, []byte{spaceHead + 1}, func(key, value []byte) (bool, error) {
		var st logState
		if err := decodeHead(value, &st); err != nil {
			return false, corrupt("head of log "+string(key[1:]), err)
		}
		e.Logs++
		e.Events += int(st.applied - st.first + 1)
		e.Bytes += st.bytes
		return true, ctx.Err()
	})
	return e, err
}

// Next answers what comes after a position, from nil on, and nil at the end.
func (x *Export) Next(ctx context.Context, position []byte, limit store.PartLimit) (*store.Part, error) {
	return x.next(ctx, copied, position, limit)
}

// Outline is Next without what Reading answers for the logs and lanes that it names: events, parked rows, blocked keys, attempts.
func (x *Export) Outline(ctx context.Context, position []byte, limit store.PartLimit) (*store.Part, error) {
	return x.next(ctx, outlined, position, limit)
}

func (x *Export) next(ctx context.Context, spaces, position []byte, limit store.PartLimit) (*store.Part, error) {
	if err := x.s.begin(ctx); err != nil {
		return nil, err
	}
	defer x.s.end()
	g := gathering{s: x.s, part: &store.Part{}}
	for _, space := range spaces {
		lower := []byte{space}
		if len(position) > 0 && space < position[0] {
			continue
		}
		if len(position) > 0 && space == position[0] {
			lower = append(bytes.Clone(position), 0)
		}
		err := x.s.scan(lower, []byte{space + 1}, func(key, value []byte) (bool, error) {
			if err := g.add(key, value); err != nil {
				return false, err
			}
			g.part.Position = append(g.part.Position[:0], key...)
			return g.rows < limit.Rows && g.bytes < limit.Bytes, ctx.Err()
		})
		if err != nil {
			return nil, fmt.Errorf("read what is to be copied: %w", err)
		}
		if g.rows > 0 {
			return g.part, nil
		}
	}
	return nil, nil
}

// gathering makes one part.
type gathering struct {
	s           *Store
	part        *store.Part
	rows, bytes int
	// of is the log that first and last are of.
	of          tenantID
	first, last sequence
	known       bool
}

// span answers what is left of a log.
func (g *gathering) span(tenant tenantID) (first, last sequence, err error) {
	if g.known && g.of == tenant {
		return g.first, g.last, nil
	}
	st, err := g.s.state(tenant)
	if err != nil {
		return 0, 0, err
	}
	defer g.s.release(st)
	g.of, g.known = tenant, true
	g.first, g.last = g.s.span(st)
	return g.first, g.last, nil
}

// add puts one row into the part, if it still counts.
func (g *gathering) add(key, value []byte) error {
	g.bytes += len(key) + len(value)
	first, rest, split := bytes.Cut(key[1:], []byte{0})
	tenant := tenantID(first)
	switch key[0] {
	case spaceHead:
		return g.log(tenantID(key[1:]))
	case spaceMatched:
		if len(value) != 8 {
			return corrupt("how far log "+string(tenant)+" is matched", row.ErrMalformed)
		}
		g.rows++
		g.part.Matched = append(g.part.Matched, store.Tail{Tenant: tenantID(key[1:]), Matched: sequence(binary.BigEndian.Uint64(value))})
		return nil
	}
	if !split {
		return corrupt(fmt.Sprintf("row %x", key), row.ErrMalformed)
	}
	switch key[0] {
	case spaceBatch:
		return g.events(tenant, rest, value)
	case spaceID:
		return g.id(tenant, rest, value)
	case spaceKept:
		seq, ok := seqAt(rest, 0)
		r, err := decodeKept(tenant, seq, value)
		if err != nil || !ok {
			return corrupt("kept event of log "+string(tenant), errors.Join(row.ErrMalformed, err))
		}
		g.rows++
		g.part.Kept = append(g.part.Kept, store.StoredEvent{Event: &r.event, Made: r.generated, Random: r.random})
		return nil
	case spaceRecord:
		kind, id, ok := strings.Cut(string(rest), "\x00")
		r, err := decodeRecord(tenant, kind, id, value)
		if err != nil || !ok {
			return corrupt(fmt.Sprintf("record %s of %q", kind, tenant), row.ErrMalformed)
		}
		g.rows++
		g.part.Records = append(g.part.Records, r)
		return nil
	case spaceLane:
		if c, err := g.lane(store.LaneRef{Tenant: tenant, Subscription: subscriptionID(rest)}); err != nil || c == nil {
			return err
		}
		g.rows++
		return nil
	}
	sub, rest, ok := bytes.Cut(rest, []byte{0})
	if !ok {
		return corrupt(fmt.Sprintf("row %x", key), row.ErrMalformed)
	}
	return g.ofLane(key[0], store.LaneRef{Tenant: tenant, Subscription: subscriptionID(sub)}, rest, value)
}

func (g *gathering) log(tenant tenantID) error {
	st, err := g.s.state(tenant)
	if err != nil {
		return err
	}
	defer g.s.release(st)
	g.rows++
	g.part.Logs = append(g.part.Logs, store.LogHead{Tenant: tenant, Bytes: st.bytes,
		Head: eventhose.Head{Incarnation: st.inc, First: st.first, Last: st.durable, Forks: st.forks}})
	return nil
}

// events takes what is left of a record batch: trimming may have gone on to the middle of it.
func (g *gathering) events(tenant tenantID, rest, value []byte) error {
	first, last, err := g.span(tenant)
	if err != nil {
		return err
	}
	b, err := decodeBatch(tenant, value)
	if end, ok := seqAt(rest, 0); err == nil && (!ok || end != b.last()) {
		err = row.ErrMalformed
	}
	if err != nil {
		return corrupt(fmt.Sprintf("record batch of log %s before row %x", tenant, rest), err)
	}
	for i := range b.records {
		r := &b.records[i]
		if r.event.Sequence < first || r.event.Sequence > last {
			continue
		}
		g.rows++
		g.bytes += len(r.event.Data)
		g.part.Events = append(g.part.Events, store.StoredEvent{Event: &r.event, Made: r.generated, Random: r.random})
	}
	return nil
}

// id takes a remembered id. What trimming has left behind does not count.
func (g *gathering) id(tenant tenantID, rest, value []byte) error {
	n, k := binary.Uvarint(rest)
	known, err := decodeRemembered(value)
	if k <= 0 || n > uint64(len(rest)-k) || err != nil {
		return corrupt("index of ids of log "+string(tenant), row.ErrMalformed)
	}
	first, last, err := g.span(tenant)
	if err != nil || known.seq < first || known.seq > last {
		return err
	}
	scope, id := string(rest[k:k+int(n)]), string(rest[k+int(n):])
	g.rows++
	g.part.IDs = append(g.part.IDs, store.RememberedID{Tenant: tenant, Scope: scope, ID: id, Sequence: known.seq, Digest: known.digest})
	return nil
}

// lane answers the change that makes a lane in the other store, nil if there is no such lane any more.
func (g *gathering) lane(ref store.LaneRef) (*store.LaneChange, error) {
	if n := len(g.part.Lanes); n > 0 && g.part.Lanes[n-1].Lane.LaneRef == ref {
		return &g.part.Lanes[n-1], nil
	}
	l, err := g.s.lane(ref)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	g.part.Lanes = append(g.part.Lanes, store.LaneChange{Lane: l, Create: true})
	return &g.part.Lanes[len(g.part.Lanes)-1], nil
}

// ofLane takes a row of what hangs on a lane.
func (g *gathering) ofLane(space byte, ref store.LaneRef, rest, value []byte) error {
	c, err := g.lane(ref)
	if err != nil || c == nil {
		return err
	}
	where := fmt.Sprintf("lane %s of %s", ref.Subscription, ref.Tenant)
	switch space {
	case spaceParked:
		seq, ok := seqAt(rest, 0)
		p, err := row.DecodeParked(seq, value)
		if err != nil || !ok {
			return corrupt("parked row of "+where, row.ErrMalformed)
		}
		g.rows++
		c.Park = append(c.Park, p)
	case spaceBlocked:
		k, err := row.DecodeBlocked(string(rest), value)
		if err != nil {
			return corrupt("blocked key of "+where, err)
		}
		g.rows++
		c.Block = append(c.Block, k)
	case spaceAttempt:
		id, ok := newestFirstID(rest)
		attempts, err := row.DecodeRun(ref.Tenant, ref.Subscription, id, value)
		if err != nil || !ok {
			return corrupt("attempt of "+where, row.ErrMalformed)
		}
		first, _, err := g.span(ref.Tenant)
		if err != nil {
			return err
		}
		for i := range attempts {
			if !trimmed(&attempts[i], first) {
				g.rows++
				c.Attempts = append(c.Attempts, attempts[i])
			}
		}
	}
	return nil
}
