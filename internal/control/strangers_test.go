package control

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// stalling is a store that says nothing to whom asks for records of a kind, but for those with one id, until it goes on.
type stalling struct {
	store.Store
	kind, but string
	asking    chan struct{} // has room for those who ask
	goOn      chan struct{}
}

func (s *stalling) Record(ctx context.Context, tenant eventhose.TenantID, kind, id string) (store.Record, error) {
	if kind == s.kind && id != s.but {
		s.asking <- struct{}{}
		defer func() { <-s.asking }()
		<-s.goOn
	}
	return s.Store.Record(ctx, tenant, kind, id)
}

// A flood of ids that are made up asks the store few at once, and is then told to come again; what is known is found meanwhile as ever, also when it
// has changed, and what is new as soon as it is its turn.
func TestMadeUpIDs(t *testing.T) {
	const flood, atOnce = 50, 4
	name := "changed"
	for what, c := range map[string]struct {
		kind   string
		make   func(h *house) (id string, err error)
		find   func(ctx context.Context, c *Control, id string) (name string, err error)
		change func(ctx context.Context, h *house, c *Control, id string) error
		madeUp func(i int) string
	}{
		"sources": {kindSourceOf, func(h *house) (string, error) { return string(h.door("stripe", "whsec_1").ID), nil },
			func(ctx context.Context, c *Control, id string) (string, error) {
				s, err := c.FindSource(ctx, eventhose.SourceID(id))
				return s.Name, err
			},
			func(ctx context.Context, h *house, c *Control, id string) error {
				_, err := h.UpdateSource(ctx, "acme", eventhose.SourceID(id), eventhose.SourcePatch{Name: &name})
				c.Heard(kindSource, "acme", id)
				return err
			},
			func(i int) string { return "src_" + eventhose.IDText([16]byte{1, byte(i)}) }},
		"inspectors": {kindInspector, func(h *house) (string, error) { return string(h.inspector(eventhose.Inspector{}).ID), nil },
			func(ctx context.Context, c *Control, id string) (string, error) {
				i, err := c.FindInspector(ctx, eventhose.InspectorID(id))
				return i.Name, err
			},
			func(ctx context.Context, _ *house, c *Control, id string) error {
				_, err := c.UpdateInspector(ctx, "acme", eventhose.InspectorID(id), eventhose.InspectorPatch{Name: &name})
				return err
			},
			func(i int) string { return "ins_" + eventhose.IDText([16]byte{1, byte(i)}) }},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				known, err := c.make(h)
				if err != nil {
					t.Fatal(err)
				}
				st := &stalling{Store: h.store, kind: c.kind, but: known, asking: make(chan struct{}, flood+1), goOn: make(chan struct{})}
				node, err := New(st, h.options())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.find(t.Context(), node, known); err != nil {
					t.Fatal(err)
				}
				answers := make(chan error, flood)
				for i := range flood {
					go func() {
						_, err := c.find(t.Context(), node, c.madeUp(i))
						answers <- err
					}()
				}
				synctest.Wait()
				if n := len(st.asking); n != atOnce {
					close(st.goOn)
					t.Fatalf("%d are asked for at once", n)
				}
				began := time.Now()
				for _, want := range []string{"", name, name} {
					if got, err := c.find(t.Context(), node, known); err != nil || got != want {
						t.Errorf("what is known: %q, %v, want %q", got, err, want)
					}
					if want == "" {
						if err := c.change(t.Context(), h, node, known); err != nil {
							t.Fatal(err)
						}
					}
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("what is known took %v", took)
				}
				for range flood - atOnce {
					var e *eventhose.Error
					if err := <-answers; !errors.As(err, &e) || e.Code != eventhose.CodeUnavailable || e.RetryAfter <= 0 {
						t.Errorf("too many: %v", err)
					}
				}
				if took := time.Since(began); took != time.Second {
					t.Errorf("they waited for %v", took)
				}
				fresh, err := c.make(h)
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					_, err := c.find(t.Context(), node, fresh)
					answers <- err
				}()
				synctest.Wait()
				close(st.goOn)
				found := 0
				for range atOnce + 1 {
					if err := <-answers; err == nil {
						found++
					} else if eventhose.CodeOf(err) != eventhose.CodeNotFound {
						t.Error(err)
					}
				}
				if took := time.Since(began); found != 1 || took != time.Second {
					t.Errorf("%d found, what is new after %v", found, took)
				}
			})
		})
	}
}
