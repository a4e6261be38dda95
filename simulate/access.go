package simulate

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// Root is the certificate of the federation's root.
func (f *Federation) Root() *x509.Certificate { return f.root }

// Addresses are those of the founding coordinators.
func (f *Federation) Addresses() []string {
	var out []string
	for _, v := range f.voters {
		out = append(out, v.Address)
	}
	return out
}

// Credential makes a person's credential, certified by the root. An officer's key is admitted as well.
func (f *Federation) Credential(role seal.Role, name string) (*seal.Credential, error) {
	c, err := f.certify(role, name)
	if err != nil || role != seal.RoleOfficer {
		return c, err
	}
	key := seal.KeyFingerprint(c.Key.Public().(ed25519.PublicKey))
	ctx, cancel := context.WithTimeout(context.Background(), admitTimeout)
	defer cancel()
	_, err = f.Operator().AdmitOfficer(ctx, &choirv1.AdmitOfficerRequest{
		Key: key[:], Name: name, Signature: f.authority.AdmitOfficer(key, [32]byte{}, name),
	})
	return c, err
}

// admitTimeout is how long the coordinators may take to admit an officer.
const admitTimeout = 20 * time.Second
