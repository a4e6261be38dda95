package coordinator

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	renewSkew = time.Hour           // how far a renewing node's clock may be off
	renewLate = 30 * 24 * time.Hour // how long after its end a certificate may still be renewed
	maxTokens = 1000                // made by one call
)

// Join posts a future coordinator's request, and answers it once an operator has approved it.
func (c enrolmentService) Join(ctx context.Context, req *choirv1.JoinRequest) (*choirv1.JoinReply, error) {
	if !seal.VerifyJoin(req.PublicKey, req.TokenId, req.Name, req.Address, req.IssuerKey, req.Proof) {
		return nil, status.Error(codes.InvalidArgument, "join: the request is not signed by its own key")
	}
	secret := sha256.Sum256(req.TokenSecret)
	cmd := &choirv1.Command{Body: &choirv1.Command_RequestJoin{RequestJoin: &choirv1.RequestJoin{
		TokenId: req.TokenId, SecretHash: secret[:], Name: req.Name, Address: req.Address, PublicKey: req.PublicKey,
		IssuerKey: req.IssuerKey, TimeMs: c.deps.Now().UnixMilli(),
	}}}
	news, err := c.rehearse(ctx, req.TokenId, cmd)
	if err != nil {
		return nil, rpcError("join", err)
	}
	if news { // what is known already takes no place in the log
		done, err := c.enrolling(ctx)
		if err != nil {
			return nil, err
		}
		err = c.command(ctx, cmd, nil)
		done()
		if err != nil {
			return nil, rpcError("join", err)
		}
	}
	s := c.replica.State()
	v, ok := s.Coordinator(req.Name)
	if !ok || !certifies(v.Chain, req.PublicKey) {
		return &choirv1.JoinReply{}, nil
	}
	return &choirv1.JoinReply{
		Approved: true, Chain: v.Chain, Issuer: v.Issuer, Root: s.Root, Cluster: s.Cluster, Coordinators: voterEntries(s),
	}, nil
}

func certifies(chain [][]byte, key ed25519.PublicKey) bool {
	own, err := keyOf(chain)
	return err == nil && own.Equal(key)
}

func voterEntries(s *state.State) (out []*choirv1.CoordinatorEntry) {
	for _, v := range s.Coordinators {
		out = append(out, &choirv1.CoordinatorEntry{Name: v.Name, Address: v.Address, Chain: v.Chain})
	}
	return out
}

// Renew certifies an enrolled node's key anew. The caller proves that it holds the key; its certificate, which may have
// expired, says nothing here.
func (c enrolmentService) Renew(_ context.Context, req *choirv1.RenewRequest) (*choirv1.EnrolReply, error) {
	s, now := c.replica.State(), c.deps.Now()
	n, ok := s.Nodes[req.Name]
	switch at := time.UnixMilli(req.TimeMs); {
	case !ok || n.Revoked || !seal.VerifyRenewal(n.Key, s.Cluster, req.Name, req.TimeMs, req.Signature):
		// One answer for all three: who does not hold the key learns nothing about names.
		return nil, status.Errorf(codes.FailedPrecondition, "renew: node %q is not enrolled with this key, or was revoked", req.Name)
	case at.Before(now.Add(-renewSkew)) || at.After(now.Add(renewSkew)):
		return nil, status.Errorf(codes.InvalidArgument, "renew: the clock of node %s says %s, this coordinator's %s; set the one that is wrong",
			req.Name, at.UTC().Format(time.DateTime), now.UTC().Format(time.DateTime))
	}
	if err := c.renewable(req, now); err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "renew: %v", err)
	}
	own := c.own.Load()
	chain, err := own.issuer.CertifyNode(req.Name, n.Key, now, nodeCertificateLife)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "renew: %v", err)
	}
	return &choirv1.EnrolReply{Chain: chain, Root: own.root.Raw}, nil
}

// renewable sees that the certificate shown is the node's and did not end too long ago.
func (c *Coordinator) renewable(req *choirv1.RenewRequest, now time.Time) error {
	if len(req.Chain) == 0 {
		return fmt.Errorf("node %s shows no certificate", req.Name)
	}
	leaf, err := x509.ParseCertificate(req.Chain[0])
	if err != nil {
		return fmt.Errorf("certificate of node %s: %w", req.Name, err)
	}
	if now.After(leaf.NotAfter.Add(renewLate)) {
		return fmt.Errorf("the certificate of node %s ended at %s, more than 30 days ago; the node needs a new token",
			req.Name, leaf.NotAfter.UTC().Format(time.DateTime))
	}
	at := now
	if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	id, err := c.roots().VerifyChain(req.Chain, at) // by a retired root, too: the key that signed the request is the one enrolled
	if err != nil {
		return fmt.Errorf("certificate of node %s: %w", req.Name, err)
	}
	if id.Role != seal.RoleNode || id.Name != req.Name {
		return fmt.Errorf("node %s shows the certificate of %s", req.Name, describe(id))
	}
	return nil
}

