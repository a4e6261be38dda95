package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"choir.example/privacy/seal"
)

// The records of roots, of certificates that are renewed, and of officers; and the rules for them, which the replicated
// state and the auditor share.

// RootRotated puts another root in the place of the present one. Every coordinator's keys are certified by it.
type RootRotated struct {
	Old          [32]byte // SHA-256 of the root's certificate that was the present one
	Root, Cross  []byte   // the next root's certificate, and the one before's for it, DER
	Coordinators []Certified
	Retired      bool // what the one before certified for people and nodes is void, and so are unused tokens
	TimeMS       int64
}

// Certified is a coordinator's two keys, certified anew.
type Certified struct {
	Name   string
	Chain  [][]byte
	Issuer []byte // issuing certificate, DER
}

// CoordinatorRenewed gives a coordinator new certificates of the present root for the keys it has.
type CoordinatorRenewed struct {
	Certified
	TimeMS int64
}

// OfficerAdmitted counts an officer's key from now on, and that of Replaces, if it names one, no more. The root signed it.
type OfficerAdmitted struct {
	Key, Replaces [32]byte // SHA-256 of public keys; Replaces may be zero
	Name          string
	Signature     []byte
}

func (r *RootRotated) visit(v visitor) {
	v.digest(&r.Old)
	v.bytes(&r.Root)
	v.bytes(&r.Cross)
	list(v, &r.Coordinators, func(c *Certified) { c.visit(v) })
	v.bool(&r.Retired)
	v.int(&r.TimeMS)
}

func (c *Certified) visit(v visitor) {
	v.str(&c.Name)
	list(v, &c.Chain, v.bytes)
	v.bytes(&c.Issuer)
}

func (r *CoordinatorRenewed) visit(v visitor) {
	r.Certified.visit(v)
	v.int(&r.TimeMS)
}

func (r *OfficerAdmitted) visit(v visitor) {
	v.digest(&r.Key)
	v.digest(&r.Replaces)
	v.str(&r.Name)
	v.bytes(&r.Signature)
}

// Kind returns the record's kind; so do the methods below.
func (*RootRotated) Kind() Kind        { return KindRootRotated }
func (*CoordinatorRenewed) Kind() Kind { return KindCoordinatorRenewed }
func (*OfficerAdmitted) Kind() Kind    { return KindOfficerAdmitted }

// blankOfRoots returns an empty record of a kind in this file, nil for any other.
func blankOfRoots(k Kind) Record {
	switch k {
	case KindRootRotated:
		return &RootRotated{}
	case KindCoordinatorRenewed:
		return &CoordinatorRenewed{}
	case KindOfficerAdmitted:
		return &OfficerAdmitted{}
	}
	return nil
}

// Keys are the two keys of a coordinator.
type Keys struct {
	Key    []byte
	Issuer []byte // nil where it is not known: a founder's issuing certificate stands in no record
}

// CheckRotation checks that the present root certified the next one, and that the next one certified the keys of all
// coordinators, and returns the next root.
func CheckRotation(present *x509.Certificate, r *RootRotated, coordinators map[string]Keys) (*x509.Certificate, error) {
	if r.Old != sha256.Sum256(present.Raw) {
		return nil, fmt.Errorf("the present root is %s, not %x", seal.Fingerprint(present.Raw), r.Old)
	}
	now := time.UnixMilli(r.TimeMS)
	roots, err := seal.LineageFrom(present).Succeed(r.Cross, r.Root, now)
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(coordinators))
	if !slices.EqualFunc(names, r.Coordinators, func(name string, c Certified) bool { return c.Name == name }) {
		return nil, fmt.Errorf("it does not certify exactly the coordinators %v, in this order", names)
	}
	for _, c := range r.Coordinators {
		if err := CheckRenewal(roots.Present(), c, coordinators[c.Name], now); err != nil {
			return nil, fmt.Errorf("coordinator %s: %w", c.Name, err)
		}
	}
	return roots.Present(), nil
}

// CheckRenewal checks that the root certified, at that time, a coordinator's name with the keys it has: its own by the
// chain, its issuer's by the constrained issuing certificate.
func CheckRenewal(root *x509.Certificate, c Certified, keys Keys, now time.Time) error {
	id, err := seal.VerifyChain(c.Chain, root, now)
	if err != nil {
		return err
	}
	if id.Role != seal.RoleCoordinator || id.Name != c.Name || !bytes.Equal(id.Key, keys.Key) {
		return fmt.Errorf("its certificate is of %s %s, or for another key than it asked with: %w", id.Role, id.Name, seal.ErrRole)
	}
	if len(c.Chain) != 1 {
		return fmt.Errorf("its chain has %d certificates: %w", len(c.Chain), seal.ErrForeign)
	}
	issues, err := seal.VerifyIssuer(c.Issuer, root, now)
	if err != nil {
		return fmt.Errorf("its issuing certificate: %w", err)
	}
	if keys.Issuer != nil && !bytes.Equal(issues, keys.Issuer) || bytes.Equal(issues, keys.Key) {
		return fmt.Errorf("its issuing certificate is for another key than it asked with: %w", seal.ErrRole)
	}
	return nil
}

