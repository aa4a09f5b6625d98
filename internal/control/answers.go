package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	// MaxIdempotencyKey is the longest Idempotency-Key, in bytes.
	MaxIdempotencyKey = 255
	// MaxAnswer is the largest body that is kept, in bytes: what a pull answers of MaxPageBytes of data, in base64 and with all that is
	// beside it, has room in it.
	MaxAnswer = 3 * eventhose.MaxPageBytes

	answerKept = 24 * time.Hour
	// answerReserved is how long a request may be under way. A crash blocks its key no longer.
	answerReserved = time.Minute
	// answerPart is how much of a sealed body one record holds.
	answerPart = 128 << 10
)

// answerRecord is a request with an Idempotency-Key as it is stored. The body may hold a secret that is shown once, so
// it is sealed; what does not fit lies in further records, "<id>.1" and so on.
type answerRecord struct {
	Digest []byte `json:"digest"`
	// Done says that the answer is there.
	Done        bool   `json:"done,omitempty"`
	Status      int    `json:"status,omitempty"`
	ContentType string `json:"content_type,omitempty"`
	Body        []byte `json:"body,omitempty"`
	Parts       int    `json:"parts,omitempty"`
}

func answerID(key string) string {
	digest := sha256.Sum256([]byte(key))
	return hex.EncodeToString(digest[:])
}

func answerPlace(tenant eventhose.TenantID, id string) place { return place{tenant, id, kindAnswer} }

// ReserveAnswer claims an Idempotency-Key for a request with this digest. If the key was used before it answers the
// stored answer, or CodeConflict while the first request is under way (for a minute at most), or CodeInvalid (field
// "Idempotency-Key") if the request differs. A nil answer and a nil error mean: go on, then call SaveAnswer, or with
// nil to give the key back. Of several at once one goes on.
func (c *Control) ReserveAnswer(ctx context.Context, tenant eventhose.TenantID, key string, digest [32]byte) (*eventhose.StoredAnswer, error) {
	if key == "" || len(key) > MaxIdempotencyKey {
		return nil, eventhose.Invalid("Idempotency-Key", "must be 1 to %d bytes", MaxIdempotencyKey)
	}
	id := answerID(key)
	var answer *eventhose.StoredAnswer
	err := again(func() error {
		change, err := put(store.Record{Tenant: tenant, Kind: kindAnswer, ID: id, Expires: now().Add(answerReserved)}, answerRecord{Digest: digest[:]})
		if err != nil {
			return err
		}
		err = c.save(ctx, "reserve an idempotency key", []store.RecordChange{change})
		if !errors.Is(err, store.ErrVersion) {
			return err
		}
		var a answerRecord
		r, err := c.load(ctx, tenant, kindAnswer, id, &a)
		switch {
		case errors.Is(err, store.ErrNotFound): // it has expired since
			return store.ErrVersion
		case err != nil:
			return err
		case !bytes.Equal(a.Digest, digest[:]):
			return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "Idempotency-Key", Message: "was used for another request", Fix: "use a new key for each request"}
		case !a.Done:
			return &eventhose.Error{Code: eventhose.CodeConflict, Field: "Idempotency-Key", Message: "the first request with it is under way",
				RetryAfter: max(time.Second, time.Until(r.Expires))}
		}
		answer, err = c.answer(ctx, r, a)
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// answer puts an answer together. ErrVersion if a part of it has expired meanwhile.
func (c *Control) answer(ctx context.Context, r store.Record, a answerRecord) (*eventhose.StoredAnswer, error) {
	sealed := bytes.Clone(a.Body)
	for i := range a.Parts {
		part, err := c.store.Record(ctx, r.Tenant, kindAnswerPart, partID(r.ID, i))
		if errors.Is(err, store.ErrNotFound) {
			return nil, store.ErrVersion
		} else if err != nil {
			return nil, failed("read an answer", err)
		}
		sealed = append(sealed, part.Value...)
	}
	body, err := c.seal.open(sealed, answerPlace(r.Tenant, r.ID))
	if err != nil {
		return nil, err
	}
	return &eventhose.StoredAnswer{Status: a.Status, ContentType: a.ContentType, Body: body}, nil
}

func partID(id string, i int) string { return fmt.Sprintf("%s.%d", id, i+1) }

// SaveAnswer keeps the answer of a request whose key ReserveAnswer has claimed, for 24 h or as long as it is good, or with nil gives the key
// back. CodeTooLarge for a body of more than MaxAnswer bytes; CodeConflict if the reservation has expired and the key
// was used for another request.
func (c *Control) SaveAnswer(ctx context.Context, tenant eventhose.TenantID, key string, digest [32]byte, a *eventhose.StoredAnswer) error {
	if a != nil && len(a.Body) > MaxAnswer {
		return &eventhose.Error{Code: eventhose.CodeTooLarge, Message: "the answer is too large to be kept"}
	}
	id := answerID(key)
	return again(func() error {
		var old answerRecord
		r, err := c.load(ctx, tenant, kindAnswer, id, &old)
		switch {
		case errors.Is(err, store.ErrNotFound):
			if a == nil {
				return nil
			}
			r = store.Record{Tenant: tenant, Kind: kindAnswer, ID: id}
		case err != nil:
			return err
		case !bytes.Equal(old.Digest, digest[:]):
			return &eventhose.Error{Code: eventhose.CodeConflict, Field: "Idempotency-Key", Message: "was used for another request"}
		case old.Done: // a second request, after the first one's reservation had expired, was quicker
			return nil
		}
		if a == nil {
			return c.save(ctx, "release an idempotency key", []store.RecordChange{{Record: r, Delete: true}})
		}
		changes, err := c.answerChanges(r, digest, a)
		if err != nil {
			return err
		}
		return c.save(ctx, "keep an answer", changes)
	})
}

func (c *Control) answerChanges(r store.Record, digest [32]byte, a *eventhose.StoredAnswer) ([]store.RecordChange, error) {
	sealed, err := c.seal.seal(a.Body, answerPlace(r.Tenant, r.ID))
	if err != nil {
		return nil, err
	}
	kept := answerKept
	if good := time.Duration(a.Good); good > 0 {
		kept = min(kept, good)
	}
	r.Expires = now().Add(kept)
	done := answerRecord{Digest: digest[:], Done: true, Status: a.Status, ContentType: a.ContentType}
	done.Body, sealed = cut(sealed)
	var changes []store.RecordChange
	for len(sealed) > 0 {
		var part []byte
		part, sealed = cut(sealed)
		changes = append(changes, store.RecordChange{Record: store.Record{Tenant: r.Tenant, Kind: kindAnswerPart, ID: partID(r.ID, done.Parts), Value: part, Expires: r.Expires}})
		done.Parts++
	}
	change, err := put(r, done)
	return append(changes, change), err
}

func cut(b []byte) (part, rest []byte) {
	n := min(len(b), answerPart)
	return b[:n], b[n:]
}
