package postgres

// An append is planned here and carried out by eventhose._append_group, in one statement. The plan says for each log how many events it
// gets and in which order; which sequences those are is only known under the lock. It supposes that no id in it is
// remembered: if one is, the database does nothing and says which, and the plan is made anew with what it said. The same goes for a
// log that another node is appending to: the entries that are for it are left out, to be answered ErrBusy or for a later statement. A statement waits
// for the logs of its first entry only, and holds no others while it does: a log that is held for long holds up none but itself.

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// idKey is what an id is remembered by. For a place in a parent's log id is that of the event it stands for, and scope is, too.
type idKey [16]byte

func keyOf(kind string, tenant tenantID, scope, id string) idKey {
	h := sha256.New()
	for _, s := range [...]string{kind, string(tenant), scope} {
		h.Write([]byte(s))
		h.Write([]byte{0}) // none of them has one in it
	}
	h.Write([]byte(id))
	return idKey(h.Sum(nil)[:16])
}

// The kinds of ids: those that clients gave, and those of places in parents' logs.
const (
	ownID       = "own"
	placeID     = "place"
	madePlaceID = "made place"
)

type remembered struct {
	seq    sequence
	digest [16]byte
}

const (
	// maxPlans is how often in a row a group is planned without success before it is given up: each time something else was in the way.
	maxPlans = 20
	// moment is how long a log is waited for before the entries that are for it are answered ErrBusy. Another node's append ends sooner.
	moment = 50 * time.Millisecond
)

// Append implements store.Log.
func (s *Store) Append(ctx context.Context, group []store.Append) ([]store.AppendResult, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	ctx, cancel := write(ctx)
	defer cancel()
	return s.append(ctx, group, nil)
}

// append appends a group, and has the unplaced rows with the given ids become its events.
func (s *Store) append(ctx context.Context, group []store.Append, unplaced []int64) ([]store.AppendResult, error) {
	results := make([]store.AppendResult, len(group))
	all := make([]int, len(group))
	for i := range all {
		all[i] = i
	}
	known := map[idKey]remembered{}
	failed := func(entries []int, err error) error {
		if len(entries) == len(group) {
			return err
		}
		for _, i := range entries { // the others are stored, or were answered
			results[i].Err = err
		}
		return nil
	}
	// With one log there is nobody to hold up, and what was unplaced goes as a whole.
	p := newPlan(group, all, known)
	wait := len(group) > 0 && group[0].Skip || len(p.heads) == 1 || len(unplaced) > 0
	var later []int
	for now, plans := all, 0; len(now) > 0; plans++ {
		if plans == maxPlans {
			return results, failed(append(now, later...), fmt.Errorf("%w: too much goes on in these logs", store.ErrUnavailable))
		}
		p = newPlan(group, now, known)
		if wait {
			p.waitFor(&group[now[0]])
		}
		answer, err := s.place(ctx, p, unplaced)
		if err != nil {
			return results, failed(append(now, later...), err)
		}
		switch {
		case len(answer.known) > 0:
			for key, r := range answer.known {
				known[key] = r
			}
			continue
		case len(answer.missing) > 0:
			if err := s.makeLogs(ctx, answer.missing); err != nil {
				return results, failed(append(now, later...), err)
			}
			continue
		case len(answer.busy) > 0:
			var free, held []int
			for _, i := range now {
				switch e := &group[i]; {
				case !answer.busy[e.Tenant] && (e.Parent == "" || !answer.busy[e.Parent]):
					free = append(free, i)
				case e.Skip:
					answer.busy[e.Tenant] = true // those after it stay behind it
					results[i].Err = store.ErrBusy
				case answer.vain:
					answer.busy[e.Tenant] = true
					held = append(held, i)
				default:
					answer.busy[e.Tenant] = true
					later = append(later, i)
				}
			}
			if len(held) > 0 {
				if err := failed(held, fmt.Errorf("append: %w for %v", store.ErrBusy, lockTimeout)); err != nil {
					return results, err
				}
			}
			wait = wait && len(free) > 0 && free[0] == now[0]
			now = free
		default:
			p.tell(results, answer.lasts)
			s.keep(p, answer.lasts)
			s.appended(p)
			now, plans = nil, 0
		}
		if len(now) == 0 {
			now, later, wait = later, nil, true
		}
	}
	return results, nil
}

