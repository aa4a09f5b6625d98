package control

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/tink-crypto/tink-go/v2/aead"
	aesgcm "github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// Secrets at rest are sealed with AES-256-GCM under a Tink keyset that is made at random on first start and kept in the
// store, itself sealed under a key derived from the operator's. So the operator's key never touches data, and a new
// one needs only the keyset sealed again. What a ciphertext belongs to (tenant, subscription, field) is its associated
// data: one that was copied to another row does not open.

// SecretKeySize is the size of the operator's key in bytes.
const SecretKeySize = 32

type sealer struct{ aead tink.AEAD }

// keysetRecord is the keyset as it is stored.
type keysetRecord struct {
	// Fingerprint tells the operator's keys apart and nothing about them.
	Fingerprint []byte `json:"fingerprint"`
	Keyset      []byte `json:"keyset"`
}

const (
	keysetID   = "secrets"
	keysetData = "eventhose keyset"
)

// openSealer opens the store's keyset with key, or makes one if there is none.
func openSealer(ctx context.Context, st Store, key []byte) (*sealer, error) {
	if len(key) != SecretKeySize {
		return nil, eventhose.Invalid("secret-key", "must be %d bytes", SecretKeySize)
	}
	wrapKey, err := hkdf.Key(sha256.New, key, nil, "eventhose: wrap the keyset", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the wrapping key: %w", err)
	}
	fingerprint, err := hkdf.Key(sha256.New, key, nil, "eventhose: fingerprint", 16)
	if err != nil {
		return nil, fmt.Errorf("derive the fingerprint: %w", err)
	}
	wrap, err := aesgcm.NewAESGCM(wrapKey)
	if err != nil {
		return nil, fmt.Errorf("prepare the wrapping key: %w", err)
	}
	r, err := st.Record(ctx, "", kindKeyset, keysetID)
	if errors.Is(err, store.ErrNotFound) {
		if err := createKeyset(ctx, st, wrap, fingerprint); err != nil && !errors.Is(err, store.ErrVersion) {
			return nil, err
		}
		r, err = st.Record(ctx, "", kindKeyset, keysetID)
	}
	if err != nil {
		return nil, failed("read the keyset", err)
	}
	var stored keysetRecord
	if err := decode(r, &stored); err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(stored.Fingerprint, fingerprint) != 1 {
		return nil, &eventhose.Error{Code: eventhose.CodeInvalid, Field: "secret-key",
			Message: "is not the key that the secrets in this store were encrypted with",
			Fix:     "give the key that this store was begun with; without it the stored secrets cannot be read"}
	}
	handle, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(stored.Keyset)), wrap, []byte(keysetData))
	if err != nil {
		return nil, fmt.Errorf("open the keyset: %w: %w", store.ErrCorrupt, err)
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("use the keyset: %w", err)
	}
	return &sealer{primitive}, nil
}

func createKeyset(ctx context.Context, st Store, wrap tink.AEAD, fingerprint []byte) error {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return fmt.Errorf("make a keyset: %w", err)
	}
	var sealed bytes.Buffer
	if err := handle.WriteWithAssociatedData(keyset.NewBinaryWriter(&sealed), wrap, []byte(keysetData)); err != nil {
		return fmt.Errorf("seal the keyset: %w", err)
	}
	change, err := put(store.Record{Kind: kindKeyset, ID: keysetID}, keysetRecord{fingerprint, sealed.Bytes()})
	if err != nil {
		return err
	}
	if err := st.Save(ctx, []store.RecordChange{change}, nil); err != nil {
		return failed("save the keyset", err)
	}
	return nil
}

// place is what a sealed value belongs to.
type place struct {
	tenant eventhose.TenantID
	// owner is a subscription or the id of an answer.
	owner string
	field string
}

// data tells every place from every other: tenants and owners hold no zero byte.
func (p place) data() []byte { return []byte(string(p.tenant) + "\x00" + p.owner + "\x00" + p.field) }