// CreateToken makes single-use tokens, each for one node or coordinator. Their secrets are in the reply only; the log
// keeps the hashes.
func (c operatorsService) CreateToken(ctx context.Context, req *choirv1.CreateTokenRequest) (*choirv1.CreateTokenReply, error) {
	if most := uint64(maxTokenLife / time.Millisecond); req.LifetimeMs < 1 || req.LifetimeMs > most {
		return nil, status.Errorf(codes.InvalidArgument, "create token: lifetime_ms is %d, want 1 to %d (30 days)", req.LifetimeMs, most)
	}
	if req.Count > maxTokens {
		return nil, status.Errorf(codes.InvalidArgument, "create token: count is %d, want at most %d", req.Count, maxTokens)
	}
	role := seal.Role(req.Role)
	if role == seal.RoleNone {
		role = seal.RoleNode
	}
	if role != seal.RoleNode && role != seal.RoleCoordinator {
		return nil, status.Errorf(codes.InvalidArgument, "create token: role is %q, want node or coordinator", req.Role)
	}
	reply := &choirv1.CreateTokenReply{}
	for range max(req.Count, 1) {
		text, err := c.createToken(ctx, role, time.Duration(req.LifetimeMs)*time.Millisecond, req.Labels)
		if err != nil {
			return nil, err
		}
		reply.Tokens = append(reply.Tokens, text)
	}
	reply.Token = reply.Tokens[0]
	return reply, nil
}

func (c operatorsService) createToken(ctx context.Context, role seal.Role, life time.Duration, labels map[string]string) (string, error) {
	s := c.replica.State()
	if s.Cluster == "" {
		return "", status.Error(codes.Unavailable, "create token: the federation is not founded yet")
	}
	var addresses []string
	for _, v := range s.Coordinators {
		addresses = append(addresses, v.Address)
	}
	token, err := seal.NewToken(role, seal.Fingerprint(s.Root), addresses, labels, c.deps.Now().Add(life), c.deps.Rand)
	if err != nil {
		return "", status.Errorf(codes.Internal, "create token: %v", err)
	}
	token.Officers = s.OfficerKeys()
	hash := token.SecretHash()
	err = c.command(ctx, &choirv1.Command{Body: &choirv1.Command_CreateToken{CreateToken: &choirv1.CreateToken{
		Id: token.ID, SecretHash: hash[:], ExpiresMs: token.Expires.UnixMilli(), Role: string(token.Role), Labels: labels,
	}}}, func(s *state.State) bool { return s.Tokens[token.ID].SecretHash == hash })
	if err != nil {
		return "", rpcError("create token", err)
	}
	return token.String(), nil
}

// ListTokens lists all tokens, those that expire first at the front.
func (c operatorsService) ListTokens(context.Context, *choirv1.ListTokensRequest) (*choirv1.ListTokensReply, error) {
	reply := &choirv1.ListTokensReply{}
	tokens := c.replica.State().Tokens
	for _, id := range slices.Sorted(maps.Keys(tokens)) {
		t := tokens[id]
		reply.Tokens = append(reply.Tokens, &choirv1.TokenStatus{
			Id: id, Role: t.Role, Labels: t.Labels, ExpiresMs: t.Expires, UsedBy: t.Node, Incident: t.Incident, Revoked: t.Revoked,
		})
	}
	slices.SortStableFunc(reply.Tokens, func(a, b *choirv1.TokenStatus) int { return int(a.ExpiresMs - b.ExpiresMs) })
	return reply, nil
}

// RevokeToken makes a token useless.
func (c operatorsService) RevokeToken(ctx context.Context, req *choirv1.RevokeTokenRequest) (*choirv1.RevokeTokenReply, error) {
	s := c.replica.State()
	token, ok := s.Tokens[req.Id]
	switch {
	case !ok:
		return nil, status.Errorf(codes.NotFound, "token %q does not exist", req.Id)
	case !token.Revoked && token.Node != "" && s.Joins[token.Node].Token != req.Id: // whom it admitted is in already
		return nil, status.Errorf(codes.FailedPrecondition, "token %s was used by %s %s; revoking it would change nothing", req.Id, token.Role, token.Node)
	}
	cmd := &choirv1.Command{Body: &choirv1.Command_RevokeToken{RevokeToken: &choirv1.RevokeToken{Id: req.Id}}}
	if err := c.command(ctx, cmd, nil); err != nil {
		return nil, rpcError("revoke token", err)
	}
	return &choirv1.RevokeTokenReply{}, nil
}

// ListNodes lists the enrolled nodes, the revoked among them.
func (c operatorsService) ListNodes(ctx context.Context, _ *choirv1.ListNodesRequest) (*choirv1.ListNodesReply, error) {
	s := c.replica.State()
	present := c.heard(ctx, s)
	reply := &choirv1.ListNodesReply{}
	for _, name := range s.NodeNames() {
		n := s.Nodes[name]
		reply.Nodes = append(reply.Nodes, &choirv1.NodeStatus{
			Name: name, Labels: n.Labels, Key: n.Key, Revoked: n.Revoked, Present: present[name] && !n.Revoked, Spent: n.Spent,
		})
	}
	return reply, nil
}

