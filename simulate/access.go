package simulate

import (
	"crypto/x509"

	"choir.example/privacy/seal"
)

// Root is the certificate of the federation's root.
func (f *Federation) Root() *x509.Certificate { return f.root.Certificate() }

// Addresses are those of the founding coordinators.
func (f *Federation) Addresses() []string {
	var out []string
	for _, v := range f.voters {
		out = append(out, v.Address)
	}
	return out
}

// Credential makes a person's credential, certified by the root.
func (f *Federation) Credential(role seal.Role, name string) (*seal.Credential, error) {
	return f.certify(role, name)
}
