package coordinator

import (
	"context"
	"slices"
	"strings"
	"testing"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// control does with a job what an operator asks.
func (f *testFederation) control(job, action string, rounds uint64) error {
	f.t.Helper()
	_, err := f.operators().ControlJob(f.ctx(), &choirv1.ControlJobRequest{Name: job, Action: action, Rounds: rounds})
	return err
}

// work answers every task of a node, honestly, until done says so.
func (n *testNode) work(coordinator string, done func() bool) {
	n.f.t.Helper()
	finished := map[string]*choirv1.RoundKey{}
	client := n.at(coordinator)
	for !done() {
		req := &choirv1.PollRequest{Roster: 1, WaitMs: 100}
		for _, k := range finished {
			req.Finished = append(req.Finished, k)
		}
		reply, err := client.Poll(n.f.ctx(), req)
		if err != nil {
			n.f.t.Errorf("%s polls: %v", n.name, err)
			return
		}
		if t := reply.Task; t != nil {
			finished[t.Key.Job] = t.Key
			envelope, digest := n.sealed(t, n.payload(t, 1))
			if _, err := n.upload(n.f.ctx(), coordinator, t.Key, envelope, digest); err != nil {
				n.f.t.Errorf("%s uploads: %v", n.name, err)
				return
			}
		}
	}
}

// Two jobs over one fleet run at the same time; one is paused at a clean point, goes on, is stopped and continued.
func TestJobsAreControlled(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	nodes := f.enrol("a")
	long, other := testJob(t, 1000), testJob(t, 2)
	other.Name, other.Model = "other", "second"
	f.submit(long)
	f.submit(other)
	ctx, cancel := context.WithCancel(t.Context())
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		nodes[0].work("c1", func() bool { return ctx.Err() != nil })
	}()
	defer func() { cancel(); <-worked }()
	f.wait("c1", "the second job finished beside the first", func(s *state.State) bool {
		return s.Jobs["other"].State == state.JobFinished && s.Jobs["job"].State == state.JobRunning && s.Jobs["job"].Trained > 0
	})
	if err := f.control("job", state.ActionPause, 0); err != nil {
		t.Fatal(err)
	}
	s := f.wait("c1", "at rest", func(s *state.State) bool {
		return s.Jobs["job"].State == state.JobPaused && s.Jobs["job"].Active() == nil
	})
	rested := len(s.Jobs["job"].Rounds)
	if err := f.control("job", state.ActionResume, 0); err != nil {
		t.Fatal(err)
	}
	f.wait("c1", "on", func(s *state.State) bool { return len(s.Jobs["job"].Rounds) > rested })
	if err := f.control("job", state.ActionStop, 0); err != nil {
		t.Fatal(err)
	}
	s = f.wait("c1", "stopped", func(s *state.State) bool { return s.Jobs["job"].State == state.JobStopped })
	if r := s.Jobs["job"].Current(); r.Phase != state.PhaseClosed {
		t.Errorf("stopped at round %d, which is %s", r.Number, r.Phase)
	}
	if err := f.control("other", state.ActionContinue, 2); err != nil {
		t.Fatal(err)
	}
	f.wait("c1", "a second release", func(s *state.State) bool { return s.Jobs["other"].Release == 2 })
	if err := f.control("other", state.ActionPause, 0); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "finished") {
		t.Errorf("a finished job is paused: %v", err)
	}
	jobs, err := f.operators().ListJobs(f.ctx(), &choirv1.ListJobsRequest{})
	if err != nil || len(jobs.Jobs) != 2 || jobs.Jobs[0].State != "stopped" || jobs.Jobs[1].State != "finished" {
		t.Errorf("jobs %v, %v", jobs, err)
	}
	releases, err := f.operators().ListReleases(f.ctx(), &choirv1.ListReleasesRequest{})
	if err != nil || len(releases.Releases) != 2 || releases.Releases[0].Version != 2 {
		t.Errorf("releases %v, %v", releases, err)
	}
}

// With more nodes invited than wanted, the round goes on without the last; it gets a signed no, and no incident.
func TestLateNodeOfAnOverselectedRound(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	nodes := f.enrol("a", "b", "c")
	spec := testJob(t, 2)
	spec.Goal, spec.OverSelectionPercent = 2, 50
	for _, n := range nodes { // a round opens with as many as it wants, and invites more of those who are there
		n.look("c1")
	}
	f.submit(spec)
	tasks := f.tasks(nodes)
	for i := range 2 {
		nodes[i].answer("c1", tasks[i], 0)
	}
	f.round("c1", 0, state.PhaseClosed)
	envelope, digest := nodes[2].sealed(tasks[2], nodes[2].payload(tasks[2], 0))
	out, err := nodes[2].upload(f.ctx(), "c1", tasks[2].Key, envelope, digest)
	if err != nil || out.GetRefusal() == nil {
		t.Fatalf("the late node got %v, %v", out, err)
	}
	if r := f.round("c1", 0, state.PhaseClosed); len(r.Incidents) > 0 || r.Count != 2 || r.Invited != 3 {
		t.Errorf("round with %d of %d, incidents %v", r.Count, r.Invited, r.Incidents)
	}
}

// A job waits for nodes with the right labels, without a word in the log.
func TestJobWaitsForEligibleNodes(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	plain := f.enrol("plain")
	spec := testJob(t, 1)
	spec.Where = []*choirv1.LabelMatch{{Label: "region", Values: []string{"north", "west"}}}
	spec.WaitMs = 50
	f.submit(spec)
	for range 5 { // the leader looks again with every poll
		if reply, err := plain[0].at("c1").Poll(f.ctx(), &choirv1.PollRequest{Roster: 1, Done: plain[0].done, WaitMs: 100}); err != nil || reply.Task != nil {
			t.Fatalf("a node without the label got %v, %v", reply, err)
		}
	}
	before := f.member("c1").replica.State().Index
	reply, err := f.operators().CreateToken(f.ctx(), &choirv1.CreateTokenRequest{LifetimeMs: 60_000, Count: 2, Labels: map[string]string{"region": "west"}})
	if err != nil || len(reply.Tokens) != 2 || reply.Tokens[0] == reply.Tokens[1] || reply.Token != reply.Tokens[0] {
		t.Fatal(reply, err)
	}
	if now := f.member("c1").replica.State().Index; now > before+2 {
		t.Errorf("%d entries while a job waits", now-before-2)
	}
	tokens, err := f.operators().ListTokens(f.ctx(), &choirv1.ListTokensRequest{})
	if err != nil || !slices.ContainsFunc(tokens.Tokens, func(s *choirv1.TokenStatus) bool { return s.UsedBy == "plain" }) || len(tokens.Tokens) != 3 {
		t.Errorf("tokens %v, %v", tokens, err)
	}
	west := f.enrolWith(reply.Tokens[0], "west")
	west.poll("c1")
}

// Jobs take turns: whoever a node has worked for least lately comes first.
func TestJobsComeByTurn(t *testing.T) {
	jobs := map[string]*state.Job{"a": nil, "b": nil, "c": nil, "d": nil}
	finished := []*choirv1.RoundKey{{Job: "c", Round: 1}, {Job: "a", Round: 4}, {Job: "a", Round: 4}, nil}
	if got := byTurn(jobs, finished); !slices.Equal(got, []string{"b", "d", "c", "a"}) {
		t.Errorf("%v", got)
	}
}
