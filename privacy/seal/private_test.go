package seal

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A key that others on the machine can read protects nothing, and is refused until somebody has looked at it.
func TestExposedKeysAreRefused(t *testing.T) {
	dir := t.TempDir()
	box := openKeys(t, dir)
	f := newFederation(t, "shop", noon)
	rootKey := filepath.Join(dir, "root.key")
	if err := WriteRootKey(rootKey, f.root, "many voices", 2); err != nil {
		t.Fatal(err)
	}
	if err := f.creds[RoleOperator].Save(dir, box); err != nil {
		t.Fatal(err)
	}
	keys := func() error { _, err := OpenKeys(dir, rand.Reader); return err }
	for _, c := range []struct {
		file string
		open func() error
	}{
		{"unseal.key", keys},
		{"data.key", keys},
		{"data.key", func() error { _, err := UnsealedBy(dir); return err }},
		{"data.key", func() error { return Reseal(dir, Unseal{Mode: UnsealFile}, Unseal{Mode: UnsealFile}) }},
		{"root.key", func() error { _, err := ReadRootKey(rootKey, "many voices"); return err }},
		{"credential", func() error { _, err := LoadCredential(dir, box); return err }},
	} {
		path := filepath.Join(dir, c.file)
		for mode, want := range map[os.FileMode]string{0o644: "(mode 0644)", 0o640: "(mode 0640)", 0o602: "(mode 0602)"} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			err := c.open()
			var exposed *ExposedError
			if !errors.As(err, &exposed) || !strings.Contains(err.Error(), path+" may be read by others "+want) || exposed.Cure() != "chmod 600 "+path {
				t.Errorf("%s with mode %04o: %v", c.file, mode, err)
			}
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.open(); err != nil {
			t.Errorf("%s with mode 0600 again: %v", c.file, err)
		}
	}
}
