// Package control keeps what people decide: tenants, API keys, subscriptions, sources and their secrets; who has signed in, the links
// of portals, and who has changed what; the answers kept for idempotent requests, the requests that sources have rejected, inspectors and
// what they got. It validates, saves to the store's records with compare-and-set, and announces what changed.
//
// Secrets are sealed before they reach the store (secrets.go). Everything it answers is a copy that the caller owns.
package control

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// Store is what Control needs of a store.
type Store interface {
	store.Records
	Head(ctx context.Context, tenant eventhose.TenantID) (eventhose.Head, error)
}

// Options of a Control.
type Options struct {
	// AdminKey may do everything with every tenant. Empty means that there is no such key.
	AdminKey eventhose.Secret
	// SecretKey, SecretKeySize bytes, seals the secrets in the store. It must be the same for as long as the store lives.
	SecretKey []byte
	// Sinks, by the type of destination, check the destinations of subscriptions.
	Sinks map[string]sink.Sink
	// CheckSource judges the settings of a source; nil refuses every source.
	CheckSource func(eventhose.Source) error
	// SignIns are the rules under which people may be signed in without a key (SignInAs). A session ends when its rule is none of these.
	SignIns []string
	// AuditKept is how long audit entries are kept, eventhose.AuditKept if 0.
	AuditKept time.Duration
	// CheckInspector judges what an inspector has beside what Inspector.Validate knows; nil takes everything.
	CheckInspector func(eventhose.Inspector) error
	// Cached is how long tenants and keys are remembered when other nodes may change them, who tell by Heard but may not
	// be heard; 0 is for ever.
	Cached time.Duration
}

// Kinds of records.
const (
	kindTenant       = "tenant"       // of no tenant, by tenant id
	kindKey          = "key"          // of no tenant, by key id
	kindKeyOf        = "keyof"        // empty, of the tenant that a key is for, by key id
	kindKeyUse       = "keyuse"       // of no tenant, by key id: when a key was used last
	kindSession      = "session"      // of no tenant, by session id
	kindSessionOf    = "sessionof"    // empty, of no tenant, by whose it is and session id
	kindLink         = "link"         // of no tenant, by the id of a portal link
	kindLinkOf       = "linkof"       // empty, of the tenant that a portal link is for, by its id
	kindOnce         = "once"         // empty, of no tenant: what may be used once and was
	kindAudit        = "audit"        // of a tenant, and of no tenant, newest first
	kindSubscription = "subscription" // of a tenant
	kindSource       = "source"       // of a tenant
	kindSourceOf     = "sourceof"     // of no tenant: whose a source is, by source id
	kindRejection    = "rejection"    // of a tenant, by source and rejection id
	kindRejected     = "rejected"     // the sealed request of a rejection
	kindInspector    = "inspector"    // of no tenant, by inspector id
	kindInspectorOf  = "inspectorof"  // empty, of the tenant that an inspector is of, by inspector id
	kindInspected    = "inspected"    // the sealed request that an inspector got, of a tenant, by inspector and request id
	kindCount        = "count"        // how many of a kind a tenant has, by kind
	kindKeyset       = "keyset"       // the sealed keyset, one
	kindAnswer       = "answer"       // of a tenant, by the digest of an Idempotency-Key
	kindAnswerPart   = "answerpart"   // what does not fit into an answer
)

const (
	// maxTries is how often a change that met a concurrent one is tried.
	maxTries = 20
	// maxRecord is what a store takes, in bytes.
	maxRecord = 256 << 10
	// maxPage is the most that a list answers at once: one more than a page of the API holds, which so learns whether there is
	// a next one.
	maxPage = 1001

	cachedTenants  = 10_000
	cachedKeys     = 10_000
	cachedSources  = 10_000
	cachedSessions = 10_000
	cachedLinks    = 10_000
)

// Control is safe for concurrent use. It starts no goroutine and needs no closing; RunUses writes down what it gathers.
type Control struct {
	store Store
	sinks map[string]sink.Sink
	seal  *sealer
	// adminKey is the SHA-256 of the admin key, nil if there is none, and adminMark what a session remembers of it.
	adminKey  *[sha256.Size]byte
	adminMark []byte
	signIns   []string
	auditKept time.Duration

	tenants  *cache[eventhose.TenantID, eventhose.Tenant]
	keys     *cache[string, keyRecord]
	sources  *cache[eventhose.SourceID, eventhose.Source]
	sessions *cache[string, sessionRecord]
	links    *cache[string, linkRecord]
	uses     uses
	// extending are the ids of sessions whose use is being noted.
	extending sync.Map

	inspectors *cache[eventhose.InspectorID, eventhose.Inspector]

	checkSource    func(eventhose.Source) error
	checkInspector func(eventhose.Inspector) error

	// counting serialises changes of a tenant's counts within this process, so that they do not fail by compare-and-set.
	counting [64]sync.Mutex
	// inspecting does the same for a tenant's inspectors that get requests: each has room for one change.
	inspecting [64]chan struct{}

	announce        atomic.Pointer[func(eventhose.TenantID, eventhose.SubscriptionID)]
	announceTenants atomic.Pointer[func(eventhose.TenantID)]
}

