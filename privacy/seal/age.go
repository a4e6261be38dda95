package seal

import (
	"bytes"
	"errors"
	"fmt"

	"filippo.io/age"
)

// SealTo encrypts bytes to age recipients.
func SealTo(plain []byte, recipients []string) ([]byte, error) { return sealTo(recipients, plain) }

func sealTo(recipients []string, parts ...[]byte) ([]byte, error) {
	if len(recipients) == 0 {
		return nil, fmt.Errorf("seal: no recipients")
	}
	var to []age.Recipient
	size := 200 * (len(recipients) + 1)
	for _, text := range recipients {
		r, err := age.ParseX25519Recipient(text)
		if err != nil {
			return nil, fmt.Errorf("seal to %q: %w", text, err)
		}
		to = append(to, r)
	}
	for _, p := range parts {
		size += len(p) + len(p)/4096 + 64
	}
	out := bytes.NewBuffer(make([]byte, 0, size))
	w, err := age.Encrypt(out, to...)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return nil, fmt.Errorf("seal: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return out.Bytes(), nil
}

// maxHeader bounds the header of what OpenFrom reads, in bytes: more than a hundred X25519 recipients. Opening costs one
// X25519 operation a recipient, so a sealed file that is nearly all header would otherwise cost its reader seconds.
const maxHeader = 16 << 10

// OpenFrom decrypts what was sealed to an epoch key. Errors wrap ErrRecipient when it is sealed to others only, and
// ErrSealed when it is damaged.
func OpenFrom(sealed []byte, key *EpochKey) ([]byte, error) {
	if !bytes.Contains(sealed[:min(len(sealed), maxHeader)], []byte("\n--- ")) {
		return nil, fmt.Errorf("open: no age header in the first %d bytes: %w", maxHeader, ErrSealed)
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), key.id)
	if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		return nil, fmt.Errorf("open: %w", ErrRecipient)
	}
	if err != nil {
		return nil, fmt.Errorf("open: %w: %v", ErrSealed, err)
	}
	plain := bytes.NewBuffer(make([]byte, 0, len(sealed)+bytes.MinRead))
	if _, err := plain.ReadFrom(r); err != nil {
		return nil, fmt.Errorf("open: %w: %v", ErrSealed, err)
	}
	return plain.Bytes(), nil
}
