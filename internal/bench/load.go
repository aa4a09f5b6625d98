package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The load is as light as it can be, since it works on the same cores: its requests are made once for each connection,
// brought up to date in place and written to a socket of its own. It is an HTTP client only as far as the answers of this
// server go.

type loadOrder struct {
	URL         string   `json:"url"`
	URLs        []string `json:"urls,omitempty"` // connections take them in turns; none is URL alone
	Key         string   `json:"key"`
	Tenants     []string `json:"tenants"` // connections take them in turns
	Connections int      `json:"connections"`
	Batch       int      `json:"batch"` // events a request; 1 is a single one and no array
	Bytes       int      `json:"bytes"`
	// Types are given to the events in turns.
	Types []string `json:"types"`
	// IDs gives each event an id of its own that begins so; "" gives none.
	IDs   string `json:"ids"`
	First int64  `json:"first"`
	// Nanos ends the load by time, Events (if not 0) by number, whichever is first.
	Nanos  int64 `json:"nanos"`
	Events int64 `json:"events"`
	// Rate, if not 0, is how many events a second are sent whatever comes back (open loop); else a connection sends as soon
	// as it has its answer.
	Rate float64 `json:"rate"`
	// Path and Secret, if set, make each request one of Stripe's instead of an append: signed, with the type and the id in
	// the body, and taken with 200. Batch is 1 then, and IDs is set.
	Path   string `json:"path,omitempty"`
	Secret string `json:"secret,omitempty"`
	// Window, if not 0, is how many events may be appended and not delivered: Receiver is asked how many of Groups arrived,
	// each event Fanout times.
	Window   int64  `json:"window"`
	Receiver string `json:"receiver"`
	Groups   []int  `json:"groups"`
	Fanout   int64  `json:"fanout"`
}

func load(ctx context.Context, o *orders) error {
	return each(o, func(order loadOrder) (any, error) {
		l := &loadRun{loadOrder: order}
		return l.run(ctx)
	})
}

type loadRun struct {
	loadOrder
	next      atomic.Int64 // the number of the next event
	requests  atomic.Int64 // of an open loop, that have their time
	delivered atomic.Int64
	mu        sync.Mutex
	result    partResult
}

func (l *loadRun) run(ctx context.Context) (*partResult, error) {
	l.next.Store(l.First)
	l.result = partResult{Latency: &histogram{}, Refusals: &histogram{}}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var pacer sync.WaitGroup
	if l.Window > 0 {
		before, err := l.arrived(ctx)
		if err != nil {
			return nil, err
		}
		pacer.Go(func() { l.watchArrivals(ctx, before) })
	}
	cpu, began := ownCPU(), time.Now()
	var wg sync.WaitGroup
	errs := make([]error, l.Connections)
	for i := range l.Connections {
		wg.Go(func() { errs[i] = l.connection(ctx, i, began) })
	}
	wg.Wait()
	l.result.Nanos, l.result.CPU, l.result.Next = int64(time.Since(began)), (ownCPU() - cpu).Microseconds(), l.next.Load()
	cancel()
	pacer.Wait()
	return &l.result, errors.Join(errs...)
}

// watchArrivals asks again and again how many events have arrived.
func (l *loadRun) watchArrivals(ctx context.Context, before int64) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if n, err := l.arrived(ctx); err == nil {
			l.delivered.Store((n - before) / max(1, l.Fanout))
		}
	}
}

func (l *loadRun) arrived(ctx context.Context) (int64, error) {
	groups := strings.Trim(strings.ReplaceAll(fmt.Sprint(l.Groups), " ", ","), "[]")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.Receiver+"/count?groups="+groups, nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 32))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(text), 10, 64)
}

// prepared is a request and where in it the events' data and ids are.
type prepared struct {
	request   []byte
	data, ids []int
	signed    *signed // nil for appends
}

const idDigits = 16

