package control

import "testing"

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
