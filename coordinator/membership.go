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
	choirv1 "choir.example/proto/choir/v1"

	"github.com/hashicorp/raft"
)

// ErrRemoved is what Run returns when the federation has removed this coordinator.
var ErrRemoved = errors.New("this coordinator was removed from the federation; to come back it joins again with an empty directory")

const (
	reconcileAgain = time.Second
	rosterAgain    = time.Second
	farewellTime   = time.Second // in which a removed coordinator may still hear that it is
	leavingAgain   = 50 * time.Millisecond
	repairAgain    = 30 * time.Second

	quoratePatience = 5 * time.Second // in which a majority must answer before a removal
	quorateAgain    = 200 * time.Millisecond
	caughtUp        = 64 // entries that a new replica may lack and still be given a vote
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

// reconcile makes raft's configuration follow the voter list, for as long as this coordinator leads: who was removed
// goes at once; who is new gets the log first and a vote when it has caught up.
func (c *Coordinator) reconcile(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		changed := c.replica.Changed()
		pending, err := c.reconcileOnce(ctx)
		if err != nil && ctx.Err() == nil && said != err.Error() {
			said = err.Error()
			c.deps.Log.Warn("voters not changed yet", "error", err)
		}
		if err == nil && !pending {
			said = ""
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		pause(ctx, reconcileAgain)
	}
}

func (c *Coordinator) reconcileOnce(ctx context.Context) (pending bool, err error) {
	s := c.replica.State()
	if s.Cluster == "" {
		return false, nil
	}
	servers, err := c.replica.servers()
	if err != nil {
		return true, err
	}
	for _, srv := range servers {
		name := string(srv.ID)
		if _, ok := s.Coordinator(name); ok {
			continue
		}
		if name == c.cfg.Name { // the next leader strikes it out
			return true, c.replica.raft.LeadershipTransfer().Error()
		}
		c.deps.Log.Info("coordinator loses its vote", "voter", name)
		// At once: if those that stay need its vote, they have it for as long as it hears from this leader only.
		if err := c.replica.raft.RemoveServer(srv.ID, 0, peerTimeout).Error(); err != nil {
			return true, fmt.Errorf("remove voter %s: %w", name, err)
		}
	}
	for _, v := range s.Coordinators {
		i := slices.IndexFunc(servers, func(srv raft.Server) bool { return string(srv.ID) == v.Name })
		switch {
		case i < 0:
			pending = true
			if err := c.replica.raft.AddNonvoter(raft.ServerID(v.Name), raft.ServerAddress(v.Address), 0, peerTimeout).Error(); err != nil {
				return true, fmt.Errorf("send the log to %s: %w", v.Name, err)
			}
		case servers[i].Suffrage != raft.Voter:
			pending = true
			if applied, ok := c.appliedBy(ctx, v); !ok || applied+caughtUp < s.Index {
				continue
			}
			if err := c.replica.raft.AddVoter(raft.ServerID(v.Name), raft.ServerAddress(v.Address), 0, peerTimeout).Error(); err != nil {
				return true, fmt.Errorf("give %s a vote: %w", v.Name, err)
			}
			c.deps.Log.Info("coordinator has a vote", "voter", v.Name)
		}
	}
	return pending, nil
}

// servers is raft's latest configuration.
func (r *replica) servers() ([]raft.Server, error) {
	f := r.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("read raft's configuration: %w", err)
	}
	return f.Configuration().Servers, nil
}

// votes reports whether raft counts a coordinator's vote, by the latest configuration that is here.
func (r *replica) votes(name string) bool {
	servers, err := r.servers()
	return err == nil && slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == name && s.Suffrage == raft.Voter })
}

// lists reports whether raft has a coordinator in its latest configuration that is here.
func (r *replica) lists(name string) bool {
	servers, err := r.servers()
	return err != nil || slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == name })
}

// listsOther reports whether raft has somebody in its configuration who is no coordinator by the state.
func (r *replica) listsOther(s *state.State) bool {
	servers, err := r.servers()
	return err != nil || slices.ContainsFunc(servers, func(srv raft.Server) bool { _, ok := s.Coordinator(string(srv.ID)); return !ok })
}

