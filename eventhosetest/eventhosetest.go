// Package eventhosetest runs an Eventhose server inside a test: the whole one, with its HTTP API, its deliveries and their
// retries, and with its log in memory.
//
// Run is for tests in which time passes. It runs the test in a bubble of testing/synctest, and the server with it: the clock
// there moves only when everything waits, so that a week of retries takes a moment, and nothing is left to chance. The server is
// the one of production, which knows nothing of this: no clock is passed around in it that a test could set and a timer forget. It
// also is the clock of what is tested, so that signatures are of the present for whoever verifies them there. In a bubble there
// is no network to wait for; the server and receivers have one in memory, which Server.HTTPClient reaches too.
//
// New is for tests that need real sockets, such as those of programs that they start. Time there is real.
package eventhosetest

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	randv2 "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
)

// Server is a running server. It ends with its test. Its methods end the test if they fail.
type Server struct {
	// URL is where the API is, Key a key for everything there.
	URL string
	Key eventhose.Secret
	// Client has that key, Tenant is the log of the tenant "default".
	Client *client.Client
	Tenant *client.Tenant
	Clock  Clock

	t    *testing.T
	app  *app.App
	wire *wire // nil outside a bubble
	http *http.Client
}

// Option changes how a Server is made.
type Option func(*settings)

type settings struct {
	seed   *uint64
	bubble bool
}

// Seed makes ids, keys, secrets and the jitter of retries depend on nothing but the seed, and on what the test does in which
// order: requests that are made at once are in any order. It seeds crypto/rand of the whole process until the test ends
// (testing/cryptotest), so that the test must not be parallel.
func Seed(seed uint64) Option { return func(s *settings) { s.seed = &seed } }

// Bubble is for New within a bubble that the test has made itself with synctest.Test; it is what Run does.
func Bubble() Option { return func(s *settings) { s.bubble = true } }

// Run runs f in a bubble with a server in it. The clock there begins at midnight UTC of 2000-01-01. As in every bubble,
// goroutines that f starts must have ended when it returns, and what f waits for must be in the bubble: connections over real
// sockets that stand idle keep the clock from moving.
func Run(t *testing.T, f func(t *testing.T, s *Server), options ...Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, New(t, append(options, Bubble())...)) })
}

