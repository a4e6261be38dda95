package coordinator

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A coordinator that was removed while it was down learns it from those that shut it out.
func TestRemovedWhileDown(t *testing.T) {
	t.Parallel()
	f := startOnDisk(t)
	f.join("c2")
	f.join("c3")
	away := f.kill("c3")
	f.eventually("c3 is removed", func() bool { return f.remove("c3") == nil })
	f.again(away)
	m := f.member("c3")
	select {
	case err := <-m.done:
		if !errors.Is(err, ErrRemoved) {
			t.Errorf("c3 ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("c3 does not learn that it was removed")
		f.kill("c3")
	}
	f.mu.Lock()
	delete(f.running, "c3")
	f.mu.Unlock()
}

// Whoever holds a certificate may ask whether it is still worth something, and nobody else.
func TestMembership(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	nodes := f.enrol("a", "b")
	eve := f.certify(seal.RoleOperator, "eve")
	if _, err := f.operators().RevokeNode(f.ctx(), &choirv1.RevokeNodeRequest{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.operators().RevokePerson(f.ctx(), &choirv1.RevokePersonRequest{Fingerprint: seal.Fingerprint(eve.Chain[0])}); err != nil {
		t.Fatal(err)
	}
	f.wait("c1", "revoked", func(s *state.State) bool { return s.Nodes["a"].Revoked })
	member := f.member("c1").deps.Credential
	expired, err := f.member("c1").deps.Issuer.CertifyNode("b", nodes[1].cred.Key.Public().(ed25519.PublicKey), time.Now().Add(-2*time.Second), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		who   string
		chain [][]byte
		by    *seal.Credential
		ended bool
		code  codes.Code
	}{
		{"revoked node", nodes[0].cred.Chain, nodes[0].cred, true, codes.OK},
		{"node", nodes[1].cred.Chain, nodes[1].cred, false, codes.OK},
		{"node that this log does not know", nil, f.certifyNode("ghost", time.Now(), time.Hour), false, codes.OK},
		{"expired node", expired, nodes[1].cred, false, codes.OK},
		{"enrolled name, another key", nil, f.certifyNode("b", time.Now(), time.Hour), true, codes.OK},
		{"revoked person", nil, eve, true, codes.OK},
		{"coordinator", nil, member, false, codes.OK},
		{"another's certificate", nodes[0].cred.Chain, nodes[1].cred, false, codes.InvalidArgument},
		{"no certificate", [][]byte{}, nodes[0].cred, false, codes.InvalidArgument},
		{"no certificate at all", [][]byte{{1}}, nodes[0].cred, false, codes.InvalidArgument},
	} {
		if x.chain == nil {
			x.chain = x.by.Chain
		}
		req := &choirv1.MembershipRequest{Chain: x.chain}
		if len(x.chain) > 0 {
			req.Signature = seal.ProveMembership(x.by.Key, x.chain[0])
		}
		reply, err := choirv1.NewEnrolmentClient(f.connect("c1", nil)).Membership(f.ctx(), req)
		if status.Code(err) != x.code || reply.GetEnded() != x.ended {
			t.Errorf("%s: ended %v, %v", x.who, reply.GetEnded(), err)
		}
	}
}

// A coordinator that hears the leader and is not heard by it is not ready: it can take no update to the log.
func TestReadyReachesTheLeader(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 3, nil, Observer{})
	follower := "c1"
	if f.leader() == follower {
		follower = "c2"
	}
	var cut atomic.Bool
	m := f.kill(follower)
	m.deps.Dial = func(ctx context.Context, address string) (net.Conn, error) {
		if cut.Load() {
			return nil, errors.New("no way out")
		}
		return dialTCP(ctx, address)
	}
	f.restart(m)
	f.wait(follower, "its log", func(s *state.State) bool { return s.Cluster != "" })
	c := f.member(follower)
	f.eventually("it is ready", func() bool { return c.ready() == nil })
	cut.Store(true)
	c.peers.keep(nil) // as if the connections broke
	f.eventually("it is not ready", func() bool {
		err := c.ready()
		return err != nil && strings.Contains(err.Error(), "no leader confirms")
	})
	cut.Store(false)
	f.eventually("it is ready again", func() bool { return c.ready() == nil })
}
