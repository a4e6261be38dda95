package seal

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestRootKeyFile(t *testing.T) {
	f := newFederation(t, "shop", noon)
	path := filepath.Join(t.TempDir(), "root.key")
	const cheap = 4 // the real work factor takes a second
	if err := WriteRootKey(path, f.root, "correct horse", cheap); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	root, err := ReadRootKey(path, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if root.Fingerprint() != f.root.Fingerprint() {
		t.Error("another root was read")
	}
	key := newKey(t)
	chain, err := root.Certify(RoleAuditor, "eve", public(key), noon, day)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyChain(chain, f.cert(), noon); err != nil {
		t.Errorf("what the read root certified: %v", err)
	}
	if _, err := ReadRootKey(path, "wrong"); !errors.Is(err, ErrSealed) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := ReadRootKey(path, ""); err == nil {
		t.Error("empty passphrase: read")
	}
	if _, err := ReadRootKey(path+"x", "wrong"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := WriteRootKey(path, f.root, "", cheap); err == nil {
		t.Error("written without a passphrase")
	}
	if err := WriteRootKey(path, &Root{newKey(t), f.cert()}, "p", cheap); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRootKey(path, "p"); err == nil {
		t.Error("a root whose key is not its certificate's was read")
	}
}

func TestRootKeyFileAtFullStrength(t *testing.T) {
	if testing.Short() {
		t.Skip("two seconds of scrypt")
	}
	f := newFederation(t, "shop", noon)
	path := filepath.Join(t.TempDir(), "root.key")
	if err := WriteRootKey(path, f.root, "correct horse", 0); err != nil {
		t.Fatal(err)
	}
	if root, err := ReadRootKey(path, "correct horse"); err != nil || root.Fingerprint() != f.root.Fingerprint() {
		t.Errorf("read: %v", err)
	}
}
