package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A root's key is replaced by that of a new root which the old one certifies. The cross certificate is for the new root's
// key and names, in a critical extension, the new root's own certificate by its SHA-256: the two are one link, and a row
// of links leads from any root that somebody knows to the present one.

// successorExtension marks a cross certificate: its holder is the next root, and nothing else.
var successorExtension = asn1.ObjectIdentifier{2, 25, 1737461, 9281, 2}

// maxLinks bounds how many rotations a chain may span, so that a stranger's chain costs little to look at.
const maxLinks = 32

// CertifySuccessor makes the cross certificate for the root that comes after this one, of the same federation.
func (r *Root) CertifySuccessor(next *x509.Certificate, now time.Time) ([]byte, error) {
	key, ok := next.PublicKey.(ed25519.PublicKey)
	if own := r.cert.Subject.CommonName; !ok || next.Subject.CommonName != own {
		return nil, fmt.Errorf("certify the next root: it is of federation %q, not %q: %w", next.Subject.CommonName, own, ErrForeign)
	}
	names := sha256.Sum256(next.Raw)
	t := &x509.Certificate{
		Subject: next.Subject, NotBefore: now.Add(-skew), NotAfter: r.cert.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		ExtraExtensions: []pkix.Extension{{Id: successorExtension, Critical: true, Value: names[:]}},
	}
	cert, err := certify(t, r.cert, key, r.key)
	if err != nil {
		return nil, fmt.Errorf("certify the next root of %s: %w", r.cert.Subject.CommonName, err)
	}
	return cert.Raw, nil
}

// successor is the fingerprint of the root that a cross certificate names; ok is false for any other certificate.
func successor(cert *x509.Certificate) (fingerprint string, ok bool) {
	i := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(successorExtension) })
	if i < 0 || !cert.Extensions[i].Critical || len(cert.Extensions[i].Value) != sha256.Size ||
		!cert.IsCA || len(cert.URIs) > 0 || len(cert.UnhandledCriticalExtensions) != 1 {
		return "", false
	}
	return hex.EncodeToString(cert.Extensions[i].Value), true
}

// isRoot reports whether a certificate is a root's own: signed by itself, with no constraint.
func isRoot(cert *x509.Certificate) bool {
	_, ok := cert.PublicKey.(ed25519.PublicKey)
	return ok && cert.IsCA && len(cert.URIs) == 0 && len(cert.UnhandledCriticalExtensions) == 0 && cert.CheckSignatureFrom(cert) == nil
}

// ParseRoot reads a root's own certificate.
func ParseRoot(der []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: root: %v", ErrForeign, err)
	}
	if !isRoot(cert) {
		return nil, fmt.Errorf("%s is not a root that signed itself with an Ed25519 key: %w", cert.Subject.CommonName, ErrRole)
	}
	return cert, nil
}

// Lineage is the roots of a federation, oldest first, each certified by the one before it.
type Lineage struct {
	roots   []*x509.Certificate
	crosses []*x509.Certificate // crosses[i] is by roots[i] for roots[i+1]
}

// LineageFrom is the lineage of a federation of which one root is known.
func LineageFrom(root *x509.Certificate) Lineage { return Lineage{roots: []*x509.Certificate{root}} }

// Present is the newest root.
func (l Lineage) Present() *x509.Certificate { return l.roots[len(l.roots)-1] }

// Roots lists the roots, oldest first.
func (l Lineage) Roots() []*x509.Certificate { return slices.Clone(l.roots) }

// Len is how many roots there are.
func (l Lineage) Len() int { return len(l.roots) }

// Succeed is the lineage with one more root, which the present one must have certified by cross at the time now.
func (l Lineage) Succeed(cross, root []byte, now time.Time) (Lineage, error) {
	next, err := ParseRoot(root)
	if err != nil {
		return l, err
	}
	link, err := x509.ParseCertificate(cross)
	if err != nil {
		return l, fmt.Errorf("cross certificate: %w: %v", ErrForeign, err)
	}
	return l.succeed(link, next, now)
}

func (l Lineage) succeed(cross, next *x509.Certificate, now time.Time) (Lineage, error) {
	old := l.Present()
	if err := verifyCross(cross, old, now); err != nil {
		return l, err
	}
	names, _ := successor(cross)
	switch {
	case names != Fingerprint(next.Raw) || !next.PublicKey.(ed25519.PublicKey).Equal(cross.PublicKey):
		return l, fmt.Errorf("cross certificate is for another root than %.16s: %w", Fingerprint(next.Raw), ErrForeign)
	case next.Subject.CommonName != old.Subject.CommonName:
		return l, fmt.Errorf("the next root is of federation %q, not %q: %w", next.Subject.CommonName, old.Subject.CommonName, ErrForeign)
	case next.PublicKey.(ed25519.PublicKey).Equal(old.PublicKey):
		return l, fmt.Errorf("the next root has the key of the one before: %w", ErrRole)
	}
	if err := checkTime(next, now); err != nil {
		return l, fmt.Errorf("the next root: %w", err)
	}
	return Lineage{append(slices.Clone(l.roots), next), append(slices.Clone(l.crosses), cross)}, nil
}

