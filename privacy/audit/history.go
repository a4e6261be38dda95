package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"choir.example/privacy/seal"
)

// history is what the records say happened, replayed from the first. Its methods hold each record against the rules
// that the replicated state follows, as far as the records alone can show them; rounds and releases stand in rounds.go.
type history struct {
	genesis  *Genesis
	root     *x509.Certificate            // the present one
	roots    []RootReport                 // all, oldest first
	officers map[[32]byte]bool            // keys of officers; false for those that were replaced
	keys     map[string]ed25519.PublicKey // of the coordinators, as of now
	voters   map[string][][]byte          // their certificates
	epochs   map[string]uint64            // last epoch announced by each coordinator
	tokens   map[string]*tokenHistory     // created tokens
	used     map[string]int               // tokens used with a public key, but for those that came back
	nodes    map[string]*Enrolled         // enrolled
	revoked  map[string]bool              // nodes
	issuers  map[string][]byte            // issuing certificates of those who joined
	gone     map[string]bool              // fingerprints of certificates revoked, or of coordinators removed
	joins    map[string]*JoinRequested    // pending
	jobs     map[string]*jobHistory
	models   map[string]uint64 // versions released
	updates  map[[32]byte]bool // counted: an update's digest covers its attempt and node, so it counts once for ever
	closed   int               // rounds closed
}

// replay checks that the records tell a history that the rules allow. Errors name the record. The history holds what
// was told before the error; its genesis is nil if that was not lawful.
func replay(records [][]byte) (*history, error) {
	h := &history{
		keys: map[string]ed25519.PublicKey{}, voters: map[string][][]byte{}, epochs: map[string]uint64{},
		tokens: map[string]*tokenHistory{}, used: map[string]int{}, nodes: map[string]*Enrolled{}, revoked: map[string]bool{},
		issuers: map[string][]byte{}, gone: map[string]bool{}, joins: map[string]*JoinRequested{}, officers: map[[32]byte]bool{},
		jobs: map[string]*jobHistory{}, models: map[string]uint64{}, updates: map[[32]byte]bool{},
	}
	for i, b := range records {
		r, err := Decode(b)
		if err == nil {
			err = h.apply(r)
		}
		if err != nil {
			return h, fmt.Errorf("record %d: %w", i, err)
		}
	}
	if h.genesis == nil {
		return h, fmt.Errorf("no genesis record")
	}
	return h, nil
}

func (h *history) apply(r Record) error {
	if (h.genesis == nil) != (r.Kind() == KindGenesis) {
		return fmt.Errorf("%v is out of place: the first record, and no other, is the genesis", r.Kind())
	}
	switch r := r.(type) {
	case *Genesis:
		return h.found(r)
	case *EpochAnnounced:
		return h.announceEpoch(r)
	case *TokenCreated:
		return h.createToken(r)
	case *Enrolled:
		return h.enrol(r)
	case *JobSubmitted:
		return h.submit(r)
	case *RoundOpened:
		return h.open(r)
	case *BatchAccepted:
		return h.accept(r)
	case *RoundCut:
		return h.cut(r)
	case *Charged:
		return h.charge(r)
	case *RoundClosed:
		return h.close(r)
	case *RoundAbandoned:
		return h.abandon(r)
	case *Released:
		return h.release(r)
	case *Incident:
		return h.incident(r)
	case *JobEnded:
		return h.endJob(r)
	case *JobControlled:
		return h.control(r)
	case *TokenRevoked:
		return h.revokeToken(r)
	case *NodeRevoked:
		return h.revokeNode(r)
	case *PersonRevoked:
		return h.revokePerson(r)
	case *JoinRequested:
		return h.requestJoin(r)
	case *CoordinatorApproved:
		return h.approve(r)
	case *CoordinatorRemoved:
		return h.remove(r)
	case *RootRotated:
		return h.rotateRoot(r)
	case *CoordinatorRenewed:
		return h.renew(r)
	case *OfficerAdmitted:
		return h.admitOfficer(r)
	}
	return fmt.Errorf("no rule for %v", r.Kind())
}

// found checks that the root certified the founding coordinators, when the federation was founded.
func (h *history) found(g *Genesis) error {
	root, err := x509.ParseCertificate(g.Root)
	if err == nil {
		err = root.CheckSignatureFrom(root)
	}
	if err != nil {
		return fmt.Errorf("root certificate: %w", err)
	}
	if root.Subject.CommonName != g.Cluster {
		return fmt.Errorf("the root certificate is of federation %q, not %q", root.Subject.CommonName, g.Cluster)
	}
	if !ascending(g.Coordinators, func(c Coordinator) string { return c.Name }) {
		return fmt.Errorf("the founding coordinators are not a sorted set")
	}
	if !ascending(g.Officers, func(key [32]byte) string { return string(key[:]) }) {
		return fmt.Errorf("the officers' keys are not a sorted set")
	}
	for _, c := range g.Coordinators {
		id, err := seal.VerifyChain(c.Chain, root, time.UnixMilli(g.TimeMS))
		if err != nil {
			return fmt.Errorf("certificate of coordinator %s: %w", c.Name, err)
		}
		if id.Role != seal.RoleCoordinator || id.Name != c.Name {
			return fmt.Errorf("certificate of coordinator %s: it is of %s %s", c.Name, id.Role, id.Name)
		}
		if len(c.Chain) > 1 {
			return fmt.Errorf("certificate of coordinator %s: a chain of %d: %w", c.Name, len(c.Chain), seal.ErrForeign)
		}
		h.keys[c.Name], h.voters[c.Name] = id.Key, c.Chain
	}
	for _, key := range g.Officers {
		h.officers[key] = true
	}
	h.genesis, h.root = g, root
	h.roots = []RootReport{{Fingerprint: seal.Fingerprint(g.Root)}}
	return nil
}

