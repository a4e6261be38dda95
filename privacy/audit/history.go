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
	genesis *Genesis
	root    *x509.Certificate
	keys    map[string]ed25519.PublicKey // of the coordinators
	epochs  map[string]uint64            // last epoch announced by each coordinator
	tokens  map[string]bool              // created tokens: true until used
	used    map[string]int               // tokens used with a public key, but for those that came back
	nodes   map[string]bool              // enrolled
	jobs    map[string]*jobHistory
	models  map[string]uint64 // versions released
	updates map[[32]byte]bool // counted: an update's digest covers its attempt and node, so it counts once for ever
	closed  int               // rounds closed
}

// replay checks that the records tell a history that the rules allow. Errors name the record. The history holds what
// was told before the error; its genesis is nil if that was not lawful.
func replay(records [][]byte) (*history, error) {
	h := &history{
		keys: map[string]ed25519.PublicKey{}, epochs: map[string]uint64{}, tokens: map[string]bool{}, used: map[string]int{},
		nodes: map[string]bool{}, jobs: map[string]*jobHistory{}, models: map[string]uint64{}, updates: map[[32]byte]bool{},
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
	for _, c := range g.Coordinators {
		id, err := seal.VerifyChain(c.Chain, root, time.UnixMilli(g.TimeMS))
		if err != nil {
			return fmt.Errorf("certificate of coordinator %s: %w", c.Name, err)
		}
		if id.Role != seal.RoleCoordinator || id.Name != c.Name {
			return fmt.Errorf("certificate of coordinator %s: it is of %s %s", c.Name, id.Role, id.Name)
		}
		h.keys[c.Name] = id.Key
	}
	h.genesis, h.root = g, root
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

func (h *history) createToken(r *TokenCreated) error {
	if _, ok := h.tokens[r.ID]; ok {
		return fmt.Errorf("token %s was created twice", r.ID)
	}
	if r.Role != string(seal.RoleNode) {
		return fmt.Errorf("token %s is for role %q: only nodes enrol by token", r.ID, r.Role)
	}
	h.tokens[r.ID] = true
	return nil
}

func (h *history) enrol(r *Enrolled) error {
	fresh, ok := h.tokens[r.Token]
	switch {
	case !ok:
		return fmt.Errorf("node %s enrolled with token %s, which was never created", r.Node, r.Token)
	case !fresh:
		return fmt.Errorf("node %s enrolled with token %s, which was used before", r.Node, r.Token)
	case h.nodes[r.Node]:
		return fmt.Errorf("node %s enrolled twice", r.Node)
	case len(r.Key) != ed25519.PublicKeySize:
		return fmt.Errorf("node %s enrolled with a key of %d bytes", r.Node, len(r.Key))
	}
	h.tokens[r.Token], h.nodes[r.Node] = false, true
	h.used[string(r.Key)]++
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
