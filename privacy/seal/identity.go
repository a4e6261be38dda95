// Package seal says who speaks and who may read: identities and certificates, enrolment tokens, mutual TLS, signed age
// envelopes for updates, and keys for data at rest.
//
// A federation has one root key. The root certifies coordinators and people directly; a coordinator's issuing key,
// constrained by a critical extension, certifies nodes only. Roles stand in the certificate. All keys are Ed25519, all
// connections TLS 1.3.
//
//	root, err := seal.NewRoot("shop", now, rand.Reader)
//	chain, err := root.Certify(seal.RoleOperator, "ada", key, now, year)
//	id, err := seal.VerifyChain(chain, root.Certificate(), now)
//
// Nothing here protects against a holder of the root key, or against a stolen machine whose keys unseal by file.
package seal

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Role is what a certificate lets its holder be.
type Role string

// Roles. RoleNone is a caller without a certificate.
const (
	RoleNone        Role = ""
	RoleCoordinator Role = "coordinator"
	RoleNode        Role = "node"
	RoleOperator    Role = "operator"
	RoleOfficer     Role = "officer"
	RoleAuditor     Role = "auditor"
)

// Roles lists all roles, RoleNone first.
func Roles() []Role {
	return []Role{RoleNone, RoleCoordinator, RoleNode, RoleOperator, RoleOfficer, RoleAuditor}
}

// Errors that callers branch on.
var (
	ErrExpired   = errors.New("certificate has expired or is not valid yet")
	ErrForeign   = errors.New("certificate is not of this federation")
	ErrRole      = errors.New("certificate does not give this role")
	ErrRevoked   = errors.New("identity is not enrolled or was revoked")
	ErrSignature = errors.New("signature does not verify")
)

// issuerExtension marks an issuing certificate: it may certify nodes and nothing else. It is critical, so software that
// does not know the constraint refuses the certificate. (Arc under 2.25, derived from a UUID.)
var issuerExtension = asn1.ObjectIdentifier{2, 25, 1737461, 9281, 1}

// Identity is who a verified certificate speaks for.
type Identity struct {
	Cluster     string
	Role        Role
	Name        string
	Key         ed25519.PublicKey
	Certificate *x509.Certificate
}

// Fingerprint is SHA-256 of a certificate in hex: what people compare.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// NewKey makes an Ed25519 key.
func NewKey(rand io.Reader) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, nil
}

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
	key, err := NewKey(rand)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cluster},
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
	if role == RoleNode || role == RoleNone || !slices.Contains(Roles(), role) {
		return nil, fmt.Errorf("certify %s: the root does not certify role %q", name, role)
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
		SerialNumber: serial(key, now), Subject: pkix.Name{CommonName: name + " issuer"},
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
	leaf, err := leafTemplate("", RoleNode, name, now, life)
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
	if name == "" || strings.ContainsAny(name, "/?# ") {
		return nil, fmt.Errorf("certify %s: name %q cannot stand in a certificate", role, name)
	}
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-skew), NotAfter: now.Add(life),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:        []*url.URL{{Scheme: "choir", Host: string(role), Path: "/" + name}},
	}, nil
}

// serial is unique for a key and a time.
func serial(key ed25519.PublicKey, now time.Time) *big.Int {
	sum := sha256.Sum256(fmt.Appendf(nil, "%x %d", key, now.UnixNano()))
	sum[0] &= 0x7f
	return new(big.Int).SetBytes(sum[:16])
}

func certify(t, parent *x509.Certificate, key ed25519.PublicKey, by ed25519.PrivateKey) (*x509.Certificate, error) {
	if len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("public key of %d bytes", len(key))
	}
	if t.SerialNumber == nil {
		t.SerialNumber = serial(key, t.NotBefore)
	}
	der, err := x509.CreateCertificate(nil, t, parent, key, by) // Ed25519 signatures need no randomness
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// VerifyChain checks a chain, leaf first and without the root, and returns who it speaks for. People and coordinators
// stand directly under the root; nodes under an issuer, which may certify nothing else and never speaks for itself.
func VerifyChain(chain [][]byte, root *x509.Certificate, now time.Time) (Identity, error) {
	if len(chain) < 1 || len(chain) > 2 {
		return Identity{}, fmt.Errorf("chain of %d certificates: %w", len(chain), ErrForeign)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %v", ErrForeign, err)
	}
	parent := root
	if len(chain) == 2 {
		if parent, err = verifyIssuer(chain[1], root, now); err != nil {
			return Identity{}, err
		}
	}
	if err := verifyLink(leaf, parent, now); err != nil {
		return Identity{}, err
	}
	id, err := identity(leaf, root)
	if err != nil {
		return Identity{}, err
	}
	if (id.Role == RoleNode) != (len(chain) == 2) {
		return Identity{}, fmt.Errorf("role %s under this issuer: %w", id.Role, ErrRole)
	}
	return id, nil
}

// verifyIssuer checks that a certificate is a node issuer of the root.
func verifyIssuer(der []byte, root *x509.Certificate, now time.Time) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrForeign, err)
	}
	constrained := slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool {
		var role string
		rest, err := asn1.Unmarshal(e.Value, &role)
		return e.Id.Equal(issuerExtension) && e.Critical && err == nil && len(rest) == 0 && role == string(RoleNode)
	})
	if !constrained || !cert.IsCA {
		return nil, fmt.Errorf("issuer without its constraint: %w", ErrRole)
	}
	return cert, verifyLink(cert, root, now)
}

// verifyLink checks one certificate against its parent and the time.
func verifyLink(cert, parent *x509.Certificate, now time.Time) error {
	for _, oid := range cert.UnhandledCriticalExtensions {
		if !oid.Equal(issuerExtension) {
			return fmt.Errorf("unknown critical extension %v: %w", oid, ErrForeign)
		}
	}
	if err := cert.CheckSignatureFrom(parent); err != nil {
		return fmt.Errorf("%w: %v", ErrForeign, err)
	}
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return fmt.Errorf("%s, valid from %s to %s: %w", cert.Subject.CommonName,
			cert.NotBefore.Format(time.DateTime), cert.NotAfter.Format(time.DateTime), ErrExpired)
	}
	return nil
}

// identity reads the name in a leaf.
func identity(leaf, root *x509.Certificate) (Identity, error) {
	key, ok := leaf.PublicKey.(ed25519.PublicKey)
	if !ok || leaf.IsCA || len(leaf.URIs) != 1 || leaf.URIs[0].Scheme != "choir" {
		return Identity{}, fmt.Errorf("%s is not an identity: %w", leaf.Subject.CommonName, ErrRole)
	}
	id := Identity{
		Cluster: root.Subject.CommonName, Role: Role(leaf.URIs[0].Host), Name: strings.TrimPrefix(leaf.URIs[0].Path, "/"),
		Key: key, Certificate: leaf,
	}
	if id.Role == RoleNone || !slices.Contains(Roles(), id.Role) || id.Name == "" {
		return Identity{}, fmt.Errorf("role %q: %w", id.Role, ErrRole)
	}
	return id, nil
}
