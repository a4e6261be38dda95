package seal

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"
	"golang.org/x/crypto/chacha20poly1305"
)

// ErrUnseal says that a data key is sealed in another way than the one it was to be opened in. Reseal changes it.
var ErrUnseal = errors.New("the data key is sealed in another way")

// ErrPassphrase says that a passphrase does not open a data key.
var ErrPassphrase = errors.New("the passphrase is wrong, or the file is damaged")

// ErrKeyLost says that a directory holds what was sealed under a data key that is not there any more.
var ErrKeyLost = errors.New("is missing")

// UnsealMode is what unwraps a directory's data key.
type UnsealMode string

// Modes. A file survives a power cut by itself and protects a discarded disk whose key lies elsewhere, not a stolen
// machine. A credential is an identity that something else keeps, such as systemd with a TPM. A passphrase must be there
// at each start.
const (
	UnsealFile       UnsealMode = "file"
	UnsealCredential UnsealMode = "systemd-credential"
	UnsealPassphrase UnsealMode = "passphrase"
)

// UnsealModes are all modes.
func UnsealModes() []UnsealMode { return []UnsealMode{UnsealFile, UnsealCredential, UnsealPassphrase} }

// Unseal opens data keys in one way.
type Unseal struct {
	Mode   UnsealMode
	Secret string // the text of an age identity, or a passphrase; empty for a file, which lies in the directory
	Work   int    // of a passphrase that is set: the binary logarithm of scrypt's rounds, for tests; 0: 17
}

// unsealWork is the work factor of a passphrase: 2^17 scrypt rounds, 128 MiB and less than a second at each start, which
// a small machine can spare. (It is what OWASP's cheat sheet on storing passwords asks for.)
const unsealWork = 17

// maxUnsealWork bounds what a file may ask of its reader: 1 GiB.
const maxUnsealWork = 20

// OpenKeys opens the data key of a directory, or makes one, in the mode UnsealFile.
func OpenKeys(dir string, rand io.Reader) (*Box, error) {
	return Unseal{Mode: UnsealFile}.Open(dir, rand)
}

// KeyLost is ErrKeyLost where the data key of the directory keys is missing although files are there that are sealed
// under it; they are patterns of fs.Glob in dir. Another key in its place would open none of them, and hide that they are
// lost.
func KeyLost(keys, dir string, files ...string) error {
	path := filepath.Join(keys, "data.key")
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil // whoever opens it says what is wrong with it
	}
	for _, pattern := range files {
		found, err := fs.Glob(os.DirFS(dir), pattern)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			return fmt.Errorf("open keys: %s %w, and without it nobody can read %s", path, ErrKeyLost, filepath.Join(dir, found[0]))
		}
	}
	return nil
}

// Open opens the data key of a directory, or makes one: data.key holds it, encrypted by age, and with UnsealFile
// unseal.key the identity that opens it; both have mode 0600.
func (u Unseal) Open(dir string, rand io.Reader) (*Box, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	path := filepath.Join(dir, "data.key")
	lock, err := u.lock(dir)
	if err != nil {
		return nil, err
	}
	wrapped, err := ReadPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newDataKey(path, lock.to, rand)
	}
	if err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	key, err := u.unwrap(dir, wrapped, lock.by)
	if err != nil {
		return nil, err
	}
	box, err := newBox(key, rand)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return box, nil
}

// ageLock is both halves of what closes and opens a data key.
type ageLock struct {
	to age.Recipient
	by age.Identity
}

// lock prepares the halves. With UnsealFile it makes the identity where no data key lies yet.
func (u Unseal) lock(dir string) (ageLock, error) {
	switch u.Mode {
	case UnsealFile:
		id, err := openUnseal(filepath.Join(dir, "unseal.key"), filepath.Join(dir, "data.key"))
		if err != nil {
			return ageLock{}, err
		}
		return ageLock{id.Recipient(), id}, nil
	case UnsealCredential:
		id, err := parseIdentity([]byte(u.Secret))
		if err != nil {
			return ageLock{}, fmt.Errorf("open keys: the credential holds no age identity: want one line that begins with AGE-SECRET-KEY-1")
		}
		return ageLock{id.Recipient(), id}, nil
	case UnsealPassphrase:
		return u.passphraseLock()
	}
	return ageLock{}, fmt.Errorf("open keys: mode %q, want one of %q", u.Mode, UnsealModes())
}

func (u Unseal) passphraseLock() (ageLock, error) {
	to, err := age.NewScryptRecipient(u.Secret)
	if err != nil {
		return ageLock{}, fmt.Errorf("open keys: %w", err)
	}
	to.SetWorkFactor(cmp.Or(u.Work, unsealWork))
	by, err := age.NewScryptIdentity(u.Secret)
	if err != nil {
		return ageLock{}, fmt.Errorf("open keys: %w", err)
	}
	by.SetMaxWorkFactor(maxUnsealWork)
	return ageLock{to, by}, nil
}

