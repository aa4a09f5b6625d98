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

// macs verifies HMACs with any of several keys.
type macs struct {
	hash func() hash.Hash
	keys [][]byte
}

// match reports whether any of the signatures is of the content, given in parts, with any of the keys.
func (m *macs) match(signatures [][]byte, content ...[]byte) bool {
	for _, key := range m.keys {
		sum := m.sum(key, content...)
		for _, signature := range signatures {
			if hmac.Equal(signature, sum) {
				return true
			}
		}
	}
	return false
}

func (m *macs) sum(key []byte, content ...[]byte) []byte {
	mac := hmac.New(m.hash, key)
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
