package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/listen"
)

// listenFlags are the options of listen.
type listenFlags struct {
	forwardTo, filter, group, ordering, secret string
	types                                      []string
	from                                       place
	printSecret, noColour                      bool
	silence                                    time.Duration

	config, health string

	ci      bool
	expect  []string
	timeout time.Duration
	junit   string
}

func (p *program) listenCommand() *cobra.Command {
	var l listenFlags
	c := &cobra.Command{
		Use:   "listen --forward-to URL [--ci -- COMMAND ARG…]",
		Short: "Forward events to a local URL, signed as production signs them",
		Long: `Forward events to a URL that only this machine may reach, as the signed webhooks that production sends. All connections go out.

The server keeps the cursor, in a pull subscription whose name begins with "listen:": after a restart of this program or the
server, or a lost network, it goes on with the first event that the target has not taken. The first start begins at the end of
the log. --since and --after begin earlier; where there is a cursor already, they have what lies between sent once more, as a
replay. What the target does not take is tried again until it does, with growing waits of at most 30 s, and holds up what comes
after it unless --ordering is key or none. The cursor belongs to this machine and URL, or to --group, whose listeners share the work.

stdout has a line for each attempt, or with -o json an object. What else there is to say is on stderr; the line that begins with
"ready" says that events come. It ends when it is interrupted, with 130; a second signal does not wait for the attempt under way.

--config runs the routes of a file until it is stopped, as an agent in another network. SIGTERM ends that with 0.

--ci runs a command, with the signing secret in EVENTHOSE_SECRET, and forwards what is appended meanwhile. It ends with 0 once
the command has and everything that is expected holds; with 1 if the command fails, with 7 if an expectation is not met when
time is up or cannot be any more, or something is not forwarded by then, with 124 if the command is not done in time. stdout is the report; the command's output and
the attempts are on stderr. It leaves nothing at the server.`,
		Example: `  eventhose listen --forward-to localhost:3000/webhooks --types 'order.*'
  eventhose listen --forward-to localhost:3000/webhooks --since 1h --print-secret
  eventhose listen --config /etc/eventhose/agent.yaml --health-listen 127.0.0.1:8090
  eventhose listen --ci --forward-to localhost:3000/webhooks --expect 'order.paid>=2' --junit report.xml -- ./run-tests.sh`,
		Args: func(c *cobra.Command, given []string) error {
			if !l.ci {
				return args(0, 0)(c, given)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&l.forwardTo, "forward-to", "", "where to, such as localhost:3000/webhooks")
	f.StringSliceVar(&l.types, "types", nil, "types or patterns such as order.*")
	f.StringVar(&l.filter, "filter", "", "only events for which this CEL expression is true")
	l.from.add(c)
	f.StringVar(&l.group, "group", "", "whose cursor to go on from; listeners of one group share the work (default this machine and URL)")
	f.StringVar(&l.ordering, "ordering", "strict", "strict, key or none: what waits while the target does not take an event")
	f.StringVar(&l.secret, "secret", "", `sign with this secret ("whsec_…") instead of the subscription's`)
	f.BoolVar(&l.printSecret, "print-secret", false, "show the signing secret in the line that begins with ready")
	f.BoolVar(&l.noColour, "no-color", false, "no colour, also on a terminal")
	f.DurationVar(&l.silence, "silence", 30*time.Second, "how long a connection may say nothing before another is made")
	f.StringVar(&l.config, "config", "", "a file of routes, YAML or JSON (docs/agent.md)")
	f.StringVar(&l.health, "health-listen", "", "serve /healthz and /readyz on this address")
	f.BoolVar(&l.ci, "ci", false, "run a command and check what is expected")
	f.StringArrayVar(&l.expect, "expect", nil, "with --ci: how many events of a type, such as order.paid>=2; without a number at least one")
	f.DurationVar(&l.timeout, "timeout", time.Minute, "with --ci: how long it may take")
	f.StringVar(&l.junit, "junit", "", "with --ci: write the report as JUnit's XML to this file, - for stdout")
	p.connectionFlags(f)
	c.RunE = func(c *cobra.Command, args []string) error {
		changed := func(names ...string) string {
			i := slices.IndexFunc(names, c.Flags().Changed)
			if i < 0 {
				return ""
			}
			return "--" + names[i]
		}
		if flag := changed("expect", "timeout", "junit"); flag != "" && !l.ci {
			return &usageError{what: flag + " goes with --ci only", fix: c.CommandPath() + " --help"}
		}
		if flag := changed("since", "after", "group", "ordering", "config", "health-listen"); flag != "" && l.ci {
			return &usageError{what: flag + " and --ci exclude each other: it begins when the command does and keeps no cursor"}
		}
		if flag := changed("forward-to", "types", "filter", "since", "after", "group", "ordering", "secret"); flag != "" && l.config != "" {
			return &usageError{what: flag + " and --config exclude each other: the file has the routes"}
		}
		if l.silence < 2*time.Second || l.silence > time.Minute {
			return &usageError{what: "--silence must be between 2s and 60s"}
		}
		if l.ci {
			return p.check(c.Context(), &l, args)
		}
		routes, err := l.routes()
		if err != nil {
			return err
		}
		return p.listen(c.Context(), &l, routes)
	}
	return c
}

// routes are what there is to forward.
func (l *listenFlags) routes() ([]listen.Route, error) {
	if l.config != "" {
		f, err := os.Open(l.config)
		if err != nil {
			return nil, &usageError{what: "--config: " + err.Error(), fix: "name a file that can be read"}
		}
		defer f.Close()
		return listen.ReadRoutes(f)
	}
	if l.forwardTo == "" {
		return nil, &usageError{what: "--forward-to is missing", fix: "eventhose listen --forward-to localhost:3000/webhooks"}
	}
	after, since, err := l.from.check()
	if err != nil {
		return nil, err
	}
	r := listen.Route{Group: l.group, Filter: eventhose.Filter{Types: l.types, Expression: l.filter}, ForwardTo: l.forwardTo, Secret: eventhose.Secret(l.secret),
		Ordering: eventhose.Ordering(l.ordering), Begin: listen.Begin{Since: since, After: after}}
	if r.Group == "" {
		r.Group = ownGroup(l.forwardTo)
	}
	return []listen.Route{r}, r.Validate()
}

// ownGroup names the cursor of this machine and URL, without what may be secret in the URL. Where the name does not tell all of the URL,
// a digest tells it from others.
func ownGroup(forwardTo string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	scheme, to, ok := strings.Cut(forwardTo, "://")
	if !ok {
		scheme, to = "http", forwardTo
	}
	told, _, _ := strings.Cut(to, "?")
	server, _, _ := strings.Cut(told, "/")
	told = told[strings.LastIndexByte(server, '@')+1:]
	name := oneLine(host + " " + told)
	if scheme == "http" && told == to && len(name) <= listen.MaxGroup {
		return strings.ToValidUTF8(name, "")
	}
	sum := sha256.Sum256([]byte(scheme + "://" + to))
	digest := " " + hex.EncodeToString(sum[:6])
	return strings.ToValidUTF8(name[:min(len(name), listen.MaxGroup-len(digest))], "") + digest
}

func (p *program) listen(ctx context.Context, l *listenFlags, routes []listen.Route) error {
	cl, err := p.connect(client.WithSilence(l.silence / 2))
	if err != nil {
		return err
	}
	defer cl.Close()
	forward := listen.NewForwarder()
	defer forward.Close()
	tenant := eventhose.TenantID(p.conn.tenant)
	t := &listenTeller{p: p, colour: p.coloured() && !l.noColour, secret: l.printSecret, several: l.config != ""}
	listeners := make([]*listen.Listener, len(routes))
	for i, r := range routes {
		listeners[i], err = listen.New(listen.Options{Tenant: cl.Tenant(tenant), TenantID: tenant, Route: r, Forward: forward, Tell: t,
			Wait: l.silence / 2, Patient: l.config != "", Cut: p.cut})
		if err != nil {
			return err
		}
	}
	if l.health != "" {
		on, err := net.Listen("tcp", l.health)
		if err != nil {
			return &usageError{what: "--health-listen: " + err.Error(), fix: "--health-listen 127.0.0.1:8090"}
		}
		p.tell("health http://"+on.Addr().String()+"/readyz", map[string]any{"health": map[string]string{"url": "http://" + on.Addr().String() + "/readyz"}})
		health := listen.Serve(on, listeners...)
		defer health.Stop()
	}
	if err := listen.Run(ctx, listeners...); err != nil {
		return err
	}
	if l.config != "" && errors.Is(context.Cause(ctx), errTerminated) {
		return nil // an agent is a service, which is stopped by SIGTERM
	}
	return ended(ctx)
}

// listenTeller prints what listeners do: attempts on stdout, unless onStderr is set, and the rest on stderr.
type listenTeller struct {
	p              *program
	colour, secret bool
	several        bool // routes, which lines then name
	onStderr       bool
	mu             sync.Mutex
}

func (t *listenTeller) route(name string) string {
	if !t.several {
		return ""
	}
	return name
}

func (t *listenTeller) line(s string) {
	w := t.p.out
	if t.onStderr {
		w = t.p.err
	}
	fmt.Fprintln(w, s) // that stdout is gone shows with the next write, which ends the process by SIGPIPE
}

func (t *listenTeller) Ready(l *listen.Listener, secret eventhose.Secret) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := l.Route()
	shown, note := "", "--print-secret shows the secret"
	if t.secret {
		shown = string(secret)
		note = "secret " + shown
	}
	t.p.tell(fmt.Sprintf("ready: forwarding %s of tenant %s to %s (%s)", inRoute(t.route(r.Group))+types(r.Filter), t.p.conn.tenant, l.Target(), note),
		map[string]any{"ready": struct {
			Route     string   `json:"route"`
			Types     []string `json:"types"`
			Tenant    string   `json:"tenant"`
			ForwardTo string   `json:"forward_to"`
			Secret    string   `json:"secret,omitempty"`
		}{r.Group, r.Filter.Types, t.p.conn.tenant, l.Target(), shown}})
}

func (t *listenTeller) Sending(route string, e *eventhose.Event) {
	if t.p.output != "text" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.line(fmt.Sprintf("--> %s %s%s %s #%d", clock(time.Now()), inRoute(t.route(route)), e.Type, oneLine(e.ID), e.Sequence))
}

func (t *listenTeller) Tried(a listen.Attempt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.p.output != "text" {
		if !t.onStderr {
			_ = writeJSON(t.p.out, a, "")
		}
		return
	}
	line := fmt.Sprintf("<-- %s%s %d ms %s", inRoute(t.route(a.Route)), paint(t.colour, a.Taken(), a.Answer()), time.Duration(a.Duration).Milliseconds(), oneLine(a.Event))
	if a.Number > 1 {
		line += fmt.Sprintf(" try %d", a.Number)
	}
	if !a.Taken() {
		line += " next in " + time.Until(a.Next).Round(100*time.Millisecond).String() + ": " + oneLine(a.Message)
	}
	t.line(line)
}

func (t *listenTeller) Lost(route string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p.tellLost(t.route(route), err)
}

func (t *listenTeller) Back(route string, after time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p.tellBack(t.route(route), after)
}

func (t *listenTeller) CaughtUp(route string, events int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p.tell(inRoute(t.route(route))+"caught up "+plural(events, "event"), map[string]any{"caught_up": map[string]any{"route": route, "events": events}})
}

func (t *listenTeller) Trouble(route string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p.tell(inRoute(t.route(route))+"trouble: "+oneLine(err.Error()), map[string]any{"trouble": map[string]string{"route": route, "error": err.Error()}})
}