// New makes a Control over st. The first time it makes the keyset that seals secrets; later it answers CodeInvalid,
// field "secret-key", if o.SecretKey is not the key that the store was begun with.
func New(st Store, o Options) (*Control, error) {
	c := &Control{
		store:   st,
		sinks:   o.Sinks,
		tenants: newCache[eventhose.TenantID, eventhose.Tenant](cachedTenants, o.Cached),
		keys:    newCache[string, keyRecord](cachedKeys, o.Cached),
		sources: newCache[eventhose.SourceID, eventhose.Source](cachedSources, o.Cached),

		sessions: newCache[string, sessionRecord](cachedSessions, o.Cached),
		links:    newCache[string, linkRecord](cachedLinks, o.Cached),

		inspectors: newCache[eventhose.InspectorID, eventhose.Inspector](cachedInspectors, inspectorSeen),

		checkSource:    o.CheckSource,
		checkInspector: o.CheckInspector,
		signIns:        slices.Clone(o.SignIns),
		auditKept:      o.AuditKept,
	}
	for i := range c.inspecting {
		c.inspecting[i] = make(chan struct{}, 1)
	}
	if c.auditKept == 0 {
		c.auditKept = eventhose.AuditKept
	}
	if c.checkInspector == nil {
		c.checkInspector = func(eventhose.Inspector) error { return nil }
	}
	if c.checkSource == nil {
		c.checkSource = func(eventhose.Source) error { return eventhose.Invalid("provider", "is not supported by this server") }
	}
	if o.AdminKey != "" {
		digest := sha256.Sum256([]byte(o.AdminKey))
		c.adminKey = &digest
		mac := hmac.New(sha256.New, o.SecretKey)
		mac.Write([]byte("eventhose: the admin key of a session\x00"))
		mac.Write(digest[:])
		c.adminMark = mac.Sum(nil)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	seal, err := openSealer(ctx, st, o.SecretKey)
	if err != nil {
		return nil, err
	}
	c.seal = seal
	return c, nil
}

// Announce sets what is called after each committed change of a subscription (created, updated, another state, another
// secret, deleted), and where one may have been committed. It replaces what was set before. f runs in the caller's goroutine and must not block; calls for
// one subscription may overtake each other, so f should read again rather than count.
func (c *Control) Announce(f func(tenant eventhose.TenantID, id eventhose.SubscriptionID)) {
	c.announce.Store(&f)
}

func (c *Control) changed(tenant eventhose.TenantID, id eventhose.SubscriptionID) {
	if f := c.announce.Load(); f != nil {
		(*f)(tenant, id)
	}
}

// mayBe reports whether a change was made, or may have been: when the store did not answer, nobody knows. Other nodes hear of it from
// the store if it was, and this one does not.
func mayBe(err error) bool {
	switch eventhose.CodeOf(err) {
	case "", eventhose.CodeUnavailable, eventhose.CodeTimeout:
		return true
	}
	return false
}

// AnnounceTenants sets what is called after each committed change of a tenant, here or at another node, as Announce. It replaces what was set
// before. f must not block.
func (c *Control) AnnounceTenants(f func(eventhose.TenantID)) { c.announceTenants.Store(&f) }

func (c *Control) tenantChanged(id eventhose.TenantID) {
	c.tenants.forget(id)
	if f := c.announceTenants.Load(); f != nil {
		(*f)(id)
	}
}

// TenantOf answers which tenant a record is about that says that this tenant exists.
func TenantOf(r store.Record) (eventhose.TenantID, bool) {
	return eventhose.TenantID(r.ID), r.Tenant == "" && r.Kind == kindTenant
}

// Tells reports whether other nodes have to know of changes of a kind of records: they call Heard then.
func Tells(kind string) bool {
	switch kind {
	case kindTenant, kindKey, kindSubscription, kindSource, kindSession, kindLink:
		return true
	}
	return false
}

// Heard takes in that another node has changed a record.
func (c *Control) Heard(kind string, tenant eventhose.TenantID, id string) {
	switch kind {
	case kindTenant:
		c.tenantChanged(eventhose.TenantID(id))
	case kindKey:
		c.keys.forget(id)
	case kindSession:
		c.sessions.forget(id)
	case kindLink:
		c.links.forget(id)
	case kindSource:
		c.sources.forget(eventhose.SourceID(id))
	case kindSubscription:
		c.changed(tenant, eventhose.SubscriptionID(id))
	}
}

// Unheard takes in that other nodes may have changed records without being heard.
func (c *Control) Unheard() {
	c.tenants.forgetAll()
	c.keys.forgetAll()
	c.sources.forgetAll()
	c.sessions.forgetAll()
	c.links.forgetAll()
}

// again runs a read-change-save until it does not meet a concurrent change.
func again(change func() error) error {
	for range maxTries {
		if err := change(); !errors.Is(err, store.ErrVersion) {
			return err
		}
	}
	return &eventhose.Error{Code: eventhose.CodeVersion, Message: "was changed by others at the same time", Fix: "read it again and repeat the change"}
}

// failed wraps a store's error: those that a user can do something about get their code.
func failed(doing string, err error) error {
	code := eventhose.CodeOf(err)
	switch {
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrFailed):
		code = eventhose.CodeUnavailable
	case errors.Is(err, store.ErrFull):
		code = eventhose.CodeStorageFull
	}
	if code == eventhose.CodeInternal { // ErrVersion and ErrNotFound too: callers look for them
		return fmt.Errorf("%s: %w", doing, err)
	}
	e := &eventhose.Error{Code: code, Message: "cannot " + doing + " now", Err: err}
	if code == eventhose.CodeUnavailable {
		e.RetryAfter = time.Second
	}
	return e
}

