package seal

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"fmt"

	"choir.example/internal/canon"
)

// An officer's certificate is not enough: the officer's key itself is known to the federation, from its genesis or by a
// statement of the root, so that nobody who gets at the root key later speaks as an officer without leaving a record.

const domainOfficer = "choir/officer/v1"

// KeyFingerprint is SHA-256 of a public key.
func KeyFingerprint(key ed25519.PublicKey) [32]byte { return sha256.Sum256(key) }

func admission(cluster string, key, replaces [32]byte, name string) []byte {
	var w canon.Writer
	w.String(cluster)
	w.Fixed(key[:])
	w.Fixed(replaces[:])
	w.String(name)
	return w.Buf
}

// AdmitOfficer signs that an officer's key counts, and that of replaces, if it is not zero, no more.
func (r *Root) AdmitOfficer(key, replaces [32]byte, name string) []byte {
	return Sign(r.key, domainOfficer, admission(r.cert.Subject.CommonName, key, replaces, name))
}

// VerifyOfficer checks what AdmitOfficer signed.
func VerifyOfficer(root *x509.Certificate, key, replaces [32]byte, name string, signature []byte) error {
	by, ok := root.PublicKey.(ed25519.PublicKey)
	if err := checkNames(root.Subject.CommonName, RoleOfficer, name); err != nil {
		return err
	}
	if !ok || !Verify(by, domainOfficer, admission(root.Subject.CommonName, key, replaces, name), signature) {
		return fmt.Errorf("admission of officer %s by the root: %w", name, ErrSignature)
	}
	return nil
}
