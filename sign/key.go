package sign

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"strings"
	"sync"
)

// The prefixes of keys written as text.
const (
	secretPrefix     = "whsec_"
	signingKeyPrefix = "whsk_"
	publicKeyPrefix  = "whpk_"
)

const (
	versionHMAC    = "v1"
	versionEd25519 = "v1a"
)

// How many bytes a Secret may have. Standard Webhooks asks for 24 to 64; secrets of 16 are met in the field, and fewer
// are refused.
const (
	minSecret = 16
	maxSecret = 64
	newSecret = 32
)

// ErrKey: a text is not a key of the kind asked for. What wraps it says why and never shows the text.
var ErrKey = errors.New("sign: not a usable key")

// Secret is a symmetric key ("whsec_"): both sides of a webhook hold it. It prints, logs and marshals redacted. The zero
// Secret is not usable. It implements Signer and Verifier.
type Secret struct{ k *hmacKey }

// hmacKey stands behind a pointer so that no way of printing a struct around it shows its bytes.
type hmacKey struct {
	bytes []byte
	macs  sync.Pool // of *macState
}

type macState struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

func secretOf(b []byte) Secret {
	k := &hmacKey{bytes: b}
	k.macs.New = func() any { return &macState{mac: hmac.New(sha256.New, k.bytes)} }
	return Secret{k}
}

// NewSecret makes a Secret of 32 random bytes.
func NewSecret() Secret {
	b := make([]byte, newSecret)
	rand.Read(b) // never fails
	return secretOf(b)
}

// ParseSecret reads a secret: "whsec_" (which may be left out) and standard base64, with padding, of 16 to 64 bytes.
// Errors wrap ErrKey.
func ParseSecret(s string) (Secret, error) {
	rest, err := keyText(s, secretPrefix, "secret")
	if err != nil {
		return Secret{}, err
	}
	b, err := decodeKey(rest, "secret")
	if err != nil {
		return Secret{}, err
	}
	if len(b) < minSecret || len(b) > maxSecret {
		return Secret{}, fmt.Errorf("%w: the secret has %d bytes, and must have %d to %d", ErrKey, len(b), minSecret, maxSecret)
	}
	return secretOf(b), nil
}

// Reveal answers the secret as text, "whsec_" and base64.
func (s Secret) Reveal() string {
	if s.k == nil {
		return ""
	}
	return secretPrefix + base64.StdEncoding.EncodeToString(s.k.bytes)
}

func (s Secret) appendSignature(dst, head, body []byte) []byte {
	if s.k == nil {
		return dst
	}
	st := s.k.macs.Get().(*macState)
	dst = append(dst, versionHMAC...)
	dst = append(dst, ',')
	dst = base64.StdEncoding.AppendEncode(dst, st.of(head, body))
	s.k.macs.Put(st)
	return dst
}

// of answers the MAC of head and body in st's own memory.
func (st *macState) of(head, body []byte) []byte {
	st.mac.Reset()
	st.mac.Write(head)
	st.mac.Write(body)
	return st.mac.Sum(st.sum[:0])
}

func (s Secret) version() string { return versionHMAC }
func (s Secret) usable() bool    { return s.k != nil }

func (s Secret) matcher(head, body []byte) func(signature []byte) bool {
	st := s.k.macs.Get().(*macState)
	want := [sha256.Size]byte(st.of(head, body))
	s.k.macs.Put(st)
	return func(signature []byte) bool { return hmac.Equal(signature, want[:]) }
}

// SigningKey is the private half of an Ed25519 pair ("whsk_"). It prints, logs and marshals redacted. The zero
// SigningKey is not usable. It implements Signer.
type SigningKey struct{ k *ed25519.PrivateKey }

// NewSigningKey makes a random SigningKey.
func NewSigningKey() SigningKey {
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed) // never fails
	return signingKeyOf(seed)
}

func signingKeyOf(seed []byte) SigningKey {
	k := ed25519.NewKeyFromSeed(seed)
	return SigningKey{&k}
}

// ParseSigningKey reads "whsk_" and standard base64, with padding, of a 32-byte seed. Errors wrap ErrKey.
func ParseSigningKey(s string) (SigningKey, error) {
	b, err := prefixed(s, signingKeyPrefix, "signing key", ed25519.SeedSize)
	if err != nil {
		return SigningKey{}, err
	}
	return signingKeyOf(b), nil
}

// Public answers the key that verifies what k signs.
func (k SigningKey) Public() PublicKey {
	if k.k == nil {
		return PublicKey{}
	}
	return PublicKey{k.k.Public().(ed25519.PublicKey)}
}

// Reveal answers the key as text, "whsk_" and base64.
func (k SigningKey) Reveal() string {
	if k.k == nil {
		return ""
	}
	return signingKeyPrefix + base64.StdEncoding.EncodeToString(k.k.Seed())
}

func (k SigningKey) appendSignature(dst, head, body []byte) []byte {
	if k.k == nil {
		return dst
	}
	message := messages.Get().(*[]byte)
	*message = append(append((*message)[:0], head...), body...)
	signature := ed25519.Sign(*k.k, *message)
	messages.Put(message)
	dst = append(dst, versionEd25519...)
	dst = append(dst, ',')
	return base64.StdEncoding.AppendEncode(dst, signature)
}

