package control

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
)

// A key file that was lost is not replaced: a new key would open nothing, and hide what happened.
func TestMissingSecretKeyIsNotReplaced(t *testing.T) {
	h := &house{t: t, fs: vfs.NewMem()}
	h.openStore()
	defer h.close()
	dir, st := t.TempDir(), h.store
	key, err := SecretKey(t.Context(), st, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openSealer(t.Context(), st, key); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, keyFile)
	if err := os.Rename(path, path+".lost"); err != nil {
		t.Fatal(err)
	}
	_, err = SecretKey(t.Context(), st, dir)
	if eventhose.CodeOf(err) != eventhose.CodeInvalid || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("without its file: %v", err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("a key was made: %v", err)
	}
	if err := os.Rename(path+".lost", path); err != nil {
		t.Fatal(err)
	}
	if again, err := SecretKey(t.Context(), st, dir); err != nil || string(again) != string(key) {
		t.Errorf("with its file back: %v", err)
	}
}
