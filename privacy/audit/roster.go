package audit

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"choir.example/internal/canon"
	"choir.example/privacy/seal"
)

// DomainRoster is the domain of signatures over rosters.
const DomainRoster = "choir/roster/v1"

// Roster is who the coordinators are, with the signatures of a majority of them: a certificate of the root says that
// somebody was one once, the roster that it still is.
type Roster struct {
	Cluster      string
	Version      uint64        // raft index of the last approval or removal of a coordinator; 1: the founders
	Coordinators []Coordinator // in order of names
	Signatures   []Signature   // in order of signers
}

// Message is what is signed.
func (r Roster) Message() []byte {
	var w canon.Writer
	r.body(&writer{&w})
	return w.Buf
}

func (r *Roster) body(v visitor) {
	v.str(&r.Cluster)
	v.uint(&r.Version)
	list(v, &r.Coordinators, func(c *Coordinator) { c.visit(v) })
}

func (r *Roster) visit(v visitor) {
	r.body(v)
	list(v, &r.Signatures, func(s *Signature) {
		v.str(&s.Signer)
		v.bytes(&s.Signature)
	})
}

// Sign is a coordinator's signature over the roster.
func (r Roster) Sign(name string, key ed25519.PrivateKey) Signature {
	return Signature{Signer: name, Signature: seal.Sign(key, DomainRoster, r.Message())}
}

// Encode is the roster's canonical encoding.
func (r Roster) Encode() []byte { return encode(&r) }

// DecodeRoster reads what Encode wrote. Nothing is verified.
func DecodeRoster(b []byte) (Roster, error) {
	var r Roster
	err := decode("roster", b, &r)
	return r, err
}

// Find returns a coordinator of the roster by name.
func (r Roster) Find(name string) (Coordinator, bool) {
	i := slices.IndexFunc(r.Coordinators, func(c Coordinator) bool { return c.Name == name })
	if i < 0 {
		return Coordinator{}, false
	}
	return r.Coordinators[i], true
}

// Lists reports whether the coordinator of that name has this key. Its certificate may be another one by now: it is
// renewed, and certified anew by another root, for the same key.
func (r Roster) Lists(name string, key ed25519.PublicKey) bool {
	c, ok := r.Find(name)
	if !ok || len(c.Chain) == 0 {
		return false
	}
	own, err := publicKey(c.Chain[0])
	return err == nil && own.Equal(key)
}

// Verify checks that the roster is of the root's federation, and signed by a majority of the coordinators in it, each
// with a certificate of the root that is valid at the time now.
//
// A coordinator that was removed can still make a roster of itself alone. So who holds a roster already takes another
// only if it is newer and SignedByMajorityOf the one held, too.
func (r Roster) Verify(root *x509.Certificate, now time.Time) error {
	switch {
	case r.Cluster != root.Subject.CommonName:
		return fmt.Errorf("roster of federation %q, not %q", r.Cluster, root.Subject.CommonName)
	case !ascending(r.Coordinators, func(c Coordinator) string { return c.Name }):
		return errors.New("roster: its coordinators are not a sorted set")
	case !ascending(r.Signatures, func(s Signature) string { return s.Signer }):
		return errors.New("roster: signers are not in order, or one signed twice")
	}
	message := r.Message()
	for _, sig := range r.Signatures {
		if err := r.checkSigner(sig, DomainRoster, message, root, now); err != nil {
			return fmt.Errorf("roster: signature of %s: %w", sig.Signer, err)
		}
	}
	if !r.SignedByMajorityOf(r) {
		return fmt.Errorf("roster: %d of %d coordinators signed, a majority is %d", len(r.Signatures), len(r.Coordinators), len(r.Coordinators)/2+1)
	}
	return nil
}

// checkSigner checks one signature under a domain by the certificate that the roster has for its signer.
func (r Roster) checkSigner(sig Signature, domain string, message []byte, root *x509.Certificate, now time.Time) error {
	c, ok := r.Find(sig.Signer)
	if !ok {
		return errors.New("it is not by a coordinator of the roster")
	}
	id, err := seal.VerifyChain(c.Chain, root, now)
	switch {
	case err != nil:
		return err
	case id.Role != seal.RoleCoordinator || id.Name != c.Name:
		return fmt.Errorf("its certificate is of %s %s: %w", id.Role, id.Name, seal.ErrRole)
	case !seal.Verify(id.Key, domain, message, sig.Signature):
		return seal.ErrSignature
	}
	return nil
}

// SignedByMajorityOf reports whether those who signed, as far as another roster lists them with the same keys,
// are a majority of that one. The signatures themselves are for Verify.
func (r Roster) SignedByMajorityOf(held Roster) bool {
	n := 0
	for _, sig := range r.Signatures {
		c, _ := r.Find(sig.Signer)
		if len(c.Chain) == 0 {
			continue
		}
		if key, err := publicKey(c.Chain[0]); err == nil && held.Lists(sig.Signer, key) {
			n++
		}
	}
	return n > len(held.Coordinators)/2
}
