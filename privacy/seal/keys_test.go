package seal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

func openKeys(t *testing.T, dir string) *Box {
	t.Helper()
	box, err := OpenKeys(dir, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func TestOpenKeysKeepsTheKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "keys")
	sealed := openKeys(t, dir).Seal(nil, []byte("x"))
	if got, err := openKeys(t, dir).Open(nil, sealed); err != nil || string(got) != "x" {
		t.Errorf("after a restart: %q, %v", got, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %s", e.Name(), info.Mode())
		}
	}
	if len(entries) != 2 {
		t.Errorf("%d files, want data.key and unseal.key", len(entries))
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	if _, err := openKeys(t, t.TempDir()).Open(nil, sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("another directory's key opened it: %v", err)
	}
}

// A power cut between the two files leaves an identity that nothing is sealed for yet: the next start goes on.
func TestOpenKeysGoesOnAfterACrash(t *testing.T) {
	dir := t.TempDir()
	openKeys(t, dir)
	unseal, err := os.ReadFile(filepath.Join(dir, "unseal.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "data.key")); err != nil {
		t.Fatal(err)
	}
	openKeys(t, dir)
	if again, err := os.ReadFile(filepath.Join(dir, "unseal.key")); err != nil || !bytes.Equal(again, unseal) {
		t.Errorf("unseal.key changed: %v", err)
	}
}

func TestOpenKeysNamesFileAndCure(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		words []string
	}{
		"another unseal.key": {func(t *testing.T, dir string) {
			id, err := age.GenerateX25519Identity()
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "unseal.key"), id.String())
		}, []string{"data.key", "unseal.key", "put back"}},
		"no unseal.key": {func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "unseal.key")); err != nil {
				t.Fatal(err)
			}
		}, []string{"unseal.key is missing", "data.key", "put it back"}},
		"unseal.key damaged": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "unseal.key"), "AGE-SECRET-KEY-1QQQ")
		}, []string{"unseal.key", "restore"}},
		"data.key empty": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "data.key"), "")
		}, []string{"data.key", "put back"}},
		"data.key of another length": {func(t *testing.T, dir string) {
			id, err := openUnseal(filepath.Join(dir, "unseal.key"), "")
			if err != nil {
				t.Fatal(err)
			}
			wrapped, err := wrap([]byte("short"), id.Recipient())
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "data.key"), string(wrapped))
		}, []string{"data.key"}},
	} {
		dir := t.TempDir()
		openKeys(t, dir)
		c.spoil(t, dir)
		before := listing(t, dir)
		_, err := OpenKeys(dir, rand.Reader)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, word := range c.words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: error %q does not say %q", name, err, word)
			}
		}
		if strings.Contains(err.Error(), "AGE-SECRET-KEY-1QQQ") {
			t.Errorf("%s: error %q shows a key", name, err)
		}
		if listing(t, dir) != before {
			t.Errorf("%s: a refused directory was changed", name)
		}
	}
}

func TestEveryBitOfDataKeyMatters(t *testing.T) {
	dir := t.TempDir()
	openKeys(t, dir)
	path := filepath.Join(dir, "data.key")
	wrapped, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	id, err := openUnseal(filepath.Join(dir, "unseal.key"), path)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(wrapped) * 8 {
		bad := bytes.Clone(wrapped)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := unwrap(bad, id); err == nil {
			t.Fatalf("bit %d flipped: the key still opens", bit)
		}
	}
}

func TestOpenKeysWhereNothingCanBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "x")
	if _, err := OpenKeys(filepath.Join(file, "keys"), rand.Reader); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("below a file: %v", err)
	}
	if err := WriteFile(filepath.Join(file, "x"), nil); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("WriteFile below a file: %v", err)
	}
}

func TestWriteFileReplacesWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write(t, path, "a longer old content")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if got := listing(t, dir); got != "f=new\n" {
		t.Errorf("directory holds %q", got)
	}
	// A rename that cannot be leaves nothing behind.
	if err := os.MkdirAll(filepath.Join(dir, "d", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "d"), []byte("x")); err == nil {
		t.Error("a directory was replaced")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%d entries left, %v", len(entries), err)
	}
}

func write(t *testing.T, path, body string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
}

// listing is the names and contents of a directory's files.
func listing(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, e := range entries {
		body, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString(e.Name() + "=" + string(body) + "\n")
	}
	return out.String()
}

// A data key that is gone is missed wherever something is sealed under it, and nowhere else.
func TestKeyLost(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	lost := func() error { return KeyLost(keys, dir, "identity", "spool/*") }
	if err := lost(); err != nil {
		t.Errorf("an empty directory: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "config.yaml"), "name: n1")
	if err := lost(); err != nil {
		t.Errorf("nothing sealed: %v", err)
	}
	openKeys(t, keys)
	for _, file := range []string{"identity", "spool/a"} {
		path := filepath.Join(dir, file)
		write(t, path, "sealed")
		if err := lost(); err != nil {
			t.Errorf("%s beside its key: %v", file, err)
		}
		if err := os.Rename(filepath.Join(keys, "data.key"), filepath.Join(dir, "hidden")); err != nil {
			t.Fatal(err)
		}
		if err := lost(); !errors.Is(err, ErrKeyLost) || !strings.Contains(err.Error(), filepath.Join(keys, "data.key")) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s without its key: %v", file, err)
		}
		if err := os.Rename(filepath.Join(dir, "hidden"), filepath.Join(keys, "data.key")); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
