package state

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// requestJoin keeps the request of a machine that wants to be a coordinator. The same machine may ask again.
func (t *transition) requestJoin(c *choirv1.RequestJoin) error {
	if err := cmp.Or(
		CheckName("coordinator", c.Name), checkText("address", c.Address, maxText), checkTime(c.TimeMs),
		checkKey("public key", c.PublicKey), checkKey("issuer key", c.IssuerKey),
	); err != nil {
		return err
	}
	if bytes.Equal(c.PublicKey, c.IssuerKey) {
		return fmt.Errorf("%w: coordinator %s has one key for itself and its issuer", ErrFormat, c.Name)
	}
	fresh, err := t.useToken(tokenUse{c.TokenId, c.SecretHash, roleCoordinator, c.Name, c.PublicKey, c.TimeMs})
	if err != nil {
		return err
	}
	if !fresh {
		return t.joinAgain(c)
	}
	if err := t.vacant(c.Name, c.Address); err != nil {
		return err
	}
	t.Joins = put(t.Joins, c.Name, Join{Token: c.TokenId, Address: c.Address, Key: c.PublicKey, IssuerKey: c.IssuerKey, Time: c.TimeMs})
	t.record(&audit.JoinRequested{
		Token: c.TokenId, Name: c.Name, Address: c.Address, Key: c.PublicKey, IssuerKey: c.IssuerKey, TimeMS: c.TimeMs,
	})
	return nil
}

// joinAgain answers a request that was made before: it waits, or was approved, or came to nothing.
func (t *transition) joinAgain(c *choirv1.RequestJoin) error {
	if j, ok := t.Joins[c.Name]; ok && j.Token == c.TokenId {
		if j.Address != c.Address || !bytes.Equal(j.IssuerKey, c.IssuerKey) {
			return fmt.Errorf("%w: coordinator %s asked with another address or issuer key before", ErrToken, c.Name)
		}
		return nil
	}
	if v, ok := t.Coordinator(c.Name); ok && v.hasKey(c.PublicKey) {
		return nil
	}
	return fmt.Errorf("%w: coordinator %s was removed since", ErrToken, c.Name)
}

// hasKey reports whether the coordinator's certificate is for the key.
func (c Coordinator) hasKey(key []byte) bool {
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		return false
	}
	own, ok := leaf.PublicKey.(ed25519.PublicKey)
	return ok && bytes.Equal(own, key)
}

// vacant refuses a name or an address that a coordinator has, or asks for.
func (t *transition) vacant(name, address string) error {
	for _, v := range t.Coordinators {
		if v.Name == name || v.Address == address {
			return fmt.Errorf("coordinator %s at %s %w", v.Name, v.Address, ErrExists)
		}
	}
	if _, ok := t.Joins[name]; ok {
		return fmt.Errorf("coordinator %s asks to join with another token: it %w", name, ErrExists)
	}
	return nil
}

// approveCoordinator makes a voter of a machine that asked, when the root has certified its two keys.
func (t *transition) approveCoordinator(c *choirv1.ApproveCoordinator) error {
	if v, ok := t.Coordinator(c.Name); ok {
		if slices.EqualFunc(v.Chain, c.Chain, bytes.Equal) && bytes.Equal(v.Issuer, c.Issuer) {
			return nil // approved again
		}
		return fmt.Errorf("coordinator %s %w", c.Name, ErrExists)
	}
	j, ok := t.Joins[c.Name]
	if !ok {
		return fmt.Errorf("coordinator %q did not ask to join", c.Name)
	}
	if err := checkTime(c.TimeMs); err != nil {
		return err
	}
	if err := t.certified(c, j); err != nil {
		return fmt.Errorf("approve coordinator %s: %w", c.Name, err)
	}
	t.Joins = without(t.Joins, c.Name)
	if err := t.vacant(c.Name, j.Address); err != nil {
		return err
	}
	t.Coordinators = append(slices.Clone(t.Coordinators), Coordinator{Name: c.Name, Address: j.Address, Chain: c.Chain, Issuer: c.Issuer})
	slices.SortFunc(t.Coordinators, func(a, b Coordinator) int { return cmp.Compare(a.Name, b.Name) })
	t.Voters = t.index
	t.record(&audit.CoordinatorApproved{
		Coordinator: audit.Coordinator{Name: c.Name, Address: j.Address, Chain: c.Chain}, Issuer: c.Issuer, TimeMS: c.TimeMs,
	})
	return nil
}

// certified checks that the root gave the name and the two keys of the request their certificates, valid at the time of
// the command. The auditor holds the record against the same rule.
func (t *transition) certified(c *choirv1.ApproveCoordinator, j Join) error {
	root, err := x509.ParseCertificate(t.Root)
	if err != nil {
		return fmt.Errorf("root certificate: %w", err)
	}
	if err := audit.CheckApproval(root, c.Name, j.Key, j.IssuerKey, c.Chain, c.Issuer, time.UnixMilli(c.TimeMs)); err != nil {
		return err
	}
	if t.Revoked[seal.Fingerprint(c.Chain[0])] || t.Revoked[seal.Fingerprint(c.Issuer)] {
		return fmt.Errorf("its certificate: %w", seal.ErrRevoked)
	}
	return nil
}

// removeCoordinator ends a coordinator's vote; its epoch keys and its certificates go with it. The last one stays. Whether enough of the
// others are there to go on is for the leader to see.
func (t *transition) removeCoordinator(c *choirv1.RemoveCoordinator) error {
	i := slices.IndexFunc(t.Coordinators, func(v Coordinator) bool { return v.Name == c.Name })
	switch {
	case i < 0:
		return fmt.Errorf("coordinator %q is not a voter", c.Name)
	case len(t.Coordinators) == 1:
		return errors.New("the last coordinator cannot be removed")
	}
	gone := t.Coordinators[i]
	t.Coordinators = slices.Delete(slices.Clone(t.Coordinators), i, i+1)
	t.Voters = t.index
	t.sealNoMoreTo(c.Name)
	t.Revoked = put(t.Revoked, seal.Fingerprint(gone.Chain[0]), true) // or it could be approved again without the root
	if len(gone.Issuer) > 0 {
		t.Revoked = put(t.Revoked, seal.Fingerprint(gone.Issuer), true)
	}
	t.record(&audit.CoordinatorRemoved{Name: c.Name})
	return nil
}
