// Package sign signs and verifies webhooks as Standard Webhooks 1.0.0 says: v1 (HMAC-SHA256, "whsec_" secrets) and v1a
// (Ed25519, "whsk_" signing keys and "whpk_" public keys).
//
// What is signed is "{id}.{timestamp}.{body}", with the body byte for byte as it travels. A sender with several live
// keys sends one signature for each; a receiver takes a message if any signature matches any of its keys.
//
// The package imports only the standard library, so that receivers can use it by itself. Everything in it may be used
// concurrently.
package sign

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// The three headers of a signed webhook.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

// MaxID is the longest id that is signed, in bytes.
const MaxID = 256

var (
	// ErrID: the id is empty, too long, or not printable ASCII without space and full stop. A full stop would let one
	// signature stand for two different messages.
	ErrID = errors.New("sign: webhook-id must be 1 to 256 printable ASCII characters without space and full stop")
	// ErrTime: the time is before 1970 or does not fit 13 digits of seconds.
	ErrTime = errors.New("sign: time cannot be written as a webhook-timestamp")
	// ErrNoKey: no key was given, or one that was not made by this package's functions.
	ErrNoKey = errors.New("sign: no usable key")
)

// Signer is a key that signs: Secret or SigningKey.
type Signer interface {
	// appendSignature appends "version,base64" over head and body. It answers dst unchanged if the key is unusable.
	appendSignature(dst, head, body []byte) []byte
}

// Sign answers the value of webhook-signature for a message that is sent at a time: a signature for each key, in order,
// separated by a space. The same at, in seconds, must go into webhook-timestamp. Errors wrap ErrID, ErrTime or ErrNoKey.
func Sign(id string, at time.Time, body []byte, keys ...Signer) (string, error) {
	b, err := AppendSignatures(nil, id, at, body, keys...)
	return string(b), err
}

// AppendSignatures appends what Sign answers to dst. With Secret keys it allocates nothing but what dst needs to grow (45
// bytes and a space for each key). With an error it answers dst as it was.
func AppendSignatures(dst []byte, id string, at time.Time, body []byte, keys ...Signer) ([]byte, error) {
	if !validID(id) {
		return dst, ErrID
	}
	seconds := at.Unix()
	if seconds < 0 || seconds > maxTimestamp {
		return dst, fmt.Errorf("%w: %s", ErrTime, at.UTC().Format(time.RFC3339))
	}
	if len(keys) == 0 {
		return dst, ErrNoKey
	}
	head := heads.Get().(*[]byte)
	defer heads.Put(head)
	h := append((*head)[:0], id...)
	h = append(h, '.')
	h = strconv.AppendInt(h, seconds, 10)
	h = append(h, '.')
	*head = h

	start := len(dst)
	for _, k := range keys {
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		before := len(dst)
		if k != nil {
			dst = k.appendSignature(dst, h, body)
		}
		if len(dst) == before {
			return dst[:start], ErrNoKey
		}
	}
	return dst, nil
}

// maxTimestamp is the greatest number of 13 digits.
const maxTimestamp = 9_999_999_999_999

// heads lends buffers for "id.timestamp."; on the stack they would escape through the Signer.
var heads = sync.Pool{New: func() any { b := make([]byte, 0, 96); return &b }}

func validID(id string) bool {
	if id == "" || len(id) > MaxID {
		return false
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' || c == '.' {
			return false
		}
	}
	return true
}