// load reads one record into v. An error that is ErrNotFound stays one.
func (c *Control) load(ctx context.Context, tenant eventhose.TenantID, kind, id string, v any) (store.Record, error) {
	r, err := c.store.Record(ctx, tenant, kind, id)
	if err != nil {
		return r, failed("read a "+kind, err)
	}
	return r, decode(r, v)
}

func decode(r store.Record, v any) error {
	if err := json.Unmarshal(r.Value, v); err != nil {
		return fmt.Errorf("read %s %q: %w: %w", r.Kind, r.ID, store.ErrCorrupt, err)
	}
	return nil
}

// put makes the change that stores v over r.
func put(r store.Record, v any) (store.RecordChange, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return store.RecordChange{}, fmt.Errorf("write %s %q: %w", r.Kind, r.ID, err)
	}
	if len(value) > maxRecord {
		return store.RecordChange{}, &eventhose.Error{Code: eventhose.CodeTooLarge, Message: "is too large altogether", Fix: "use fewer or shorter headers, types, keys and attributes"}
	}
	r.Value = value
	return store.RecordChange{Record: r}, nil
}

func (c *Control) save(ctx context.Context, doing string, records []store.RecordChange, lanes ...store.LaneChange) error {
	if err := c.store.Save(ctx, records, lanes); err != nil {
		return failed(doing, err)
	}
	return nil
}

// count makes the change of a tenant's count of a kind, which may not pass limit. The caller holds lockCounts.
func (c *Control) count(ctx context.Context, tenant eventhose.TenantID, kind string, by, limit int) (store.RecordChange, error) {
	n := 0
	r, err := c.load(ctx, tenant, kindCount, kind, &n)
	if errors.Is(err, store.ErrNotFound) {
		r, err = store.Record{Tenant: tenant, Kind: kindCount, ID: kind}, nil
	}
	if err != nil {
		return store.RecordChange{}, err
	}
	if n+by > limit {
		return store.RecordChange{}, eventhose.Errorf(eventhose.CodeLimit, "a tenant has at most %d %ss", limit, kind)
	}
	return put(r, max(0, n+by))
}

func (c *Control) lockCounts(tenant eventhose.TenantID) (unlock func()) {
	digest := sha256.Sum256([]byte(tenant))
	mu := &c.counting[int(digest[0])%len(c.counting)]
	mu.Lock()
	return mu.Unlock
}

// newID makes an id that sorts by its time, of the form of UUIDs of version 7. uuid.NewV7 remembers the latest time of the whole process, so that with
// it the ids of a test whose clock stands elsewhere would depend on the tests before.
func newID(prefix string) (string, error) {
	u, err := uuid.NewRandom()
	if err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	now := time.Now()
	part := uint64(now.Nanosecond()%1e6) * 4096 / 1e6
	binary.BigEndian.PutUint64(u[:8], uint64(now.UnixMilli())<<16|7<<12|part)
	return prefix + eventhose.IDText(u), nil
}

// now is the present as records keep it.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func pageSize(limit int) int { return min(max(limit, 1), maxPage) }