// verifyCross checks that a certificate is a root's for its successor.
func verifyCross(cross, by *x509.Certificate, now time.Time) error {
	if err := verifyLink(cross, by, now); err != nil {
		return fmt.Errorf("cross certificate: %w", err)
	}
	if _, ok := successor(cross); !ok || cross.Subject.CommonName != by.Subject.CommonName {
		return fmt.Errorf("%s is not a cross certificate with its constraint: %w", cross.Subject.CommonName, ErrRole)
	}
	return nil
}

// Crosses are the cross certificates, newest first: what a chain ends with for those who know an earlier root only.
func (l Lineage) Crosses() (out [][]byte) {
	for _, c := range slices.Backward(l.crosses) {
		out = append(out, c.Raw)
	}
	return out
}

// Certificates are Crosses and then the roots, newest first: what teaches others the whole lineage.
func (l Lineage) Certificates() [][]byte {
	out := l.Crosses()
	for _, r := range slices.Backward(l.roots) {
		out = append(out, r.Raw)
	}
	return out
}

// Row lists the roots, oldest first, each but the last followed by its cross certificate: what Recall reads.
func (l Lineage) Row() (out [][]byte) {
	for i, r := range l.roots {
		out = append(out, r.Raw)
		if i < len(l.crosses) {
			out = append(out, l.crosses[i].Raw)
		}
	}
	return out
}

// Recall puts a lineage together again that was verified once: each root but the last is followed by its cross
// certificate. Signatures are checked again, times are not: a link may have ended that was good when it was made.
func Recall(certificates ...[]byte) (Lineage, error) {
	certs, err := parseAll(certificates)
	if err != nil || len(certs)%2 == 0 {
		return Lineage{}, fmt.Errorf("%d certificates are no lineage of roots: %w", len(certificates), errors.Join(ErrForeign, err))
	}
	l := LineageFrom(certs[0])
	for i := 1; i < len(certs); i += 2 {
		if l, err = l.succeed(certs[i], certs[i+1], certs[i].NotBefore.Add(skew)); err != nil {
			return Lineage{}, err
		}
	}
	return l, nil
}

// Learn follows the links that lie among the certificates, from the present root on. What is no link is passed over.
func (l Lineage) Learn(certs []*x509.Certificate, now time.Time) Lineage {
	for range min(len(certs), maxLinks) {
		next, ok := l.step(certs, now)
		if !ok {
			return l
		}
		l = next
	}
	return l
}

func (l Lineage) step(certs []*x509.Certificate, now time.Time) (Lineage, bool) {
	for _, cross := range certs {
		names, ok := successor(cross)
		if !ok {
			continue
		}
		for _, root := range certs {
			if Fingerprint(root.Raw) != names || !isRoot(root) || l.has(root) {
				continue
			}
			if next, err := l.succeed(cross, root, now); err == nil {
				return next, true
			}
		}
	}
	return l, false
}

func (l Lineage) has(root *x509.Certificate) bool {
	return slices.ContainsFunc(l.roots, func(r *x509.Certificate) bool { return bytes.Equal(r.Raw, root.Raw) })
}

// Find is the root of a fingerprint.
func (l Lineage) Find(fingerprint string) (*x509.Certificate, bool) {
	for _, r := range l.roots {
		if Fingerprint(r.Raw) == fingerprint {
			return r, true
		}
	}
	return nil, false
}

// VerifyChain is VerifyChain by whichever root of the lineage certified the chain; Identity.Root says which.
func (l Lineage) VerifyChain(chain [][]byte, now time.Time) (Identity, error) {
	certs, err := parseAll(chain)
	if err != nil {
		return Identity{}, err
	}
	return l.verify(certs, now)
}

func (l Lineage) verify(certs []*x509.Certificate, now time.Time) (id Identity, err error) {
	for i, root := range slices.Backward(l.roots) {
		got, why := verifyChain(certs, root, now)
		if why == nil {
			return got, nil
		}
		if i == len(l.roots)-1 || errors.Is(err, ErrForeign) {
			err = why // what says more than that the root is another one stays
		}
	}
	return id, err
}