// plan is one statement's worth of an append.
type plan struct {
	group   []store.Append
	entries []int
	heads   []string // in order
	// wait are the heads to wait for, one after the other, each for so long at most.
	wait     []string
	patience time.Duration
	number   map[tenantID]int
	counts   []int64
	sizes    []int64
	// planned are the entries' events, in order.
	planned [][]planned
	refused map[int]int // entries, with the index of the event that is different
	keys    []idKey
	rows    rows
	ids     ids
}

// planned is what becomes of one event: a place, or that of an earlier one.
type planned struct {
	head   int // from 1
	off    int64
	random uint64     // of the id that was made, if one was
	first  remembered // of a duplicate that the database knows
	again  bool       // a duplicate
}

// rows are the columns of what eventhose._append_group inserts.
type rows struct {
	head, origin                        []int32
	off, random, originOff              []int64
	nanos                               []int16
	id, scope, typ, key, version, media []string
	attributes                          []string
	time, appended                      []time.Time
	data                                [][]byte
}

type ids struct {
	id, digest [][16]byte
	head       []int32
	off        []int64
}

func newPlan(group []store.Append, entries []int, known map[idKey]remembered) *plan {
	p := &plan{group: group, entries: entries, number: map[tenantID]int{}, refused: map[int]int{}, planned: make([][]planned, len(entries))}
	for _, i := range entries {
		for _, t := range [...]tenantID{group[i].Tenant, group[i].Parent} {
			if t != "" && p.number[t] == 0 {
				p.number[t] = 1
				p.heads = append(p.heads, string(t))
			}
		}
	}
	slices.Sort(p.heads)
	for i, h := range p.heads {
		p.number[tenantID(h)] = i + 1
	}
	p.counts, p.sizes = make([]int64, len(p.heads)), make([]int64, len(p.heads))
	fresh := map[idKey]placed{}
	for n, i := range entries {
		p.planned[n] = p.entry(i, known, fresh)
	}
	return p
}

// waitFor has the plan wait for the logs of an entry. Its parent's comes second: whoever is kept waiting by the first would have to wait for that, too.
func (p *plan) waitFor(e *store.Append) {
	p.wait, p.patience = []string{string(e.Tenant)}, lockTimeout
	if e.Parent != "" {
		p.wait = append(p.wait, string(e.Parent))
	}
	if e.Skip {
		p.patience = moment
	}
}

// placed is where an id of the group gets its place.
type placed struct {
	head   int
	off    int64
	digest [16]byte
}

// entry plans one entry. fresh are the ids of the entries before it that get places.
func (p *plan) entry(i int, known map[idKey]remembered, fresh map[idKey]placed) []planned {
	entry := &p.group[i]
	head := p.number[entry.Tenant]
	out := make([]planned, len(entry.Events))
	keys := make([]idKey, len(entry.Events))
	mine := map[idKey]placed{}
	off := p.counts[head-1]
	for j := range entry.Events {
		e := &entry.Events[j]
		if e.Event.ID == "" {
			off++
			out[j] = planned{head: head, off: off, random: rand.Uint64()}
			continue
		}
		key := keyOf(ownID, entry.Tenant, e.Event.Scope, e.Event.ID)
		keys[j] = key
		r, isKnown := known[key]
		before, isFresh := fresh[key]
		if !isFresh {
			before, isFresh = mine[key]
		}
		switch {
		case isKnown && r.digest != e.Digest, !isKnown && isFresh && before.digest != e.Digest:
			p.refused[i] = j
			for _, k := range keys[:j+1] { // the log may know one of them, and then it was refused for that
				if _, isKnown := known[k]; !isKnown && k != (idKey{}) {
					p.keys = append(p.keys, k)
				}
			}
			return nil
		case isKnown:
			out[j] = planned{again: true, first: r}
		case isFresh:
			out[j] = planned{again: true, head: before.head, off: before.off}
		default:
			off++
			out[j] = planned{head: head, off: off}
			mine[key] = placed{head, off, e.Digest}
		}
	}
	for j := range entry.Events {
		if x := out[j]; !x.again {
			p.add(entry, &entry.Events[j], x, keys[j])
		}
	}
	for key, at := range mine {
		fresh[key] = at
		p.keys = append(p.keys, key)
	}
	return out
}

