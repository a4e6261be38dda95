package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"choir.example/privacy/seal"
)

// The records of who comes and goes, and of what people do with jobs.

// TokenRevoked makes a token worth nothing: nobody enrols with it any more, and a request to join that it carried is void.
type TokenRevoked struct{ ID string }

// NodeRevoked ends a node's part in the federation: it is invited and counted no more.
type NodeRevoked struct{ Node string }

// PersonRevoked makes the certificate of an operator, officer or auditor worth nothing.
type PersonRevoked struct{ Fingerprint [32]byte }

// JoinRequested is a machine that asks to become a coordinator, with the keys that the root is to certify.
type JoinRequested struct {
	Token, Name, Address string
	Key, IssuerKey       []byte
	TimeMS               int64
}

// CoordinatorApproved makes a voter of a machine that asked: the root has certified both of its keys.
type CoordinatorApproved struct {
	Coordinator Coordinator
	Issuer      []byte // issuing certificate, DER
	TimeMS      int64
}

// CoordinatorRemoved ends a coordinator's vote. Its certificate is worth nothing from now on.
type CoordinatorRemoved struct{ Name string }

// JobControlled is what an operator did with a job: pause, resume, stop or continue. Spec is the digest of its
// specification from now on; only continue changes it, by that many rounds more.
type JobControlled struct {
	Job, Action string
	Rounds      uint64
	Spec        [32]byte
}

func (r *TokenRevoked) visit(v visitor) { v.str(&r.ID) }

func (r *NodeRevoked) visit(v visitor) { v.str(&r.Node) }

func (r *PersonRevoked) visit(v visitor) { v.digest(&r.Fingerprint) }

func (r *JoinRequested) visit(v visitor) {
	v.str(&r.Token)
	v.str(&r.Name)
	v.str(&r.Address)
	v.bytes(&r.Key)
	v.bytes(&r.IssuerKey)
	v.int(&r.TimeMS)
}

func (r *CoordinatorApproved) visit(v visitor) {
	r.Coordinator.visit(v)
	v.bytes(&r.Issuer)
	v.int(&r.TimeMS)
}

func (r *CoordinatorRemoved) visit(v visitor) { v.str(&r.Name) }

func (r *JobControlled) visit(v visitor) {
	v.str(&r.Job)
	v.str(&r.Action)
	v.uint(&r.Rounds)
	v.digest(&r.Spec)
}

// Kind returns the record's kind; so do the methods below.
func (*TokenRevoked) Kind() Kind        { return KindTokenRevoked }
func (*NodeRevoked) Kind() Kind         { return KindNodeRevoked }
func (*PersonRevoked) Kind() Kind       { return KindPersonRevoked }
func (*JoinRequested) Kind() Kind       { return KindJoinRequested }
func (*CoordinatorApproved) Kind() Kind { return KindCoordinatorApproved }
func (*CoordinatorRemoved) Kind() Kind  { return KindCoordinatorRemoved }
func (*JobControlled) Kind() Kind       { return KindJobControlled }

// blankOfMembers returns an empty record of a kind in this file, nil for any other.
func blankOfMembers(k Kind) Record {
	switch k {
	case KindTokenRevoked:
		return &TokenRevoked{}
	case KindNodeRevoked:
		return &NodeRevoked{}
	case KindPersonRevoked:
		return &PersonRevoked{}
	case KindJoinRequested:
		return &JoinRequested{}
	case KindCoordinatorApproved:
		return &CoordinatorApproved{}
	case KindCoordinatorRemoved:
		return &CoordinatorRemoved{}
	case KindJobControlled:
		return &JobControlled{}
	}
	return nil
}

func (h *history) revokeToken(r *TokenRevoked) error {
	token := h.tokens[r.ID]
	if token == nil || token.revoked {
		return fmt.Errorf("token %s was revoked, which was never created or was revoked before", r.ID)
	}
	token.revoked = true
	for name, j := range h.joins {
		if j.Token == r.ID {
			delete(h.joins, name)
		}
	}
	return nil
}

func (h *history) revokeNode(r *NodeRevoked) error {
	if h.nodes[r.Node] == nil || h.revoked[r.Node] {
		return fmt.Errorf("node %s was revoked, which never enrolled or was revoked before", r.Node)
	}
	h.revoked[r.Node] = true
	return nil
}

func (h *history) revokePerson(r *PersonRevoked) error {
	fingerprint := hex.EncodeToString(r.Fingerprint[:])
	if h.gone[fingerprint] {
		return fmt.Errorf("certificate %s was revoked twice", fingerprint)
	}
	h.gone[fingerprint] = true
	return nil
}

func (h *history) requestJoin(r *JoinRequested) error {
	switch {
	case h.keys[r.Name] != nil || h.joins[r.Name] != nil:
		return fmt.Errorf("coordinator %s asked to join, and is one or asked before", r.Name)
	case len(r.IssuerKey) != ed25519.PublicKeySize || bytes.Equal(r.Key, r.IssuerKey):
		return fmt.Errorf("coordinator %s asked to join without a key of its own for its issuer", r.Name)
	}
	if err := h.use(r.Token, seal.RoleCoordinator, r.Key); err != nil {
		return fmt.Errorf("coordinator %s asked to join with %w", r.Name, err)
	}
	h.joins[r.Name] = r
	return nil
}

// approve checks that the root certified the keys of a coordinator that asked to join.
func (h *history) approve(r *CoordinatorApproved) error {
	c := r.Coordinator
	asked := h.joins[c.Name]
	if asked == nil || asked.Address != c.Address {
		return fmt.Errorf("coordinator %s was approved, which did not ask to join from %s", c.Name, c.Address)
	}
	if err := CheckApproval(h.root, c.Name, asked.Key, asked.IssuerKey, c.Chain, r.Issuer, time.UnixMilli(r.TimeMS)); err != nil {
		return fmt.Errorf("coordinator %s was approved: %w", c.Name, err)
	}
	if h.gone[seal.Fingerprint(c.Chain[0])] || h.gone[seal.Fingerprint(r.Issuer)] {
		return fmt.Errorf("coordinator %s was approved with a certificate that was revoked", c.Name)
	}
	delete(h.joins, c.Name)
	h.keys[c.Name], h.voters[c.Name] = asked.Key, c.Chain
	h.issuers[c.Name] = r.Issuer
	return nil
}

func (h *history) remove(r *CoordinatorRemoved) error {
	if h.keys[r.Name] == nil || len(h.keys) == 1 {
		return fmt.Errorf("coordinator %s was removed, which is none or the last one", r.Name)
	}
	h.gone[seal.Fingerprint(h.voters[r.Name][0])] = true
	if issuer, ok := h.issuers[r.Name]; ok {
		h.gone[seal.Fingerprint(issuer)] = true
	}
	delete(h.keys, r.Name)
	delete(h.voters, r.Name)
	delete(h.issuers, r.Name)
	delete(h.epochs, r.Name) // one of the same name that joins later has other keys
	return nil
}

// CheckApproval checks that the root certified, at that time, a coordinator's name with the two keys that it asked to
// join with: key by the chain, issuerKey by the constrained issuing certificate.
func CheckApproval(root *x509.Certificate, name string, key, issuerKey []byte, chain [][]byte, issuer []byte, now time.Time) error {
	return CheckRenewal(root, Certified{name, chain, issuer}, Keys{key, issuerKey}, now)
}
