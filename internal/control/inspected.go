package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	inspectedPrefix = "inr_"
	// inspectedPage is how many requests are read at a time, inspectedBytes about how much of them is answered at once.
	inspectedPage  = 10
	inspectedBytes = 2 << 20
)

// inspectedID is the id of an inspector's nth request.
func inspectedID(n uint64) string { return fmt.Sprintf(inspectedPrefix+"%016d", n) }

// inspectedNumber reads what inspectedID wrote.
func inspectedNumber(field, id string) (uint64, error) {
	digits, ok := strings.CutPrefix(id, inspectedPrefix)
	n, err := strconv.ParseUint(digits, 10, 64)
	if !ok || err != nil || inspectedID(n) != id {
		return 0, eventhose.Invalid(field, "is not the id of an inspected request")
	}
	return n, nil
}

func inspectedRecord(inspector eventhose.InspectorID, id string) string {
	return string(inspector) + "." + id
}

// KeepInspected keeps a request of an inspector, and removes the one that is one too many by it. Of r the ID is ignored; what it
// answers has the new one. CodeNotFound.
func (c *Control) KeepInspected(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID, r eventhose.InspectedRequest) (eventhose.InspectedRequest, error) {
	_, err := c.changeInspector(ctx, tenant, id, func(i *inspectorRecord) ([]store.RecordChange, error) {
		n := i.Inspector.Requests + 1
		i.Inspector.Requests = n
		r.ID = inspectedID(n)
		kept, err := c.encodeInspected(tenant, id, r)
		if err != nil || n <= eventhose.MaxInspected {
			return []store.RecordChange{kept}, err
		}
		surplus, err := c.inspectedBetween(ctx, tenant, id, n-eventhose.MaxInspected-1, n-eventhose.MaxInspected)
		return append(removed(surplus), kept), err
	})
	return r, err
}

func inspectedPlace(tenant eventhose.TenantID, record string) place {
	return place{tenant, record, kindInspected}
}

func (c *Control) encodeInspected(tenant eventhose.TenantID, id eventhose.InspectorID, r eventhose.InspectedRequest) (store.RecordChange, error) {
	// Not as text, of which some bytes would take six in JSON.
	r.BodyBase64, r.Body = r.Content(), ""
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return store.RecordChange{}, fmt.Errorf("write an inspected request: %w", err)
	}
	record := inspectedRecord(id, r.ID)
	sealed, err := c.seal.seal(text.Bytes(), inspectedPlace(tenant, record))
	if err != nil {
		return store.RecordChange{}, err
	}
	if len(sealed) > maxRecord {
		return store.RecordChange{}, &eventhose.Error{Code: eventhose.CodeTooLarge, Message: "the request is too large to be kept"}
	}
	return store.RecordChange{Record: store.Record{Tenant: tenant, Kind: kindInspected, ID: record, Value: sealed, Expires: now().Add(eventhose.InspectorKept)}}, nil
}

func (c *Control) decodeInspected(record store.Record) (eventhose.InspectedRequest, error) {
	var r eventhose.InspectedRequest
	text, err := c.seal.open(record.Value, inspectedPlace(record.Tenant, record.ID))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read inspected request %s: %w: %w", record.ID, store.ErrCorrupt, err)
	}
	r.SetContent(r.BodyBase64)
	return r, nil
}

// inspectedBetween are the records of an inspector's requests that are left of those after one number up to another, by number.
func (c *Control) inspectedBetween(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID, after, last uint64) ([]store.Record, error) {
	if last-after > eventhose.MaxInspected {
		after = last - eventhose.MaxInspected
	}
	list, err := c.store.List(ctx, tenant, kindInspected, inspectedRecord(id, inspectedID(after)), int(last-after))
	if err != nil {
		return nil, failed("list inspected requests", err)
	}
	end := inspectedRecord(id, inspectedID(last)) // beyond it there may be later ones, and those of others
	i := slices.IndexFunc(list, func(r store.Record) bool { return r.ID > end })
	if i < 0 {
		i = len(list)
	}
	return list[:i], nil
}

// Inspected answers requests of an inspector, newest first, and whether there may be more of what q asks for: a page ends with
// its limit, or when it holds about 2 MB. It counts as a use of the inspector. CodeNotFound, CodeInvalid with the field.
func (c *Control) Inspected(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID, q eventhose.InspectedQuery) (requests []eventhose.InspectedRequest, more bool, err error) {
	i, err := c.inspector(ctx, tenant, id)
	if err != nil {
		return nil, false, err
	}
	least, last := i.Forgotten, i.Inspector.Requests
	if last > eventhose.MaxInspected {
		least = max(least, last-eventhose.MaxInspected)
	}
	if q.After != "" {
		n, err := inspectedNumber("after", q.After)
		if err != nil {
			return nil, false, err
		}
		least = max(least, n)
	}
	if q.Before != "" {
		n, err := inspectedNumber("before", q.Before)
		if err != nil {
			return nil, false, err
		}
		last = min(last, max(n, 1)-1)
	}
	if time.Until(i.Inspector.Expires) < eventhose.InspectorKept-inspectorTouched {
		_, err := c.changeInspector(ctx, tenant, id, func(*inspectorRecord) ([]store.RecordChange, error) { return nil, nil })
		if err != nil {
			return nil, false, err
		}
	}
	size := 0
	for last > least {
		after := max(least, last-min(last, inspectedPage))
		records, err := c.inspectedBetween(ctx, tenant, id, after, last)
		if err != nil {
			return nil, false, err
		}
		for _, record := range slices.Backward(records) {
			if len(requests) > 0 && (len(requests) == q.Limit || size+len(record.Value) > inspectedBytes) {
				return requests, true, nil
			}
			r, err := c.decodeInspected(record)
			if err != nil {
				return nil, false, err
			}
			size += len(record.Value)
			requests = append(requests, r)
		}
		last = after
	}
	return requests, false, nil
}

// ForgetInspected removes the requests that an inspector has got so far. CodeNotFound.
func (c *Control) ForgetInspected(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID) error {
	_, err := c.changeInspector(ctx, tenant, id, func(i *inspectorRecord) ([]store.RecordChange, error) {
		i.Forgotten = i.Inspector.Requests
		requests, err := c.inspectedBetween(ctx, tenant, id, 0, i.Forgotten)
		return removed(requests), err
	})
	return err
}
