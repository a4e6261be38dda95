package seal

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"
)

// VerifyChain checks a chain, leaf first, and returns who it speaks for. People and coordinators stand directly under a
// root; nodes under an issuer, which may certify nothing else and never speaks for itself. Behind them may come cross
// certificates, for those who know a root from before. Each certificate that is needed, and the root, must be valid at the time now. The standard library's
// verifier knows neither roles nor our constraints, so the few rules are spelled out here. Errors wrap ErrForeign,
// ErrExpired or ErrRole.
func VerifyChain(chain [][]byte, root *x509.Certificate, now time.Time) (Identity, error) {
	certs, err := parseAll(chain)
	if err != nil {
		return Identity{}, err
	}
	return verifyChain(certs, root, now)
}

func parseAll(chain [][]byte) ([]*x509.Certificate, error) {
	certs := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		var err error
		if certs[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("%w: %v", ErrForeign, err)
		}
	}
	return certs, nil
}

func verifyChain(certs []*x509.Certificate, root *x509.Certificate, now time.Time) (Identity, error) {
	holder, crosses, err := parts(certs)
	if err != nil {
		return Identity{}, err
	}
	if err := checkTime(root, now); err != nil {
		return Identity{}, fmt.Errorf("root: %w", err)
	}
	by := authority(holder[len(holder)-1], crosses, root, now)
	parent := by
	if len(holder) == 2 {
		parent = holder[1]
		if err := verifyIssuer(parent, by, now); err != nil {
			return Identity{}, err
		}
	}
	if err := verifyLink(holder[0], parent, now); err != nil {
		return Identity{}, err
	}
	if len(holder[0].UnhandledCriticalExtensions) > 0 {
		return Identity{}, fmt.Errorf("critical extension that no identity has: %w", ErrRole)
	}
	id, err := identity(holder[0], root.Subject.CommonName)
	if err != nil {
		return Identity{}, err
	}
	if (id.Role == RoleNode) != (len(holder) == 2) {
		return Identity{}, fmt.Errorf("%s %s is not certified by who may do that: %w", id.Role, id.Name, ErrRole)
	}
	if id.Root = Fingerprint(root.Raw); by != root {
		id.Root, _ = successor(by)
	}
	return id, nil
}

// parts takes a chain apart: the holder's certificate, with the issuing one if there is one, and the cross certificates.
func parts(certs []*x509.Certificate) (holder, crosses []*x509.Certificate, err error) {
	for i, c := range certs {
		_, cross := successor(c)
		switch {
		case i > 0 && cross:
			crosses = append(crosses, c)
		case len(holder) == i:
			holder = append(holder, c)
		default:
			return nil, nil, fmt.Errorf("chain of %d certificates, of which number %d is out of place: %w", len(certs), i+1, ErrForeign)
		}
	}
	if len(holder) < 1 || len(holder) > 2 || len(crosses) > maxLinks {
		return nil, nil, fmt.Errorf("chain of %d certificates: %w", len(certs), ErrForeign)
	}
	return holder, crosses, nil
}

// authority is who certified a certificate: the root known, or one that came after it by the cross certificates. Where
// it is none of them it is the root, for the caller to see that it does not fit.
func authority(cert *x509.Certificate, crosses []*x509.Certificate, root *x509.Certificate, now time.Time) *x509.Certificate {
	at := root
	for range len(crosses) + 1 {
		if cert.CheckSignatureFrom(at) == nil {
			return at
		}
		i := slices.IndexFunc(crosses, func(c *x509.Certificate) bool { return c != at && verifyCross(c, at, now) == nil })
		if i < 0 {
			break
		}
		at = crosses[i]
	}
	return root
}

// VerifyIssuer checks a coordinator's issuing certificate, valid at the time now, and returns the key that it certifies.
// Errors wrap ErrForeign, ErrExpired or ErrRole.
func VerifyIssuer(der []byte, root *x509.Certificate, now time.Time) (ed25519.PublicKey, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrForeign, err)
	}
	if err := verifyIssuer(cert, root, now); err != nil {
		return nil, err
	}
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%s has no Ed25519 key: %w", cert.Subject.CommonName, ErrRole)
	}
	return key, nil
}

// verifyIssuer checks that a certificate is a node issuer of the root.
func verifyIssuer(cert, root *x509.Certificate, now time.Time) error {
	if err := verifyLink(cert, root, now); err != nil {
		return err
	}
	constrained := slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool {
		var role string
		rest, err := asn1.Unmarshal(e.Value, &role)
		return e.Id.Equal(issuerExtension) && e.Critical && err == nil && len(rest) == 0 && role == string(RoleNode)
	})
	if !constrained || !cert.IsCA || len(cert.UnhandledCriticalExtensions) != 1 {
		return fmt.Errorf("%s is not an issuer with its constraint: %w", cert.Subject.CommonName, ErrRole)
	}
	return nil
}

// verifyLink checks one certificate against its parent and the time.
func verifyLink(cert, parent *x509.Certificate, now time.Time) error {
	if err := cert.CheckSignatureFrom(parent); err != nil {
		return fmt.Errorf("%w: %v", ErrForeign, err)
	}
	return checkTime(cert, now)
}

func checkTime(cert *x509.Certificate, now time.Time) error {
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return fmt.Errorf("%s, valid from %s to %s: %w", cert.Subject.CommonName,
			cert.NotBefore.Format(time.DateTime), cert.NotAfter.Format(time.DateTime), ErrExpired)
	}
	return nil
}
