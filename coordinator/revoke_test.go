package coordinator

import (
	"context"
	"crypto/ed25519"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A poll of a revoked node ends within seconds, and so does an operator's stream; neither gets in again.
func TestRevocationClosesOpenConnections(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	node := f.enrol("a", "b")[0]
	polled := make(chan error, 1)
	client := node.at("c1")
	go func() {
		_, err := client.Poll(f.ctx(), &choirv1.PollRequest{Roster: 1, Done: node.done, WaitMs: 30_000}, grpc.WaitForReady(false))
		polled <- err
	}()
	f.eventually("the node polls", func() bool { return f.member("c1").presence.recent(time.Now())["a"] })
	f.submit(testJob(t, 1))
	eve := f.certify(seal.RoleOperator, "eve")
	watch, err := choirv1.NewOperatorsClient(f.connect("c1", eve)).WatchJob(f.ctx(), &choirv1.GetJobRequest{Name: "job"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if _, err := f.operators().RevokeNode(f.ctx(), &choirv1.RevokeNodeRequest{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.operators().RevokePerson(f.ctx(), &choirv1.RevokePersonRequest{Fingerprint: seal.Fingerprint(eve.Chain[0])}); err != nil {
		t.Fatal(err)
	}
	if err := <-polled; err == nil {
		t.Error("the revoked node's poll was answered")
	}
	for err == nil {
		_, err = watch.Recv()
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("closed after %v", took)
	}
	for _, cred := range []*seal.Credential{node.cred, eve} {
		if err := f.listen("c1", cred); err == nil {
			t.Error("a revoked certificate is let in")
		}
	}
	reply, err := f.operators().ListNodes(f.ctx(), &choirv1.ListNodesRequest{})
	if err != nil || len(reply.Nodes) != 2 || !reply.Nodes[0].Revoked || reply.Nodes[0].Present || reply.Nodes[1].Revoked {
		t.Errorf("nodes %v, %v", reply, err)
	}
}

// A node renews by its key, for as long as its last certificate ended no more than 30 days ago.
func TestRenew(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	nodes := f.enrol("a", "b")
	node := nodes[0]
	issuer := f.member("c1").deps.Issuer
	short, err := issuer.CertifyNode("a", node.cred.Key.Public().(ed25519.PublicKey), time.Now(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	m := f.member("c1")
	ask := func(change func(*choirv1.RenewRequest)) (*choirv1.EnrolReply, error) {
		req := &choirv1.RenewRequest{Name: "a", TimeMs: time.Now().UnixMilli(), Chain: node.cred.Chain}
		change(req)
		if req.Signature == nil {
			req.Signature = seal.ProveRenewal(node.cred.Key, "test", req.Name, req.TimeMs)
		}
		return choirv1.NewEnrolmentClient(f.connect("c1", nil)).Renew(f.ctx(), req)
	}
	for _, x := range []struct {
		what, refused string
		change        func(*choirv1.RenewRequest)
	}{
		{"a valid certificate", "", func(*choirv1.RenewRequest) {}},
		{"another's certificate", "shows the certificate of node b", func(r *choirv1.RenewRequest) { r.Chain = nodes[1].cred.Chain }},
		{"no certificate", "shows no certificate", func(r *choirv1.RenewRequest) { r.Chain = nil }},
		{"a clock a day late", "clock", func(r *choirv1.RenewRequest) { r.TimeMs -= 24 * 3600e3 }},
		{"another's key", "not enrolled with this key", func(r *choirv1.RenewRequest) {
			r.Signature = seal.ProveRenewal(nodes[1].cred.Key, "test", "a", r.TimeMs)
		}},
	} {
		reply, err := ask(x.change)
		if x.refused != "" {
			if err == nil || !strings.Contains(err.Error(), x.refused) {
				t.Errorf("%s: %v", x.what, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", x.what, err)
			continue
		}
		id, err := seal.VerifyChain(reply.Chain, f.root.Certificate(), time.Now())
		if err != nil || id.Name != "a" || !id.Key.Equal(node.cred.Key.Public().(ed25519.PublicKey)) {
			t.Errorf("%s: certified %+v, %v", x.what, id, err)
		}
	}
	for days, want := range map[int]string{7: "", 31: "more than 30 days ago"} { // after the short one ended
		err := m.renewable(&choirv1.RenewRequest{Name: "a", Chain: short}, time.Now().Add(time.Duration(days)*24*time.Hour))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("after %d days: %v", days, err)
		}
	}
	if _, err := f.operators().RevokeNode(f.ctx(), &choirv1.RevokeNodeRequest{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(func(*choirv1.RenewRequest) {}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a revoked node renews: %v", err)
	}
}

// What was captured on the way to the coordinators cannot be opened later, with all that is on every disk.
func TestCapturedEnvelopeCannotBeOpenedLater(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 3, nil, Observer{})
	nodes := f.enrol("a")
	f.submit(testJob(t, 1))
	f.statistics(nodes)
	leader := f.leader()
	task := nodes[0].poll(leader)
	captured, digest := nodes[0].sealed(task, nodes[0].payload(task, 1))
	opens := func() (n int) { // with what lies on the disks
		for _, v := range f.voters {
			m := f.member(v.Name)
			box, err := seal.OpenKeys(filepath.Join(m.cfg.Dir, "keys"), m.deps.Rand)
			if err != nil {
				t.Fatal(err)
			}
			ring, err := openKeyring(filepath.Join(m.cfg.Dir, "keys"), box, &gate{}, time.Now)
			if err != nil {
				t.Log("a key is going just now:", err)
				return -1
			}
			for _, k := range ring.all() {
				if _, err := seal.DecryptUpdate(captured, k); err == nil {
					n++
				}
			}
		}
		return n
	}
	if n := opens(); n != 3 {
		t.Fatalf("%d coordinators can open it while the round runs, want 3", n)
	}
	out, err := nodes[0].upload(f.ctx(), leader, task.Key, captured, digest)
	if err != nil {
		t.Fatal(err)
	}
	nodes[0].receipt(out)
	for f.member(leader).replica.State().Jobs["job"].State == state.JobRunning { // the evaluation
		reply, err := nodes[0].at(leader).Poll(f.ctx(), &choirv1.PollRequest{Roster: 1, Done: nodes[0].done, WaitMs: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if reply.Task != nil {
			nodes[0].done = reply.Task.Key
			nodes[0].answer(leader, reply.Task, 1)
		}
	}
	f.eventually("new epochs, and the old keys destroyed", func() bool { return opens() == 0 })
	for _, v := range f.voters { // a coordinator forgets it, too
		for _, k := range f.member(v.Name).epochs.all() {
			if _, err := seal.DecryptUpdate(captured, k); err == nil {
				t.Errorf("%s still holds the key", v.Name)
			}
		}
	}
}

// An upload that stalls frees its place.
func TestStalledUploadFreesItsPlace(t *testing.T) {
	t.Parallel()
	messages := make(chan received)
	p := &prompt{messages: messages, within: time.Millisecond}
	if _, err := p.next(t.Context()); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a stalled upload: %v", err)
	}
	go func() { messages <- received{err: io.EOF} }()
	p.within = time.Minute
	if _, err := p.next(t.Context()); err != io.EOF {
		t.Errorf("an upload that ends: %v", err)
	}
}

func TestLimitsOfOneIdentity(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	nodes := f.enrol("a", "b")
	polls := make(chan error, pollsEach)
	ctx, cancel := context.WithCancel(f.ctx())
	defer cancel()
	client := nodes[0].at("c1")
	for range pollsEach {
		go func() {
			_, err := client.Poll(ctx, &choirv1.PollRequest{Roster: 1, Done: nodes[0].done, WaitMs: 30_000})
			polls <- err
		}()
	}
	f.eventually("all poll", func() bool {
		p := f.member("c1").presence
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.here["a"] == pollsEach
	})
	if _, err := client.Poll(f.ctx(), &choirv1.PollRequest{Roster: 1, Done: nodes[0].done}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one poll more: %v", err)
	}
	if _, err := nodes[1].at("c1").Poll(f.ctx(), &choirv1.PollRequest{Roster: 1, Done: nodes[1].done}); err != nil {
		t.Errorf("another node pays for it: %v", err)
	}
	cancel()
	for range pollsEach {
		<-polls
	}
	f.eventually("the places are free again", func() bool {
		_, err := client.Poll(f.ctx(), &choirv1.PollRequest{Roster: 1, Done: nodes[0].done})
		return err == nil
	})
	l := newLimits()
	done, err := l.carry("a", 80, 100)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.carry("a", 30, 100); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("bytes in flight: %v", err)
	}
	done()
	if done, err = l.carry("a", 130, 100); err != nil { // alone it is held to the round's own limit
		t.Error(err)
	} else {
		done()
	}
}

// One address enrols one at a time; the next waits for it, and those of other addresses do not.
func TestEnrolmentsOfOneAddressTakeTurns(t *testing.T) {
	t.Parallel()
	l := newLimits()
	done, err := l.alone(t.Context(), "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.alone(ended, "10.0.0.1"); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("two at once: %v", err)
	}
	if other, err := l.alone(t.Context(), "10.0.0.2"); err != nil {
		t.Error(err)
	} else {
		other()
	}
	done()
	again, err := l.alone(t.Context(), "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	again()
	if len(l.lanes)+len(l.users) > 0 {
		t.Error("addresses are remembered for ever")
	}
}

func TestHealthListener(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, func(c *Config) { c.Health = freePort(t) }, Observer{})
	get := func(path, host string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(f.ctx(), "GET", "http://"+f.member("c1").cfg.Health+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		reply, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer reply.Body.Close()
		b, err := io.ReadAll(reply.Body)
		if err != nil {
			t.Fatal(err)
		}
		return reply.StatusCode, string(b)
	}
	f.eventually("the coordinator has compared itself with the leader", func() bool { return f.member("c1").ready() == nil })
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := get(path, ""); code != 200 || body != "ok\n" {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	if code, _ := get("/metrics", "evil.example"); code != http.StatusForbidden {
		t.Errorf("a page elsewhere reads it: %d", code)
	}
	f.enrol("a")
	_, body := get("/metrics", "")
	for _, line := range []string{"choir_coordinator_leader 1", "choir_coordinator_nodes 1", "choir_coordinator_voters 1", `choir_coordinator_jobs{state="running"} 0`} {
		if !strings.Contains(body, "\n"+line+"\n") {
			t.Errorf("no %q in\n%s", line, body)
		}
	}
	cfg := f.member("c1").cfg
	cfg.Health = "0.0.0.0:1"
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("open to the world: %v", err)
	}
}
