package state

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// EarlierRoot is a root that another one has followed.
type EarlierRoot struct {
	Root    []byte // certificate, DER
	Cross   []byte // by it for the next root
	Retired bool   `json:",omitempty"` // what it certified for people and nodes is void
}

// Officer is an officer's key that the federation knows.
type Officer struct {
	Name     string `json:",omitempty"` // empty if it was pinned by the genesis
	Replaced bool   `json:",omitempty"` // it counts no more
}

// FoundingRoot is the certificate of the first root.
func (s *State) FoundingRoot() []byte {
	if len(s.Roots) > 0 {
		return s.Roots[0].Root
	}
	return s.Root
}

// Crosses are the cross certificates, newest first: they end each chain that is shown to those who may know an earlier
// root only.
func (s *State) Crosses() (out [][]byte) {
	for _, r := range slices.Backward(s.Roots) {
		out = append(out, r.Cross)
	}
	return out
}

// Shown is a coordinator's chain as it is shown to others.
func (s *State) Shown(c Coordinator) [][]byte {
	if len(s.Roots) == 0 {
		return c.Chain
	}
	return append(slices.Clone(c.Chain), s.Crosses()...)
}

// Retired reports whether the root of a fingerprint was retired.
func (s *State) Retired(fingerprint string) bool {
	return slices.ContainsFunc(s.Roots, func(r EarlierRoot) bool { return r.Retired && seal.Fingerprint(r.Root) == fingerprint })
}

// CountsOfficer reports whether a key is that of an officer who was pinned or admitted, and not replaced.
func (s *State) CountsOfficer(key []byte) bool {
	o, ok := s.Officers[hex.EncodeToString(key)]
	return ok && !o.Replaced
}

// OfficerKeys are the fingerprints of the officers' keys that count, in order.
func (s *State) OfficerKeys() (out [][]byte) {
	for _, print := range slices.Sorted(maps.Keys(s.Officers)) {
		if key, err := hex.DecodeString(print); err == nil && !s.Officers[print].Replaced {
			out = append(out, key)
		}
	}
	return out
}

// pinOfficers counts the officers that the genesis names.
func (t *transition) pinOfficers(keys [][]byte, record *audit.Genesis) error {
	for i, key := range keys {
		d, err := digest("officer's key", key)
		if err != nil {
			return err
		}
		if i > 0 && bytes.Compare(keys[i-1], key) >= 0 {
			return fmt.Errorf("%w: officers' keys are not a sorted set", ErrFormat)
		}
		t.Officers = put(t.Officers, d.String(), Officer{})
		record.Officers = append(record.Officers, d)
	}
	return nil
}

// rotateRoot puts the next root in the place of the present one. What both roots signed is the permission; the auditor
// holds the record against the same rule.
func (t *transition) rotateRoot(c *choirv1.RotateRoot) error {
	if bytes.Equal(c.Root, t.Root) && len(t.Roots) > 0 && bytes.Equal(t.Roots[len(t.Roots)-1].Cross, c.Cross) {
		return nil // done before
	}
	old, err := digest("old", c.Old)
	if err := cmp.Or(err, checkTime(c.TimeMs)); err != nil {
		return err
	}
	if present := sha256.Sum256(t.Root); old != present {
		return fmt.Errorf("rotate root: %w: the present root is %x, not %v", ErrState, present, old)
	}
	present, err := x509.ParseCertificate(t.Root)
	if err != nil {
		return fmt.Errorf("root certificate: %w", err)
	}
	record := &audit.RootRotated{Old: old, Root: c.Root, Cross: c.Cross, Retired: c.Retire, TimeMS: c.TimeMs}
	for _, e := range c.Coordinators {
		record.Coordinators = append(record.Coordinators, certifiedOf(e))
	}
	keys, err := t.keys()
	if err != nil {
		return err
	}
	if _, err := audit.CheckRotation(present, record, keys); err != nil {
		return fmt.Errorf("rotate root: %w", err)
	}
	t.Roots = append(slices.Clone(t.Roots), EarlierRoot{Root: t.Root, Cross: c.Cross, Retired: c.Retire})
	t.Root, t.Voters = c.Root, t.index
	t.Coordinators = slices.Clone(t.Coordinators)
	for i, e := range c.Coordinators { // exactly the coordinators, in order
		t.Coordinators[i].Chain, t.Coordinators[i].Issuer = e.Chain, e.Issuer
	}
	if c.Retire {
		t.voidTokens()
	}
	t.record(record)
	return nil
}

