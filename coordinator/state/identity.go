package state

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"
)

// namePattern is what names of nodes, coordinators, jobs and models look like: fit for file names and URLs.
var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

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
	if c.Cluster == "" || len(c.Root) == 0 || len(c.Coordinators) == 0 {
		return fmt.Errorf("%w: genesis without cluster, root or coordinators", ErrFormat)
	}
	t.Cluster, t.Root = c.Cluster, c.Root
	record := &audit.Genesis{Cluster: c.Cluster, Root: c.Root, TimeMS: c.TimeMs}
	for _, e := range c.Coordinators {
		if err := CheckName("coordinator", e.Name); err != nil {
			return err
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
	old := t.Coordinators[i].Epoch
	if k.Epoch == old.Epoch && k.Recipient == old.Recipient {
		return nil
	}
	if k.Epoch <= old.Epoch || k.Recipient == "" {
		return fmt.Errorf("epoch %d of %s does not follow %d", k.Epoch, k.Coordinator, old.Epoch)
	}
	t.Coordinators = slices.Clone(t.Coordinators)
	t.Coordinators[i].Epoch = EpochKey{Epoch: k.Epoch, Recipient: k.Recipient, Signature: k.Signature}
	t.record(&audit.EpochAnnounced{Coordinator: k.Coordinator, Epoch: k.Epoch, Recipient: k.Recipient, Signature: k.Signature})
	return nil
}

func (t *transition) createToken(c *choirv1.CreateToken) error {
	hash, err := digests(c.SecretHash)
	if err != nil {
		return err
	}
	if _, ok := t.Tokens[c.Id]; ok {
		return fmt.Errorf("token %s %w", c.Id, ErrExists)
	}
	if c.Role != "node" {
		return fmt.Errorf("token for role %q: only nodes enrol by token", c.Role)
	}
	t.Tokens = maps.Clone(t.Tokens)
	t.Tokens[c.Id] = Token{SecretHash: hash[0], Expires: c.ExpiresMs, Role: c.Role, Labels: c.Labels}
	t.record(&audit.TokenCreated{ID: c.Id, Role: c.Role, ExpiresMS: c.ExpiresMs})
	return nil
}

// enrol binds a token to one key. The same key may come again until the token expires; another key is an incident.
func (t *transition) enrol(c *choirv1.Enrol) error {
	token, ok := t.Tokens[c.TokenId]
	switch {
	case !ok:
		return fmt.Errorf("%w: it is not known", ErrToken)
	case !bytes.Equal(token.SecretHash[:], c.SecretHash):
		return fmt.Errorf("%w: its secret is wrong", ErrToken)
	case c.TimeMs > token.Expires:
		return fmt.Errorf("%w: it has expired", ErrToken)
	case token.Node != "" && !bytes.Equal(token.Key, c.PublicKey):
		return t.tokenReused(c.TokenId, token, c.Name)
	case token.Node != "" && token.Node != c.Name:
		return fmt.Errorf("%w: it was used by node %s", ErrToken, token.Node)
	case token.Node == c.Name:
		return nil // asked again
	case len(c.PublicKey) != 32:
		return fmt.Errorf("%w: public key of %d bytes", ErrFormat, len(c.PublicKey))
	}
	if err := CheckName("node", c.Name); err != nil {
		return err
	}
	if _, ok := t.Nodes[c.Name]; ok {
		return fmt.Errorf("node %s %w with another key", c.Name, ErrExists)
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
func (t *transition) tokenReused(id string, token Token, name string) error {
	if !token.Incident {
		token.Incident = true
		t.Tokens = maps.Clone(t.Tokens)
		t.Tokens[id] = token
		t.record(&audit.Incident{Node: name, Reason: "token-reuse", First: token.Key})
		t.incident = true
	}
	return fmt.Errorf("%w: it was used by node %s with another key", ErrToken, token.Node)
}
