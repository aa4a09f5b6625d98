package httpapi

import (
	"errors"
	"io"
	"math/bits"
	"sync"

	"github.com/eventhose/eventhose/internal/overload"
)

// A body is in memory that grows as its bytes come, and is counted whole from the share of whoever has sent it: what is only declared
// takes next to nothing. Memory of a few sizes is used again, so that most bodies, which are small, cost none.

// Sizes in bytes, powers of two.
const (
	leastMemory = 1 << 10
	// firstMemory is the most that a body takes before any of it has come.
	firstMemory = 16 << 10
	// mostKept is the most that is used again.
	mostKept = 1 << 20
)

var (
	errNoRoom  = errors.New("httpapi: the share has no more room")
	errTooLong = errors.New("httpapi: the body is longer than it may be")
)

// memory holds a body. Nothing of a body outlives its request: what is kept of it is copied.
type memory struct {
	share overload.Share
	block *block
}

// block is all of its bytes, which are counted.
type block struct{ bytes []byte }

// read reads a body of a declared length, or -1, and of at most limit bytes; errTooLong if it is longer, errNoRoom, or in's error.
// The bytes are good until give, which must be called in any case.
func (m *memory) read(in io.Reader, declared, limit int64) ([]byte, error) {
	most := limit + 1 // one more, to see the end
	switch {
	case declared == 0:
		return nil, nil
	case declared > 0:
		most = declared + 1
	}
	n := 0
	for size := int64(firstMemory); ; size *= 4 {
		if !m.grow(min(size, most), n) {
			return nil, errNoRoom
		}
		room := m.block.bytes[:min(int64(len(m.block.bytes)), most)]
		for n < len(room) {
			got, err := in.Read(room[n:])
			n += got
			switch {
			case err == nil:
			case !errors.Is(err, io.EOF):
				return nil, err
			case int64(n) < most:
				return room[:n:n], nil
			}
		}
		if int64(n) == most {
			return nil, errTooLong
		}
	}
}

// grow makes room for size bytes, of which there are n.
func (m *memory) grow(size int64, n int) bool {
	kept := class(size)
	if kept >= 0 {
		size = leastMemory << kept
	}
	had := int64(0)
	if m.block != nil {
		had = int64(len(m.block.bytes))
	}
	if !m.share.Take(size - had) {
		return false
	}
	next := newBlock(size, kept)
	if m.block != nil {
		copy(next.bytes, m.block.bytes[:n])
		m.block.keep()
	}
	m.block = next
	return true
}

// give gives back all, for the next bodies.
func (m *memory) give() {
	if m.block != nil {
		m.share.Give(int64(len(m.block.bytes)))
		m.block.keep()
		m.block = nil
	}
}

// blocks are for the next bodies: of leastMemory, twice that, and so on up to mostKept.
var blocks [11]sync.Pool

// class is which of blocks has room for size bytes, -1 if none has.
func class(size int64) int {
	if size > mostKept {
		return -1
	}
	return bits.Len64(uint64(max(size, leastMemory)-1)) - bits.Len64(leastMemory-1)
}

// newBlock answers one of size bytes, from one of blocks unless that is -1.
func newBlock(size int64, kept int) *block {
	if kept >= 0 {
		if b, ok := blocks[kept].Get().(*block); ok {
			return b
		}
	}
	return &block{make([]byte, size)}
}

func (b *block) keep() {
	if kept := class(int64(len(b.bytes))); kept >= 0 {
		blocks[kept].Put(b)
	}
}
