package embedded

import (
	"hash/maphash"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// idFilter answers from memory that a client's id is new, so that appending one costs no read. It is a chain of blocked
// Bloom filters, each twice as large as the one before, of 16 bits for each id they have room for. Measured: 31 MB for
// ten million ids, that is 3.1 MB for a million (2 to 4, as the last one of the chain is full or just begun, and 2 MB at
// least); about 3 in 1,000 new ids are read for nothing. Ids that retention removed stay until the next start.
//
// After a start it is filled in the background in the order of the index: 0.15 µs of one core for each id, 1.5 s for ten
// million. It answers for what it has passed, and "perhaps" beyond that. It also does when it has reached its bound;
// Pebble's own filters then stand in front of the files.
type idFilter struct {
	seed maphash.Seed

	mu       sync.RWMutex
	segments []*bloomSegment
	complete bool   // all ids of the store are in it
	passed   string // all ids up to this key are
	over     bool   // its bound is reached
	stop     chan struct{}
	stopped  sync.WaitGroup
}

const (
	firstSegment = 1 << 20 // ids
	maxSegments  = 7       // 133 million ids, 266 MB
	bitsPerID    = 16
	probes       = 7
)

// bloomSegment is a filter of blocks of one cache line each.
type bloomSegment struct {
	blocks   [][8]uint64
	free     int // ids that it still takes
	capacity int
}

func newSegment(capacity int) *bloomSegment {
	return &bloomSegment{blocks: make([][8]uint64, capacity*bitsPerID/512), free: capacity, capacity: capacity}
}

func (b *bloomSegment) block(h uint64) *[8]uint64 {
	return &b.blocks[(h>>32)*uint64(len(b.blocks))>>32]
}

func (b *bloomSegment) add(h uint64) {
	block := b.block(h)
	for x, i := uint32(h), 0; i < probes; i++ {
		block[x>>6&7] |= 1 << (x & 63)
		x = x*0x9e3779b1 + 0x7f4a7c15
		x ^= x >> 15
	}
	b.free--
}

func (b *bloomSegment) has(h uint64) bool {
	block := b.block(h)
	for x, i := uint32(h), 0; i < probes; i++ {
		if block[x>>6&7]&(1<<(x&63)) == 0 {
			return false
		}
		x = x*0x9e3779b1 + 0x7f4a7c15
		x ^= x >> 15
	}
	return true
}

// start fills the filter with the ids of a store.
func (f *idFilter) start(s *Store) {
	f.seed, f.stop = maphash.MakeSeed(), make(chan struct{})
	f.stopped.Add(1)
	go func() {
		defer f.stopped.Done()
		if f.fill(s.db) == nil {
			f.mu.Lock()
			f.complete = true
			f.mu.Unlock()
		}
	}()
}

func (f *idFilter) close() {
	if f.stop != nil {
		close(f.stop)
		f.stopped.Wait()
		f.stop = nil
	}
}

// fill reads the index of ids. Without it the filter stays incomplete, which is slower and no error.
func (f *idFilter) fill(db *pebble.DB) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceID}, UpperBound: []byte{spaceID + 1}})
	if err != nil {
		return err
	}
	const piece = 4096
	hashes := make([]uint64, 0, piece)
	for ok := it.First(); ok; ok = it.Next() {
		hashes = append(hashes, maphash.Bytes(f.seed, it.Key()))
		if len(hashes) < piece {
			continue
		}
		f.pass(hashes, string(it.Key()))
		hashes = hashes[:0]
		select {
		case <-f.stop:
			_ = it.Close()
			return errStopped
		default:
		}
	}
	f.pass(hashes, "")
	return it.Close()
}

// pass takes in a piece of the index that ends with the key last.
func (f *idFilter) pass(hashes []uint64, last string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range hashes {
		f.put(h)
	}
	f.passed = max(f.passed, last)
}

// hash is what stands for a key of the index of ids in the filter.
func (f *idFilter) hash(key string) uint64 { return maphash.String(f.seed, key) }

// add puts a key of the index of ids in, by its hash; do so before it can be found there.
func (f *idFilter) add(h uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(h)
}

func (f *idFilter) put(h uint64) {
	if f.over {
		return
	}
	n := len(f.segments)
	if n == 0 {
		f.segments = append(f.segments, newSegment(firstSegment))
	} else if f.segments[n-1].free == 0 {
		if n == maxSegments {
			f.over, f.segments = true, nil
			return
		}
		f.segments = append(f.segments, newSegment(2*f.segments[n-1].capacity))
	}
	f.segments[len(f.segments)-1].add(h)
}

// mayHave answers false only for a key that is not in the index; h is its hash.
func (f *idFilter) mayHave(key string, h uint64) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.over || !f.complete && key > f.passed {
		return true
	}
	for i := len(f.segments) - 1; i >= 0; i-- {
		if f.segments[i].has(h) {
			return true
		}
	}
	return false
}
