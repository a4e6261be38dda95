package coordinator

import (
	"context"
	"errors"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// look polls without waiting for work.
func (n *testNode) look(coordinator string) *choirv1.PollReply {
	n.f.t.Helper()
	reply, err := n.at(coordinator).Poll(n.f.ctx(), &choirv1.PollRequest{Roster: 1, Done: n.done, WaitMs: 1})
	if err != nil {
		n.f.t.Fatalf("%s polls: %v", n.name, err)
	}
	return reply
}

// order waits until every coordinator tells a node to upload in this order.
func (n *testNode) order(want ...string) {
	n.f.t.Helper()
	for _, v := range n.f.voters {
		var got []string
		n.f.eventually("upload addresses at "+v.Name, func() bool {
			got = nil
			for _, a := range n.look(v.Name).Addresses {
				got = append(got, a.Name)
			}
			return slices.Equal(got, want)
		})
	}
}

// Upload addresses come ordered by load, the least loaded first, at every coordinator: the load is the updates that a
// coordinator has and the log has not.
func TestUploadAddressesFollowLoad(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	f, nodes, tasks := trained(t, 3, Observer{Spooled: func(_ string, e RoundEvent, _ string) {
		if e.Round == 1 {
			<-hold
		}
	}}, "a", "b", "c", "d")
	watcher := nodes[3]
	watcher.order("c1", "c2", "c3")
	var uploads sync.WaitGroup
	send := func(i int, coordinator string) {
		envelope, digest := nodes[i].sealed(tasks[i], nodes[i].payload(tasks[i], 1))
		uploads.Go(func() {
			if _, err := nodes[i].upload(f.ctx(), coordinator, tasks[i].Key, envelope, digest); err != nil {
				t.Errorf("%s: %v", nodes[i].name, err)
			}
		})
	}
	send(0, "c1")
	watcher.order("c2", "c3", "c1")
	send(1, "c2")
	send(2, "c2")
	watcher.order("c3", "c1", "c2")
	release()
	uploads.Wait()
	watcher.order("c1", "c2", "c3")
}

// A poll without work comes back after its wait, with what else there is to know.
func TestPollWithoutWork(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	n := f.enrol("a")[0]
	const wait = 100 * time.Millisecond
	began := time.Now()
	reply, err := n.at("c1").Poll(f.ctx(), &choirv1.PollRequest{Roster: 1, WaitMs: uint64(wait / time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < wait {
		t.Errorf("back after %v, want %v", took, wait)
	}
	if reply.Task != nil || len(reply.Releases) > 0 || len(reply.Addresses) != 1 || reply.Addresses[0].Address != f.voters[0].Address {
		t.Errorf("reply %v", reply)
	}
	head, err := audit.DecodeHead(reply.Head)
	if err != nil || head.Cluster != "test" || head.Size != f.member("c1").replica.State().Log.Size() {
		t.Errorf("head %+v, %v", head, err)
	}
}

// A wait longer than any is a long wait, not none.
func TestPollWaitsForWork(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	n := f.enrol("a")[0]
	type answer struct {
		reply *choirv1.PollReply
		err   error
	}
	answers := make(chan answer, 1)
	client, ctx := n.at("c1"), f.ctx()
	go func() {
		reply, err := client.Poll(ctx, &choirv1.PollRequest{Roster: 1, WaitMs: math.MaxUint64})
		answers <- answer{reply, err}
	}()
	p := f.member("c1").presence
	f.eventually("the poll has come", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		_, was := p.last["a"]
		return was || p.here["a"] > 0
	})
	f.submit(testJob(t, 1))
	if a := <-answers; a.err != nil || a.reply.Task.GetKey().GetJob() != "job" {
		t.Fatalf("%v, %v", a.reply, a.err)
	}
}

// A poll names the releases that the node does not have.
func TestPollNamesTheRelease(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	n := f.enrol("a")[0]
	f.submit(testJob(t, 1))
	for range 3 { // statistics, training, evaluation
		n.answer("c1", n.poll("c1"), 1)
	}
	f.wait("c1", "job finished", func(s *state.State) bool { return s.Jobs["job"].State == state.JobFinished })
	rs := n.look("c1").Releases
	if len(rs) != 1 || rs[0].Model != "toy" || rs[0].Version != 1 {
		t.Fatalf("releases %v", rs)
	}
	reply, err := n.at("c1").Poll(f.ctx(), &choirv1.PollRequest{Roster: 1, Done: n.done, WaitMs: 1, Versions: map[string]uint64{"toy": 1}})
	if err != nil || len(reply.Releases) > 0 {
		t.Fatalf("releases %v, %v", reply.GetReleases(), err)
	}
}

// A replica that was away while rounds passed catches up, and answers for updates of the time when it was away.
func TestReplicaThatWasAwayAnswersForOldRounds(t *testing.T) {
	f := startFederation(t, 3, nil, Observer{})
	nodes := f.enrol("a", "b")
	leader := f.leader()
	away := f.other(leader)
	dead := f.kill(away)
	f.submit(testJob(t, 3))
	type sent struct {
		key     *choirv1.RoundKey
		receipt audit.Receipt
	}
	var all [][]sent
	for range 4 {
		tasks := f.tasks(nodes)
		var round []sent
		for i, n := range nodes {
			round = append(round, sent{tasks[i].Key, n.answer(leader, tasks[i], int32(i+1))})
		}
		all = append(all, round)
	}
	f.round(leader, 3, state.PhaseClosed)
	f.restart(dead)
	f.round(away, 3, state.PhaseClosed)
	for _, round := range all {
		for i, n := range nodes {
			out, err := n.at(away).GetOutcome(f.ctx(), &choirv1.OutcomeRequest{Key: round[i].key, Update: round[i].receipt.Update[:]})
			if err != nil {
				t.Fatal(err)
			}
			if got := n.receipt(out); got != round[i].receipt {
				t.Errorf("round %d: receipt %+v, was %+v", round[i].key.Round, got, round[i].receipt)
			}
		}
	}
}

// other is a running coordinator that is none of these.
func (f *testFederation) other(not ...string) string {
	f.t.Helper()
	for _, v := range f.voters {
		if !slices.Contains(not, v.Name) && f.member(v.Name) != nil {
			return v.Name
		}
	}
	f.t.Fatalf("no coordinator but %v", not)
	return ""
}

// A job handed to a follower at the moment in which the leader dies waits for the next leader, and is there once.
func TestSubmitWhileTheLeaderDies(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 3, nil, Observer{})
	leader := f.leader()
	follower := f.other(leader)
	operators := choirv1.NewOperatorsClient(f.connect(follower, f.operator))
	if _, err := operators.GetStatus(f.ctx(), &choirv1.StatusRequest{}); err != nil { // connected
		t.Fatal(err)
	}
	f.kill(leader)
	if _, err := operators.SubmitJob(f.ctx(), &choirv1.SubmitJobRequest{Spec: testJob(t, 1)}); err != nil {
		t.Fatal(err)
	}
	if f.member(follower).replica.State().Jobs["job"] == nil {
		t.Fatal("the job is not in the state of the coordinator that took it")
	}
	_, err := operators.SubmitJob(f.ctx(), &choirv1.SubmitJobRequest{Spec: testJob(t, 1)})
	if status.Code(err) != codes.AlreadyExists {
		t.Fatalf("the job again: %v", err)
	}
}

// Without a majority a command ends with the caller's patience, and the answer says why.
func TestSubmitWithoutMajority(t *testing.T) {
	f := startFederation(t, 3, nil, Observer{})
	leader := f.leader()
	follower := f.other(leader)
	operators := choirv1.NewOperatorsClient(f.connect(follower, f.operator))
	f.kill(leader)
	f.kill(f.other(leader, follower))
	ctx, cancel := context.WithTimeout(f.ctx(), time.Second)
	defer cancel()
	_, err := operators.SubmitJob(ctx, &choirv1.SubmitJobRequest{Spec: testJob(t, 1)})
	if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Unavailable {
		t.Fatal(err)
	}
	if f.member(follower).replica.State().Jobs["job"] != nil {
		t.Fatal("a minority took a job")
	}
}

// deafness makes a coordinator deaf, on command, to the answers on connections that it has opened until then.
type deafness struct {
	on  atomic.Bool
	cut chan struct{} // closed when those connections break
}

type deafConn struct {
	net.Conn
	*deafness
}

func (d *deafness) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := dialTCP(ctx, address)
	if err != nil || d.on.Load() {
		return conn, err
	}
	return &deafConn{conn, d}, nil
}

func (c *deafConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil || !c.on.Load() {
		return n, err
	}
	<-c.cut
	return 0, errors.Join(net.ErrClosed, c.Close())
}

// A leader commits a command and its answer is lost: the command is tried again, is refused because it is there
// already, and that is success.
func TestLostAnswerOfTheLeader(t *testing.T) {
	t.Parallel()
	for _, command := range []struct {
		name string
		send func(ctx context.Context, operators choirv1.OperatorsServer) error
		done func(s *state.State) bool
	}{
		{"submit job", func(ctx context.Context, operators choirv1.OperatorsServer) error {
			_, err := operators.SubmitJob(ctx, &choirv1.SubmitJobRequest{Spec: testJob(t, 1)})
			return err
		}, func(s *state.State) bool { return s.Jobs["job"] != nil }},
		{"create token", func(ctx context.Context, operators choirv1.OperatorsServer) error {
			_, err := operators.CreateToken(ctx, &choirv1.CreateTokenRequest{LifetimeMs: 1000})
			return err
		}, func(s *state.State) bool { return len(s.Tokens) == 2 }},
	} {
		t.Run(command.name, func(t *testing.T) {
			f := startFederation(t, 3, nil, Observer{})
			leader := f.leader()
			follower := f.other(leader)
			m, d := f.kill(follower), &deafness{cut: make(chan struct{})}
			m.deps.Dial = d.dial
			f.restart(m)
			f.wait(follower, "back", func(s *state.State) bool { return s.Cluster != "" })
			operators := choirv1.NewOperatorsClient(f.connect(follower, f.operator))
			if _, err := operators.CreateToken(f.ctx(), &choirv1.CreateTokenRequest{LifetimeMs: 1000}); err != nil {
				t.Fatal(err) // now it is connected to the leader
			}
			d.on.Store(true)
			// Past the door, where it would ask the leader first and be sent elsewhere.
			sent, ctx, service := make(chan error, 1), f.ctx(), operatorsService{Coordinator: f.member(follower).Coordinator}
			go func() { sent <- command.send(ctx, service) }()
			f.wait(leader, "committed", command.done)
			close(d.cut)
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			f.wait(follower, "applied", command.done)
		})
	}
}

// A node that rests gets no task and does not count as available, until it polls again without resting.
func TestRestingNodeGetsNoTask(t *testing.T) {
	f, nodes, tasks := trained(t, 1, Observer{}, "a", "b")
	poll := func(req *choirv1.PollRequest) *choirv1.PollReply {
		t.Helper()
		req.WaitMs = 1
		reply, err := nodes[0].at("c1").Poll(f.ctx(), req)
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	c := f.running["c1"]
	if reply := poll(&choirv1.PollRequest{Resting: true}); reply.Task != nil || c.presence.recent(time.Now())["a"] {
		t.Errorf("a node that rests is present, or gets %v", reply.Task)
	}
	if reply := poll(&choirv1.PollRequest{Finished: []*choirv1.RoundKey{{Job: "other", Round: 9}}}); reply.Task == nil || !c.presence.recent(time.Now())["a"] {
		t.Error("awake again it is not present, or gets no task")
	}
	if reply := poll(&choirv1.PollRequest{Finished: []*choirv1.RoundKey{tasks[0].Key, {Job: "other", Round: 9}}}); reply.Task != nil {
		t.Errorf("it gets the task again that it has finished with: %v", reply.Task)
	}
}
