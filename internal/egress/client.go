package egress

// Why we own connections, and do not use net/http's Transport.
//
// Handing an event over is one small POST and one small answer, and it is the largest cost of this program. The Transport
// keeps two goroutines beside each connection and hands every request to one and every answer back from the other; with
// what it allocates for a request that is twice the CPU of the exchange itself (docs/performance.md). Here the goroutine
// that wants the answer writes the request and reads the answer, its deadline is the connection's, and what a subscription's
// requests have in common was written down once. What is hard about HTTP, reading it, is still net/http's: ReadResponse.
//
// What is given up with the Transport has to be kept here: a connection carries the next request only if nothing at all
// is left of the last exchange (conn.go), limits and idle connections (pool.go), and request lines and headers that cannot
// be broken out of (request.go).

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// Limits of every exchange, beside its own time-out.
const (
	tlsTimeout = 5 * time.Second
	// maxHeaderBytes is for all headers of an answer, those of 1xx answers included.
	maxHeaderBytes = 64 << 10
	// MaxBody is how much is read of an answer's body.
	MaxBody = 64 << 10
	// maxBodyWire bounds what a body of MaxBody may take in chunks.
	maxBodyWire = 8 * MaxBody
	// maxSessions is how many servers' TLS sessions are kept to be resumed.
	maxSessions = 256
)

// ClientOptions make a Client. The zero value is good.
type ClientOptions struct {
	// RootCAs are the authorities that certificates are verified with; nil is the system's.
	RootCAs *x509.CertPool
	// MaxConnsPerHost is how many connections there may be to one place, at least 1024: as many as there are exchanges at once.
	MaxConnsPerHost int
}

// Client speaks HTTP/1.1 over its policy's dialers: https to whatever the policy allows, http only to the operator's
// networks. It follows no redirect, asks no proxy of the environment (that would decide about names in our place), keeps no
// cookies, decompresses nothing, and retries nothing but a kept connection that took no byte of the request.
//
// HTTP/2 would put the requests of all tenants to one host on one connection, whose flow control and resets belong to the
// receiver, and on one request at a time per connection it is slower.
type Client struct {
	https, http *Dialer
	tls         *tls.Config
	pool        pool
}

// NewClient makes a Client. Its connections are its own: a connection that was opened under one policy is never used
// under another. Close it when done.
func NewClient(p *Policy, o ClientOptions) *Client {
	return &Client{https: p.Dialer(), http: p.ListedDialer(), pool: pool{most: max(maxConnsPerHost, o.MaxConnsPerHost)}, tls: &tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    o.RootCAs,
		// Said to the server so that one that speaks another protocol on this port can refuse.
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(maxSessions),
	}}
}

// Stage is what an exchange is doing, as it stands in "time-out after 15s while …".
type Stage string

// The stages, in order. An exchange over a kept connection skips those that open one.
const (
	StageStart   Stage = "waiting for a connection"
	StageDNS     Stage = "resolving the name"
	StageConnect Stage = "connecting"
	StageTLS     Stage = "shaking hands over TLS"
	StageSend    Stage = "sending the request"
	StageWait    Stage = "waiting for the answer"
	StageRead    Stage = "reading the answer"
)

// ErrHeldBack: Request.Still answered that it is not to be sent any more.
var ErrHeldBack = errors.New("egress: the request was held back")

var (
	errNoTimeout = errors.New("egress: a request without a time-out")
	errClosed    = errors.New("egress: the client is closed")
)

// Do makes one exchange: it sends the request and reads the answer into a, whose buffers it uses again. It ends when
// r.Timeout is over or ctx ends, whichever is first, and leaves nothing running.
//
// Any status is no error. With an error, a says how far the exchange came; if a.Status is not 0, only the answer's body
// is not whole. Errors are those of Dialer.DialContext (ErrBlocked, *net.DNSError), of TLS, of the connection, or
// os.ErrDeadlineExceeded, or ErrHeldBack; when ctx has ended the error may be any of these. They never hold the URL.
func (c *Client) Do(ctx context.Context, r *Request, a *Answer) error {
	a.reset()
	if r.Timeout <= 0 {
		return errNoTimeout
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	deadline := a.Started.Add(r.Timeout)
	cn, err := c.pool.take(ctx, r.Target.place, deadline)
	for err == nil {
		kept, sent := cn.raw != nil, false
		if !kept {
			err = c.open(ctx, cn, r.Target, deadline, a)
		}
		if err == nil {
			sent, err = cn.exchange(ctx, r, a, deadline)
		}
		if err == nil {
			c.pool.put(cn)
			return nil
		}
		if sent || !kept || errors.Is(err, ErrHeldBack) || ctx.Err() != nil || !time.Now().Before(deadline) {
			c.pool.drop(cn)
			return err
		}
		cn.close() // it was closed on us while it was kept: a fresh one takes its place, once
		a.Stage, err = StageStart, nil
	}
	return err
}

// open connects, and shakes hands if the target is https.
func (c *Client) open(ctx context.Context, cn *conn, t *Target, deadline time.Time, a *Answer) error {
	d := c.http
	if t.place.https {
		d = c.https
	}
	dialing, cancel := context.WithDeadline(ctx, deadline)
	raw, err := d.dial(dialing, "tcp", t.place.address, a)
	cancel()
	if err != nil {
		return err
	}
	cn.connected(raw)
	a.Address = cn.address
	if !t.place.https {
		return nil
	}
	a.Stage = StageTLS
	started := time.Now()
	limit := started.Add(tlsTimeout)
	if limit.After(deadline) {
		limit = deadline
	}
	if err := raw.SetDeadline(limit); err != nil {
		return err
	}
	config := c.tls.Clone()
	config.ServerName = t.serverName
	cn.secure(config)
	stop := context.AfterFunc(ctx, cn.cut)
	err = cn.tls.Handshake() //nolint:noctx // the context cuts the connection
	if !stop() && err == nil {
		err = ctx.Err() // the deadline may be cut at any moment
	}
	a.TLS = time.Since(started)
	return err
}

// Close closes the connections that are kept and waits until nothing of the client runs. Exchanges under way go on and
// close theirs when they end; new ones are refused.
func (c *Client) Close() { c.pool.close() }