// mayApprove refuses to let a coordinator in under a name whose former holder raft still counts: an empty replica must
// not inherit a vote. Other commands it lets pass.
func (r *replica) mayApprove(command []byte) error {
	cmd, err := state.DecodeCommand(command)
	if err != nil || cmd.GetApproveCoordinator() == nil {
		return nil // Apply refuses what cannot be decoded
	}
	name := cmd.GetApproveCoordinator().Name
	if _, ok := r.State().Coordinator(name); ok {
		return nil
	}
	servers, err := r.servers()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(servers, func(srv raft.Server) bool { return string(srv.ID) == name }) {
		return fmt.Errorf("the former coordinator %s is still being struck out; try again in a moment", name)
	}
	return nil
}

// appliedBy asks a peer how far it has applied the log.
func (c *Coordinator) appliedBy(ctx context.Context, v state.Coordinator) (uint64, bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	reply, err := c.askPeer(ctx, v, &choirv1.PresenceRequest{})
	if err != nil {
		return 0, false
	}
	return reply.Applied, true
}

func (c *Coordinator) askPeer(ctx context.Context, v state.Coordinator, req *choirv1.PresenceRequest) (*choirv1.PresenceReply, error) {
	peer, err := c.peers.client(v.Name, v.Address)
	if err != nil {
		return nil, err
	}
	return peer.Presence(ctx, req)
}

// askPeers asks the other voters, at once, and waits a second at most. The answers are by name.
func (c *Coordinator) askPeers(ctx context.Context, s *state.State) map[string]*choirv1.PresenceReply {
	return c.askPeersFor(ctx, s, &choirv1.PresenceRequest{})
}