func (h *history) announceEpoch(r *EpochAnnounced) error {
	key, ok := h.keys[r.Coordinator]
	switch {
	case !ok:
		return fmt.Errorf("epoch key of %s, which is no coordinator", r.Coordinator)
	case r.Epoch <= h.epochs[r.Coordinator]:
		return fmt.Errorf("epoch %d of %s does not follow %d", r.Epoch, r.Coordinator, h.epochs[r.Coordinator])
	case !seal.VerifyEpochKey(key, h.genesis.Cluster, r.Coordinator, r.Epoch, r.Recipient, r.Signature):
		return fmt.Errorf("epoch %d of %s: %w", r.Epoch, r.Coordinator, seal.ErrSignature)
	}
	h.epochs[r.Coordinator] = r.Epoch
	return nil
}

// tokenHistory is what happened to a token.
type tokenHistory struct {
	role          string
	used, revoked bool
}

func (h *history) createToken(r *TokenCreated) error {
	if h.tokens[r.ID] != nil {
		return fmt.Errorf("token %s was created twice", r.ID)
	}
	if r.Role != string(seal.RoleNode) && r.Role != string(seal.RoleCoordinator) {
		return fmt.Errorf("token %s is for role %q: only nodes and coordinators come by token", r.ID, r.Role)
	}
	h.tokens[r.ID] = &tokenHistory{role: r.Role}
	return nil
}

// use uses a token for the first time, with a key.
func (h *history) use(id string, role seal.Role, key []byte) error {
	token := h.tokens[id]
	switch {
	case token == nil:
		return fmt.Errorf("token %s, which was never created", id)
	case token.used:
		return fmt.Errorf("token %s, which was used before", id)
	case token.revoked:
		return fmt.Errorf("token %s, which was revoked", id)
	case token.role != string(role):
		return fmt.Errorf("token %s, which is for a %s", id, token.role)
	case len(key) != ed25519.PublicKeySize:
		return fmt.Errorf("token %s and a key of %d bytes", id, len(key))
	}
	token.used = true
	h.used[string(key)]++
	return nil
}

func (h *history) enrol(r *Enrolled) error {
	if old := h.nodes[r.Node]; old != nil && (h.revoked[r.Node] || !bytes.Equal(old.Key, r.Key)) {
		return fmt.Errorf("node %s enrolled twice", r.Node) // with its own key it may, after a long absence
	}
	for name := range h.revoked {
		if bytes.Equal(h.nodes[name].Key, r.Key) {
			return fmt.Errorf("node %s enrolled with a key that was revoked", r.Node)
		}
	}
	if err := h.use(r.Token, seal.RoleNode, r.Key); err != nil {
		return fmt.Errorf("node %s enrolled with %w", r.Node, err)
	}
	h.nodes[r.Node] = r
	return nil
}

// incident checks that a node was refused, which may be said after the attempt's end. The first refusal in an attempt is
// recorded; two different updates are more than a refusal and are recorded, once, whatever came before.
func (h *history) incident(r *Incident) error {
	if r.Reason == ReasonTokenReuse {
		return h.tokenReused(r)
	}
	j := h.jobs[r.Job]
	switch {
	case !KnownReason(r.Reason):
		return fmt.Errorf("incident of node %s for %q, which is no reason", r.Node, r.Reason)
	case j == nil || j.last == nil || j.last.Round != r.Round || j.last.Attempt != r.Attempt:
		return fmt.Errorf("incident of node %s in round %d attempt %d of job %s, which is not its last", r.Node, r.Round, r.Attempt, r.Job)
	case !j.last.invites(r.Node):
		return fmt.Errorf("incident of node %s in round %d of job %s, which is not in its cohort", r.Node, r.Round, r.Job)
	}
	was := j.last.refused[r.Node]
	if was == ReasonEquivocation || was != "" && r.Reason != ReasonEquivocation {
		return fmt.Errorf("incident of node %s in round %d of job %s: it has one already", r.Node, r.Round, r.Job)
	}
	wantUpdates := r.Reason == ReasonEquivocation
	if wantUpdates && !differ(r.First, r.Second, sha256.Size) || !wantUpdates && len(r.First)+len(r.Second) > 0 {
		return fmt.Errorf("incident of node %s: two different updates are an equivocation, and nothing else is", r.Node)
	}
	j.last.refused[r.Node] = r.Reason
	return nil
}

// tokenReused checks that a used token came back, once, with another key. It names whoever brought it, who need not be
// enrolled, the key it was used with and the one it came with.
func (h *history) tokenReused(r *Incident) error {
	if r.Job != "" || r.Round != 0 || r.Attempt != 0 || !differ(r.First, r.Second, ed25519.PublicKeySize) || h.used[string(r.First)] == 0 {
		return fmt.Errorf("incident of node %s: no used token explains that one came back with another key", r.Node)
	}
	h.used[string(r.First)]--
	return nil
}

// differ reports whether a and b are two values of n bytes.
func differ(a, b []byte, n int) bool { return len(a) == n && len(b) == n && !bytes.Equal(a, b) }

// ascending reports whether a list is sorted by name and names nothing twice.
func ascending[T any](list []T, name func(T) string) bool {
	for i := 1; i < len(list); i++ {
		if name(list[i-1]) >= name(list[i]) {
			return false
		}
	}
	return true
}
