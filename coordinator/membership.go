package coordinator

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
)

// ErrRemoved is what Run returns when the federation has removed this coordinator.
var ErrRemoved = errors.New("this coordinator was removed from the federation; to come back it joins again with an empty directory")

const (
	farewellTime = time.Second // in which a removed coordinator may still hear that it is
	leavingAgain = 50 * time.Millisecond
)

// voters are the coordinators by the replicated state. Where none is applied yet they are those that founded the
// federation, or that were there when this one joined.
func (c *Coordinator) voters() []Voter {
	s := c.replica.State()
	if s.Cluster == "" {
		return c.cfg.Voters
	}
	out := make([]Voter, len(s.Coordinators))
	for i, v := range s.Coordinators {
		out[i] = Voter{Name: v.Name, Address: v.Address, Chain: v.Chain}
	}
	return out
}

// admit decides whether a verified identity is still welcome: a node by the key it enrolled with, a coordinator by the
// voter list, a person unless the certificate was revoked.
func (c *Coordinator) admit(id seal.Identity) error {
	s := c.replica.State()
	switch id.Role {
	case seal.RoleNode:
		if s.Retired(id.Root) {
			return fmt.Errorf("node %s: %w", id.Name, errRetired)
		}
		if n, ok := s.Nodes[id.Name]; !ok || n.Revoked || !bytes.Equal(n.Key, id.Key) {
			return fmt.Errorf("node %s: %w", id.Name, seal.ErrRevoked)
		}
	case seal.RoleCoordinator:
		if !slices.ContainsFunc(c.voters(), func(v Voter) bool { return v.is(id) }) {
			return fmt.Errorf("coordinator %s is not a voter: %w", id.Name, seal.ErrRevoked)
		}
	default:
		if s.Retired(id.Root) {
			return fmt.Errorf("%s %s: %w", id.Role, id.Name, errRetired)
		}
		if print := seal.KeyFingerprint(id.Key); id.Role == seal.RoleOfficer && !s.CountsOfficer(print[:]) {
			return fmt.Errorf("officer %s: key %x is neither pinned by the genesis nor admitted, or was replaced: %w", id.Name, print, seal.ErrRevoked)
		}
		if s.Revoked[seal.Fingerprint(id.Certificate.Raw)] {
			return fmt.Errorf("%s %s: %w", id.Role, id.Name, seal.ErrRevoked)
		}
	}
	return nil
}

// errRetired refuses what a root certified that was retired since.
var errRetired = fmt.Errorf("its certificate is by a root that was retired: %w", seal.ErrRevoked)

// is reports whether an identity has the voter's key. Its certificate may be older than the voter list or newer: a
// coordinator that was down while the root was rotated comes back with the one it has.
func (v Voter) is(id seal.Identity) bool { return certifies(v.Chain, id.Key) }

// greet is admit at the handshake. A replica that was away may not know those who joined since, one of whom may lead:
// as long as it hears of no leader whom it knows, it shakes hands with every coordinator that the root has certified
// and that it does not know to be removed. Such a peer gets no further than raft and gossip, which is how the replica
// learns who belongs; every RPC asks admit. Nor is a removed one turned away before it is struck out.
func (c *Coordinator) greet(id seal.Identity) error {
	err := c.admit(id)
	if err == nil || id.Role != seal.RoleCoordinator {
		return err
	}
	s := c.replica.State()
	if c.former.has(s, id.Key) {
		if c.struckOut(id.Name, id.Key) {
			return err
		}
		return nil
	}
	leader, _ := c.replica.Leader()
	if leader != "" && slices.ContainsFunc(c.voters(), func(v Voter) bool { return v.Name == leader }) {
		return err
	}
	if s.Retired(id.Root) {
		return err
	}
	return nil
}

// struckOut reports whether a coordinator was removed and raft counts its vote no more. Between the two the others may
// need its vote: of two coordinators the one that stays commits nothing alone before raft knows that it is alone.
func (c *Coordinator) struckOut(name string, key ed25519.PublicKey) bool {
	s := c.replica.State()
	if !c.former.has(s, key) {
		return false
	}
	_, again := s.Coordinator(name) // by a new one, which was let in only when the former was struck out
	return again || !c.replica.lists(name)
}

// former remembers the keys of coordinators that were removed: the state holds the present ones only, the
// audit log all.
type former struct {
	mu    sync.Mutex        // guards the fields below
	read  uint64            // records looked at
	known map[string]string // keys by name
	gone  map[string]bool   // keys
}

// has reports whether the log up to a state removed the coordinator of this key.
func (f *former) has(s *state.State, key ed25519.PublicKey) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == nil {
		f.known, f.gone = map[string]string{}, map[string]bool{}
	}
	for ; f.read < s.Log.Size(); f.read++ {
		r, err := audit.Decode(s.Log.Record(f.read))
		if err != nil {
			continue // records of a later version say nothing here
		}
		switch r := r.(type) {
		case *audit.Genesis:
			for _, v := range r.Coordinators {
				f.knows(v)
			}
		case *audit.CoordinatorApproved:
			f.knows(r.Coordinator)
		case *audit.CoordinatorRemoved:
			f.gone[f.known[r.Name]] = true
		}
	}
	return f.gone[string(key)]
}

// knows notes a coordinator's key, which counts again if it was removed before.
func (f *former) knows(v audit.Coordinator) {
	if key, err := keyOf(v.Chain); err == nil {
		f.known[v.Name] = string(key)
		delete(f.gone, string(key))
	}
}

// keyOf is the public key that a chain certifies.
func keyOf(chain [][]byte) (ed25519.PublicKey, error) {
	if len(chain) == 0 {
		return nil, errors.New("no certificate")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, err
	}
	key, ok := leaf.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("no Ed25519 key")
	}
	return key, nil
}

// follow sees to it that connections, clients and this coordinator itself end when their membership does. It returns
// when ctx ends or this coordinator was removed and struck out.
func (c *Coordinator) follow(ctx context.Context) error {
	type version struct {
		roster, voters   uint64
		people, officers int
		founded          bool
	}
	var seen version
	var farewell, leaving <-chan time.Time
	outcast := make(chan struct{})
	c.tasks.spawn(func(ctx context.Context) {
		if c.outcast(ctx) {
			close(outcast)
		}
	})
	for {
		changed := c.replica.Changed()
		s := c.replica.State()
		if now := (version{s.Roster, s.Voters, len(s.Revoked), len(s.Officers), s.Cluster != ""}); now != seen {
			seen = now
			if c.former.has(s, c.own.Load().key().Public().(ed25519.PublicKey)) {
				leaving = time.After(farewellTime / 4) // whoever asked this coordinator to remove itself gets the answer
			}
			c.wire.dismiss(func(id seal.Identity) error {
				err := c.admit(id)
				if id.Role == seal.RoleCoordinator || errors.Is(err, errRetired) {
					return nil // they may hear why; who rotates the root is of the retired one, too
				}
				return err
			})
			farewell = time.After(farewellTime)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-outcast:
			return ErrRemoved
		case <-leaving: // raft's configuration is not part of the state, so it is looked at again and again
			if c.struckOut(c.cfg.Name, c.own.Load().key().Public().(ed25519.PublicKey)) {
				return ErrRemoved
			}
			leaving = time.After(leavingAgain)
		case <-farewell: // by now a removed coordinator has heard of it
			farewell = nil
			c.wire.dismiss(c.greet)
			c.peers.keep(c.voters())
			if c.replica.listsOther(s) {
				farewell = time.After(farewellTime)
			}
		}
	}
}
