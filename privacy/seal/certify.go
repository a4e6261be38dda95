package seal

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"time"

	"choir.example/internal/canon"
)

// issuerExtension marks an issuing certificate: it may certify nodes and nothing else. It is critical, so software that
// does not know the constraint refuses the certificate. (2.25 is the arc under which nobody has to register.)
var issuerExtension = asn1.ObjectIdentifier{2, 25, 1737461, 9281, 1}

// Root is a federation's root key and its certificate.
type Root struct {
	key  ed25519.PrivateKey
	cert *x509.Certificate
}

// rootLife is how long a root is valid.
const rootLife = 20 * 365 * 24 * time.Hour

// skew is how much a certificate is dated back, for clocks that are late.
const skew = 5 * time.Minute

// NewRoot makes the root of a new federation.
func NewRoot(cluster string, now time.Time, rand io.Reader) (*Root, error) {
	if err := checkNames(cluster, RoleCoordinator, "root"); err != nil {
		return nil, fmt.Errorf("make root: %w", err)
	}
	key, err := NewKey(rand)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		Subject:   pkix.Name{CommonName: cluster},
		NotBefore: now.Add(-skew), NotAfter: now.Add(rootLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	cert, err := certify(t, t, key.Public().(ed25519.PublicKey), key)
	if err != nil {
		return nil, fmt.Errorf("make root of %s: %w", cluster, err)
	}
	return &Root{key, cert}, nil
}

// Certificate is the root's self-signed certificate; its subject is the cluster's name.
func (r *Root) Certificate() *x509.Certificate { return r.cert }

// Fingerprint is the root certificate's fingerprint.
func (r *Root) Fingerprint() string { return Fingerprint(r.cert.Raw) }

// Certify makes the certificate of a coordinator, operator, officer or auditor. The chain is leaf first, without the
// root. Nodes are certified by issuers.
func (r *Root) Certify(role Role, name string, key ed25519.PublicKey, now time.Time, life time.Duration) ([][]byte, error) {
	if role == RoleNode {
		return nil, fmt.Errorf("certify %s: the root does not certify nodes; a coordinator's issuer does: %w", name, ErrRole)
	}
	leaf, err := leafTemplate(r.cert.Subject.CommonName, role, name, now, life)
	if err != nil {
		return nil, err
	}
	cert, err := certify(leaf, r.cert, key, r.key)
	if err != nil {
		return nil, fmt.Errorf("certify %s %s: %w", role, name, err)
	}
	return [][]byte{cert.Raw}, nil
}

// CertifyIssuer makes the constrained issuing certificate of a coordinator, for a key of its own.
func (r *Root) CertifyIssuer(name string, key ed25519.PublicKey, now time.Time, life time.Duration) ([]byte, error) {
	value, err := asn1.Marshal(string(RoleNode))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		Subject:   pkix.Name{CommonName: name + " issuer"},
		NotBefore: now.Add(-skew), NotAfter: now.Add(life),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
		ExtraExtensions: []pkix.Extension{{Id: issuerExtension, Critical: true, Value: value}},
	}
	cert, err := certify(t, r.cert, key, r.key)
	if err != nil {
		return nil, fmt.Errorf("certify issuer of %s: %w", name, err)
	}
	return cert.Raw, nil
}

// Issuer is a coordinator's constrained issuing key.
type Issuer struct {
	Certificate []byte // DER, by CertifyIssuer
	Key         ed25519.PrivateKey
}

// CertifyNode makes a node's certificate: leaf, then the issuing certificate.
func (i *Issuer) CertifyNode(name string, key ed25519.PublicKey, now time.Time, life time.Duration) ([][]byte, error) {
	parent, err := x509.ParseCertificate(i.Certificate)
	if err != nil {
		return nil, fmt.Errorf("certify node %s: %w", name, err)
	}
	leaf, err := leafTemplate(parent.Issuer.CommonName, RoleNode, name, now, life)
	if err != nil {
		return nil, err
	}
	cert, err := certify(leaf, parent, key, i.Key)
	if err != nil {
		return nil, fmt.Errorf("certify node %s: %w", name, err)
	}
	return [][]byte{cert.Raw, i.Certificate}, nil
}

func leafTemplate(cluster string, role Role, name string, now time.Time, life time.Duration) (*x509.Certificate, error) {
	if err := checkNames(cluster, role, name); err != nil {
		return nil, fmt.Errorf("certify %s: %w", role, err)
	}
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-skew), NotAfter: now.Add(life),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:        []*url.URL{identityURI(cluster, role, name)},
	}, nil
}

// serial is a number that no two different certificates of an issuer share.
func serial(t *x509.Certificate, key ed25519.PublicKey) *big.Int {
	var w canon.Writer
	w.String(t.Subject.CommonName)
	for _, uri := range t.URIs {
		w.String(uri.String())
	}
	w.Bytes(key)
	w.Int(t.NotBefore.UnixNano())
	w.Int(t.NotAfter.UnixNano())
	sum := sha256.Sum256(w.Buf)
	sum[0] = sum[0]&0x3f | 0x40 // positive, and of one length
	return new(big.Int).SetBytes(sum[:16])
}

func certify(t, parent *x509.Certificate, key ed25519.PublicKey, by ed25519.PrivateKey) (*x509.Certificate, error) {
	if len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("public key of %d bytes", len(key))
	}
	t.SerialNumber = serial(t, key)
	der, err := x509.CreateCertificate(nil, t, parent, key, by) // Ed25519 signatures need no randomness
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
