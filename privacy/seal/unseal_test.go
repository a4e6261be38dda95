package seal

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// ways to open a data key, with scrypt at a work factor that takes no time.
func ways(t *testing.T) map[string]Unseal {
	t.Helper()
	id, other := newUnsealIdentity(t), newUnsealIdentity(t)
	return map[string]Unseal{
		"file":               {Mode: UnsealFile},
		"credential":         {Mode: UnsealCredential, Secret: "# created: today\n# public key: " + id.Recipient().String() + "\n" + id.String() + "\n"},
		"another credential": {Mode: UnsealCredential, Secret: other.String()},
		"passphrase":         {Mode: UnsealPassphrase, Secret: "many voices", Work: 2},
		"another passphrase": {Mode: UnsealPassphrase, Secret: "one song", Work: 2},
	}
}

func newUnsealIdentity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Each way makes a key and opens it again; no other way does, each says what does not fit, and nothing is changed.
func TestUnseal(t *testing.T) {
	all := ways(t)
	for name, u := range all {
		dir := t.TempDir()
		box, err := u.Open(dir, rand.Reader)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sealed := box.Seal(nil, []byte("x"))
		if box, err = u.Open(dir, rand.Reader); err != nil {
			t.Fatalf("%s again: %v", name, err)
		}
		if got, err := box.Open(nil, sealed); err != nil || string(got) != "x" {
			t.Errorf("%s again: %q, %v", name, got, err)
		}
		if by, err := UnsealedBy(dir); err != nil || by != u.Mode {
			t.Errorf("%s: unsealed by %q, %v", name, by, err)
		}
		before := listing(t, dir)
		for wrong, v := range all {
			if wrong == name {
				continue
			}
			_, err := v.Open(dir, rand.Reader)
			if err == nil || !strings.Contains(err.Error(), "data.key") {
				t.Errorf("%s opens what %s made: %v", wrong, name, err)
			}
			want := ErrUnseal
			switch {
			case u.Mode == v.Mode && u.Mode == UnsealPassphrase:
				want = ErrPassphrase
			case u.Mode == v.Mode:
				want = ErrSealed
			case u.Mode == UnsealCredential && v.Mode == UnsealFile: // the two differ only in where the identity lies
				want = nil
			}
			if want != nil && !errors.Is(err, want) {
				t.Errorf("%s on what %s made: %v, want %v", wrong, name, err, want)
			}
			if v.Secret != "" && strings.Contains(err.Error(), v.Secret) {
				t.Errorf("%s: the error shows the secret: %v", wrong, err)
			}
		}
		if listing(t, dir) != before {
			t.Errorf("%s: a directory that did not open was changed", name)
		}
	}
	if _, err := UnsealedBy(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
}

// From each way to each other: the key stays the same, the old way does not open it any more, and unseal.key is there
// only where it is needed.
func TestReseal(t *testing.T) {
	for from, a := range ways(t) {
		for to, b := range ways(t) {
			t.Run(from+" to "+to, func(t *testing.T) {
				dir := t.TempDir()
				box, err := a.Open(dir, rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				sealed := box.Seal(nil, []byte("x"))
				if err := Reseal(dir, a, b); err != nil {
					t.Fatal(err)
				}
				if box, err = b.Open(dir, rand.Reader); err != nil {
					t.Fatal(err)
				}
				if got, err := box.Open(nil, sealed); err != nil || string(got) != "x" {
					t.Errorf("%q, %v", got, err)
				}
				if _, err := a.Open(dir, rand.Reader); err == nil && from != to {
					t.Error("the old way still opens it")
				}
				if _, err := os.Stat(filepath.Join(dir, "unseal.key")); (err == nil) != (b.Mode == UnsealFile) {
					t.Errorf("unseal.key: %v", err)
				}
			})
		}
	}
}

// A power cut before the new data.key is in place leaves the old way; one after it leaves an unseal.key that opens
// nothing. The same command completes both.
func TestResealGoesOnAfterACrash(t *testing.T) {
	all := ways(t)
	dir := t.TempDir()
	if _, err := all["passphrase"].Open(dir, rand.Reader); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "unseal.key"), newUnsealIdentity(t).String()) // it was made, data.key was not yet written
	if _, err := all["file"].Open(dir, rand.Reader); !errors.Is(err, ErrUnseal) {
		t.Errorf("half way: %v", err)
	}
	if err := Reseal(dir, all["passphrase"], all["file"]); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(filepath.Join(dir, "unseal.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Reseal(dir, all["file"], all["passphrase"]); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "unseal.key"), string(old)) // data.key was written, this was not yet removed
	if _, err := all["passphrase"].Open(dir, rand.Reader); err != nil {
		t.Errorf("half way: %v", err)
	}
	if err := Reseal(dir, all["passphrase"], all["passphrase"]); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "unseal.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unseal.key is still there: %v", err)
	}
}

// What is replaced is overwritten where it lay: a second name of the file shows it.
func TestResealOverwrites(t *testing.T) {
	all, dir := ways(t), t.TempDir()
	if _, err := all["file"].Open(dir, rand.Reader); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"data.key", "unseal.key"} {
		if err := os.Link(filepath.Join(dir, name), filepath.Join(dir, "old-"+name)); err != nil {
			t.Skip(err)
		}
	}
	if err := Reseal(dir, all["file"], all["credential"]); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"old-data.key", "old-unseal.key"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || strings.Trim(string(b), "\x00") != "" {
			t.Errorf("%s still says %q, %v", name, b, err)
		}
	}
}

func TestResealRefuses(t *testing.T) {
	all := ways(t)
	for name, c := range map[string]struct {
		from, to Unseal
		want     error
	}{
		"wrong old passphrase": {all["another passphrase"], all["file"], ErrPassphrase},
		"another old way":      {all["credential"], all["file"], ErrUnseal},
		"no new passphrase":    {all["passphrase"], Unseal{Mode: UnsealPassphrase}, nil},
		"no new identity":      {all["passphrase"], Unseal{Mode: UnsealCredential, Secret: "nonsense"}, nil},
		"no such mode":         {all["passphrase"], Unseal{Mode: "tpm"}, nil},
	} {
		dir := t.TempDir()
		if _, err := all["passphrase"].Open(dir, rand.Reader); err != nil {
			t.Fatal(err)
		}
		before := listing(t, dir)
		if err := Reseal(dir, c.from, c.to); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if listing(t, dir) != before {
			t.Errorf("%s: the directory was changed", name)
		}
	}
	if err := Reseal(t.TempDir(), all["file"], all["passphrase"]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory without keys: %v", err)
	}
}