func certifiedOf(e *choirv1.CertifiedCoordinator) audit.Certified {
	return audit.Certified{Name: e.GetName(), Chain: e.GetChain(), Issuer: e.GetIssuer()}
}

// keys are the coordinators' keys, as their certificates name them.
func (t *transition) keys() (map[string]audit.Keys, error) {
	out := map[string]audit.Keys{}
	for _, v := range t.Coordinators {
		keys, err := audit.Issued(v.Chain, v.Issuer)
		if err != nil {
			return nil, fmt.Errorf("certificates of coordinator %s: %w", v.Name, err)
		}
		out[v.Name] = keys
	}
	return out, nil
}

// voidTokens revokes the tokens that nobody has used: they send their bearers to whoever shows a retired root.
func (t *transition) voidTokens() {
	t.Tokens = maps.Clone(t.Tokens)
	for id, token := range t.Tokens {
		if token.Node == "" && !token.Revoked {
			token.Revoked = true
			t.Tokens[id] = token
		}
	}
}

// renewCoordinator gives a coordinator new certificates of the present root. Those it had before cannot be approved again.
func (t *transition) renewCoordinator(c *choirv1.RenewCoordinator) error {
	e := certifiedOf(c.Coordinator)
	i := slices.IndexFunc(t.Coordinators, func(v Coordinator) bool { return v.Name == e.Name })
	if i < 0 {
		return fmt.Errorf("coordinator %q is not a voter", e.Name)
	}
	was := t.Coordinators[i]
	if slices.EqualFunc(was.Chain, e.Chain, bytes.Equal) && bytes.Equal(was.Issuer, e.Issuer) {
		return nil // renewed before
	}
	if err := checkTime(c.TimeMs); err != nil {
		return err
	}
	root, err := x509.ParseCertificate(t.Root)
	if err != nil {
		return fmt.Errorf("root certificate: %w", err)
	}
	keys, err := audit.Issued(was.Chain, was.Issuer)
	if err == nil {
		err = audit.CheckRenewal(root, e, keys, time.UnixMilli(c.TimeMs))
	}
	if err == nil && (t.Revoked[seal.Fingerprint(e.Chain[0])] || t.Revoked[seal.Fingerprint(e.Issuer)]) {
		err = fmt.Errorf("its certificate: %w", seal.ErrRevoked)
	}
	if err != nil {
		return fmt.Errorf("renew coordinator %s: %w", e.Name, err)
	}
	if !bytes.Equal(was.Chain[0], e.Chain[0]) {
		t.Revoked = put(t.Revoked, seal.Fingerprint(was.Chain[0]), true)
	}
	if len(was.Issuer) > 0 && !bytes.Equal(was.Issuer, e.Issuer) {
		t.Revoked = put(t.Revoked, seal.Fingerprint(was.Issuer), true)
	}
	t.Coordinators = slices.Clone(t.Coordinators)
	t.Coordinators[i].Chain, t.Coordinators[i].Issuer = e.Chain, e.Issuer
	t.Voters = t.index
	t.record(&audit.CoordinatorRenewed{Certified: e, TimeMS: c.TimeMs})
	return nil
}

// admitOfficer counts an officer's key by a statement of the root.
func (t *transition) admitOfficer(c *choirv1.AdmitOfficer) error {
	key, err := digest("officer's key", c.Key)
	if err != nil {
		return err
	}
	replaces, err := optional("replaced officer's key", c.Replaces)
	if err != nil {
		return err
	}
	record := &audit.OfficerAdmitted{Key: key, Replaces: replaces, Name: c.Name, Signature: c.Signature}
	if o, ok := t.Officers[key.String()]; ok && !o.Replaced && (replaces.IsZero() || t.Officers[replaces.String()].Replaced) {
		return nil // admitted before
	}
	root, err := x509.ParseCertificate(t.Root)
	if err != nil {
		return fmt.Errorf("root certificate: %w", err)
	}
	known := map[[32]byte]bool{}
	for print, o := range t.Officers {
		if b, err := hex.DecodeString(print); err == nil && len(b) == sha256.Size {
			known[[32]byte(b)] = !o.Replaced
		}
	}
	if err := audit.CheckOfficer(root, record, known); err != nil {
		return fmt.Errorf("admit officer %s: %w", c.Name, err)
	}
	if !replaces.IsZero() {
		o := t.Officers[replaces.String()]
		o.Replaced = true
		t.Officers = put(t.Officers, replaces.String(), o)
	}
	t.Officers = put(t.Officers, key.String(), Officer{Name: c.Name})
	t.record(record)
	return nil
}
