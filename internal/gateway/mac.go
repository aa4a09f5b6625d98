package gateway

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"strings"
	"sync"

	"github.com/eventhose/eventhose"
)

// Hash is what an HMAC is made with.
type Hash string

// The hashes. SHA-1 is for providers that offer nothing else: an HMAC of it is not broken, only old.
const (
	SHA1   Hash = "sha1"
	SHA256 Hash = "sha256"
	SHA512 Hash = "sha512"
)

func (h Hash) make() func() hash.Hash {
	switch h {
	case SHA1:
		return sha1.New
	case SHA512:
		return sha512.New
	}
	return sha256.New
}

func (h Hash) size() int {
	switch h {
	case SHA1:
		return sha1.Size
	case SHA512:
		return sha512.Size
	}
	return sha256.Size
}

// Encoding is how a signature, or a key, is written.
type Encoding string

// The encodings. Text is for keys only: the bytes of the text itself.
const (
	Text      Encoding = "text"
	Hex       Encoding = "hex"       // of either case
	Base64    Encoding = "base64"    // standard alphabet, with padding
	Base64URL Encoding = "base64url" // URL alphabet, without padding
)

// decode answers the bytes, or false for what is not exactly of the encoding.
func (e Encoding) decode(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") { // which base64 passes over
		return nil, false
	}
	var b []byte
	var err error
	switch e {
	case Text:
		return []byte(s), true
	case Hex:
		b, err = hex.DecodeString(s)
	case Base64URL:
		b, err = base64.RawURLEncoding.Strict().DecodeString(s)
	default:
		b, err = base64.StdEncoding.Strict().DecodeString(s)
	}
	return b, err == nil
}

// keys answers the bytes of the source's secrets, which are written in an encoding after an optional prefix.
func (c *configuration) keys(e Encoding, prefix string) ([][]byte, error) {
	var keys [][]byte
	for i, s := range c.Secrets {
		rest := strings.TrimPrefix(string(s), prefix)
		key, ok := e.decode(rest)
		if !ok || len(key) == 0 {
			return nil, eventhose.Invalid(element(fieldSecrets, i), "must be %s", e)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// macs verifies HMACs with any of several keys. It may be used concurrently.
type macs struct {
	size int
	made []*sync.Pool // for each key, HMACs that begin with it
}

func newMACs(h Hash, keys ...[]byte) *macs {
	m := &macs{size: h.size()}
	for _, key := range keys {
		m.made = append(m.made, &sync.Pool{New: func() any { return hmac.New(h.make(), key) }})
	}
	return m
}

// match reports whether any of the signatures is of the content, given in parts, with any of the keys.
func (m *macs) match(signatures [][]byte, content ...[]byte) bool {
	for i := range m.made {
		sum := m.sum(i, content...)
		for _, signature := range signatures {
			if hmac.Equal(signature, sum) {
				return true
			}
		}
	}
	return false
}

// sum is the HMAC of the content with the i-th key.
func (m *macs) sum(i int, content ...[]byte) []byte {
	mac := m.made[i].Get().(hash.Hash)
	defer m.made[i].Put(mac)
	mac.Reset()
	for _, part := range content {
		mac.Write(part)
	}
	return mac.Sum(nil)
}

// sameSecret compares a token that came with the source's, in a time that tells nothing of either.
func sameSecret(came string, secrets []eventhose.Secret) bool {
	sum, same := sha256.Sum256([]byte(came)), 0
	for _, s := range secrets {
		own := sha256.Sum256([]byte(s))
		same |= subtle.ConstantTimeCompare(sum[:], own[:])
	}
	return same == 1
}