// add puts one event into the statement, and its place in the parent's log.
func (p *plan) add(entry *store.Append, n *store.NewEvent, at planned, key idKey) {
	e, r := &n.Event, &p.rows
	p.counts[at.head-1]++
	p.sizes[at.head-1] += int64(len(e.Data))
	data := e.Data
	if data == nil {
		data = []byte{}
	}
	r.add(e, at, e.ID, data)
	r.origin, r.originOff = append(r.origin, 0), append(r.originOff, 0)
	if e.ID != "" {
		p.ids.add(key, n.Digest, at.head, at.off)
	}
	if entry.Parent == "" {
		return
	}
	up := planned{head: p.number[entry.Parent], random: at.random}
	p.counts[up.head-1]++
	up.off = p.counts[up.head-1]
	r.add(e, up, e.ID, []byte{})
	r.origin, r.originOff = append(r.origin, int32(at.head)), append(r.originOff, at.off)
	p.ids.add(placeKey(entry.Parent, entry.Tenant, e.Scope, e.ID, at.random), [16]byte{}, up.head, up.off)
}

// placeKey is what a place in a parent's log is found by: the id of the event that it stands for, or if that was made what is random in it.
func placeKey(parent, tenant tenantID, scope, id string, random uint64) idKey {
	if id == "" {
		return keyOf(madePlaceID, parent, string(tenant), strconv.FormatUint(random, 16))
	}
	return keyOf(placeID, parent, scope, string(tenant)+"/"+id)
}

func (r *rows) add(e *eventhose.Event, at planned, id string, data []byte) {
	attributes := ""
	if len(e.Attributes) > 0 {
		b, _ := json.Marshal(e.Attributes) // a map of texts
		attributes = string(b)
	}
	at0 := e.Time.UTC()
	r.head, r.off = append(r.head, int32(at.head)), append(r.off, at.off)
	r.id, r.random = append(r.id, id), append(r.random, int64(at.random))
	r.scope, r.typ, r.key, r.version, r.media = append(r.scope, e.Scope), append(r.typ, e.Type), append(r.key, e.Key), append(r.version, e.Version), append(r.media, e.ContentType)
	r.attributes = append(r.attributes, attributes)
	r.time, r.nanos = append(r.time, at0.Truncate(time.Microsecond)), append(r.nanos, int16(at0.Nanosecond()%1000))
	r.appended = append(r.appended, e.Appended)
	r.data = append(r.data, data)
}

func (x *ids) add(key idKey, digest [16]byte, head int, off int64) {
	x.id, x.digest = append(x.id, key), append(x.digest, digest)
	x.head, x.off = append(x.head, int32(head)), append(x.off, off)
}

// tell writes the entries' results, once the logs' last sequences before are known.
func (p *plan) tell(results []store.AppendResult, lasts map[tenantID]sequence) {
	for n, i := range p.entries {
		if at, refused := p.refused[i]; refused {
			results[i] = store.AppendResult{Err: store.ErrDifferent, Index: at}
			continue
		}
		r := store.AppendResult{Placements: make([]eventhose.Placement, len(p.planned[n]))}
		for j, x := range p.planned[n] {
			at := eventhose.Placement{ID: p.group[i].Events[j].Event.ID, Sequence: x.first.seq, Duplicate: x.again}
			if x.head > 0 {
				at.Sequence = lasts[tenantID(p.heads[x.head-1])] + sequence(x.off)
			}
			if at.ID == "" {
				at.ID = eventhose.EventID(at.Sequence, x.random)
			}
			r.Placements[j] = at
		}
		results[i] = r
	}
}

// answer is what eventhose._append_group said: where the events are, or what was in the way.
type answer struct {
	lasts   map[tenantID]sequence
	missing []string
	busy    map[tenantID]bool
	vain    bool // what is busy was waited for
	known   map[idKey]remembered
}

const appendStatement = `SELECT kind, o_tenant, coalesce(o_seq, 0), o_id, o_digest FROM eventhose._append_group($1, $2, $3, $4, $5, $6, $7,
	$8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27)`

