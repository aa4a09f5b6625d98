package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/eventhose/eventhose/internal/store"
	"pgregory.net/rapid"
)

// runScripts compares a store with the model after every step of random scripts, some of which open the store again.
// rapid chooses what kinds of steps there are, and so shrinks them; what is in a step hangs on one number each.
func runScripts(t *testing.T, open func(t *testing.T) store.Store, reopen func(t *testing.T, s store.Store) store.Store) {
	rapid.Check(t, func(rt *rapid.T) {
		st := open(t)
		defer func() {
			if err := st.Close(); err != nil {
				rt.Errorf("close: %v", err)
			}
		}()
		script := NewScript(nil, "a", NewModel(), 0)
		step := func(kind string) func(*rapid.T) {
			return func(rt *rapid.T) {
				script.src = rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, kind), 1))
				if err := script.Run(t.Context(), st, script.Step(kind)); err != nil {
					rt.Fatal(err)
				}
			}
		}
		actions := map[string]func(*rapid.T){
			"": func(rt *rapid.T) {
				script.src = rand.New(rand.NewPCG(uint64(script.n), 2))
				if err := script.Check(t.Context(), st, 5); err != nil {
					rt.Fatalf("after op %d: %v", script.n, err)
				}
			},
			"reopen":       func(*rapid.T) { st = reopen(t, st) },
			"append again": step("append"),
			"commit again": step("commit"),
		}
		for _, kind := range OpKinds {
			actions[kind] = step(kind)
		}
		rt.Repeat(actions)
	})
}

// Run does one operation and compares its answer with the model, which moves on.
func (s *Script) Run(ctx context.Context, st store.Store, o Op) error {
	return s.Model.Apply(o, o.Do(ctx, st))
}

// RunAndCheck runs n random operations on a store and checks it after each every, and at the end.
func (s *Script) RunAndCheck(ctx context.Context, st store.Store, n, every int) error {
	for i := 1; i <= n; i++ {
		if err := s.Run(ctx, st, s.Next()); err != nil {
			return err
		}
		if i%every == 0 || i == n {
			if err := s.Check(ctx, st, -1); err != nil {
				return fmt.Errorf("after op %d: %w", s.n, err)
			}
		}
	}
	return nil
}

// N is the number of the last operation that the script made.
func (s *Script) N() int { return s.n }
