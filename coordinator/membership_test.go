package coordinator

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// startOnDisk founds a federation as --bootstrap does: its coordinators are directories.
func startOnDisk(t testing.TB) *testFederation {
	t.Helper()
	root, err := seal.NewRoot("test", time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &testFederation{t: t, dir: t.TempDir(), root: root, clock: time.Now, running: map[string]*testMember{}}
	f.operator = f.certify(seal.RoleOperator, "operator")
	cfg, deps := diskConfig(t, f.dir, "c1")
	cfg.Cluster = "test"
	if err := Found(cfg, deps, root); err != nil {
		t.Fatal(err)
	}
	f.start(cfg, deps)
	t.Cleanup(f.stop)
	f.wait("c1", "founded", func(s *state.State) bool { return s.Cluster != "" })
	return f
}

// start runs a coordinator from its directory.
func (f *testFederation) start(cfg Config, deps Deps) {
	f.t.Helper()
	f.voters = slices.DeleteFunc(f.voters, func(v Voter) bool { return v.Name == cfg.Name })
	f.voters = append(f.voters, Voter{Name: cfg.Name, Address: cfg.Address})
	f.run(&testMember{cfg: cfg, deps: deps})
}

// again starts a killed or stopped coordinator with the same command.
func (f *testFederation) again(m *testMember) {
	f.t.Helper()
	if err := <-m.done; err != nil {
		f.t.Logf("%s ended: %v", m.cfg.Name, err)
	}
	f.start(m.cfg, m.deps)
}

func (f *testFederation) joinToken() *seal.Token {
	f.t.Helper()
	reply, err := f.operators().CreateToken(f.ctx(), &choirv1.CreateTokenRequest{LifetimeMs: 3600_000, Role: "coordinator"})
	if err != nil {
		f.t.Fatal(err)
	}
	token, err := seal.ParseToken(reply.Token)
	if err != nil {
		f.t.Fatal(err)
	}
	return token
}

// approve signs a request with the root key, as `choir cluster approve` does.
func (f *testFederation) approve(name string) {
	f.t.Helper()
	if err := f.approval(name); err != nil {
		f.t.Fatal(err)
	}
}

func (f *testFederation) approval(name string) error {
	f.t.Helper()
	var ask *choirv1.JoinStatus
	f.eventually(name+" asks to join", func() bool {
		reply, err := f.operators().ListJoins(f.ctx(), &choirv1.ListJoinsRequest{})
		if err != nil {
			return false
		}
		for _, j := range reply.Joins {
			if j.Name == name {
				ask = j
			}
		}
		return ask != nil
	})
	chain, err := f.root.Certify(seal.RoleCoordinator, name, ed25519.PublicKey(ask.PublicKey), time.Now(), CertificateLife)
	if err != nil {
		f.t.Fatal(err)
	}
	issuer, err := f.root.CertifyIssuer(name, ed25519.PublicKey(ask.IssuerKey), time.Now(), CertificateLife)
	if err != nil {
		f.t.Fatal(err)
	}
	_, err = f.operators().ApproveCoordinator(f.ctx(), &choirv1.ApproveCoordinatorRequest{Name: name, Chain: chain, Issuer: issuer})
	return err
}

// join lets a coordinator in and waits until it has a vote and a key.
func (f *testFederation) join(name string) (Config, Deps) {
	f.t.Helper()
	cfg, deps := diskConfig(f.t, f.dir, name)
	token, joined := f.joinToken(), make(chan error, 1)
	go func() { joined <- Join(f.t.Context(), cfg, deps, token) }()
	f.approve(name)
	if err := <-joined; err != nil {
		f.t.Fatal(err)
	}
	f.start(cfg, deps)
	f.voting(name)
	return cfg, deps
}

// voting waits until a coordinator has a vote, and all know its epoch key.
func (f *testFederation) voting(name string) {
	f.t.Helper()
	for _, v := range f.voters {
		if f.member(v.Name) == nil {
			continue
		}
		f.wait(v.Name, name+" announced its key", func(s *state.State) bool {
			c, ok := s.Coordinator(name)
			return ok && c.Epoch.Recipient != ""
		})
	}
	f.eventually(name+" votes", func() bool {
		return f.member(f.leader()).replica.votes(name)
	})
}

func (f *testFederation) remove(name string) error {
	f.t.Helper()
	for _, v := range f.voters {
		if v.Name != name && f.member(v.Name) != nil {
			_, err := choirv1.NewOperatorsClient(f.connect(v.Name, f.operator)).RemoveCoordinator(f.ctx(), &choirv1.RemoveCoordinatorRequest{Name: name})
			return err
		}
	}
	return errors.New("nobody to ask")
}

// From one founder to three voters: a round commits, any of the three may die, and it comes back by the same command
// although its directory knows an older voter list.
func TestCoordinatorsJoin(t *testing.T) {
	t.Parallel()
	f := startOnDisk(t)
	f.join("c2")
	f.join("c3")
	f.submit(testJob(t, 3))
	nodes := f.enrol("a", "b")
	f.statistics(nodes)
	first := f.kill("c1") // the founder; it knew of nobody else when it began
	rest := f.leader()
	f.wait(rest, "statistics", func(s *state.State) bool { return s.Jobs["job"].Closed(0) != nil })
	for i, task := range f.tasks(nodes) {
		nodes[i].answer(rest, task, 1)
	}
	f.round(rest, 1, state.PhaseClosed)
	f.again(first)
	f.round("c1", 1, state.PhaseClosed)
	f.eventually("a list of voters that all three have signed", func() bool {
		r := f.member("c1").roster.Load()
		return r != nil && len(r.Signatures) == 3 && r.Verify(f.root.Certificate(), time.Now()) == nil
	})
	reply, err := nodes[0].at("c1").Poll(f.ctx(), &choirv1.PollRequest{Done: nodes[0].done})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := audit.DecodeRoster(reply.Roster); err != nil || len(r.Coordinators) != 3 {
		t.Errorf("a poll brought the roster %+v, %v", r, err)
	}
	f.eventually("a status with what all three have applied", func() bool {
		reply, err := f.operators().GetStatus(f.ctx(), &choirv1.StatusRequest{})
		return err == nil && len(reply.Replicas) == 3 &&
			!slices.ContainsFunc(reply.Replicas, func(r *choirv1.ReplicaStatus) bool { return r.Applied == 0 || r.State != "alive" })
	})
}

// A removed coordinator is cut off, learns it, and its certificate opens nothing any more. A new one, with an empty
// disk, takes the same name.
func TestRemovedCoordinatorIsReplaced(t *testing.T) {
	t.Parallel()
	f := startOnDisk(t)
	f.join("c2")
	cfg, _ := f.join("c3")
	old := f.member("c3")
	if err := f.remove("c3"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-old.done:
		if !errors.Is(err, ErrRemoved) {
			t.Errorf("the removed one ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the removed one runs on")
	}
	f.mu.Lock()
	delete(f.running, "c3")
	f.mu.Unlock()
	if err := f.listen("c1", old.Coordinator.deps.Credential); err == nil {
		t.Error("the removed one's certificate is let in")
	}
	if _, err := New(old.cfg, old.deps); err != nil {
		t.Error("its directory cannot be opened any more:", err) // it is refused by the others, not by itself
	}
	if err := os.RemoveAll(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	f.join("c3")
	f.submit(testJob(t, 1))
	nodes := f.enrol("a")
	f.statistics(nodes)
}

// The leader may be removed, too.
func TestLeaderIsRemoved(t *testing.T) {
	t.Parallel()
	f := startOnDisk(t)
	f.join("c2")
	f.join("c3")
	leader := f.leader()
	m := f.member(leader)
	if err := f.remove(leader); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	delete(f.running, leader)
	f.mu.Unlock()
	if err := <-m.done; !errors.Is(err, ErrRemoved) {
		t.Errorf("the removed one ended with %v", err)
	}
	rest := f.leader()
	f.eventually("two voters", func() bool {
		servers, err := f.member(rest).replica.servers()
		return err == nil && len(servers) == 2
	})
}

// Nobody is removed while a live blob would be lost with him.
func TestRemovalIsRefusedWhileABlobWouldBeLost(t *testing.T) {
	t.Parallel()
	f := startOnDisk(t)
	f.join("c2")
	f.join("c3")
	f.submit(testJob(t, 1))
	nodes := f.enrol("a")
	f.statistics(nodes)
	f.wait("c1", "statistics", func(s *state.State) bool { return s.Jobs["job"].Closed(0) != nil })
	dead := f.kill("c3")
	if f.leader() == "c3" {
		t.Fatal("a dead leader")
	}
	f.eventually("all is copied, and c3 removed", func() bool {
		err := f.remove("c3")
		if err != nil && status.Code(err) != codes.Unavailable && status.Code(err) != codes.FailedPrecondition {
			t.Fatal(err)
		}
		return err == nil
	})
	<-dead.done
	other := f.kill("c2")
	defer func() { <-other.done }()
	c := f.member("c1")
	if err := c.evacuate(f.ctx(), c.replica.State(), "c1"); err == nil || !strings.Contains(err.Error(), "fewer than a majority") {
		t.Errorf("the only holder goes: %v", err)
	}
}

// Join says what is wrong.
func TestJoinRefuses(t *testing.T) {
	t.Parallel()
	f := startOnDisk(t)
	cfg, deps := diskConfig(t, f.dir, "c2")
	if err := Join(t.Context(), cfg, deps, f.token(time.Hour)); err == nil || !strings.Contains(err.Error(), "--role coordinator") {
		t.Errorf("a node's token: %v", err)
	}
	token := f.joinToken()
	if _, err := f.operators().RevokeToken(f.ctx(), &choirv1.RevokeTokenRequest{Id: token.ID}); err != nil {
		t.Fatal(err)
	}
	if err := Join(t.Context(), cfg, deps, token); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("a revoked token: %v", err)
	}
	token = f.joinToken()
	short, cancel := context.WithCancel(t.Context())
	joined := make(chan error, 1)
	go func() { joined <- Join(short, cfg, deps, token) }()
	f.wait("c1", "asked", func(s *state.State) bool { return s.Joins["c2"].Token == token.ID })
	cancel()
	if err := <-joined; err == nil || !strings.Contains(err.Error(), "same command asks again") {
		t.Errorf("interrupted: %v", err)
	}
	thief, _ := diskConfig(t, t.TempDir(), "c2")
	if err := Join(t.Context(), thief, deps, token); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("a used token with another key: %v", err)
	}
	go func() { joined <- Join(t.Context(), cfg, deps, token) }() // goes on with the keys it has
	f.approve("c2")
	if err := <-joined; err != nil {
		t.Error(err)
	}
}

// Revoking a token withdraws a request that was not approved. Once it has let somebody in, it is refused: it would end
// nothing.
func TestRevokeUsedToken(t *testing.T) {
	t.Parallel()
	f := startOnDisk(t)
	revoke := func(token *seal.Token) error {
		_, err := f.operators().RevokeToken(f.ctx(), &choirv1.RevokeTokenRequest{Id: token.ID})
		return err
	}
	cfg, deps := diskConfig(t, f.dir, "c2")
	asks := func(token *seal.Token) (end func() error) {
		ctx, cancel := context.WithCancel(t.Context())
		joined := make(chan error, 1)
		go func() { joined <- Join(ctx, cfg, deps, token) }()
		f.wait("c1", "asked", func(s *state.State) bool { return s.Joins["c2"].Token == token.ID })
		return func() error { defer cancel(); return <-joined }
	}
	token := f.joinToken()
	end := asks(token)
	for range 2 {
		if err := revoke(token); err != nil {
			t.Error(err)
		}
	}
	f.wait("c1", "the request is gone", func(s *state.State) bool { return len(s.Joins) == 0 })
	if err := end(); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("who asked is told %v", err)
	}
	token = f.joinToken()
	end = asks(token)
	f.approve("c2")
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if err := revoke(token); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "was used by coordinator c2") {
		t.Errorf("a token that let c2 in: %v", err)
	}
}

