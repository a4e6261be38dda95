package node

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// rotate puts another root in the place of the party's.
func (p *party) rotate() {
	p.t.Helper()
	next, err := seal.NewRoot("test", time.Now(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	cross, err := p.root.CertifySuccessor(next.Certificate(), time.Now())
	if err != nil {
		p.t.Fatal(err)
	}
	if p.past == nil {
		l := seal.LineageFrom(p.root.Certificate())
		p.past = &l
	}
	l, err := p.past.Succeed(cross, next.Certificate().Raw, time.Now())
	if err != nil {
		p.t.Fatal(err)
	}
	p.root, p.past = next, &l
}

// handshake shakes hands with whoever answers at an address.
func (n *Node) handshake(t *testing.T, p *party, address string) error {
	t.Helper()
	conn, err := p.deps().Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return tls.Client(conn, n.client.tls(nil)).HandshakeContext(t.Context())
}

// A node that was away for two rotations meets a coordinator that only the newest root certified: it speaks with it,
// learns the root for good, and renews its certificate at once. From then on the older roots mean nothing to it.
func TestNodeLearnsTheRoots(t *testing.T) {
	p, dir := newParty(t, "test"), t.TempDir()
	first := p.root
	n := p.node(dir, nil, "c1")
	p.serve("old", p.certify(seal.RoleCoordinator, "c1"), first, newShop().service())
	p.rotate()
	p.rotate()
	s := newShop().service()
	polled := make(chan struct{}, 1)
	s.poll = func(ctx context.Context, r *choirv1.PollRequest) (*choirv1.PollReply, error) {
		if !n.id.outdated(n.client.certificate(), time.Now()) {
			select {
			case polled <- struct{}{}:
			default:
			}
		}
		return &choirv1.PollReply{}, nil
	}
	s.renew = p.renewer(public(n.id.key), time.Hour)
	p.coordinator("c1", s)
	if err := n.handshake(t, p, "old"); err != nil {
		t.Errorf("before it knows better: %v", err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error)
	go func() { done <- n.Run(ctx) }()
	select {
	case <-polled:
	case <-ctx.Done():
		t.Errorf("it does not poll with a new certificate: %s", p.log)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if p.log.count("the federation has another root", first.Fingerprint(), p.root.Fingerprint()) != 1 {
		t.Errorf("it does not say so once: %s", p.log)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}

	again := p.node(dir, nil, "c1")
	if !again.id.trusted().Equal(p.root.Certificate()) {
		t.Error("the newest root is forgotten over a restart")
	}
	if _, err := seal.VerifyChain(again.id.chain, p.root.Certificate(), time.Now()); err != nil {
		t.Errorf("the certificate kept: %v", err)
	}
	if err := again.handshake(t, p, "old"); !errors.Is(err, seal.ErrForeign) {
		t.Errorf("a coordinator of the first root: %v", err)
	}
	if err := again.handshake(t, p, "c1"); err != nil {
		t.Errorf("a coordinator of the newest root: %v", err)
	}
	flip(t, dir+"/"+rootsFile)
	_ = again.Close()
	_, err := New(again.cfg, p.deps())
	wantError(t, err, rootsFile, "it is damaged; remove it")
}

// A stranger's root is not learnt, whatever he shows behind his certificate.
func TestForgedRootIsNotLearnt(t *testing.T) {
	p, other := newParty(t, "test"), newParty(t, "test")
	n := p.node(t.TempDir(), nil, "c1")
	other.rotate()
	p.serve("forged", other.certify(seal.RoleCoordinator, "c1"), other.root, newShop().service())
	if err := n.handshake(t, p, "forged"); !errors.Is(err, seal.ErrForeign) {
		t.Errorf("a stranger: %v", err)
	}
	n.id.roots.learn(append(other.past.Roots(), p.root.Certificate()), time.Now())
	if !n.id.trusted().Equal(p.root.Certificate()) {
		t.Error("a root was learnt that nobody certified")
	}
}

// A node keeps the officers' keys that it was told of, and says once when they change.
func TestOfficersAreRemembered(t *testing.T) {
	p, dir := newParty(t, "test"), t.TempDir()
	olga, olaf := make([]byte, 32), append(make([]byte, 31), 1)
	n := p.node(dir, nil, "c1")
	n.told([][]byte{olga}) // for the first time: there is nothing to compare it with
	n.told([][]byte{olga})
	if p.log.count("officers' keys") != 0 {
		t.Errorf("nothing has changed: %s", p.log)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = p.node(dir, nil, "c1")
	n.told([][]byte{olga})
	n.told([][]byte{olga, olaf})
	n.told([][]byte{olga, olaf})
	if p.log.count("level=WARN", "the officers' keys of this federation have changed") != 1 {
		t.Errorf("it is not said once: %s", p.log)
	}
}

// A token from before a rotation enrols under the newest root; a node that was away for too long comes back with a token
// of a root that it has never heard of, because its own leads there, and not with one that only looks alike.
func TestTokensOverRotations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, other, dir := newParty(t, "test"), newParty(t, "test"), t.TempDir()
		before := p.token("c1")
		p.rotate()
		r := p.registrar("c1")
		cfg := configIn(dir)
		if err := Enrol(t.Context(), cfg, p.deps(), before); err != nil {
			t.Fatal(err)
		}
		if id := loadTestIdentity(t, dir); !id.root.Equal(p.root.Certificate()) {
			t.Error("it did not enrol under the newest root")
		}
		if err := Enrol(t.Context(), cfg, p.deps(), p.token("c1")); err != nil {
			t.Errorf("again, with a token of the newest root: %v", err)
		}
		time.Sleep(45 * 24 * time.Hour)
		p.rotate()
		p.rotate()
		p.registrar("c1")
		other.registrar("c1")
		if err := Enrol(t.Context(), cfg, other.deps(), other.token("c1")); !errors.Is(err, seal.ErrForeign) && !strings.Contains(err.Error(), "the token is of another") {
			t.Errorf("a federation of the same name: %v", err)
		}
		if err := Enrol(t.Context(), cfg, p.deps(), p.token("c1")); err != nil {
			t.Errorf("after two more rotations: %v", err)
		}
		if id := loadTestIdentity(t, dir); !id.root.Equal(p.root.Certificate()) || len(r.keys) != 1 {
			t.Errorf("it did not come back under the newest root; %d keys", len(r.keys))
		}
	})
}