// New starts a server: on a free port of 127.0.0.1, unless Bubble is among the options.
func New(t *testing.T, options ...Option) *Server {
	t.Helper()
	var o settings
	for _, option := range options {
		option(&o)
	}
	s := &Server{t: t}
	s.Clock.s = s
	ao := app.Options{Listen: "127.0.0.1:0", Memory: true, Version: "eventhosetest", Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}
	if o.seed != nil {
		cryptotest.SetGlobalRandom(t, *o.seed)
		ao.Random = seeded(*o.seed)
	}
	ao.SecretKey = make([]byte, 32)
	_, _ = rand.Read(ao.SecretKey) // never fails
	s.Key = eventhose.Secret("ehk_test_" + strings.ToLower(rand.Text()))
	ao.AdminKey = s.Key
	transport := &http.Transport{}
	if o.bubble {
		s.wire = newWire()
		ao.Listener = s.wire.listen(serverName)
		ao.Resolver, ao.Connect = s.wire, s.wire.connect
		transport.DialContext = s.wire.DialContext
	}
	a, err := app.New(ao)
	if err == nil {
		err = a.Start(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	s.app = a
	if s.URL = "http://" + a.Addr(); o.bubble {
		s.URL = "http://" + serverName
	}
	s.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	s.Client, err = client.New(s.URL, s.Key, client.WithHTTPClient(s.http), client.WithUserAgent("eventhosetest"))
	if err != nil {
		t.Fatal(err)
	}
	s.Tenant = s.Client.Tenant("default")
	t.Cleanup(s.stop)
	return s
}

// stopTime bounds a stop.
const stopTime = 30 * time.Second

func (s *Server) stop() {
	s.http.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := errors.Join(s.app.Err(), s.app.Stop(ctx)); err != nil {
		s.t.Errorf("the server ended with: %v", err)
	}
}

// seeded answers what draws from a seed, for several goroutines at once.
func seeded(seed uint64) func() uint64 {
	var mu sync.Mutex
	source := randv2.NewPCG(seed, seed)
	return func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return source.Uint64()
	}
}

// HTTPClient reaches the server and its receivers, which in a bubble others cannot. It follows no redirects.
func (s *Server) HTTPClient() *http.Client { return s.http }

// Clock is the clock of a Server's bubble, and of everything else in it.
type Clock struct{ s *Server }

// Now is time.Now.
func (Clock) Now() time.Time { return time.Now() }

// Advance lets time pass, and everything happen that is due until then. It is time.Sleep and synctest.Wait. Outside a bubble,
// where time is real, it ends the test.
func (c Clock) Advance(d time.Duration) {
	c.s.t.Helper()
	if c.s.wire == nil {
		c.s.t.Fatal("eventhosetest: time is real here and cannot be advanced: use eventhosetest.Run")
	}
	time.Sleep(d) //nolint:forbidigo // the time of the bubble
	synctest.Wait()
}

// Drain waits until nothing is due: each event is delivered, or set aside until a time to come or for good. Events that wait
// for a batch to fill are due, and those of pull subscriptions, which workers ask for, are not. The error is ctx's, or the
// server's.
func (s *Server) Drain(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	quiet := false
	for pause := time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if s.wire != nil {
			synctest.Wait()
		}
		due, err := s.due(ctx)
		if err != nil || !due && quiet {
			return err
		}
		if quiet = !due; quiet {
			pause = recordTime
		}
		timer.Reset(pause)
	}
}

// recordTime is more than it takes until what came of an attempt can be read everywhere.
const recordTime = 20 * time.Millisecond

// due reports whether any subscription has something to do now.
func (s *Server) due(ctx context.Context) (bool, error) {
	for tenant, err := range pages(ctx, s.Client.Tenants) {
		if err != nil {
			return false, err
		}
		log := s.Client.Tenant(tenant.ID)
		for sub, err := range pages(ctx, log.Subscriptions) {
			if err != nil {
				return false, err
			}
			if sub.Pull() || sub.State != eventhose.StateActive {
				continue
			}
			if sub, err = log.Subscription(ctx, sub.ID); err != nil || dueNow(&sub) {
				return true, err
			}
		}
	}
	return false, nil
}

// dueNow reports whether a lane has something to do that waits for nothing.
func dueNow(s *client.Subscription) bool {
	l := s.Status
	later := l.Next.After(time.Now())
	held := l.Circuit == "open" && later || s.Ordering == eventhose.OrderingStrict && (l.Retrying > 0 && later || l.Dead > 0 && s.OnExhausted == eventhose.OnExhaustedBlock)
	return l.InFlight > 0 || len(l.Replays) > 0 && !held || !l.Next.IsZero() && !later || l.Lag > 0 && !held
}

// pages goes through all pages of a list.
func pages[T any](ctx context.Context, list func(context.Context, client.ListOptions) (client.List[T], error)) func(func(T, error) bool) {
	return func(yield func(T, error) bool) {
		for o := (client.ListOptions{}); ; {
			page, err := list(ctx, o)
			if err != nil {
				yield(*new(T), err)
				return
			}
			for _, v := range page.Data {
				if !yield(v, nil) {
					return
				}
			}
			if o.After = page.Next; o.After == "" {
				return
			}
		}
	}
}

// listen begins to listen under a name, which in a bubble is one of its own network, and answers the URL.
func (s *Server) listen(name string) (on net.Listener, url string) {
	s.t.Helper()
	if s.wire != nil {
		return s.wire.listen(name), "http://" + name
	}
	on, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	return on, "http://" + on.Addr().String()
}
