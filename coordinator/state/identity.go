package state

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"
)

// namePattern is what names of nodes, coordinators, jobs and models look like: fit for file names and URLs.
var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// Longest texts that are kept. A hybrid ML-KEM-768 recipient has about 2,000 characters.
const (
	maxText      = 255
	maxRecipient = 4096
)

// CheckName refuses a name that is not fit for file names and URLs.
func CheckName(kind, name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%s name %q: want 1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit", kind, name)
	}
	return nil
}

// genesis founds the federation, once.
func (t *transition) genesis(c *choirv1.Genesis) error {
	if t.Cluster != "" {
		return fmt.Errorf("federation %s %w", t.Cluster, ErrExists)
	}
	if err := cmp.Or(CheckName("federation", c.Cluster), checkTime(c.TimeMs)); err != nil {
		return err
	}
	if len(c.Root) == 0 || len(c.Coordinators) == 0 {
		return fmt.Errorf("%w: genesis without root or coordinators", ErrFormat)
	}
	t.Cluster, t.Root = c.Cluster, c.Root
	record := &audit.Genesis{Cluster: c.Cluster, Root: c.Root, TimeMS: c.TimeMs}
	for _, e := range c.Coordinators {
		if err := cmp.Or(CheckName("coordinator", e.Name), checkText("address", e.Address, maxText)); err != nil {
			return err
		}
		if len(e.Chain) == 0 || slices.ContainsFunc(e.Chain, func(b []byte) bool { return len(b) == 0 }) {
			return fmt.Errorf("%w: coordinator %s without certificates", ErrFormat, e.Name)
		}
		t.Coordinators = append(t.Coordinators, Coordinator{Name: e.Name, Address: e.Address, Chain: e.Chain})
	}
	slices.SortFunc(t.Coordinators, func(a, b Coordinator) int { return cmp.Compare(a.Name, b.Name) })
	for i, e := range t.Coordinators {
		if i > 0 && t.Coordinators[i-1].Name == e.Name {
			return fmt.Errorf("coordinator %s is named twice", e.Name)
		}
		record.Coordinators = append(record.Coordinators, audit.Coordinator{Name: e.Name, Address: e.Address, Chain: e.Chain})
	}
	t.record(record)
	return nil
}

// announceEpoch replaces the public half of a coordinator's epoch key. Who proposed it was checked at the wire; the
// signature is checked by every node that uses it.
func (t *transition) announceEpoch(c *choirv1.AnnounceEpoch) error {
	k := c.GetKey()
	i := slices.IndexFunc(t.Coordinators, func(e Coordinator) bool { return e.Name == k.GetCoordinator() })
	if i < 0 {
		return fmt.Errorf("coordinator %q is not a voter", k.GetCoordinator())
	}
	if err := checkText("recipient", k.Recipient, maxRecipient); err != nil {
		return err
	}
	if len(k.Signature) > maxText || len(k.Chain) > 0 {
		return fmt.Errorf("%w: epoch key of %s with a signature of %d bytes and %d certificates", ErrFormat,
			k.Coordinator, len(k.Signature), len(k.Chain))
	}
	old := t.Coordinators[i].Epoch
	if k.Epoch == old.Epoch && k.Recipient == old.Recipient && bytes.Equal(k.Signature, old.Signature) {
		return nil // announced again
	}
	if k.Epoch <= old.Epoch {
		return fmt.Errorf("epoch %d of %s does not follow %d", k.Epoch, k.Coordinator, old.Epoch)
	}
	t.Coordinators = slices.Clone(t.Coordinators)
	t.Coordinators[i].Epoch = EpochKey{Epoch: k.Epoch, Recipient: k.Recipient, Signature: k.Signature}
	t.record(&audit.EpochAnnounced{Coordinator: k.Coordinator, Epoch: k.Epoch, Recipient: k.Recipient, Signature: k.Signature})
	return nil
}

func (t *transition) createToken(c *choirv1.CreateToken) error {
	if err := CheckName("token", c.Id); err != nil {
		return err
	}
	hash, err := digest("secret_hash", c.SecretHash)
	if err := cmp.Or(err, checkTime(c.ExpiresMs)); err != nil {
		return err
	}
	if _, ok := t.Tokens[c.Id]; ok {
		return fmt.Errorf("token %s %w", c.Id, ErrExists)
	}
	if c.Role != "node" {
		return fmt.Errorf("token for role %q: only nodes enrol by token", c.Role)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
		if err := cmp.Or(checkText("label", k, maxText), checkText("label "+k, c.Labels[k], maxText)); err != nil {
			return err
		}
	}
	t.Tokens = maps.Clone(t.Tokens)
	t.Tokens[c.Id] = Token{SecretHash: hash, Expires: c.ExpiresMs, Role: c.Role, Labels: c.Labels}
	t.record(&audit.TokenCreated{ID: c.Id, Role: c.Role, ExpiresMS: c.ExpiresMs})
	return nil
}

// enrol binds a token to one key. The same key may come again until the token expires; another key is an incident.
func (t *transition) enrol(c *choirv1.Enrol) error {
	if err := cmp.Or(CheckName("node", c.Name), checkTime(c.TimeMs)); err != nil {
		return err
	}
	if len(c.PublicKey) != ed25519.PublicKeySize {
		return fmt.Errorf("%w: public key of %d bytes, want %d", ErrFormat, len(c.PublicKey), ed25519.PublicKeySize)
	}
	token, ok := t.Tokens[c.TokenId]
	switch {
	case !ok:
		return fmt.Errorf("%w: it is not known", ErrToken)
	case !bytes.Equal(token.SecretHash[:], c.SecretHash):
		return fmt.Errorf("%w: its secret is wrong", ErrToken)
	case c.TimeMs > token.Expires:
		return fmt.Errorf("%w: it has expired", ErrToken)
	case token.Node != "" && !bytes.Equal(token.Key, c.PublicKey):
		return t.tokenReused(c, token)
	case token.Node != "" && token.Node != c.Name:
		return fmt.Errorf("%w: it was used by node %s", ErrToken, token.Node)
	case token.Node == c.Name:
		return nil // asked again
	}
	if _, ok := t.Nodes[c.Name]; ok {
		return fmt.Errorf("node %s %w, enrolled with another token", c.Name, ErrExists)
	}
	token.Node, token.Key = c.Name, c.PublicKey
	t.Tokens = maps.Clone(t.Tokens)
	t.Tokens[c.TokenId] = token
	t.Nodes = maps.Clone(t.Nodes)
	t.Nodes[c.Name] = Node{Key: c.PublicKey, Token: c.TokenId, Labels: token.Labels}
	t.Roster++
	t.record(&audit.Enrolled{Node: c.Name, Key: c.PublicKey, Token: c.TokenId})
	return nil
}

// tokenReused records, once, that a used token came back with another key.
func (t *transition) tokenReused(c *choirv1.Enrol, token Token) error {
	if !token.Incident {
		token.Incident = true
		t.Tokens = maps.Clone(t.Tokens)
		t.Tokens[c.TokenId] = token
		t.record(&audit.Incident{Node: c.Name, Reason: audit.ReasonTokenReuse, First: token.Key, Second: c.PublicKey})
		t.incident = true
	}
	return fmt.Errorf("%w: it was used by node %s with another key", ErrToken, token.Node)
}