func (l *loadRun) prepare(connection int) (*prepared, error) {
	u, err := url.Parse(l.server(connection))
	if err != nil {
		return nil, err
	}
	var body []byte
	for i := range l.Batch {
		if i > 0 {
			body = append(body, ',')
		} else if l.Batch > 1 {
			body = append(body, '[')
		}
		body = append(body, `{"type":"`...)
		body = append(body, l.Types[(connection*l.Batch+i)%len(l.Types)]...)
		if l.IDs != "" {
			body = append(body, `","id":"`...)
			body = append(body, l.IDs...)
			body = append(body, "0000000000000000"...)
		}
		body = append(body, `","data":`...)
		body = appendData(body, l.Bytes, connection*l.Batch+i)
		body = append(body, '}')
	}
	if l.Batch > 1 {
		body = append(body, ']')
	}
	head := fmt.Sprintf("POST /v1/tenants/%s/events HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		l.Tenants[connection%len(l.Tenants)], u.Host, l.Key, len(body))
	if l.Secret != "" {
		head = fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%s\r\nContent-Length: %d\r\n\r\n", l.Path, u.Host, blankSignature, len(body))
	}
	p := &prepared{request: append([]byte(head), body...)}
	if l.Secret != "" {
		p.signed = newSigned(l.Secret, p.request, len(head))
	}
	p.data = places(p.request)
	if l.IDs != "" {
		mark := []byte(`"id":"` + l.IDs)
		for from := 0; ; {
			i := bytes.Index(p.request[from:], mark)
			if i < 0 {
				break
			}
			from += i + len(mark)
			p.ids = append(p.ids, from)
		}
	}
	return p, nil
}

// update gives the request's events the numbers from first on.
func (p *prepared) update(first int64, now time.Time) {
	for i, at := range p.data {
		stamp(p.request[at:], first+int64(i), now)
	}
	for i, at := range p.ids {
		digits(p.request[at:][:idDigits], uint64(first+int64(i)))
	}
	if p.signed != nil {
		p.signed.sign(p.request, now)
	}
}

// server is where a connection sends to.
func (l *loadRun) server(connection int) string {
	if len(l.URLs) == 0 {
		return l.URL
	}
	return l.URLs[connection%len(l.URLs)]
}

// own is what one connection measures.
type own struct {
	events, requests, refused, late, failed int64
	failure                                 string
	latency, refusals                       histogram
}

func (l *loadRun) connection(ctx context.Context, index int, began time.Time) error {
	p, err := l.prepare(index)
	if err != nil {
		return err
	}
	u, _ := url.Parse(l.server(index))
	c := &rawConn{address: u.Host}
	defer c.close()
	var o own
	end := began.Add(time.Duration(l.Nanos))
	for ctx.Err() == nil {
		due, ok := l.turn(ctx, began, end)
		if !ok {
			break
		}
		first := l.next.Add(int64(l.Batch)) - int64(l.Batch)
		if l.Events > 0 && first-l.First+int64(l.Batch) > l.Events {
			l.next.Add(-int64(l.Batch))
			break
		}
		sent := time.Now()
		if l.Rate > 0 && sent.Sub(due) > 10*time.Millisecond {
			o.late++
		}
		p.update(first, sent)
		status, err := c.exchange(p.request)
		took := time.Since(sent)
		switch {
		case err != nil:
			o.failed, o.failure = o.failed+1, err.Error()
		case status == http.StatusAccepted, l.Secret != "" && status == http.StatusOK:
			o.events += int64(l.Batch)
			o.requests++
			o.latency.add(took)
		case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
			o.refused++
			o.refusals.add(took)
		default:
			o.failed, o.failure = o.failed+1, "the server answers "+strconv.Itoa(status)
		}
		if o.failed > 100 {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.result
	r.Events, r.Requests, r.Refused, r.Late, r.Failed = r.Events+o.events, r.Requests+o.requests, r.Refused+o.refused, r.Late+o.late, r.Failed+o.failed
	if o.failure != "" {
		r.Failure = o.failure
	}
	r.Latency.merge(&o.latency)
	r.Refusals.merge(&o.refusals)
	return nil
}

// turn waits until a connection may send, and answers the time that the request was due; not ok means that the load ends.
func (l *loadRun) turn(ctx context.Context, began, end time.Time) (due time.Time, ok bool) {
	now := time.Now()
	if l.Rate > 0 {
		n := l.requests.Add(1) - 1
		due = began.Add(time.Duration(float64(n) * float64(l.Batch) / l.Rate * 1e9))
		if due.After(end) {
			return due, false
		}
		return due, pause(ctx, due.Sub(now))
	}
	for now.Before(end) {
		if l.Window == 0 || l.next.Load()-l.First-l.delivered.Load() < l.Window {
			return now, true
		}
		if !pause(ctx, 5*time.Millisecond) {
			return now, false
		}
		now = time.Now()
	}
	return now, false
}

func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// rawConn is one connection to the server, made anew when it breaks.
type rawConn struct {
	address string
	conn    net.Conn
	r       *bufio.Reader
}

func (c *rawConn) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// exchange writes a request and reads the answer's status; its body is passed over.
func (c *rawConn) exchange(request []byte) (status int, err error) {
	if c.conn == nil {
		if c.conn, err = net.DialTimeout("tcp", c.address, 5*time.Second); err != nil {
			c.conn = nil
			return 0, err
		}
		c.r = bufio.NewReaderSize(c.conn, 32<<10)
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	_ = c.conn.SetDeadline(time.Now().Add(30 * time.Second))
	// An answer may come before all of a request was read; what it says counts more than that writing failed.
	_, writeErr := c.conn.Write(request)
	status, closes, err := c.answer()
	if err != nil {
		return 0, errors.Join(writeErr, err)
	}
	if closes || writeErr != nil {
		c.close()
	}
	return status, nil
}

// answer reads one answer, which must have a Content-Length.
func (c *rawConn) answer() (status int, closes bool, err error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, false, err
	}
	if len(line) < 12 || string(line[:9]) != "HTTP/1.1 " {
		return 0, false, fmt.Errorf("not an answer: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, false, err
	}
	length := 0
	for {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return 0, false, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, false, err
			}
		case bytes.EqualFold(name, []byte("Connection")) && bytes.EqualFold(value, []byte("close")):
			closes = true
		}
	}
	_, err = c.r.Discard(length)
	return status, closes, err
}
