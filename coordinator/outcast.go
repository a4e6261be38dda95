package coordinator

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"choir.example/internal/rpc"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// outcastAgain is how often a coordinator that hears of no leader asks whether it was removed.
const outcastAgain = 2 * time.Second

// Membership tells the holder of a certificate whether its membership was ended. Nobody else learns anything.
func (c enrolmentService) Membership(_ context.Context, req *choirv1.MembershipRequest) (*choirv1.MembershipReply, error) {
	id, err := asker(req, c.roots(), c.deps.Now())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "membership: %v", err)
	}
	return &choirv1.MembershipReply{Ended: c.ended(id)}, nil
}

// asker is who asks. The certificate may have expired meanwhile.
func asker(req *choirv1.MembershipRequest, roots seal.Lineage, now time.Time) (id seal.Identity, err error) {
	if len(req.Chain) == 0 {
		return id, errors.New("no certificate")
	}
	leaf, err := x509.ParseCertificate(req.Chain[0])
	if err != nil {
		return id, err
	}
	if now.After(leaf.NotAfter) {
		now = leaf.NotAfter
	}
	if id, err = roots.VerifyChain(req.Chain, now); err != nil {
		return id, err
	}
	if !seal.VerifyMembership(id.Key, req.Chain[0], req.Signature) {
		return id, fmt.Errorf("the question is not signed by the key of %s", describe(id))
	}
	return id, nil
}

// ended reports whether the own log shows that the federation wants somebody no more. Unlike admit it does not mistake
// for that what has not arrived here yet.
func (c *Coordinator) ended(id seal.Identity) bool {
	s := c.replica.State()
	switch id.Role {
	case seal.RoleNode:
		n, ok := s.Nodes[id.Name]
		return ok && (n.Revoked || !bytes.Equal(n.Key, id.Key))
	case seal.RoleCoordinator:
		return c.struckOut(id.Name, id.Key)
	}
	return s.Revoked[seal.Fingerprint(id.Certificate.Raw)]
}

// outcast waits until another coordinator says that this one was removed, which it may have missed: the others shut it
// out. It asks while no leader is heard of, and is false when ctx ends. One answer is enough, because what a log shows
// as removed stays removed.
func (c *Coordinator) outcast(ctx context.Context) bool {
	for {
		if pause(ctx, outcastAgain); ctx.Err() != nil {
			return false
		}
		if leader, _ := c.replica.Leader(); leader != "" {
			continue
		}
		own := c.own.Load().credential
		req := &choirv1.MembershipRequest{Chain: own.Chain, Signature: seal.ProveMembership(own.Key, own.Chain[0])}
		for _, address := range c.others() {
			if reply, err := c.askMembership(ctx, address, req); err == nil && reply.Ended {
				return true
			}
		}
	}
}

// others are the addresses of the coordinators that raft's log names, which may be newer than the state.
func (c *Coordinator) others() (addresses []string) {
	servers, err := c.replica.servers()
	if err != nil {
		return nil
	}
	for _, srv := range servers {
		if string(srv.ID) != c.cfg.Name {
			addresses = append(addresses, string(srv.Address))
		}
	}
	return addresses
}

// askMembership asks one coordinator, without a certificate: with it there would be no answer.
func (c *Coordinator) askMembership(ctx context.Context, address string, req *choirv1.MembershipRequest) (*choirv1.MembershipReply, error) {
	anonymous := c.clientTLS(protoGRPC, nil)
	anonymous.GetClientCertificate = nil
	conn, err := grpc.NewClient("passthrough:///"+address, append(rpc.Client(), grpc.WithContextDialer(c.wire.dialRaw),
		grpc.WithTransportCredentials(credentials.NewTLS(anonymous)))...)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return choirv1.NewEnrolmentClient(conn).Membership(ctx, req)
}
