package overload

import (
	"testing"

	"github.com/eventhose/eventhose"
)

// As many tenants as may wait with all that they have leave those room who have next to nothing.
func TestWaitingIsParted(t *testing.T) {
	var w Waiting
	w.Set(1000)
	for i, want := range []int{500, 250, 10, 10} {
		n := 0
		for w.Take(eventhose.TenantID(rune('a'+i)), 1) {
			n++
		}
		if n != want {
			t.Errorf("of tenant %d there wait %d, want %d", i, n, want)
		}
	}
	w.Give("a", 50)
	if !w.Take("b", 30) || w.Take("a", 1) {
		t.Error("what was given back is not the next one's")
	}
	w = Waiting{}
	w.Set(1)
	if !w.Take("a", 1) || w.Take("b", 1) {
		t.Error("one is not one")
	}
}