func (c *Coordinator) askPeersFor(ctx context.Context, s *state.State, req *choirv1.PresenceRequest) map[string]*choirv1.PresenceReply {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]*choirv1.PresenceReply{}
	for _, v := range s.Coordinators {
		if v.Name == c.cfg.Name {
			continue
		}
		wg.Go(func() {
			if reply, err := c.askPeer(ctx, v, req); err == nil {
				mu.Lock()
				answers[v.Name] = reply
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return answers
}

// rosterOf is the voter list of a state, unsigned.
func rosterOf(s *state.State) audit.Roster {
	r := audit.Roster{Cluster: s.Cluster, Version: s.RosterVersion()}
	for _, v := range s.Coordinators {
		r.Coordinators = append(r.Coordinators, audit.Coordinator{Name: v.Name, Address: v.Address, Chain: s.Shown(v)})
	}
	return r
}

// countersign gathers the voters' signatures over the voter list whenever it changes: nodes take a list that a majority
// has signed. It goes on until all have signed, because a node may know only some of them.
func (c *Coordinator) countersign(ctx context.Context) {
	for ctx.Err() == nil {
		changed := c.replica.Changed()
		s := c.replica.State()
		if held := c.roster.Load(); s.Cluster == "" || held != nil && held.Version == s.RosterVersion() && len(held.Signatures) == len(held.Coordinators) {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		if c.gatherRoster(ctx, s) < len(s.Coordinators) {
			pause(ctx, rosterAgain)
		}
	}
}

// gatherRoster asks all voters once; the roster is handed out when a majority has signed.
func (c *Coordinator) gatherRoster(ctx context.Context, s *state.State) (signed int) {
	r := rosterOf(s)
	signatures := map[string][]byte{}
	if c.shows(s) {
		signatures[c.cfg.Name] = r.Sign(c.cfg.Name, c.own.Load().key()).Signature
	}
	for name, reply := range c.askPeers(ctx, s) {
		if reply.Roster == r.Version {
			signatures[name] = reply.RosterSignature
		}
	}
	for _, v := range s.Coordinators {
		key, err := keyOf(v.Chain)
		if sig := signatures[v.Name]; err == nil && seal.Verify(key, audit.DomainRoster, r.Message(), sig) {
			r.Signatures = append(r.Signatures, audit.Signature{Signer: v.Name, Signature: sig})
		}
	}
	if len(r.Signatures) < s.Majority() {
		return len(r.Signatures)
	}
	if held := c.roster.Load(); held == nil || held.Version != r.Version || len(held.Signatures) < len(r.Signatures) {
		c.roster.Store(&signedRoster{r, r.Encode()})
	}
	return len(r.Signatures)
}

// signedRoster is a voter list that a majority has signed, and its encoding.
type signedRoster struct {
	audit.Roster
	encoded []byte
}

// newerRoster is the voter list for a node that holds an older one, nil if there is none to hand out.
func (c *Coordinator) newerRoster(held uint64) []byte {
	if r := c.roster.Load(); r != nil && r.Version > held {
		return r.encoded
	}
	return nil
}

// quorate sees that a majority of the voters that stay is there: without it nothing could be committed any more, not
// even the way back. One that is slow to answer, or has just come, is asked again for a while.
func (c *Coordinator) quorate(ctx context.Context, s *state.State, leaving string) error {
	stay := len(s.Coordinators) - 1
	within, cancel := context.WithTimeout(ctx, quoratePatience)
	defer cancel()
	for {
		alive := c.answering(within, s, leaving)
		if alive >= stay/2+1 {
			return nil
		}
		if pause(within, quorateAgain); within.Err() != nil {
			return fmt.Errorf("only %d of the %d coordinators that stay answer, a majority is %d; start those that are down, or remove them first",
				alive, stay, stay/2+1)
		}
	}
}

// answering counts the voters that answer, this one included, without the one that leaves.
func (c *Coordinator) answering(ctx context.Context, s *state.State, leaving string) (n int) {
	answers := c.askPeers(ctx, s)
	for _, v := range s.Coordinators {
		_, ok := answers[v.Name]
		if v.Name != leaving && (ok || v.Name == c.cfg.Name) {
			n++
		}
	}
	return n
}

// repair fetches the live blobs that are not here: what a newcomer lacks, or a disk has lost.
func (c *Coordinator) repair(ctx context.Context) {
	for ctx.Err() == nil {
		s := c.replica.State()
		for _, id := range liveBlobs(s) {
			if c.blobs.Has(id) || ctx.Err() != nil {
				continue
			}
			if _, err := c.blobs.Get(ctx, id); err != nil && ctx.Err() == nil {
				c.deps.Log.Debug("live blob is not here yet", "blob", id.String(), "error", err)
			}
		}
		within, cancel := context.WithTimeout(ctx, repairAgain)
		_, _ = c.replica.Wait(within, func(now *state.State) bool { return now.Voters != s.Voters || now.Cluster != s.Cluster })
		cancel()
	}
}

// evacuate sees to it that every live blob lies on a majority of the voters that stay when one goes. What this
// coordinator holds or can fetch it copies; if a blob cannot be brought there the removal is refused.
func (c *Coordinator) evacuate(ctx context.Context, s *state.State, leaving string) error {
	stay := slices.DeleteFunc(c.blobPeers(), func(p blobPeer) bool { return p.name == leaving })
	all := len(stay)
	if leaving != c.cfg.Name {
		all++ // this one stays, too
	}
	if all == 0 {
		return errors.New("it is the last one")
	}
	for _, id := range liveBlobs(s) {
		body, err := c.blobs.Get(ctx, id)
		if err != nil {
			return fmt.Errorf("live blob %v is not to be had: %w", id, err)
		}
		holders := 0
		if leaving != c.cfg.Name {
			if err := c.blobs.put(id, body); err != nil {
				return err
			}
			holders++
		}
		var reasons []error
		for _, p := range stay {
			if err := c.blobs.send(ctx, p, id, body); err != nil {
				reasons = append(reasons, fmt.Errorf("%s: %w", p.name, err))
				continue
			}
			holders++
		}
		if holders < all/2+1 {
			return fmt.Errorf("live blob %v would be on %d of the %d coordinators that stay, fewer than a majority: %w",
				id, holders, all, errors.Join(reasons...))
		}
	}
	return nil
}

// liveBlobs are the blobs that something may still need: the current models and statistics of jobs, validation sets,
// what open rounds name, and published variants.
func liveBlobs(s *state.State) (out []state.Digest) {
	seen := map[state.Digest]bool{{}: true}
	add := func(ids ...state.Digest) {
		for _, id := range ids {
			if !seen[id] {
				seen[id] = true
				out = append(out, id)
			}
		}
	}
	for _, j := range s.Jobs {
		add(j.Model, j.Statistics)
		if spec, err := j.JobSpec(); err == nil && len(spec.Validation) == 32 && !j.Ended() {
			add(state.Digest(spec.Validation))
		}
		if r := j.Active(); r != nil {
			add(r.Model)
			add(r.Candidates...)
			for _, b := range r.Batches {
				add(b.ID)
			}
		}
	}
	for _, rs := range s.Releases {
		for _, rel := range rs {
			for _, v := range rel.Variants {
				if v.Published {
					add(v.Blob)
				}
			}
		}
	}
	return out
}
