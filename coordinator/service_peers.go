package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"choir.example/coordinator/state"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// peersService is what coordinators call on each other.
type peersService struct {
	choirv1.UnimplementedPeersServer
	*Coordinator
}

// Propose puts a peer's command into the log, if this coordinator leads and the peer may speak so.
func (c peersService) Propose(ctx context.Context, req *choirv1.ProposeRequest) (*choirv1.ProposeReply, error) {
	if err := mayPropose(caller(ctx), c.replica.State().Cluster, req.Command); err != nil {
		return nil, status.Errorf(codes.PermissionDenied, "propose: %v", err)
	}
	index, err := c.replica.Propose(ctx, req.Command)
	reply := &choirv1.ProposeReply{Index: index}
	var refused *refusedCommand
	switch {
	case err == nil:
		return reply, nil
	case errors.As(err, &refused):
		reply.Refused, reply.Stale = refused.Error(), errors.Is(err, state.ErrStale)
		var twice *state.DuplicateError
		if errors.As(err, &twice) {
			reply.Duplicates = twice.Nodes
		}
		return reply, nil
	}
	return nil, status.Errorf(codes.Unavailable, "propose: %v", err)
}

// mayPropose refuses what a coordinator says in another's name: a key that it does not vouch for, a batch that it did not
// fold. What cannot be decoded is left for Apply to refuse.
func mayPropose(who seal.Identity, cluster string, command []byte) error {
	cmd, err := state.DecodeCommand(command)
	if err != nil {
		return nil
	}
	switch b := cmd.Body.(type) {
	case *choirv1.Command_AnnounceEpoch:
		k := b.AnnounceEpoch.GetKey()
		if k.GetCoordinator() != who.Name || !seal.VerifyEpochKey(who.Key, cluster, who.Name, k.GetEpoch(), k.GetRecipient(), k.GetSignature()) {
			return fmt.Errorf("coordinator %s announces an epoch key of %q that it has not signed", who.Name, k.GetCoordinator())
		}
	case *choirv1.Command_AcceptBatch:
		if b.AcceptBatch.Coordinator != who.Name {
			return fmt.Errorf("coordinator %s proposes a batch of %q", who.Name, b.AcceptBatch.Coordinator)
		}
	}
	return nil
}

// Presence lists the nodes heard lately.
func (c peersService) Presence(_ context.Context, req *choirv1.PresenceRequest) (*choirv1.PresenceReply, error) {
	s := c.replica.State()
	reply := &choirv1.PresenceReply{Applied: s.Index, Issuer: c.own.Load().issuer.Certificate}
	if req.Declined != nil {
		reply.Declined = c.declines.of(attemptOf(req.Declined))
		reply.Declining = c.declines.who(attemptOf(req.Declined))
	}
	if s.Cluster != "" && c.shows(s) { // nodes that hear of the list call those who signed it, and are to find them with their new certificates
		r := rosterOf(s)
		reply.Roster, reply.RosterSignature = r.Version, r.Sign(c.cfg.Name, c.own.Load().key()).Signature
	}
	for name := range c.presence.recent(c.deps.Now()) {
		reply.Nodes = append(reply.Nodes, name)
	}
	return reply, nil
}

// PutBlob stores a peer's blob, durably, before it answers.
func (c peersService) PutBlob(stream choirv1.Peers_PutBlobServer) error {
	return c.blobs.servePut(stream)
}

// FetchBlob streams any blob to a peer.
func (c peersService) FetchBlob(req *choirv1.BlobRequest, stream choirv1.Peers_FetchBlobServer) error {
	return c.blobs.serveFetch(req, stream)
}

// SignHead signs the head of the own log at a size it has applied, if its root is what the caller says.
func (c peersService) SignHead(ctx context.Context, req *choirv1.SignHeadRequest) (*choirv1.SignHeadReply, error) {
	s, err := c.replica.Wait(ctx, func(s *state.State) bool { return s.Log.Size() >= req.Size })
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "sign head of size %d: %v", req.Size, err)
	}
	root, err := s.Log.RootAt(req.Size)
	if err != nil || !bytes.Equal(root[:], req.Root) {
		return nil, status.Errorf(codes.DataLoss, "sign head of size %d: this replica's root is %x, not %x", req.Size, root, req.Root)
	}
	sig := c.signHead(audit.Head{Cluster: s.Cluster, Size: req.Size, Root: root})
	return &choirv1.SignHeadReply{
		Signature: &choirv1.Signature{Signer: sig.Signer, Signature: sig.Signature}, Chain: c.shown(),
	}, nil
}

// Committed answers when a majority has confirmed that this coordinator leads.
func (c peersService) Committed(context.Context, *choirv1.CommittedRequest) (*choirv1.CommittedReply, error) {
	index, err := c.replica.Committed()
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "committed: %v", err)
	}
	return &choirv1.CommittedReply{Index: index}, nil
}

