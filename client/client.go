// Package client is the Go client of the Eventhose HTTP API.
//
// It speaks the words of the root package: events go in and come out as eventhose.Event, refusals come back as
// *eventhose.Error. It makes each request once: nothing is tried again behind the caller's back, except that
// net/http repeats a GET whose kept connection turns out to be closed before an answer began. An append that ended without
// an answer may have been accepted; append it again with the same event ids, and it is there once.
//
// A Client goes to the one server that its user names, so it does not use the guarded dialer of deliveries.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
)

const (
	// DefaultTimeout bounds a call whose context has no deadline; a long poll's wait is added to it.
	DefaultTimeout = time.Minute
	// DefaultMaxResponse bounds an answer's body, in bytes.
	DefaultMaxResponse = 64 << 20

	maxProblem = 64 << 10
)

// Client calls one server with one key. It is safe for concurrent use.
type Client struct {
	base        *url.URL
	key         eventhose.Secret
	http        *http.Client
	maxResponse int64
	userAgent   string
	// silence is how long the server may say nothing where it should have.
	silence time.Duration
}

// Option changes a Client that New makes.
type Option func(*Client)

// WithHTTPClient sends through h, which the caller goes on owning. The default follows no redirect and uses the proxy
// of the environment.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithMaxResponse sets how large an answer's body may be, in bytes.
func WithMaxResponse(n int64) Option { return func(c *Client) { c.maxResponse = n } }

// WithUserAgent names the program in User-Agent.
func WithUserAgent(s string) Option { return func(c *Client) { c.userAgent = s } }

// WithSilence sets how long a server may say nothing where it should have before it is taken for gone: on a stream, and when
// it has held a request for work as long as it was asked to. 45 s if not set; the server says something on a stream every 15 s.
func WithSilence(d time.Duration) Option { return func(c *Client) { c.silence = d } }

// New makes a client for the server at an absolute http or https URL; a path is kept as a prefix. The key may be empty
// for the routes that need none.
func New(server string, key eventhose.Secret, options ...Option) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, &eventhose.Error{Code: eventhose.CodeInvalid, Field: "url", Message: "must be an absolute http or https URL without user, query and fragment",
			Fix: "name the server, such as http://127.0.0.1:8080"}
	}
	if strings.ContainsFunc(string(key), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, eventhose.Invalid("key", "holds characters that no key has")
	}
	u.Path = strings.TrimRight(u.Path, "/")
	c := &Client{base: u, key: key, maxResponse: DefaultMaxResponse, userAgent: "eventhose-go", silence: silence}
	for _, o := range options {
		o(c)
	}
	if c.http == nil {
		c.http = &http.Client{
			Transport: &http.Transport{
				Proxy:                 http.ProxyFromEnvironment,
				MaxIdleConnsPerHost:   64,
				IdleConnTimeout:       90 * time.Second,
				TLSHandshakeTimeout:   10 * time.Second,
				ResponseHeaderTimeout: 0, // a long poll's answer may take its whole wait; the context bounds it
				// Over HTTP/2 a connection outlives the requests on it that are given up, and would be used again though it is dead.
				HTTP2: &http.HTTP2Config{SendPingTimeout: c.silence / 3, PingTimeout: c.silence / 3},
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return c, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Error is a refusal by the server. errors.As finds both it and the *eventhose.Error, whose Code says why.
// A server that could not be reached, or whose answer broke off, gives a *url.Error instead.
type Error struct {
	// Status is the answer's HTTP status.
	Status int
	// RequestID names the request in the server's log, empty if the server did not say.
	RequestID string
	Err       *eventhose.Error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// request is one call. A nil body sends none.
type request struct {
	method      string
	path        []string // segments, not yet escaped
	query       url.Values
	body        []byte
	contentType string
	wait        time.Duration
	into        any             // decoded from JSON, nil if the answer's body does not matter
	cookie      *http.Cookie    // sent along
	cookies     *[]*http.Cookie // gets those that the answer sets
}

func (c *Client) do(ctx context.Context, r request) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout+r.wait)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.url(r.path, r.query), bytes.NewReader(r.body))
	if err != nil {
		return fmt.Errorf("making a request: %w", err)
	}
	if r.body == nil {
		req.Body, req.GetBody, req.ContentLength = http.NoBody, nil, 0
	} else {
		req.Header.Set("Content-Type", r.contentType)
	}
	req.Header.Set("Accept", "application/json")
	c.sign(req)
	if r.cookie != nil {
		req.AddCookie(&http.Cookie{Name: r.cookie.Name, Value: r.cookie.Value})
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if r.cookies != nil {
		*r.cookies = res.Cookies()
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return refusal(res)
	}
	body, err := read(res.Body, c.maxResponse)
	switch {
	case errors.Is(err, errTooLarge):
		return &eventhose.Error{Code: eventhose.CodeTooLarge, Message: fmt.Sprintf("the answer is larger than %d bytes", c.maxResponse), Fix: "ask for fewer with limit"}
	case err != nil:
		return &url.Error{Op: r.method, URL: req.URL.String(), Err: err}
	case r.into == nil:
		return nil
	}
	if err := json.Unmarshal(body, r.into); err != nil {
		return fmt.Errorf("%s %s: the answer is not what this client knows: %w", r.method, req.URL.Path, err)
	}
	return nil
}

// sign says in a request who asks.
func (c *Client) sign(req *http.Request) {
	req.Header.Set("User-Agent", c.userAgent)
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+string(c.key))
	}
}

