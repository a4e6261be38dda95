package seal

import (
	"cmp"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"

	"choir.example/internal/canon"

	"filippo.io/age"
)

// rootWork is the work factor of a root key file's passphrase: 2^18 scrypt rounds, about a second for each guess.
const rootWork = 18

// WriteRootKey keeps a root in a file of mode 0600, encrypted by age under a passphrase. The file stays with the
// operator: who opens it can certify anybody. work is the binary logarithm of scrypt's rounds, from 1 to 18, so that tests
// need not spend a second on each key; 0 is 18, which everybody else wants.
func WriteRootKey(path string, root *Root, passphrase string, work int) error {
	to, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return fmt.Errorf("write root key %s: %w", path, err)
	}
	to.SetWorkFactor(cmp.Or(work, rootWork))
	var w canon.Writer
	w.Bytes(root.cert.Raw)
	w.Fixed(root.key.Seed())
	wrapped, err := wrap(w.Buf, to)
	if err != nil {
		return fmt.Errorf("write root key %s: %w", path, err)
	}
	return WriteFile(path, wrapped)
}

// ReadRootKey reads what WriteRootKey wrote. A wrong passphrase or a damaged file is ErrSealed.
func ReadRootKey(path, passphrase string) (*Root, error) {
	wrapped, err := ReadPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("read root key: %w", err)
	}
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, fmt.Errorf("read root key %s: %w", path, err)
	}
	id.SetMaxWorkFactor(rootWork)
	plain, err := unwrap(wrapped, id)
	if err != nil {
		return nil, fmt.Errorf("read root key %s: the passphrase is wrong or the file is damaged: %w", path, ErrSealed)
	}
	r := canon.NewReader(plain)
	der, seed := r.Bytes(), r.Fixed(ed25519.SeedSize)
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("read root key %s: %w", path, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read root key %s: %w", path, err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	if !key.Public().(ed25519.PublicKey).Equal(cert.PublicKey) {
		return nil, fmt.Errorf("read root key %s: its certificate is of another key", path)
	}
	return &Root{key, cert}, nil
}