// signHead signs a head with this coordinator's certified key.
func (c *Coordinator) signHead(h audit.Head) audit.Signature {
	return audit.Signature{Signer: c.cfg.Name, Signature: seal.Sign(c.own.Load().key(), audit.DomainHead, h.Message())}
}

// ownHead is the encoded head of the applied log with this coordinator's signature alone.
func (c *Coordinator) ownHead(s *state.State) []byte {
	if s.Log.Size() == 0 {
		return nil
	}
	h := audit.Head{Cluster: s.Cluster, Size: s.Log.Size(), Root: s.Log.Root()}
	h.Signatures = []audit.Signature{c.signHead(h)}
	return h.Encode()
}

// GetBundle exports the audit log under a head that a majority of the voters has signed.
func (c operatorsService) GetBundle(_ *choirv1.BundleRequest, stream choirv1.Operators_GetBundleServer) error {
	s := c.replica.State()
	h, err := c.signedHead(stream.Context(), s, len(s.Coordinators))
	if err != nil {
		return status.Errorf(codes.Unavailable, "bundle: %v", err)
	}
	bundle := audit.Bundle{Root: s.FoundingRoot(), Head: h}
	for _, sig := range h.Signatures {
		v, _ := s.Coordinator(sig.Signer)
		bundle.Chains = append(bundle.Chains, audit.Chain{Name: v.Name, Certificates: v.Chain})
	}
	for i := range s.Log.Size() {
		bundle.Records = append(bundle.Records, s.Log.Record(i))
	}
	return sendChunks(nil, bundle.Encode(), stream.Send)
}

// askHeads collects the voters' signatures over a head, by name, until enough have signed or no more will; the error
// says why others have not.
func (c *Coordinator) askHeads(ctx context.Context, s *state.State, h audit.Head, enough int) (map[string][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	signers := map[string][]byte{c.cfg.Name: c.signHead(h).Signature}
	if enough <= len(signers) {
		return signers, nil
	}
	var mu sync.Mutex // guards signers and reasons
	var reasons []error
	var wg sync.WaitGroup
	for _, v := range s.Coordinators {
		if v.Name == c.cfg.Name {
			continue
		}
		wg.Go(func() {
			sig, err := c.askHead(ctx, v, h)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				reasons = append(reasons, fmt.Errorf("%s: %w", v.Name, err))
				if status.Code(err) == codes.DataLoss {
					c.deps.Log.Error("coordinators disagree about the log", "coordinator", v.Name, "error", err)
				}
				return
			}
			if signers[v.Name] = sig; len(signers) >= enough {
				cancel()
			}
		})
	}
	wg.Wait()
	return signers, errors.Join(reasons...)
}

// askHead asks one voter for its signature over a head, and verifies it.
func (c *Coordinator) askHead(ctx context.Context, v state.Coordinator, h audit.Head) ([]byte, error) {
	peer, err := c.peers.client(v.Name, v.Address)
	if err != nil {
		return nil, err
	}
	reply, err := peer.SignHead(ctx, &choirv1.SignHeadRequest{Size: h.Size, Root: h.Root[:]})
	if err != nil {
		return nil, err
	}
	key, err := keyOf(v.Chain)
	if err != nil {
		return nil, err
	}
	sig := reply.Signature.GetSignature()
	if !seal.Verify(key, audit.DomainHead, h.Message(), sig) {
		return nil, seal.ErrSignature
	}
	return sig, nil
}

// peerClients keeps one connection to each peer.
type peerClients struct {
	dial func(name, address string) (*grpc.ClientConn, error)

	mu    sync.Mutex // guards conns
	conns map[string]peerConn
}

type peerConn struct {
	*grpc.ClientConn
	address string
}

func newPeerClients(dial func(name, address string) (*grpc.ClientConn, error)) *peerClients {
	return &peerClients{dial: dial, conns: map[string]peerConn{}}
}

// client returns a client for a peer, which is checked to be that peer in the handshake.
func (p *peerClients) client(name, address string) (choirv1.PeersClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn, ok := p.conns[name]
	if ok && conn.address != address {
		_ = conn.Close() // it joined again elsewhere
		ok = false
	}
	if !ok {
		dialled, err := p.dial(name, address)
		if err != nil {
			return nil, fmt.Errorf("connect to coordinator %s: %w", name, err)
		}
		conn = peerConn{dialled, address}
		p.conns[name] = conn
	}
	return choirv1.NewPeersClient(conn), nil
}

// keep closes the connections to those who are not among the voters any more.
func (p *peerClients) keep(voters []Voter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, conn := range p.conns {
		if !slices.ContainsFunc(voters, func(v Voter) bool { return v.Name == name && v.Address == conn.address }) {
			_ = conn.Close()
			delete(p.conns, name)
		}
	}
}

func (p *peerClients) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close() // its streams end with it
	}
}
