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
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// Roles of tokens, as certificates name them.
const (
	roleNode        = string(seal.RoleNode)
	roleCoordinator = string(seal.RoleCoordinator)
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
	if err := t.pinOfficers(c.Officers, record); err != nil {
		return err
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
	e := &t.Coordinators[i]
	if old.Epoch > 0 {
		e.Epochs = append(slices.Clone(e.Epochs), old)
	}
	e.Epoch = EpochKey{Epoch: k.Epoch, Recipient: k.Recipient, Signature: k.Signature}
	t.forgetEpochs()
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
	if c.Role != roleNode && c.Role != roleCoordinator {
		return fmt.Errorf("token for role %q: only nodes and coordinators come by token", c.Role)
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

// enrol binds a token to one key. The same key may come again until the token expires; another key is an incident. A node
// that was away for so long that it cannot renew its certificate comes back with its key and another token.
func (t *transition) enrol(c *choirv1.Enrol) error {
	if err := cmp.Or(CheckName("node", c.Name), checkTime(c.TimeMs)); err != nil {
		return err
	}
	if err := checkKey("public key", c.PublicKey); err != nil {
		return err
	}
	fresh, err := t.useToken(tokenUse{c.TokenId, c.SecretHash, roleNode, c.Name, c.PublicKey, c.TimeMs})
	if err != nil {
		return err
	}
	if !fresh {
		if t.Nodes[c.Name].Revoked {
			return fmt.Errorf("%w: node %s was revoked", ErrToken, c.Name)
		}
		return nil // asked again
	}
	old, again := t.Nodes[c.Name]
	if again && (old.Revoked || !bytes.Equal(old.Key, c.PublicKey)) {
		return fmt.Errorf("node %s %w, enrolled with another token", c.Name, ErrExists)
	}
	for _, n := range t.Nodes {
		if n.Revoked && bytes.Equal(n.Key, c.PublicKey) {
			return fmt.Errorf("%w: its key was revoked", ErrToken)
		}
	}
	token := t.Tokens[c.TokenId]
	t.Nodes = maps.Clone(t.Nodes)
	old.Key, old.Token, old.Labels = c.PublicKey, c.TokenId, token.Labels // what it spent stays spent
	t.Nodes[c.Name] = old
	if !again {
		t.Roster++
	}
	t.record(&audit.Enrolled{Node: c.Name, Key: c.PublicKey, Token: c.TokenId})
	return nil
}

// tokenUse is who comes with a token.
type tokenUse struct {
	id     string
	secret []byte // hash
	role   string
	name   string
	key    []byte
	time   int64 // Unix milliseconds
}

// useToken binds a token to the name and key of whoever comes with it first. It is not fresh when the same come again.
func (t *transition) useToken(u tokenUse) (fresh bool, err error) {
	token, ok := t.Tokens[u.id]
	switch {
	case !ok:
		return false, fmt.Errorf("%w: it is not known", ErrToken)
	case !bytes.Equal(token.SecretHash[:], u.secret):
		return false, fmt.Errorf("%w: its secret is wrong", ErrToken)
	case token.Role != u.role:
		return false, fmt.Errorf("%w: it is for a %s, not for a %s", ErrToken, token.Role, u.role)
	case token.Revoked:
		return false, fmt.Errorf("%w: it was revoked", ErrToken)
	case u.time > token.Expires:
		return false, fmt.Errorf("%w: it has expired", ErrToken)
	case token.Node != "" && !bytes.Equal(token.Key, u.key):
		return false, t.tokenReused(u, token)
	case token.Node != "" && token.Node != u.name:
		return false, fmt.Errorf("%w: it was used by %s %s", ErrToken, u.role, token.Node)
	case token.Node == u.name:
		return false, nil
	}
	token.Node, token.Key = u.name, u.key
	t.Tokens = put(t.Tokens, u.id, token)
	return true, nil
}

// tokenReused records, once, that a used token came back with another key.
func (t *transition) tokenReused(u tokenUse, token Token) error {
	if !token.Incident {
		token.Incident = true
		t.Tokens = put(t.Tokens, u.id, token)
		t.record(&audit.Incident{Node: u.name, Reason: audit.ReasonTokenReuse, First: token.Key, Second: u.key})
		t.incident = true
	}
	return fmt.Errorf("%w: it was used by %s %s with another key", ErrToken, u.role, token.Node)
}

// checkKey refuses what is no Ed25519 public key.
func checkKey(field string, key []byte) error {
	if len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("%w: %s of %d bytes, want %d", ErrFormat, field, len(key), ed25519.PublicKeySize)
	}
	return nil
}

// revokeToken makes a token worth nothing; a request to join that it carried goes with it. A node that enrolled with
// it stays: it is revoked by its name.
func (t *transition) revokeToken(c *choirv1.RevokeToken) error {
	token, ok := t.Tokens[c.Id]
	switch {
	case !ok:
		return fmt.Errorf("token %q does not exist", c.Id)
	case token.Revoked:
		return nil
	}
	token.Revoked = true
	t.Tokens = put(t.Tokens, c.Id, token)
	if j, ok := t.Joins[token.Node]; ok && j.Token == c.Id {
		t.Joins = without(t.Joins, token.Node)
	}
	t.record(&audit.TokenRevoked{ID: c.Id})
	return nil
}

// revokeNode ends a node's part. It stays on the roster, where its name is taken for ever, and is drawn no more.
func (t *transition) revokeNode(c *choirv1.RevokeNode) error {
	n, ok := t.Nodes[c.Name]
	switch {
	case !ok:
		return fmt.Errorf("node %q does not exist", c.Name)
	case n.Revoked:
		return nil
	}
	n.Revoked = true
	t.Nodes = put(t.Nodes, c.Name, n)
	t.Roster++
	t.record(&audit.NodeRevoked{Node: c.Name})
	return nil
}

// revokePerson makes a certificate worth nothing. It need not be known: only its holder showed it.
func (t *transition) revokePerson(c *choirv1.RevokePerson) error {
	fingerprint, err := digest("fingerprint", c.Fingerprint)
	if err != nil {
		return err
	}
	if t.Revoked[fingerprint.String()] {
		return nil
	}
	for _, v := range t.Coordinators {
		if seal.Fingerprint(v.Chain[0]) == fingerprint.String() {
			return fmt.Errorf("the certificate is of coordinator %s, which is removed, not revoked", v.Name)
		}
	}
	t.Revoked = put(t.Revoked, fingerprint.String(), true)
	t.record(&audit.PersonRevoked{Fingerprint: fingerprint})
	return nil
}