// place carries a plan out. With unplaced rows it also answers statePlaced's error if they are events already.
func (s *Store) place(ctx context.Context, p *plan, unplaced []int64) (answer, error) {
	unplaced = p.accepted(unplaced)
	if len(p.rows.head) == 0 && len(p.keys) == 0 && len(unplaced) == 0 { // nothing is new, and what is remembered is durable
		return answer{}, nil
	}
	keys := make([][16]byte, len(p.keys))
	for i, k := range p.keys {
		keys[i] = k
	}
	slices.SortFunc(keys, func(a, b [16]byte) int { return slices.Compare(a[:], b[:]) })
	if unplaced == nil {
		unplaced = []int64{}
	}
	if p.wait == nil {
		p.wait = []string{}
	}
	r, x := &p.rows, p.ids.sorted()
	args := []any{p.heads, p.counts, p.sizes, p.wait, p.patience.Milliseconds(), keys, unplaced,
		r.head, r.off, unlessZero(r.id), unlessZero(r.random), unlessZero(r.scope), r.typ, unlessZero(r.key), r.time, unlessZero(r.nanos), r.appended,
		unlessZero(r.version), unlessZero(r.media), unlessZero(r.attributes), r.data, unlessZero(r.origin), unlessZero(r.originOff),
		x.id, x.digest, x.head, x.off}
	for try := 0; ; try++ {
		a, err := s.askPlace(ctx, args)
		if err == nil {
			return a, nil
		}
		// Only what the server has certainly not seen is sent again.
		if try < retries && unsent(err) && ctx.Err() == nil {
			continue
		}
		// A partition that was just made is known to be open a moment before it is known to be there.
		if try < retries && (state(err) == stateDeadlock || state(err) == stateNoPartition) {
			continue
		}
		return answer{}, failure("append", err)
	}
}

// accepted are those of a group's unplaced rows whose entries are not refused.
func (p *plan) accepted(unplaced []int64) []int64 {
	if len(p.refused) == 0 {
		return unplaced
	}
	var rows []int64
	for i, row := range unplaced {
		if _, refused := p.refused[i]; !refused {
			rows = append(rows, row)
		}
	}
	return rows
}

// unlessZero answers a column, or none if it has only defaults: those need not be sent.
func unlessZero[T comparable](column []T) []T {
	var zero T
	for _, v := range column {
		if v != zero {
			return column
		}
	}
	return nil
}

func (s *Store) askPlace(ctx context.Context, args []any) (a answer, err error) {
	err = queryOnce(ctx, s.pool, appendStatement, args, func(rows pgx.Rows) error {
		var kind, tenant string
		var seq sequence
		var id, digest *[16]byte
		if err := rows.Scan(&kind, &tenant, &seq, &id, &digest); err != nil {
			return err
		}
		switch {
		case kind == "p":
			if a.lasts == nil {
				a.lasts = map[tenantID]sequence{}
			}
			a.lasts[tenantID(tenant)] = seq
		case kind == "n":
			a.missing = append(a.missing, tenant)
		case kind == "b", kind == "v":
			a.vain = kind == "v"
			if a.busy == nil {
				a.busy = map[tenantID]bool{}
			}
			a.busy[tenantID(tenant)] = true
		case kind == "k" && id != nil && digest != nil:
			if a.known == nil {
				a.known = map[idKey]remembered{}
			}
			a.known[idKey(*id)] = remembered{seq, *digest}
		default:
			return errors.New("unknown answer " + kind)
		}
		return nil
	})
	return a, err
}

// makeLogs makes logs that are not there yet.
func (s *Store) makeLogs(ctx context.Context, logs []string) error {
	incarnations := make([]int64, len(logs))
	for i := range incarnations {
		incarnations[i] = int64(rand.Uint32N(1<<32-1)) + 1
	}
	_, err := s.pool.Exec(ctx, "SELECT eventhose._make_logs($1, $2)", logs, incarnations)
	return failure("begin a log", err)
}

// sorted puts the ids into the order of their index, so that inserting them goes through it once, and two nodes in the same order.
func (x *ids) sorted() ids {
	order := make([]int, len(x.id))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(slices.Compare(x.id[a][:], x.id[b][:]), cmp.Compare(a, b))
	})
	out := ids{id: [][16]byte{}, digest: [][16]byte{}, head: []int32{}, off: []int64{}}
	for _, i := range order {
		out.add(x.id[i], x.digest[i], int(x.head[i]), x.off[i])
	}
	return out
}
