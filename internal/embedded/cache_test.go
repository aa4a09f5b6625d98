package embedded

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose/internal/store"
)

// Readers at the tail get what was just written without the database, as it reads from the database, and erased when it
// was erased; and what stays in memory for them is bounded.
func TestTailIsInMemory(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, fs, "data")
	var events []store.NewEvent
	for i := range 300 {
		id := ""
		if i%2 == 1 {
			id = fmt.Sprint("id-", i)
		}
		e := event(i, id)
		e.Event.Data = bytes.Repeat([]byte{byte('a' + i%26)}, 1000)
		events = append(events, e)
	}
	mustAppend(t, s, "t", events...)
	for seq := sequence(1); seq <= 300; seq++ {
		if b, _ := s.cache.get("t", seq); b == nil || b.first > seq || b.last() < seq {
			t.Fatalf("%d is not in memory", seq)
		}
	}
	if err := s.Erase(ctx, "t", 7); err != nil {
		t.Fatal(err)
	}
	all := store.ReadLimit{Events: 1000, Bytes: 1 << 30}
	near, err := s.Read(ctx, "t", 0, all)
	if err != nil || len(near) != 300 || !near[6].Erased || near[6].Data != nil || near[7].Erased {
		t.Fatalf("%d events, %v", len(near), err)
	}
	large := event(0, "")
	large.Event.Data = make([]byte, 1<<20)
	for range 3 * cacheBytes >> 20 {
		mustAppend(t, s, "t", large)
	}
	held := 0
	for el := s.cache.order.Front(); el != nil; el = el.Next() {
		held += cached(el).size
	}
	if held != s.cache.size || held > cacheBytes || held < cacheBytes/2 {
		t.Errorf("%d bytes are held, counted as %d, of %d", held, s.cache.size, cacheBytes)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, fs, "data")
	defer s.Close()
	far, err := s.Read(ctx, "t", 0, store.ReadLimit{Events: 300, Bytes: 1 << 30})
	if err != nil || len(far) != 300 {
		t.Fatalf("%d events, %v", len(far), err)
	}
	for i := range far {
		if a, b := fmt.Sprintf("%+v", *near[i]), fmt.Sprintf("%+v", *far[i]); a != b {
			t.Fatalf("from memory  %s\nfrom the disk %s", a, b)
		}
	}
}

// asked is a context that calls do when it is asked for the nth time whether it has ended.
type asked struct {
	context.Context
	n  int
	do func()
}

func (c *asked) Err() error {
	if c.n--; c.n == 0 {
		c.do()
	}
	return c.Context.Err()
}

// What is erased while a page of several batches is read stays erased: the reader, who sees what was there when it began, does not
// keep that for others.
func TestErasedWhileAPageIsRead(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, fs, "data")
	mustAppend(t, s, "t", event(1, ""))
	mustAppend(t, s, "t", event(2, ""), event(3, ""))
	again := func() {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, fs, "data")
	}
	again() // nothing is in memory
	erase := func() {
		if err := s.Erase(ctx, "t", 2); err != nil {
			t.Error(err)
		}
	}
	page, err := s.Read(&asked{ctx, 3, erase}, "t", 0, wide) // as the call begins, and before each batch
	if err != nil || len(page) != 3 {
		t.Fatalf("%d events, %v", len(page), err)
	}
	check := func(when string) {
		t.Helper()
		if e, err := s.Lookup(ctx, "t", store.Ref{Sequence: 2}); err != nil || !e.Erased || len(e.Data) > 0 {
			t.Errorf("%s: %+v, %v", when, e, err)
		}
	}
	check("erased")
	if err := s.Erase(ctx, "t", 3); err != nil {
		t.Fatal(err)
	}
	again()
	check("after the one beside it was erased")
}
