package control

import (
	"testing"

	"github.com/eventhose/eventhose"
)

// TestCacheForgetsWhatIsUnderWay: a value that was read before a change is not kept after it.
func TestCacheForgetsWhatIsUnderWay(t *testing.T) {
	c := newCache[string, int](10, 0)
	get := func(load int) int {
		v, err := c.get("a", func() (int, error) { return load, nil })
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v, err := c.get("a", func() (int, error) {
		c.forget("a") // the change is committed after the old value was read
		return 1, nil
	})
	if v != 1 || err != nil {
		t.Fatal(v, err)
	}
	if got := get(2); got != 2 {
		t.Errorf("got %d, which is old", got)
	}
	if got := get(3); got != 2 {
		t.Errorf("got %d, which was not remembered", got)
	}
}

// What is known is what there was, also if it changed while it was read, until it is found to be gone.
func TestCacheKnows(t *testing.T) {
	c := newCache[string, int](2, 0)
	find := func(key string, load func() (int, error)) {
		t.Helper()
		if _, err := c.find(t.Context(), key, load); err != nil && eventhose.CodeOf(err) != eventhose.CodeNotFound {
			t.Fatal(err)
		}
	}
	knows := func(key string, want bool) {
		t.Helper()
		if c.knows(key) != want {
			t.Errorf("knows %q: %t", key, !want)
		}
	}
	there := func() (int, error) { return 1, nil }
	gone := func() (int, error) { return 0, eventhose.NotFound("number") }
	find("a", there)
	find("b", func() (int, error) { c.forgetAll(); return 1, nil })
	find("made-up", gone)
	knows("a", true)
	knows("b", true)
	knows("made-up", false)
	c.forget("made-up")
	knows("made-up", false)
	c.forget("a")
	knows("a", true)
	find("a", gone)
	knows("a", false)
	find("b", there)
	find("b", func() (int, error) { t.Error("what is known is read again"); return 0, nil })
	find("c", there)
	find("d", there)
	if n := len(c.values); n != 2 {
		t.Errorf("%d are kept", n)
	}
}
