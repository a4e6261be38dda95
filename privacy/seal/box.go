package seal

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

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
	return b.AppendSeal(make([]byte, 0, len(plain)+Overhead), aad, plain)
}

// AppendSeal is Seal appended to dst, for data sealed in parts. dst must not overlap plain.
func (b *Box) AppendSeal(dst, aad, plain []byte) []byte {
	dst = slices.Grow(dst, len(plain)+Overhead)
	nonce := dst[len(dst) : len(dst)+chacha20poly1305.NonceSizeX]
	if _, err := io.ReadFull(b.rand, nonce); err != nil {
		panic(fmt.Sprintf("seal: no randomness: %v", err)) // the operating system's source does not fail
	}
	return b.aead.Seal(dst[:len(dst)+len(nonce)], nonce, plain, aad)
}

// Open returns the plaintext, or ErrSealed.
func (b *Box) Open(aad, sealed []byte) ([]byte, error) { return b.AppendOpen(nil, aad, sealed) }

// AppendOpen is Open appended to dst, which must not overlap sealed. On error it returns nil.
func (b *Box) AppendOpen(dst, aad, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, ErrSealed
	}
	nonce := sealed[:chacha20poly1305.NonceSizeX]
	plain, err := b.aead.Open(dst, nonce, sealed[len(nonce):], aad)
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}