func (s *sealer) seal(plain []byte, p place) ([]byte, error) {
	sealed, err := s.aead.Encrypt(plain, p.data())
	if err != nil {
		return nil, fmt.Errorf("seal %s of %s: %w", p.field, p.owner, err)
	}
	return sealed, nil
}

func (s *sealer) open(sealed []byte, p place) ([]byte, error) {
	plain, err := s.aead.Decrypt(sealed, p.data())
	if err != nil {
		return nil, fmt.Errorf("open %s of %s: %w: %w", p.field, p.owner, store.ErrCorrupt, err)
	}
	return plain, nil
}

// newSecret makes a signing secret as Standard Webhooks writes it: for v1 "whsec_" and 32 random bytes; for v1a "whsk_"
// and an Ed25519 seed, with its public key. Both are in standard base64.
func newSecret(signature string) (secret eventhose.Secret, public string) {
	seed := make([]byte, 32)
	rand.Read(seed)
	text := base64.StdEncoding.EncodeToString(seed)
	if signature != "v1a" {
		return eventhose.Secret("whsec_" + text), ""
	}
	key := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	return eventhose.Secret("whsk_" + text), "whpk_" + base64.StdEncoding.EncodeToString(key)
}

// ParseSecretKey reads an operator's key: standard base64 of SecretKeySize bytes, with white space around it.
// CodeInvalid, field "secret-key"; the error does not repeat the text.
func ParseSecretKey(text string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(key) != SecretKeySize {
		return nil, eventhose.Invalid("secret-key", "must be base64 of %d bytes", SecretKeySize)
	}
	return key, nil
}

const keyFile = "secret.key"

// SecretKeyFile is where the operator's key is in a data directory, if it was made there.
func SecretKeyFile(dir string) string { return filepath.Join(dir, keyFile) }

// LoadOrCreateSecretKey reads the operator's key from the file secret.key in dir, or makes the file, readable by its
// owner alone and durable before it returns. CodeInvalid, field "secret-key", if others may read or write the file, or
// if it holds no key.
func LoadOrCreateSecretKey(dir string) ([]byte, error) {
	path := filepath.Join(dir, keyFile)
	key, err := loadSecretKey(path)
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	if err := createSecretKey(dir, path); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make the secret key %s: %w", path, err)
	}
	return loadSecretKey(path) // which may be another process's
}

// SecretKey is LoadOrCreateSecretKey for the directory of st, and makes no key if st has secrets already: they were
// encrypted with one that is missing, and a new key in its place would only hide that. CodeInvalid (field "secret-key").
func SecretKey(ctx context.Context, st Store, dir string) ([]byte, error) {
	path := filepath.Join(dir, keyFile)
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		switch _, err := st.Record(ctx, "", kindKeyset, keysetID); {
		case err == nil:
			return nil, &eventhose.Error{Code: eventhose.CodeInvalid, Field: "secret-key",
				Message: path + " is missing, and the secrets in this store were encrypted with the key in it",
				Fix:     "put the file back, or give its content with --secret-key; no backup holds it"}
		case !errors.Is(err, store.ErrNotFound):
			return nil, failed("read the keyset", err)
		}
	}
	return LoadOrCreateSecretKey(dir)
}

func loadSecretKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the secret key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the secret key: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, &eventhose.Error{Code: eventhose.CodeInvalid, Field: "secret-key", Message: "others than the owner have access to " + path,
			Fix: "chmod 600 " + path + ", and change the stored secrets if others may have read it"}
	}
	text, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return nil, fmt.Errorf("read the secret key: %w", err)
	}
	return ParseSecretKey(string(text))
}

// createSecretKey writes to a name of its own and links it, so that the file is never seen half written.
func createSecretKey(dir, path string) (err error) {
	key := make([]byte, SecretKeySize)
	rand.Read(key)
	f, err := os.CreateTemp(dir, keyFile+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
