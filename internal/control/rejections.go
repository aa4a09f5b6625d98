package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// A rejected request is two records: what lists tell of it, and the request itself, sealed, since it may hold the secret
// of another source. Both vanish by themselves.

func rejectionRecord(source eventhose.SourceID, id string) string { return string(source) + "." + id }

func rejectedPlace(tenant eventhose.TenantID, record string) place {
	return place{tenant, record, kindRejected}
}

// KeepRejection keeps a rejected request of a source for RejectionsKept, and drops the oldest beyond MaxRejections. Of r the
// ID is ignored. What it answers has the new one.
func (c *Control) KeepRejection(ctx context.Context, tenant eventhose.TenantID, r eventhose.Rejection) (eventhose.Rejection, error) {
	id, err := newID("rej_")
	if err != nil {
		return r, err
	}
	request := eventhose.RejectedRequest{}
	if r.Request != nil {
		request = *r.Request
	}
	if len(request.Body) > eventhose.MaxRejectedBody {
		request.Body, request.Truncated = request.Body[:eventhose.MaxRejectedBody], true
	}
	text, err := json.Marshal(request)
	if err != nil {
		return r, fmt.Errorf("write a rejection: %w", err)
	}
	r.ID = id
	record := rejectionRecord(r.Source, id)
	sealed, err := c.seal.seal(text, rejectedPlace(tenant, record))
	if err != nil {
		return r, err
	}
	if len(sealed) > maxRecord {
		return r, &eventhose.Error{Code: eventhose.CodeTooLarge, Message: "the request is too large to be kept"}
	}
	expires := now().Add(eventhose.RejectionsKept)
	told := r
	told.Request = nil
	change, err := put(store.Record{Tenant: tenant, Kind: kindRejection, ID: record, Expires: expires}, told)
	if err != nil {
		return r, err
	}
	kept := store.RecordChange{Record: store.Record{Tenant: tenant, Kind: kindRejected, ID: record, Value: sealed, Expires: expires}}
	return r, again(func() error {
		old, err := c.rejections(ctx, tenant, r.Source)
		if err != nil {
			return err
		}
		changes := []store.RecordChange{change, kept}
		for _, surplus := range old[:max(0, len(old)-eventhose.MaxRejections+1)] {
			changes = append(changes, forgotten(surplus)...)
		}
		return c.save(ctx, "keep a rejected request", changes)
	})
}

// forgotten are the changes that remove a rejection. Both of its records were written once, and together.
func forgotten(r store.Record) []store.RecordChange {
	request := r
	request.Kind = kindRejected
	return []store.RecordChange{{Record: r, Delete: true}, {Record: request, Delete: true}}
}

// rejections are the records of a source's rejections, oldest first.
func (c *Control) rejections(ctx context.Context, tenant eventhose.TenantID, source eventhose.SourceID) ([]store.Record, error) {
	prefix := rejectionRecord(source, "")
	var found []store.Record
	for after := prefix; ; {
		page, err := c.store.List(ctx, tenant, kindRejection, after, eventhose.MaxRejections)
		if err != nil {
			return nil, failed("list rejected requests", err)
		}
		for _, r := range page {
			if !strings.HasPrefix(r.ID, prefix) {
				return found, nil
			}
			found = append(found, r)
			after = r.ID
		}
		if len(page) < eventhose.MaxRejections {
			return found, nil
		}
	}
}

// Rejections lists the rejected requests of a source that are kept, newest first, without the requests themselves.
// CodeNotFound if there is no such source.
func (c *Control) Rejections(ctx context.Context, tenant eventhose.TenantID, source eventhose.SourceID) ([]eventhose.Rejection, error) {
	if _, err := c.Source(ctx, tenant, source); err != nil {
		return nil, err
	}
	records, err := c.rejections(ctx, tenant, source)
	if err != nil {
		return nil, err
	}
	list := make([]eventhose.Rejection, len(records))
	for i, r := range slices.Backward(records) {
		if err := decode(r, &list[len(records)-1-i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Rejection answers one with its request as it came, credentials included. CodeNotFound.
func (c *Control) Rejection(ctx context.Context, tenant eventhose.TenantID, source eventhose.SourceID, id string) (eventhose.Rejection, error) {
	var rejection eventhose.Rejection
	record := rejectionRecord(source, id)
	if !eventhose.ValidSourceID(string(source)) || !eventhose.ValidRejectionID(id) {
		return rejection, eventhose.NotFound("rejected request")
	}
	_, err := c.load(ctx, tenant, kindRejection, record, &rejection)
	var sealed store.Record
	if err == nil {
		sealed, err = c.store.Record(ctx, tenant, kindRejected, record)
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return eventhose.Rejection{}, eventhose.NotFound("rejected request")
	case err != nil:
		return eventhose.Rejection{}, failed("read a rejected request", err)
	}
	text, err := c.seal.open(sealed.Value, rejectedPlace(tenant, record))
	if err != nil {
		return eventhose.Rejection{}, err
	}
	rejection.Request = &eventhose.RejectedRequest{}
	if err := json.Unmarshal(text, rejection.Request); err != nil {
		return eventhose.Rejection{}, fmt.Errorf("read rejection %s: %w: %w", id, store.ErrCorrupt, err)
	}
	return rejection, nil
}

// ForgetRejection removes a rejected request, if it is there.
func (c *Control) ForgetRejection(ctx context.Context, tenant eventhose.TenantID, source eventhose.SourceID, id string) error {
	return again(func() error {
		r, err := c.store.Record(ctx, tenant, kindRejection, rejectionRecord(source, id))
		if errors.Is(err, store.ErrNotFound) {
			return nil
		} else if err != nil {
			return failed("read a rejected request", err)
		}
		return c.save(ctx, "remove a rejected request", forgotten(r))
	})
}

// forgetRejections removes those of a source.
func (c *Control) forgetRejections(ctx context.Context, tenant eventhose.TenantID, source eventhose.SourceID) error {
	return again(func() error {
		records, err := c.rejections(ctx, tenant, source)
		if err != nil || len(records) == 0 {
			return err
		}
		var changes []store.RecordChange
		for _, r := range records {
			changes = append(changes, forgotten(r)...)
		}
		return c.save(ctx, "remove rejected requests", changes)
	})
}
