package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"filippo.io/age"
	"golang.org/x/crypto/chacha20poly1305"
)

// OpenKeys opens the data key of a directory, or makes one: data.key holds it, encrypted by age for the identity in
// unseal.key, both with mode 0600. This protects a discarded disk whose unseal.key lies elsewhere, not a stolen machine.
func OpenKeys(dir string, rand io.Reader) (*Box, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	unseal, path := filepath.Join(dir, "unseal.key"), filepath.Join(dir, "data.key")
	id, err := openUnseal(unseal, path)
	if err != nil {
		return nil, err
	}
	wrapped, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return newDataKey(path, id, rand)
	}
	if err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	key, err := unwrap(wrapped, id)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w: %s does not unwrap it; put back the pair of files that were made together: %w",
			path, ErrSealed, unseal, err)
	}
	box, err := newBox(key, rand)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return box, nil
}

// openUnseal reads the identity, or makes one where no data key lies yet.
func openUnseal(path, data string) (*age.X25519Identity, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		id, err := age.ParseX25519Identity(string(bytes.TrimSpace(text)))
		if err != nil {
			return nil, fmt.Errorf("read %s: it holds no age identity; restore it from its copy: %w", path, err)
		}
		return id, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	if _, err := os.Stat(data); err == nil {
		return nil, fmt.Errorf("open keys: %s is missing, and %s cannot be opened without it; put it back", path, data)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	return id, WriteFile(path, []byte(id.String()+"\n"))
}

func newDataKey(path string, id *age.X25519Identity, rand io.Reader) (*Box, error) {
	key := make([]byte, chacha20poly1305.KeySize)
	if _, err := io.ReadFull(rand, key); err != nil {
		return nil, fmt.Errorf("make data key: %w", err)
	}
	wrapped, err := wrap(key, id.Recipient())
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