// messages lends buffers for head and body in one piece, which Ed25519 needs because it reads the message twice.
var messages = sync.Pool{New: func() any { return new([]byte) }}

// PublicKey is the public half of an Ed25519 pair ("whpk_"). The zero PublicKey is not usable. It implements Verifier.
type PublicKey struct{ k ed25519.PublicKey }

// ParsePublicKey reads "whpk_" and standard base64, with padding, of 32 bytes. Errors wrap ErrKey.
func ParsePublicKey(s string) (PublicKey, error) {
	b, err := prefixed(s, publicKeyPrefix, "public key", ed25519.PublicKeySize)
	return PublicKey{b}, err
}

// String answers the key as text, "whpk_" and base64. It is no secret.
func (k PublicKey) String() string {
	if len(k.k) == 0 {
		return ""
	}
	return publicKeyPrefix + base64.StdEncoding.EncodeToString(k.k)
}

// MarshalText answers what String does.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func (k PublicKey) version() string { return versionEd25519 }
func (k PublicKey) usable() bool    { return len(k.k) == ed25519.PublicKeySize }

func (k PublicKey) matcher(head, body []byte) func(signature []byte) bool {
	message := append(append(make([]byte, 0, len(head)+len(body)), head...), body...)
	return func(signature []byte) bool {
		return len(signature) == ed25519.SignatureSize && ed25519.Verify(k.k, message, signature)
	}
}

// ParseSigner reads a "whsec_" secret or a "whsk_" signing key. Errors wrap ErrKey.
func ParseSigner(s string) (Signer, error) {
	if strings.HasPrefix(s, signingKeyPrefix) {
		return nilOnError[Signer](ParseSigningKey(s))
	}
	return nilOnError[Signer](ParseSecret(s))
}

// ParseVerifier reads a "whsec_" secret or a "whpk_" public key. Errors wrap ErrKey.
func ParseVerifier(s string) (Verifier, error) {
	if strings.HasPrefix(s, publicKeyPrefix) {
		return nilOnError[Verifier](ParsePublicKey(s))
	}
	return nilOnError[Verifier](ParseSecret(s))
}

func nilOnError[I any](k I, err error) (none I, _ error) {
	if err != nil {
		return none, err
	}
	return k, nil
}

func prefixed(s, prefix, kind string, size int) ([]byte, error) {
	if s != "" && !strings.HasPrefix(s, prefix) {
		return nil, fmt.Errorf("%w: a %s begins with %s", ErrKey, kind, prefix)
	}
	rest, err := keyText(s, prefix, kind)
	if err != nil {
		return nil, err
	}
	b, err := decodeKey(rest, kind)
	if err != nil {
		return nil, err
	}
	if len(b) != size {
		return nil, fmt.Errorf("%w: the %s has %d bytes, and must have %d", ErrKey, kind, len(b), size)
	}
	return b, nil
}

// keyText answers what follows the prefix, which may be missing; the prefix of another kind of key is refused.
func keyText(s, prefix, kind string) (string, error) {
	switch {
	case strings.TrimSpace(s) == "":
		return "", fmt.Errorf("%w: the %s is empty", ErrKey, kind)
	case strings.ContainsAny(s, " \t\r\n\v\f"):
		return "", fmt.Errorf("%w: the %s contains white space", ErrKey, kind)
	}
	for _, other := range []string{secretPrefix, signingKeyPrefix, publicKeyPrefix} {
		if other != prefix && strings.HasPrefix(s, other) {
			return "", fmt.Errorf("%w: a %s key is not a %s", ErrKey, other, kind)
		}
	}
	rest := strings.TrimPrefix(s, prefix)
	if rest == "" {
		return "", fmt.Errorf("%w: the %s is empty", ErrKey, kind)
	}
	return rest, nil
}

func decodeKey(text, kind string) ([]byte, error) {
	if len(text) > 4*maxSecret {
		return nil, fmt.Errorf("%w: the %s is too long", ErrKey, kind)
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: the %s is not standard base64 with padding", ErrKey, kind)
	}
	return b, nil
}

const (
	redactedSecret     = secretPrefix + "***"
	redactedSigningKey = signingKeyPrefix + "***"
)

func (s Secret) String() string                   { return redactedSecret }
func (s Secret) Format(f fmt.State, _ rune)       { fmt.Fprint(f, redactedSecret) }
func (s Secret) MarshalText() ([]byte, error)     { return []byte(redactedSecret), nil }
func (s Secret) LogValue() slog.Value             { return slog.StringValue(redactedSecret) }
func (k SigningKey) String() string               { return redactedSigningKey }
func (k SigningKey) Format(f fmt.State, _ rune)   { fmt.Fprint(f, redactedSigningKey) }
func (k SigningKey) MarshalText() ([]byte, error) { return []byte(redactedSigningKey), nil }
func (k SigningKey) LogValue() slog.Value         { return slog.StringValue(redactedSigningKey) }
