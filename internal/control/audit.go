package control

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"regexp"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	auditPrefix = "aud_"
	// maxAuditLook is how many entries one page looks at, so that a rare filter is no scan; auditStep how many at a time.
	maxAuditLook = 5000
	auditStep    = 500
)

var auditID = regexp.MustCompile(`^aud_[0-9a-hjkmnp-tv-z]{26}$`)

// Audit writes down who has changed what: for the tenant, if it is about one, and for the platform. Of e the ID and Time are
// made here.
func (c *Control) Audit(ctx context.Context, e eventhose.AuditEntry) error {
	e.Time = now()
	// Ids sort the newest first, which is how records are read.
	var id [16]byte
	rand.Read(id[8:])
	binary.BigEndian.PutUint64(id[:8], ^uint64(e.Time.UnixMicro()))
	e.ID = auditPrefix + eventhose.IDText(id)
	expires := e.Time.Add(c.auditKept)
	change, err := put(store.Record{Kind: kindAudit, ID: e.ID, Expires: expires}, e)
	if err != nil {
		return err
	}
	changes := []store.RecordChange{change}
	if e.Tenant != "" {
		change.Tenant = e.Tenant
		changes = append(changes, change)
	}
	return c.save(ctx, "write an audit entry", changes)
}

// AuditTrail answers the entries of one tenant, or with "" of the whole platform, newest first, and what q.After is for the next page, "" if
// there is none. A page looks at 5,000 entries at most, so it may hold fewer than asked for, or none, and still have a next one.
// CodeInvalid (field "after").
func (c *Control) AuditTrail(ctx context.Context, tenant eventhose.TenantID, q eventhose.AuditQuery) (entries []eventhose.AuditEntry, next string, err error) {
	if q.After != "" && !auditID.MatchString(q.After) {
		return nil, "", eventhose.Invalid("after", "is not what this route gave out")
	}
	limit, after := pageSize(q.Limit), q.After
	for looked := 0; looked < maxAuditLook; looked += auditStep {
		page, err := c.store.List(ctx, tenant, kindAudit, after, auditStep)
		if err != nil {
			return nil, "", failed("read the audit log", err)
		}
		for i, r := range page {
			var e eventhose.AuditEntry
			if err := decode(r, &e); err != nil {
				return nil, "", err
			}
			after = r.ID
			if !wanted(q, e) {
				continue
			}
			if entries = append(entries, e); len(entries) == limit {
				if i == len(page)-1 && len(page) < auditStep {
					return entries, "", nil
				}
				return entries, after, nil
			}
		}
		if len(page) < auditStep {
			return entries, "", nil
		}
	}
	return entries, after, nil
}

func wanted(q eventhose.AuditQuery, e eventhose.AuditEntry) bool {
	return (q.Actor == "" || q.Actor == e.Actor.ID || q.Actor == e.Actor.Name) &&
		(q.Action == "" || q.Action == e.Action) &&
		(q.Target == "" || q.Target == e.Target)
}
