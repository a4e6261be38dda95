package seal

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"filippo.io/age"
	"golang.org/x/crypto/chacha20poly1305"
)

// ErrSealed is returned when sealed data does not open: it was changed, moved, or sealed under another key.
var ErrSealed = errors.New("sealed data does not verify")

// Box seals data at rest under one data key: XChaCha20-Poly1305 with a random nonce. It is safe for concurrent use.
type Box struct {
	key  []byte
	aead cipher.AEAD
	rand io.Reader
}

// Overhead is how much longer sealed data is.
const Overhead = chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead

func newBox(key []byte, rand io.Reader) (*Box, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("make box: %w", err)
	}
	return &Box{key, aead, rand}, nil
}

// Sub derives a box for one purpose: what it seals opens in no other.
func (b *Box) Sub(purpose string) *Box {
	key, err := hkdf.Key(sha256.New, b.key, nil, "choir/box/v1/"+purpose, chacha20poly1305.KeySize)
	if err != nil {
		panic(err) // the length is a constant that HKDF allows
	}
	sub, err := newBox(key, b.rand)
	if err != nil {
		panic(err) // the key has the right length
	}
	return sub
}

// Seal returns nonce and ciphertext. aad names the place: the same must be given to Open.
func (b *Box) Seal(aad, plain []byte) []byte {
	out := make([]byte, chacha20poly1305.NonceSizeX, len(plain)+Overhead)
	if _, err := io.ReadFull(b.rand, out); err != nil {
		panic(fmt.Sprintf("seal: no randomness: %v", err)) // the operating system's source does not fail
	}
	return b.aead.Seal(out, out, plain, aad)
}

// Open returns the plaintext, or ErrSealed.
func (b *Box) Open(aad, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, ErrSealed
	}
	nonce := sealed[:chacha20poly1305.NonceSizeX]
	plain, err := b.aead.Open(nil, nonce, sealed[len(nonce):], aad)
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

// OpenKeys opens the data key of a directory, or makes one: data.key holds it, encrypted by age for the identity in
// unseal.key, both with mode 0600. This protects a discarded disk whose unseal.key lies elsewhere, not a stolen machine.
func OpenKeys(dir string, rand io.Reader) (*Box, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	id, err := openUnseal(filepath.Join(dir, "unseal.key"), filepath.Join(dir, "data.key"))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "data.key")
	wrapped, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return newDataKey(path, id, rand)
	}
	if err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	r, err := age.Decrypt(bytes.NewReader(wrapped), id)
	if err != nil {
		return nil, fmt.Errorf("open %s: the identity in unseal.key does not unwrap it; restore the unseal.key it was made with: %w", path, err)
	}
	key, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return newBox(key, rand)
}

// openUnseal reads the identity, or makes one where no data key lies yet.
func openUnseal(path, data string) (*age.X25519Identity, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		id, err := age.ParseX25519Identity(string(bytes.TrimSpace(text)))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
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
	var out bytes.Buffer
	w, err := age.Encrypt(&out, id.Recipient())
	if err != nil {
		return nil, fmt.Errorf("wrap data key: %w", err)
	}
	if _, err := w.Write(key); err != nil {
		return nil, fmt.Errorf("wrap data key: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("wrap data key: %w", err)
	}
	if err := WriteFile(path, out.Bytes()); err != nil {
		return nil, err
	}
	return newBox(key, rand)
}

// WriteFile writes a file of mode 0600 so that it is there whole or not at all, also after a power cut: a temporary
// name, sync, rename, sync of the directory.
func WriteFile(path string, body []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // nothing to remove once it is renamed
	_, err = f.Write(body)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
