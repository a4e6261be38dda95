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
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"
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
	ErrExpired   = errors.New("expired or not valid yet")
	ErrForeign   = errors.New("certificate is not of this federation")
	ErrRole      = errors.New("certificate does not give this role")
	ErrRevoked   = errors.New("identity is not enrolled or was revoked")
	ErrSignature = errors.New("signature does not verify")
)

// Identity is who a verified certificate speaks for.
type Identity struct {
	Cluster     string
	Role        Role
	Name        string
	Key         ed25519.PublicKey
	Certificate *x509.Certificate
	Root        string // fingerprint of the root that certified it, or its issuer
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

// clusterPattern and namePattern are what may stand in a certificate: short, and fit for URIs, file names and logs.
var (
	clusterPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	namePattern    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
)

// maxName is the longest name of a cluster or identity in bytes.
const maxName = 63

// identityURI is how a certificate names its holder: choir://cluster/role/name.
func identityURI(cluster string, role Role, name string) *url.URL {
	return &url.URL{Scheme: "choir", Host: cluster, Path: "/" + string(role) + "/" + name}
}

// CheckName refuses a name that no certificate of the role can have.
func CheckName(role Role, name string) error { return checkNames("any", role, name) }

// checkNames refuses names that cannot stand in a certificate, and RoleNone.
func checkNames(cluster string, role Role, name string) error {
	switch {
	case len(cluster) > maxName || !clusterPattern.MatchString(cluster):
		return fmt.Errorf("cluster %q: want at most %d of a-z, 0-9, - and . like a host name", cluster, maxName)
	case role == RoleNone || !slices.Contains(Roles(), role):
		return fmt.Errorf("role %q: want one of coordinator, node, operator, officer, auditor", role)
	case len(name) > maxName || !namePattern.MatchString(name):
		return fmt.Errorf("name %q: want at most %d of letters, digits, ., _ and -", name, maxName)
	}
	return nil
}

// identity reads who a leaf speaks for. The URI must be the one spelling that identityURI gives.
func identity(leaf *x509.Certificate, cluster string) (Identity, error) {
	key, ok := leaf.PublicKey.(ed25519.PublicKey)
	if !ok || leaf.IsCA || len(leaf.URIs) != 1 || leaf.URIs[0].Scheme != "choir" {
		return Identity{}, fmt.Errorf("%s is not an identity: %w", leaf.Subject.CommonName, ErrRole)
	}
	uri := leaf.URIs[0]
	if uri.Host != cluster {
		return Identity{}, fmt.Errorf("%s is of cluster %s: %w", leaf.Subject.CommonName, uri.Host, ErrForeign)
	}
	role, name, _ := strings.Cut(strings.TrimPrefix(uri.Path, "/"), "/")
	if err := checkNames(cluster, Role(role), name); err != nil {
		return Identity{}, fmt.Errorf("%w: %v", ErrRole, err)
	}
	if uri.String() != identityURI(cluster, Role(role), name).String() {
		return Identity{}, fmt.Errorf("identity %q is not in its one spelling: %w", uri, ErrRole)
	}
	return Identity{Cluster: cluster, Role: Role(role), Name: name, Key: key, Certificate: leaf}, nil
}
