package seal

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"

	"choir.example/internal/canon"
)

// Credential is a certificate chain, leaf first and without the root, with its private key.
type Credential struct {
	Chain [][]byte
	Key   ed25519.PrivateKey
}

func (c *Credential) tls(extra ...[]byte) tls.Certificate {
	return tls.Certificate{Certificate: append(append([][]byte(nil), c.Chain...), extra...), PrivateKey: c.Key}
}

// check refuses a credential whose key and certificate do not belong together.
func (c *Credential) check() error {
	if len(c.Key) != ed25519.PrivateKeySize || len(c.Chain) == 0 {
		return errors.New("credential without key or certificate")
	}
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		return err
	}
	if !c.Key.Public().(ed25519.PublicKey).Equal(leaf.PublicKey) {
		return errors.New("the certificate is of another key")
	}
	return nil
}

// credentialFile is the name of a credential's file and the place it is sealed for.
const credentialFile = "credential"

// Save keeps the credential in a directory, sealed, in a file of mode 0600.
func (c *Credential) Save(dir string, box *Box) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("save credential: %w", err)
	}
	var w canon.Writer
	w.Uint(uint64(len(c.Chain)))
	for _, der := range c.Chain {
		w.Bytes(der)
	}
	w.Fixed(c.Key.Seed())
	return WriteFile(filepath.Join(dir, credentialFile), box.Sub(credentialFile).Seal([]byte(credentialFile), w.Buf))
}

// LoadCredential reads what Save wrote. Where none was saved yet the error is os.ErrNotExist. Its dates are not looked
// at: VerifyChain does that.
func LoadCredential(dir string, box *Box) (*Credential, error) {
	path := filepath.Join(dir, credentialFile)
	sealed, err := ReadPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("load credential: %w", err)
	}
	plain, err := box.Sub(credentialFile).Open([]byte(credentialFile), sealed)
	if err != nil {
		return nil, fmt.Errorf("load credential %s: %w", path, err)
	}
	c := &Credential{}
	r := canon.NewReader(plain)
	for n := r.Len(1); len(c.Chain) < n && r.Err() == nil; {
		c.Chain = append(c.Chain, r.Bytes())
	}
	seed := r.Fixed(ed25519.SeedSize)
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("load credential %s: %w", path, err)
	}
	c.Key = ed25519.NewKeyFromSeed(seed)
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("load credential %s: %w", path, err)
	}
	return c, nil
}