// unwrap opens a data key, and says what does not fit where it cannot.
func (u Unseal) unwrap(dir string, wrapped []byte, by age.Identity) ([]byte, error) {
	path, unseal := filepath.Join(dir, "data.key"), filepath.Join(dir, "unseal.key")
	if under := underPassphrase(wrapped); under != (u.Mode == UnsealPassphrase) {
		if under {
			return nil, fmt.Errorf("open %s: it is sealed under a passphrase, not by %s: %w", path, u.Mode, ErrUnseal)
		}
		if toIdentity(wrapped) {
			return nil, fmt.Errorf("open %s: it is sealed to an age identity, not under a passphrase: %w", path, ErrUnseal)
		}
	}
	key, err := unwrap(wrapped, by)
	if err == nil {
		return key, nil
	}
	_, stranger := errors.AsType[*age.NoIdentityMatchError](err)
	switch {
	case u.Mode == UnsealPassphrase && stranger:
		return nil, fmt.Errorf("open %s: %w", path, ErrPassphrase)
	case u.Mode == UnsealCredential && stranger:
		if _, err := os.Stat(unseal); err == nil {
			return nil, fmt.Errorf("open %s: it is sealed to %s, not to the credential: %w", path, unseal, ErrUnseal)
		}
		return nil, fmt.Errorf("open %s: %w: the credential does not unwrap it; give the identity that it was sealed to: %w", path, ErrSealed, err)
	case u.Mode == UnsealFile:
		return nil, fmt.Errorf("open %s: %w: %s does not unwrap it; put back the pair of files that were made together: %w", path, ErrSealed, unseal, err)
	}
	return nil, fmt.Errorf("open %s: %w: it is damaged: %w", path, ErrSealed, err)
}

// underPassphrase and toIdentity tell by the first line of age's header what opens a file.
func underPassphrase(wrapped []byte) bool {
	return bytes.HasPrefix(wrapped, []byte(ageIntro+"-> scrypt "))
}
func toIdentity(wrapped []byte) bool { return bytes.HasPrefix(wrapped, []byte(ageIntro+"-> X25519 ")) }

const ageIntro = "age-encryption.org/v1\n"

// UnsealedBy tells what opens the data key of a directory: a passphrase, a file beside it, or, where there is no such
// file, a credential. It is fs.ErrNotExist where there is no data key yet.
func UnsealedBy(dir string) (UnsealMode, error) {
	wrapped, err := ReadPrivate(filepath.Join(dir, "data.key"))
	if err != nil {
		return "", fmt.Errorf("open keys: %w", err)
	}
	if underPassphrase(wrapped) {
		return UnsealPassphrase, nil
	}
	if _, err := os.Stat(filepath.Join(dir, "unseal.key")); err == nil {
		return UnsealFile, nil
	}
	return UnsealCredential, nil
}

// Reseal wraps the data key of a directory in another way. The key itself stays the same, so a process that has it open
// goes on, and who copied the old files can still open the directory. The new data.key is there whole or not at all; the
// old one, and with it an unseal.key that opens nothing any more, is overwritten where it lay.
func Reseal(dir string, from, to Unseal) error {
	path, unseal := filepath.Join(dir, "data.key"), filepath.Join(dir, "unseal.key")
	wrapped, err := ReadPrivate(path)
	if err != nil {
		return fmt.Errorf("reseal: %w", err)
	}
	old, err := from.lock(dir)
	if err != nil {
		return err
	}
	key, err := from.unwrap(dir, wrapped, old.by)
	if err != nil {
		return err
	}
	next, err := to.fresh(unseal)
	if err != nil {
		return err
	}
	if wrapped, err = wrap(key, next.to); err != nil {
		return fmt.Errorf("reseal %s: %w", path, err)
	}
	if err := replaceFile(path, wrapped); err != nil {
		return err
	}
	if to.Mode == UnsealFile {
		return nil
	}
	return destroyFile(unseal)
}

// fresh is lock for a directory that has a data key sealed in another way: with UnsealFile an identity that is missing
// is made. One that is there is taken, as a Reseal that was interrupted has left it.
func (u Unseal) fresh(unseal string) (ageLock, error) {
	if u.Mode != UnsealFile {
		return u.lock(filepath.Dir(unseal))
	}
	id, err := readUnseal(unseal)
	if errors.Is(err, fs.ErrNotExist) {
		id, err = makeUnseal(unseal)
	}
	if err != nil {
		return ageLock{}, err
	}
	return ageLock{id.Recipient(), id}, nil
}

// openUnseal reads the identity, or makes one where no data key lies yet.
func openUnseal(path, data string) (*age.X25519Identity, error) {
	id, err := readUnseal(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	if wrapped, err := ReadPrivate(data); err == nil {
		if underPassphrase(wrapped) {
			return nil, fmt.Errorf("open %s: it is sealed under a passphrase, not by %s: %w", data, UnsealFile, ErrUnseal)
		}
		return nil, fmt.Errorf("open keys: %s is missing, and %s cannot be opened without it; put it back", path, data)
	}
	return makeUnseal(path)
}

func readUnseal(path string) (*age.X25519Identity, error) {
	text, err := ReadPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	id, err := parseIdentity(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: it holds no age identity; restore it from its copy: %w", path, err)
	}
	return id, nil
}

func makeUnseal(path string) (*age.X25519Identity, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	return id, WriteFile(path, []byte(id.String()+"\n"))
}

// parseIdentity reads an identity file with one identity, as age-keygen writes it.
func parseIdentity(text []byte) (*age.X25519Identity, error) {
	ids, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil || len(ids) != 1 { // the library's text may hold a line of the file, which is secret
		return nil, errors.New("want one age identity")
	}
	id, ok := ids[0].(*age.X25519Identity)
	if !ok {
		return nil, errors.New("want an X25519 identity")
	}
	return id, nil
}

func newDataKey(path string, to age.Recipient, rand io.Reader) (*Box, error) {
	key := make([]byte, chacha20poly1305.KeySize)
	if _, err := io.ReadFull(rand, key); err != nil {
		return nil, fmt.Errorf("make data key: %w", err)
	}
	wrapped, err := wrap(key, to)
	if err != nil {
		return nil, fmt.Errorf("wrap data key: %w", err)
	}
	if err := WriteFile(path, wrapped); err != nil {
		return nil, err
	}
	return newBox(key, rand)
}

// wrap encrypts a key, or another short secret, to one recipient.
func wrap(secret []byte, to age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(secret); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// unwrap decrypts what wrap made.
func unwrap(wrapped []byte, by age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(wrapped), by)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