// A newcomer fetches what is live, so that the founder may be lost.
func TestNewcomerFetchesLiveBlobs(t *testing.T) {
	t.Parallel()
	f := startOnDisk(t)
	f.submit(testJob(t, 1))
	nodes := f.enrol("a")
	f.statistics(nodes)
	s := f.wait("c1", "statistics", func(s *state.State) bool { return s.Jobs["job"].Closed(0) != nil })
	f.join("c2")
	f.eventually("c2 has the model and the statistics", func() bool {
		return f.member("c2").blobs.Has(s.Jobs["job"].Model) && f.member("c2").blobs.Has(s.Jobs["job"].Statistics)
	})
}

// Nobody is removed when those that stay could decide nothing any more.
func TestRemovalNeedsAMajorityThatAnswers(t *testing.T) {
	t.Parallel()
	f := startOnDisk(t)
	f.join("c2")
	f.join("c3")
	dead := f.kill("c3")
	defer func() { <-dead.done }()
	if err := f.remove("c2"); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "1 of the 2 coordinators that stay") {
		t.Errorf("the last but one that is alive: %v", err)
	}
}

// Of two one may go: the other decides alone at once, whichever led, and still does after a restart.
func TestOneOfTwoIsRemoved(t *testing.T) {
	t.Parallel()
	for _, who := range []string{"the leader", "the follower"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			f := startOnDisk(t)
			f.join("c2")
			gone, stays := "c1", "c2"
			if (f.leader() == "c1") != (who == "the leader") {
				gone, stays = "c2", "c1"
			}
			m := f.member(gone)
			if err := f.remove(gone); err != nil {
				t.Fatal(err)
			}
			if err := <-m.done; !errors.Is(err, ErrRemoved) {
				t.Errorf("the removed one ended with %v", err)
			}
			f.mu.Lock()
			delete(f.running, gone)
			f.mu.Unlock()
			f.voters = slices.DeleteFunc(f.voters, func(v Voter) bool { return v.Name == gone })
			f.joinToken() // something is decided
			f.again(f.kill(stays))
			f.wait(stays, "its log, which it commits alone", func(s *state.State) bool { return len(s.Coordinators) == 1 })
			f.joinToken()
			_, err := f.operators().RemoveCoordinator(f.ctx(), &choirv1.RemoveCoordinatorRequest{Name: stays})
			if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "it is the last one, which stays") {
				t.Errorf("the last one is removed: %v", err)
			}
		})
	}
}
