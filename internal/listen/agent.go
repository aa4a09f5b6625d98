package listen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"github.com/eventhose/eventhose"
)

// Run runs listeners until ctx ends, or one of them ends with an error; then it stops the others and answers it.
func Run(ctx context.Context, listeners ...*Listener) error {
	running, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		running.Go(func() error { return l.Run(ctx) })
	}
	return running.Wait()
}

// Limits of a file of routes.
const (
	maxFile   = 1 << 20
	maxRoutes = 100
)

// ReadRoutes reads a file of routes, YAML or JSON:
//
//	routes:
//	  - group: erp
//	    types: [order.*]
//	    filter: data.amount > 1000
//	    forward_to: http://10.1.2.3/webhooks
//	    ordering: strict
//	    secret: whsec_…
//
// group and forward_to are required, and a group may be there once. Errors are CodeMalformed, or CodeInvalid with the field
// ("routes[0].forward_to"). What a secret holds is not in them.
func ReadRoutes(r io.Reader) ([]Route, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the routes: %w", err)
	case len(text) > maxFile:
		return nil, &eventhose.Error{Code: eventhose.CodeTooLarge, Message: fmt.Sprintf("the file of routes is larger than %d bytes", maxFile)}
	}
	var file struct {
		Routes []struct {
			Group     string             `yaml:"group"`
			Types     []string           `yaml:"types"`
			Filter    string             `yaml:"filter"`
			ForwardTo string             `yaml:"forward_to"`
			Ordering  eventhose.Ordering `yaml:"ordering"`
			Secret    string             `yaml:"secret"`
		} `yaml:"routes"`
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, &eventhose.Error{Code: eventhose.CodeMalformed, Field: "routes", Message: problemOf(err), Fix: "see docs/agent.md for what a route has"}
	}
	if n := len(file.Routes); n == 0 || n > maxRoutes {
		return nil, eventhose.Invalid("routes", "must be 1 to %d", maxRoutes)
	}
	routes := make([]Route, len(file.Routes))
	at := map[string]int{}
	for i, f := range file.Routes {
		field := fmt.Sprintf("routes[%d].", i)
		r := Route{Group: f.Group, Filter: eventhose.Filter{Types: f.Types, Expression: f.Filter}, ForwardTo: f.ForwardTo, Secret: eventhose.Secret(f.Secret), Ordering: f.Ordering}
		if err := r.Validate(); err != nil {
			return nil, below(field, err)
		}
		if other, taken := at[r.Group]; taken {
			return nil, eventhose.Invalid(field+"group", "is that of routes[%d] too", other)
		}
		routes[i], at[r.Group] = r, i
	}
	return routes, nil
}

// Health answers /healthz while it runs, and /readyz with 200 if every listener reaches the server. It serves on the listener
// until Stop.
type Health struct {
	server *http.Server
	done   sync.WaitGroup
}

// Serve starts a Health.
func Serve(on net.Listener, listeners ...*Listener) *Health {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		for _, l := range listeners {
			if !l.Connected() {
				http.Error(w, "the server is not reached by "+l.Route().Group, http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	})
	const short = 5 * time.Second
	h := &Health{server: &http.Server{Handler: mux, ReadTimeout: short, WriteTimeout: short, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10}}
	h.done.Go(func() { _ = h.server.Serve(on) }) // ends with Stop; what fails before is what whoever asks it notices
	return h
}

// Stop ends it.
func (h *Health) Stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if h.server.Shutdown(ctx) != nil {
		h.server.Close()
	}
	h.done.Wait()
}