// RevokeNode ends a node's membership.
func (c operatorsService) RevokeNode(ctx context.Context, req *choirv1.RevokeNodeRequest) (*choirv1.RevokeNodeReply, error) {
	if _, ok := c.replica.State().Nodes[req.Name]; !ok {
		return nil, status.Errorf(codes.NotFound, "node %q does not exist", req.Name)
	}
	cmd := &choirv1.Command{Body: &choirv1.Command_RevokeNode{RevokeNode: &choirv1.RevokeNode{Name: req.Name}}}
	if err := c.command(ctx, cmd, nil); err != nil {
		return nil, rpcError("revoke node", err)
	}
	return &choirv1.RevokeNodeReply{}, nil
}

// RevokePerson makes a person's certificate useless.
func (c operatorsService) RevokePerson(ctx context.Context, req *choirv1.RevokePersonRequest) (*choirv1.RevokePersonReply, error) {
	fingerprint, err := hex.DecodeString(req.Fingerprint)
	if err != nil || len(fingerprint) != sha256.Size {
		return nil, status.Errorf(codes.InvalidArgument, "revoke person: fingerprint %q, want the SHA-256 of a certificate in hex", req.Fingerprint)
	}
	cmd := &choirv1.Command{Body: &choirv1.Command_RevokePerson{RevokePerson: &choirv1.RevokePerson{Fingerprint: fingerprint}}}
	if err := c.command(ctx, cmd, nil); err != nil {
		return nil, rpcError("revoke person", err)
	}
	return &choirv1.RevokePersonReply{}, nil
}

// ListJoins lists the machines that ask to become coordinators.
func (c operatorsService) ListJoins(context.Context, *choirv1.ListJoinsRequest) (*choirv1.ListJoinsReply, error) {
	reply := &choirv1.ListJoinsReply{}
	joins := c.replica.State().Joins
	for _, name := range slices.Sorted(maps.Keys(joins)) {
		j := joins[name]
		reply.Joins = append(reply.Joins, &choirv1.JoinStatus{
			Name: name, Address: j.Address, PublicKey: j.Key, IssuerKey: j.IssuerKey, TimeMs: j.Time,
		})
	}
	return reply, nil
}

// ApproveCoordinator makes a voter of a machine that asked. The certificates, which the root has signed, are the
// permission; an operator only carries them.
func (c operatorsService) ApproveCoordinator(ctx context.Context, req *choirv1.ApproveCoordinatorRequest) (*choirv1.ApproveCoordinatorReply, error) {
	s := c.replica.State()
	_, asks := s.Joins[req.Name]
	if _, member := s.Coordinator(req.Name); !asks && !member {
		return nil, status.Errorf(codes.NotFound, "approve: coordinator %q did not ask to join", req.Name)
	}
	cmd := &choirv1.Command{Body: &choirv1.Command_ApproveCoordinator{ApproveCoordinator: &choirv1.ApproveCoordinator{
		Name: req.Name, Chain: req.Chain, Issuer: req.Issuer, TimeMs: c.deps.Now().UnixMilli(),
	}}}
	if err := c.command(ctx, cmd, nil); err != nil {
		return nil, rpcError("approve coordinator "+req.Name, err)
	}
	return &choirv1.ApproveCoordinatorReply{}, nil
}

// RemoveCoordinator ends a voter's membership, once every live blob is on a majority of those that stay.
func (c operatorsService) RemoveCoordinator(ctx context.Context, req *choirv1.RemoveCoordinatorRequest) (*choirv1.RemoveCoordinatorReply, error) {
	s := c.replica.State()
	if _, ok := s.Coordinator(req.Name); !ok {
		return nil, status.Errorf(codes.NotFound, "remove: coordinator %q is not a voter", req.Name)
	}
	if len(s.Coordinators) == 1 {
		return nil, status.Errorf(codes.FailedPrecondition, "remove coordinator %s: it is the last one, which stays", req.Name)
	}
	if err := c.quorate(ctx, s, req.Name); err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "remove coordinator %s: %v", req.Name, err)
	}
	if err := c.evacuate(ctx, s, req.Name); err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "remove coordinator %s: %v", req.Name, err)
	}
	chain := func(s *state.State) []byte { v, _ := s.Coordinator(req.Name); return bytes.Join(v.Chain, nil) }
	was := chain(s)
	cmd := &choirv1.Command{Body: &choirv1.Command_RemoveCoordinator{RemoveCoordinator: &choirv1.RemoveCoordinator{Name: req.Name}}}
	err := c.command(ctx, cmd, func(s *state.State) bool { return !bytes.Equal(chain(s), was) })
	if err != nil {
		return nil, rpcError("remove coordinator "+req.Name, err)
	}
	return &choirv1.RemoveCoordinatorReply{}, nil
}

// heard is the set of nodes that some coordinator heard lately.
func (c *Coordinator) heard(ctx context.Context, s *state.State) map[string]bool {
	present := c.presence.recent(c.deps.Now())
	for _, reply := range c.askPeers(ctx, s) {
		for _, name := range reply.Nodes {
			present[name] = true
		}
	}
	return present
}
