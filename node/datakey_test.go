package node

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"choir.example/privacy/seal"
)

// A node whose data key is gone makes no other beside what the lost one sealed; an empty directory gets one.
func TestLostDataKeyIsNotMadeAnew(t *testing.T) {
	for _, file := range []string{"identity", "store.db", "store.keys", "roots", "officers", "roster", "spool/aa.1.1"} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "spool"), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "http.token"), []byte("clear"))
		path := filepath.Join(dir, file)
		write(t, path, []byte("sealed"))
		deps := Deps{Rand: rand.Reader}
		_, err := deps.dataKey(dir)
		wantError(t, err, filepath.Join(dir, "keys", "data.key")+" is missing", path, "put back", "an empty directory", "a new token")
		if !errors.Is(err, seal.ErrKeyLost) {
			t.Errorf("%s: %v", file, err)
		}
		if _, err := OpenStore(dir, rand.Reader); !errors.Is(err, seal.ErrKeyLost) {
			t.Errorf("%s: the store opens: %v", file, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "keys")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: keys were made: %v", file, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := deps.dataKey(dir); err != nil {
			t.Errorf("without %s: %v", file, err)
		}
	}
}
