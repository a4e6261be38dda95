package coordinator

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/internal/rpc"
	"choir.example/model"
	"choir.example/model/data"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// testFederation is real coordinators on loopback and nodes that send what a test hands them, right or wrong.
type testFederation struct {
	t        testing.TB
	dir      string
	root     *seal.Root
	voters   []Voter
	operator *seal.Credential
	clock    func() time.Time
	tune     func(*Config)
	observe  Observer

	mu      sync.Mutex // guards the fields below
	running map[string]*testMember
}

type testMember struct {
	*Coordinator
	cancel context.CancelFunc
	done   chan error
	deps   Deps
	cfg    Config
}

// testSchema has one feature, so that a model of it is as small or large as its hidden layers.
func testSchema(t testing.TB) *data.Schema {
	t.Helper()
	s, err := data.ParseSchema([]byte(`{"name":"toy","unit":"row","label":"y","columns":[
		{"name":"x","kind":"numeric","min":0,"max":1},{"name":"y","kind":"boolean","required":true}]}`))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// testJob is a job of the toy schema; rounds last as long as it takes unless a test says otherwise.
func testJob(t testing.TB, rounds uint64, hidden ...uint32) *choirv1.JobSpec {
	if len(hidden) == 0 {
		hidden = []uint32{2}
	}
	return &choirv1.JobSpec{
		Name: "job", Model: "toy", Schema: testSchema(t).Encode(), Hidden: hidden, Rounds: rounds, LocalEpochs: 1, Batch: 1,
		LearningRate: 0.1, Range: 8, WeightCap: 1000, MinimumCohort: 1, DurationMs: 60_000, MaxAttempts: 3,
		StudentRows: 16, StudentEpochs: 1, StudentTemperature: 1, GateInt8Ppm: 1e6, GateStudentPpm: 1e6, WaitMs: 20_000,
	}
}

// startFederation starts n coordinators and waits until they have founded the federation.
func startFederation(t testing.TB, n int, tune func(*Config), observe Observer) *testFederation {
	t.Helper()
	root, err := seal.NewRoot("test", time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &testFederation{t: t, dir: t.TempDir(), root: root, clock: time.Now, tune: tune, observe: observe, running: map[string]*testMember{}}
	f.operator = f.certify(seal.RoleOperator, "operator")
	var members []*testMember
	for i := range n {
		m := f.prepare(fmt.Sprintf("c%d", i+1))
		f.voters = append(f.voters, Voter{Name: m.cfg.Name, Address: m.cfg.Address, Chain: m.deps.Credential.Chain})
		members = append(members, m)
	}
	for _, m := range members {
		m.cfg.Voters = f.voters
		f.run(m)
	}
	t.Cleanup(f.stop)
	for _, m := range members {
		f.wait(m.cfg.Name, "founded, with all epoch keys", func(s *state.State) bool {
			return s.Cluster != "" && !slices.ContainsFunc(s.Coordinators, func(c state.Coordinator) bool { return c.Epoch.Recipient == "" })
		})
	}
	return f
}

func (f *testFederation) certify(role seal.Role, name string) *seal.Credential {
	f.t.Helper()
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	chain, err := f.root.Certify(role, name, key.Public().(ed25519.PublicKey), time.Now(), time.Hour)
	if err != nil {
		f.t.Fatal(err)
	}
	if role == seal.RoleOfficer {
		f.admit(name, key.Public().(ed25519.PublicKey), [32]byte{})
	}
	return &seal.Credential{Chain: chain, Key: key}
}

// admit has the root say that an officer's key counts, and waits until every coordinator has heard of it.
func (f *testFederation) admit(name string, key ed25519.PublicKey, replaces [32]byte) {
	f.t.Helper()
	if err := f.admission(name, key, replaces); err != nil {
		f.t.Fatal(err)
	}
	print := seal.KeyFingerprint(key)
	for _, v := range f.voters {
		if f.member(v.Name) != nil {
			f.wait(v.Name, "officer admitted", func(s *state.State) bool { return s.CountsOfficer(print[:]) })
		}
	}
}

func (f *testFederation) admission(name string, key ed25519.PublicKey, replaces [32]byte) error {
	f.t.Helper()
	print := seal.KeyFingerprint(key)
	req := &choirv1.AdmitOfficerRequest{Key: print[:], Name: name, Signature: f.root.AdmitOfficer(print, replaces, name)}
	if replaces != [32]byte{} {
		req.Replaces = replaces[:]
	}
	_, err := f.operators().AdmitOfficer(f.ctx(), req)
	return err
}

func (f *testFederation) prepare(name string) *testMember {
	f.t.Helper()
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	issuer, err := f.root.CertifyIssuer(name, key.Public().(ed25519.PublicKey), time.Now(), time.Hour)
	if err != nil {
		f.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Name, cfg.Cluster, cfg.Dir, cfg.Address = name, "test", filepath.Join(f.dir, name), l.Addr().String()
	cfg.Heartbeat = steady
	if f.tune != nil {
		f.tune(&cfg)
	}
	return &testMember{cfg: cfg, deps: Deps{
		Log: quiet(), Listener: l, Dial: dialTCP, Now: func() time.Time { return f.clock() }, Rand: rand.Reader,
		Root: f.root.Certificate(), Credential: f.certify(seal.RoleCoordinator, name),
		Issuer: &seal.Issuer{Certificate: issuer, Key: key}, Observe: f.observe,
	}}
}

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

func (f *testFederation) run(m *testMember) {
	f.t.Helper()
	c, err := New(m.cfg, m.deps)
	if err != nil {
		f.t.Fatal(err)
	}
	m.Coordinator = c
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.done = cancel, make(chan error, 1)
	f.mu.Lock()
	f.running[m.cfg.Name] = m
	f.mu.Unlock()
	go func() { m.done <- c.Run(ctx) }()
}

// kill makes a coordinator vanish. The member it returns can be run again.
func (f *testFederation) kill(name string) *testMember {
	f.mu.Lock()
	m := f.running[name]
	delete(f.running, name)
	f.mu.Unlock()
	m.Kill()
	m.cancel()
	return m
}

// restart runs a killed member again on its directory and address.
func (f *testFederation) restart(m *testMember) {
	f.t.Helper()
	<-m.done
	l, err := net.Listen("tcp", m.cfg.Address)
	if err != nil {
		f.t.Fatal(err)
	}
	m.deps.Listener = l
	f.run(&testMember{cfg: m.cfg, deps: m.deps})
}

func (f *testFederation) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.running {
		m.cancel()
	}
	for name, m := range f.running {
		if err := <-m.done; err != nil && !errors.Is(err, net.ErrClosed) {
			f.t.Errorf("%s: %v", name, err)
		}
	}
}

func (f *testFederation) member(name string) *testMember {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running[name]
}

// leader is the running member that leads.
func (f *testFederation) leader() string {
	f.t.Helper()
	var name string
	f.eventually("a leader", func() bool {
		for _, v := range f.voters {
			if m := f.member(v.Name); m != nil {
				if l, _ := m.replica.Leader(); l != "" && f.member(l) != nil {
					name = l
					return true
				}
			}
		}
		return false
	})
	return name
}

func (f *testFederation) eventually(what string, cond func() bool) {
	f.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(30 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			f.t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// wait waits for a state on one member.
func (f *testFederation) wait(name, what string, cond func(*state.State) bool) *state.State {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	defer cancel()
	var s *state.State
	f.eventually(what, func() bool {
		m := f.member(name)
		if m == nil || m.replica == nil {
			return false
		}
		s = m.replica.State()
		return cond(s) || ctx.Err() != nil
	})
	return s
}

// round waits until a coordinator has heard of a round in a phase.
func (f *testFederation) round(name string, number uint64, phase string) *state.Round {
	f.t.Helper()
	var r *state.Round
	f.wait(name, fmt.Sprintf("round %d %s", number, phase), func(s *state.State) bool {
		j := s.Jobs["job"]
		if j == nil {
			return false
		}
		for _, x := range j.Rounds {
			if x.Number == number && x.Phase == phase {
				r = x
				return true
			}
		}
		return false
	})
	return r
}

// connect opens a gRPC connection to a coordinator with a credential, or none.
func (f *testFederation) connect(name string, cred *seal.Credential) *grpc.ClientConn {
	f.t.Helper()
	address := ""
	for _, v := range f.voters {
		if v.Name == name {
			address = v.Address
		}
	}
	conn, err := grpc.NewClient("passthrough:///"+address, append(rpc.Client(),
		grpc.WithTransportCredentials(credentials.NewTLS(seal.ClientTLS(cred, f.root.Certificate(), time.Now, protoGRPC, nil))))...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (f *testFederation) operators() choirv1.OperatorsClient {
	return choirv1.NewOperatorsClient(f.connect(f.leader(), f.operator))
}

func (f *testFederation) submit(spec *choirv1.JobSpec) {
	f.t.Helper()
	if _, err := f.operators().SubmitJob(f.ctx(), &choirv1.SubmitJobRequest{Spec: spec}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *testFederation) ctx() context.Context {
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	f.t.Cleanup(cancel)
	return ctx
}

// token makes a token as operator.
func (f *testFederation) token(life time.Duration) *seal.Token {
	f.t.Helper()
	reply, err := f.operators().CreateToken(f.ctx(), &choirv1.CreateTokenRequest{LifetimeMs: uint64(life / time.Millisecond)})
	if err != nil {
		f.t.Fatal(err)
	}
	token, err := seal.ParseToken(reply.Token)
	if err != nil {
		f.t.Fatal(err)
	}
	return token
}

// testNode is an enrolled node without a mind of its own.
type testNode struct {
	f    *testFederation
	name string
	cred *seal.Credential
	rows []data.Row
	done *choirv1.RoundKey

	blind bool // it has no validation examples
}

func enrolment(token *seal.Token, name string, key ed25519.PrivateKey) *choirv1.EnrolRequest {
	return &choirv1.EnrolRequest{
		TokenId: token.ID, TokenSecret: token.Secret, Name: name, PublicKey: key.Public().(ed25519.PublicKey),
		Proof: seal.ProveEnrolment(key, token.ID, name),
	}
}

// enrol makes nodes with two rows each.
func (f *testFederation) enrol(names ...string) []*testNode {
	f.t.Helper()
	var out []*testNode
	for i, name := range names {
		key, err := seal.NewKey(rand.Reader)
		if err != nil {
			f.t.Fatal(err)
		}
		reply, err := choirv1.NewEnrolmentClient(f.connect(f.leader(), nil)).Enrol(f.ctx(), enrolment(f.token(time.Hour), name, key))
		if err != nil {
			f.t.Fatal(err)
		}
		out = append(out, &testNode{f: f, name: name, cred: &seal.Credential{Chain: reply.Chain, Key: key},
			rows: []data.Row{{0.25, 0}, {0.5 + float64(i%4)/10, 1}}, done: &choirv1.RoundKey{}})
	}
	for _, v := range f.voters {
		if f.member(v.Name) != nil {
			f.wait(v.Name, "nodes enrolled", func(s *state.State) bool { return len(s.Nodes) >= len(out) })
		}
	}
	return out
}

// enrolWith makes one node by a token.
func (f *testFederation) enrolWith(text, name string) *testNode {
	f.t.Helper()
	token, err := seal.ParseToken(text)
	if err != nil {
		f.t.Fatal(err)
	}
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	reply, err := choirv1.NewEnrolmentClient(f.connect(f.leader(), nil)).Enrol(f.ctx(), enrolment(token, name, key))
	if err != nil {
		f.t.Fatal(err)
	}
	return &testNode{f: f, name: name, cred: &seal.Credential{Chain: reply.Chain, Key: key},
		rows: []data.Row{{0.25, 0}, {0.5, 1}}, done: &choirv1.RoundKey{}}
}

func (n *testNode) at(coordinator string) choirv1.NodesClient {
	return choirv1.NewNodesClient(n.f.connect(coordinator, n.cred))
}

// poll waits for the node's next task.
func (n *testNode) poll(coordinator string) *choirv1.Task {
	n.f.t.Helper()
	patience, cancel := context.WithTimeout(n.f.t.Context(), 30*time.Second)
	defer cancel()
	for {
		reply, err := n.at(coordinator).Poll(n.f.ctx(), &choirv1.PollRequest{Roster: 1, Done: n.done, WaitMs: 20_000})
		if status.Code(err) == codes.Unavailable && patience.Err() == nil { // an election is under way
			pause(patience, 50*time.Millisecond)
			continue
		}
		if err != nil {
			n.f.t.Fatalf("%s polls: %v", n.name, err)
		}
		if reply.Task != nil {
			n.done = reply.Task.Key
			return reply.Task
		}
	}
}

// payload is an honest update for a task: the delta is q everywhere.
func (n *testNode) payload(t *choirv1.Task, q int32) *fedavg.Payload {
	n.f.t.Helper()
	p := &fedavg.Payload{Header: fedavg.Header{Cluster: t.Cluster, Job: t.Key.Job, Round: t.Key.Round, Attempt: t.Key.Attempt, Node: n.name}}
	copy(p.Plan[:], t.Plan)
	copy(p.Model[:], t.Model)
	p.Weight = int64(len(n.rows))
	evaluation := model.Evaluation{Examples: 2, Correct: 1, Loss: 2 << 20, Positives: make([]int64, model.Bins), Negatives: make([]int64, model.Bins)}
	evaluation.Positives[600], evaluation.Negatives[400] = 1, 1
	if n.blind {
		evaluation = model.Evaluation{}
	}
	switch t.Kind {
	case choirv1.RoundKind_ROUND_KIND_STATISTICS:
		p.Scalars = data.Collect(testSchema(n.f.t), n.rows)
	case choirv1.RoundKind_ROUND_KIND_TRAIN:
		plan, err := newPlanned(t.Job, Deps{})
		if err != nil {
			n.f.t.Fatal(err)
		}
		v := make([]int32, plan.Network.Size())
		for i := range v {
			v[i] = q
		}
		p.Vectors = [][]int32{v}
		p.Evaluations = []model.Evaluation{evaluation}
	case choirv1.RoundKind_ROUND_KIND_EVALUATE:
		for range t.Candidates {
			p.Evaluations = append(p.Evaluations, evaluation)
		}
	}
	return p
}

// sealed signs and seals a payload to the task's epoch keys.
func (n *testNode) sealed(t *choirv1.Task, p *fedavg.Payload) (envelope []byte, digest [32]byte) {
	n.f.t.Helper()
	var to []string
	for _, k := range t.Keys {
		to = append(to, k.Recipient)
	}
	envelope, digest, err := seal.SealUpdate(p.Encode(), n.cred.Key, to)
	if err != nil {
		n.f.t.Fatal(err)
	}
	return envelope, digest
}

// upload sends an envelope and returns the outcome.
func (n *testNode) upload(ctx context.Context, coordinator string, key *choirv1.RoundKey, envelope []byte, digest [32]byte) (*choirv1.Outcome, error) {
	return uploadTo(ctx, n.at(coordinator), &choirv1.UploadHeader{Key: key, Update: digest[:], Size: uint64(len(envelope))}, envelope)
}

// answer does a task honestly.
func (n *testNode) answer(coordinator string, t *choirv1.Task, q int32) audit.Receipt {
	n.f.t.Helper()
	return n.deliver(coordinator, t, n.payload(t, q))
}

// deliver sends a payload until it is heard, the same bytes each time: a coordinator that knows of no leader says "send to
// another", and on a busy machine an election may come at any time.
func (n *testNode) deliver(coordinator string, t *choirv1.Task, p *fedavg.Payload) audit.Receipt {
	n.f.t.Helper()
	envelope, digest := n.sealed(t, p)
	var out *choirv1.Outcome
	var err error
	eventually(n.f.t, n.name+" uploads", func() bool {
		out, err = n.upload(n.f.ctx(), coordinator, t.Key, envelope, digest)
		return status.Code(err) != codes.Unavailable
	})
	if err != nil {
		n.f.t.Fatalf("%s uploads: %v", n.name, err)
	}
	return n.receipt(out)
}

func (n *testNode) receipt(out *choirv1.Outcome) audit.Receipt {
	n.f.t.Helper()
	if out.GetReceipt() == nil {
		n.f.t.Fatalf("%s got no receipt but %v", n.name, out)
	}
	r, err := audit.DecodeReceipt(out.GetReceipt().Body)
	if err != nil {
		n.f.t.Fatal(err)
	}
	return r
}

// tasks polls for all nodes at once: a round opens when enough of them have been heard.
func (f *testFederation) tasks(nodes []*testNode) []*choirv1.Task {
	f.t.Helper()
	leader := f.leader()
	out := make([]*choirv1.Task, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { out[i] = n.poll(leader) })
	}
	wg.Wait()
	return out
}

// statistics takes all nodes through round 0.
func (f *testFederation) statistics(nodes []*testNode) {
	f.t.Helper()
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() { n.answer(f.leader(), n.poll(f.leader()), 0) })
	}
	wg.Wait()
}
