package embedded

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
)

// A log that was last written when all logs of a store had the same incarnation: cursors of then are good up to where it was left, also after it
// was appended to and restored.
func TestIncarnationOfTheStore(t *testing.T) {
	leavesNothing(t)
	fs := vfs.NewMem()
	s := mustOpen(t, fs, "data")
	shared := s.incarnations[0]
	for i := range 3 {
		mustAppend(t, s, "t", event(i, ""))
	}
	st, err := s.state("t")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.db.Set(tenantKey(spaceHead, "t"), encodeHead(&logState{inc: shared}, 1, 3, st.bytes), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	s.release(st)
	check := func(when string, last eventhose.Sequence, since ...eventhose.Cursor) {
		t.Helper()
		head, err := s.Head(ctx, "t")
		if err != nil || head.Last != last || head.Incarnation == shared {
			t.Fatalf("%s: %+v, %v", when, head, err)
		}
		for seq := range eventhose.Sequence(6) {
			got, err := head.Resolve(eventhose.Cursor{Incarnation: shared, Sequence: seq})
			if good := seq <= 3; good && (err != nil || got != seq) || !good && eventhose.CodeOf(err) != eventhose.CodeCursorGone {
				t.Errorf("%s, the old cursor of %d: %d, %v", when, seq, got, err)
			}
		}
		for _, cursor := range since {
			if got, err := head.Resolve(cursor); err != nil || got != cursor.Sequence {
				t.Errorf("%s, cursor %v: %d, %v", when, cursor, got, err)
			}
		}
	}
	again := func(dir string) {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, fs, dir)
	}
	again("data")
	head, _ := s.Head(ctx, "t")
	left := head.Cursor(3)
	check("opened again", 3, left)
	if err := s.Backup(ctx, "before"); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, "t", event(3, ""))
	mustAppend(t, s, "t", event(4, ""))
	check("appended to", 5, left, head.Cursor(5))
	again("data")
	check("appended to and opened again", 5, left, head.Cursor(5))
	if err := s.Backup(ctx, "after"); err != nil {
		t.Fatal(err)
	}
	again("after")
	check("restored", 5, left, head.Cursor(5))
	mustAppend(t, s, "t", event(5, ""))
	again("before")
	check("restored as it was found", 3, left)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
