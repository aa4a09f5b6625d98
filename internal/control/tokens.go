package control

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"hash/crc32"
	"strings"

	"github.com/eventhose/eventhose"
)

// A credential that is made here reads <prefix><id>_<32 characters of base 62>_<crc>: the id finds its record, of the rest (190
// bits) only the SHA-256 is kept, and the checksum lets scanners and people tell one from a typo without asking the store. So
// much randomness needs no slow hash.

// tokens is one sort of credential: what its text begins with, and what the id of its record does.
type tokens struct{ text, id string }

var (
	keyTokens     = tokens{"ehk_", "key_"}
	sessionTokens = tokens{"ehs_", "ses_"}
	portalTokens  = tokens{"ehp_", "ptl_"}
)

const (
	tokenRandom  = 32
	base62       = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	checksumSize = 6 // characters that hold 32 bits
)

// make answers a new credential, the id of its record, and what is kept of it.
func (t tokens) make() (id string, token eventhose.Secret, digest []byte, err error) {
	part, err := newID("")
	if err != nil {
		return "", "", nil, err
	}
	token = t.write(part)
	sum := sha256.Sum256([]byte(token))
	return t.id + part, token, sum[:], nil
}

// write makes the text of a credential whose id ends with part.
func (t tokens) write(part string) eventhose.Secret {
	var b strings.Builder
	b.WriteString(t.text + part + "_")
	var random [2 * tokenRandom]byte
	for n := 0; n < tokenRandom; {
		rand.Read(random[:])
		for _, r := range random {
			if r < 4*62 && n < tokenRandom { // every character as likely as the others
				b.WriteByte(base62[r%62])
				n++
			}
		}
	}
	return eventhose.Secret(b.String() + "_" + checksum(b.String()))
}

// parse answers the id of the record of what has the form of such a credential and the right checksum.
func (t tokens) parse(token eventhose.Secret) (id string, ok bool) {
	text := string(token)
	if len(text) != len(t.text)+26+1+tokenRandom+1+checksumSize || !strings.HasPrefix(text, t.text) {
		return "", false
	}
	body, sum := text[:len(text)-checksumSize-1], text[len(text)-checksumSize-1:]
	if sum != "_"+checksum(body) {
		return "", false
	}
	return t.id + text[len(t.text):len(t.text)+26], true
}

// isToken reports, in constant time, whether a digest is of a token.
func isToken(token eventhose.Secret, digest []byte) bool {
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], digest) == 1
}

// checksum is the CRC-32 (IEEE) of s in base 62.
func checksum(s string) string {
	sum := crc32.ChecksumIEEE([]byte(s))
	var text [checksumSize]byte
	for i := checksumSize - 1; i >= 0; i-- {
		text[i] = base62[sum%62]
		sum /= 62
	}
	return string(text[:])
}