// CheckOfficer checks that the root admitted an officer's key, which was none before, in the place of one that counts.
// officers are the keys known, true for those that count.
func CheckOfficer(root *x509.Certificate, r *OfficerAdmitted, officers map[[32]byte]bool) error {
	counts, known := officers[r.Key]
	switch {
	case counts:
		return fmt.Errorf("officer's key %x counts already", r.Key)
	case known:
		return fmt.Errorf("officer's key %x was replaced, for good", r.Key)
	case r.Key == [32]byte{}:
		return errors.New("no officer's key is named")
	case r.Replaces != [32]byte{} && !officers[r.Replaces]:
		return fmt.Errorf("officer's key %x does not count, so it cannot be replaced", r.Replaces)
	}
	return seal.VerifyOfficer(root, r.Key, r.Replaces, r.Name, r.Signature)
}

// Issued are the public keys of a coordinator's certificates. The issuing one may be absent.
func Issued(chain [][]byte, issuer []byte) (Keys, error) {
	if len(chain) == 0 {
		return Keys{}, errors.New("no certificate")
	}
	own, err := publicKey(chain[0])
	if err != nil || len(issuer) == 0 {
		return Keys{Key: own}, err
	}
	issues, err := publicKey(issuer)
	return Keys{own, issues}, err
}

func publicKey(der []byte) (ed25519.PublicKey, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%s has no Ed25519 key", cert.Subject.CommonName)
	}
	return key, nil
}

func (h *history) rotateRoot(r *RootRotated) error {
	coordinators := map[string]Keys{}
	for name, chain := range h.voters {
		keys, err := Issued(chain, h.issuers[name])
		if err != nil {
			return err
		}
		coordinators[name] = keys
	}
	next, err := CheckRotation(h.root, r, coordinators)
	if err != nil {
		return fmt.Errorf("the root was rotated: %w", err)
	}
	for _, c := range r.Coordinators {
		h.voters[c.Name], h.issuers[c.Name] = c.Chain, c.Issuer
	}
	if r.Retired {
		h.retire()
	}
	h.root = next
	h.roots = append(h.roots, RootReport{Fingerprint: seal.Fingerprint(next.Raw)})
	return nil
}

// retire voids the present root for people and nodes, and the tokens that nobody has used.
func (h *history) retire() {
	h.roots[len(h.roots)-1].Retired = true
	for _, t := range h.tokens {
		if !t.used {
			t.revoked = true
		}
	}
}

func (h *history) renew(r *CoordinatorRenewed) error {
	chain, ok := h.voters[r.Name]
	if !ok {
		return fmt.Errorf("coordinator %s was certified anew, which is none", r.Name)
	}
	keys, err := Issued(chain, h.issuers[r.Name])
	if err != nil {
		return err
	}
	if err := CheckRenewal(h.root, r.Certified, keys, time.UnixMilli(r.TimeMS)); err != nil {
		return fmt.Errorf("coordinator %s was certified anew: %w", r.Name, err)
	}
	if h.gone[seal.Fingerprint(r.Chain[0])] || h.gone[seal.Fingerprint(r.Issuer)] {
		return fmt.Errorf("coordinator %s was certified anew with a certificate that was revoked", r.Name)
	}
	h.outdate(r.Name, r.Certified)
	h.voters[r.Name], h.issuers[r.Name] = r.Chain, r.Issuer
	return nil
}

// outdate makes the certificates that a coordinator had before worth nothing for an approval, as a removal does.
func (h *history) outdate(name string, by Certified) {
	if old := h.voters[name][0]; !bytes.Equal(old, by.Chain[0]) {
		h.gone[seal.Fingerprint(old)] = true
	}
	if old := h.issuers[name]; len(old) > 0 && !bytes.Equal(old, by.Issuer) {
		h.gone[seal.Fingerprint(old)] = true
	}
}

func (h *history) admitOfficer(r *OfficerAdmitted) error {
	if err := CheckOfficer(h.root, r, h.officers); err != nil {
		return fmt.Errorf("an officer was admitted: %w", err)
	}
	if r.Replaces != [32]byte{} {
		h.officers[r.Replaces] = false
	}
	h.officers[r.Key] = true
	return nil
}

// countedOfficers are the fingerprints of the officers' keys that count, in order.
func (h *history) countedOfficers() []string {
	out := []string{}
	for key, counts := range h.officers {
		if counts {
			out = append(out, hex.EncodeToString(key[:]))
		}
	}
	slices.Sort(out)
	return out
}

// RootReport is one of a federation's roots.
type RootReport struct {
	Fingerprint string `json:"fingerprint"`
	Retired     bool   `json:"retired"`
}