func (c *Client) url(segments []string, query url.Values) string {
	u := *c.base
	var raw, plain strings.Builder
	raw.WriteString(u.EscapedPath())
	plain.WriteString(u.Path)
	for _, s := range segments {
		raw.WriteString("/" + url.PathEscape(s))
		plain.WriteString("/" + s)
	}
	u.Path, u.RawPath, u.RawQuery = plain.String(), raw.String(), query.Encode()
	return u.String()
}

var errTooLarge = errors.New("body too large")

func read(r io.Reader, limit int64) ([]byte, error) {
	limit = min(limit, math.MaxInt64-1)
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errTooLarge
	}
	return b, err
}

// problem is RFC 9457's object with our members.
type problem struct {
	Title     string             `json:"title"`
	Detail    string             `json:"detail"`
	Code      eventhose.Code     `json:"code"`
	Field     string             `json:"field"`
	Fix       string             `json:"fix"`
	First     eventhose.Sequence `json:"first"`
	RequestID string             `json:"request_id"`
	// RetryAfter is in seconds.
	RetryAfter int `json:"retry_after"`
}

// refusal reads what is not a 2xx. An answer that is not problem+json (a proxy's page) gets the code its status suggests.
func refusal(res *http.Response) error {
	e := &Error{Status: res.StatusCode, RequestID: res.Header.Get("X-Request-Id"), Err: &eventhose.Error{}}
	var p problem
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if body, err := read(res.Body, maxProblem); err == nil && strings.HasSuffix(media, "json") {
		// What does not parse leaves p empty, which is handled below as an answer without a problem.
		_ = json.Unmarshal(body, &p)
	}
	if p.RequestID != "" {
		e.RequestID = p.RequestID
	}
	e.Err.Code, e.Err.Message, e.Err.Field, e.Err.Fix, e.Err.First = p.Code, p.Detail, p.Field, p.Fix, p.First
	if e.Err.Message == "" {
		e.Err.Message = p.Title
	}
	if e.Err.Code == "" {
		e.Err.Code = codeOfStatus(res.StatusCode)
		if e.Err.Message == "" {
			e.Err.Message = "the server answered " + strings.TrimSpace(strconv.Itoa(res.StatusCode)+" "+http.StatusText(res.StatusCode))
			e.Err.Fix = "check that the URL is an Eventhose server's"
		}
	}
	if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s > 0 {
		e.Err.RetryAfter = time.Duration(s) * time.Second
	}
	return e
}

func codeOfStatus(status int) eventhose.Code {
	switch status {
	case http.StatusUnauthorized:
		return eventhose.CodeUnauthenticated
	case http.StatusForbidden:
		return eventhose.CodeForbidden
	case http.StatusNotFound:
		return eventhose.CodeNotFound
	case http.StatusMethodNotAllowed:
		return eventhose.CodeMethod
	case http.StatusConflict:
		return eventhose.CodeConflict
	case http.StatusRequestEntityTooLarge:
		return eventhose.CodeTooLarge
	case http.StatusUnsupportedMediaType:
		return eventhose.CodeUnsupported
	case http.StatusTooManyRequests:
		return eventhose.CodeLimit
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return eventhose.CodeUnavailable
	case http.StatusGatewayTimeout:
		return eventhose.CodeTimeout
	case http.StatusInsufficientStorage:
		return eventhose.CodeStorageFull
	}
	if status >= 400 && status < 500 {
		return eventhose.CodeInvalid
	}
	return eventhose.CodeInternal
}

func jsonBody(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	return b.Bytes(), nil
}

// send is do with v as the JSON body; v nil sends none.
func (c *Client) send(ctx context.Context, method string, path []string, v, into any) error {
	r := request{method: method, path: path, into: into}
	if v != nil {
		body, err := jsonBody(v)
		if err != nil {
			return err
		}
		r.body, r.contentType = body, "application/json"
	}
	return c.do(ctx, r)
}

// List is one page of a list. Next is where the next page begins, "" if there is none.
type List[T any] struct {
	Data []T    `json:"data"`
	Next string `json:"next"`
}

// ListOptions say which page: after the Next of the one before, and at most how many (0: the server's default).
type ListOptions struct {
	After string
	Limit int
}

func (o ListOptions) query() url.Values {
	q := url.Values{}
	if o.After != "" {
		q.Set("after", o.After)
	}
	if o.Limit != 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	return q
}

func list[T any](ctx context.Context, c *Client, path []string, q url.Values) (List[T], error) {
	var l List[T]
	err := c.do(ctx, request{method: http.MethodGet, path: path, query: q, into: &l})
	return l, err
}
