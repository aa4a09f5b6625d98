package main

import (
	"strings"
	"testing"

	"github.com/eventhose/eventhose/internal/listen"
)

// Each URL has a cursor of its own: listeners that shared one would get a part of the events each. The name shows nothing that may be secret.
func TestOwnGroup(t *testing.T) {
	long := "localhost:3000/" + strings.Repeat("x", listen.MaxGroup)
	groups := map[string]string{}
	for _, url := range []string{"localhost:3000/hooks", "localhost:4000/hooks", "localhost:3000/hooks?app=planted-a", "localhost:3000/hooks?app=planted-b",
		"localhost:3000/@team/hooks", "localhost:4000/@team/hooks", "http://me:planted@localhost:3000/hooks", "https://localhost:3000/hooks", long + "a", long + "b"} {
		name := ownGroup(url)
		if other := groups[name]; other != "" {
			t.Errorf("%s and %s share %q", url, other, name)
		}
		groups[name] = url
		if len(name) > listen.MaxGroup || strings.Contains(name, "planted") {
			t.Errorf("%s has %q", url, name)
		}
		r := listen.Route{Group: name, ForwardTo: url}
		if err := r.Validate(); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if again := ownGroup(url); again != name {
			t.Errorf("%s has %q, and then %q", url, name, again)
		}
	}
	if a, b := ownGroup("localhost:3000/hooks"), ownGroup("http://localhost:3000/hooks"); a != b {
		t.Errorf("without a scheme %q, with it %q", a, b)
	}
}
