package coordinator

import (
	"strings"
	"testing"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/protobuf/proto"
)

// A job that has too few nodes waits and says so, to whomever asks, and to those who watch when it changes.
func TestQueuedJobSaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	n := f.enrol("a", "b")[0]
	spec := testJob(t, 1)
	spec.MinimumCohort = 50
	f.submit(spec)
	elsewhere := testJob(t, 1)
	elsewhere.Name, elsewhere.Where = "elsewhere", []*choirv1.LabelMatch{{Label: "region", Values: []string{"7", "8"}}}
	f.submit(elsewhere)
	watch, err := f.operators().WatchJob(f.ctx(), &choirv1.GetJobRequest{Name: "job"})
	if err != nil {
		t.Fatal(err)
	}
	const none = "waits for nodes: 0 of the 2 that may take part are present, the minimum cohort is 50"
	if j, err := watch.Recv(); err != nil || j.State != state.JobQueued || j.Reason != none {
		t.Errorf("watched: %v, %v", j, err)
	}
	n.look("c1")
	const one = "waits for nodes: 1 of the 2 that may take part are present, the minimum cohort is 50"
	if j, err := watch.Recv(); err != nil || j.Reason != one {
		t.Errorf("watched: %v, %v", j, err)
	}
	if j, err := f.operators().GetJob(f.ctx(), &choirv1.GetJobRequest{Name: "job"}); err != nil || j.Reason != one {
		t.Errorf("shown: %v, %v", j, err)
	}
	list, err := f.operators().ListJobs(f.ctx(), &choirv1.ListJobsRequest{})
	if err != nil || len(list.Jobs) != 2 ||
		list.Jobs[0].Reason != "waits for nodes: 0 of the 0 that may take part (region in [7, 8]) are present, the minimum cohort is 1" || list.Jobs[1].Reason != one {
		t.Errorf("listed: %v, %v", list, err)
	}
}

// What else a job may wait for: budget that rounds of other jobs have reserved, and nodes that work for them.
func TestWhatAJobWaitsFor(t *testing.T) {
	const train, statistics = choirv1.RoundKind_ROUND_KIND_TRAIN, choirv1.RoundKind_ROUND_KIND_STATISTICS
	spec := func(budget, least, goal uint32) []byte {
		b, err := proto.Marshal(&choirv1.JobSpec{Rounds: 9, BudgetRounds: budget, MinimumCohort: least, Goal: goal, WaitMs: 20_000})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	mine := func(b []byte) *state.Job {
		return &state.Job{Name: "mine", State: state.JobRunning, Spec: b, Rounds: []*state.Round{{Kind: statistics, Phase: state.PhaseClosed}}}
	}
	other := func(kind choirv1.RoundKind, phase string, counted ...string) *state.Round {
		r := &state.Round{Number: 1, Kind: kind, Phase: phase, Cohort: []string{"a", "b"}, Accepted: map[string]state.Acceptance{}}
		for _, n := range counted {
			r.Accepted[n] = state.Acceptance{}
		}
		return r
	}
	for _, c := range []struct {
		name    string
		spec    []byte
		other   *state.Round
		a, b    state.Node
		present string
		want    string
	}{
		{"nothing", spec(1, 2, 0), other(statistics, state.PhaseOpen), state.Node{}, state.Node{}, "abc", ""},
		{"reserved", spec(1, 2, 0), other(train, state.PhaseOpen), state.Node{Reserved: 1}, state.Node{Reserved: 1}, "abc",
			"waits for budget: 3 of the 3 that may take part are present, with budget left: 1, reserved by rounds of other: 2; the minimum cohort is 2"},
		{"enough is left", spec(2, 2, 0), other(train, state.PhaseOpen), state.Node{Reserved: 1}, state.Node{Reserved: 1}, "abc", ""},
		{"no budget is asked for", spec(0, 2, 0), other(train, state.PhaseOpen), state.Node{Reserved: 1}, state.Node{Reserved: 1}, "abc", ""},
		{"spent, and the others are away", spec(1, 2, 0), other(statistics, state.PhaseClosed), state.Node{Spent: 1}, state.Node{}, "ac",
			"waits for nodes: 2 of the 3 that may take part are present, with budget left: 1; the minimum cohort is 2"},
		{"at work", spec(0, 2, 0), other(train, state.PhaseOpen), state.Node{}, state.Node{}, "c",
			"waits for nodes: 1 of the 3 that may take part are present, away at work for other: 2, the minimum cohort is 2"},
		{"at work, one has done its part", spec(0, 2, 0), other(statistics, state.PhaseOpen, "a"), state.Node{}, state.Node{}, "c",
			"waits for nodes: 1 of the 3 that may take part are present, away at work for other: 1, the minimum cohort is 2"},
		{"at work, and the goal is not reached", spec(0, 1, 2), other(train, state.PhaseOpen), state.Node{}, state.Node{}, "c",
			"waits for nodes, at most 20s: 1 of the 3 that may take part are present, away at work for other: 2, the goal is 2"},
		{"the work is done", spec(0, 2, 0), other(train, state.PhaseCut), state.Node{}, state.Node{}, "c",
			"waits for nodes: 1 of the 3 that may take part are present, the minimum cohort is 2"},
	} {
		j := mine(c.spec)
		s := &state.State{
			Nodes: map[string]state.Node{"a": c.a, "b": c.b, "c": {}},
			Jobs:  map[string]*state.Job{"mine": j, "other": {Name: "other", State: state.JobRunning, Rounds: []*state.Round{c.other}}},
		}
		present := map[string]bool{}
		for _, r := range c.present {
			present[string(r)] = true
		}
		if got := waitsFor(s, j, present); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// A job whose nodes' budget another one has reserved says so to whoever asks, and goes on, or fails, when that is over.
func TestJobWaitsForReservedBudget(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	nodes := f.enrol("a", "b")
	first, second := testJob(t, 1), testJob(t, 1)
	first.BudgetRounds, first.MinimumCohort = 1, 2
	second.Name, second.BudgetRounds, second.MinimumCohort = "second", 1, 2
	f.submit(first)
	f.statistics(nodes)
	tasks := f.tasks(nodes)
	f.submit(second)
	f.statistics(nodes) // of the second: the first one's training is under way
	shown := func() *choirv1.JobStatus {
		j, err := f.operators().GetJob(f.ctx(), &choirv1.GetJobRequest{Name: "second"})
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	const want = "waits for budget: 2 of the 2 that may take part are present, with budget left: 0, reserved by rounds of job: 2; the minimum cohort is 2"
	f.eventually("it says what it waits for", func() bool { return shown().Reason == want })
	for i, n := range nodes {
		n.answer("c1", tasks[i], 1)
	}
	f.eventually("the budget is spent, and it fails", func() bool { return strings.Contains(shown().Reason, "0 of 2 nodes have some left") })
}

// What nodes say of a task that they did not do, to whichever coordinator, stands in the reason of the abandoned round
// and of the job that fails: once a reason, and in words that can be printed.
func TestAbandonedRoundTellsWhyNodesDeclined(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 3, nil, Observer{})
	nodes := f.enrol("a", "b", "c")
	spec := testJob(t, 1)
	spec.MaxAttempts, spec.DurationMs = 1, 4000
	f.submit(spec)
	leader := f.leader()
	other := "c1"
	if leader == other {
		other = "c2"
	}
	long := "its disk\n\x00says " + strings.Repeat("no", 200)
	tasks := f.tasks(nodes)
	for i, reason := range []string{"its data are not of this schema toy", "its data are not of this schema toy", long} {
		task := tasks[i]
		_, err := nodes[i].at([]string{leader, other, other}[i]).Poll(f.ctx(), &choirv1.PollRequest{
			Roster: 1, Done: task.Key, Declined: []*choirv1.Decline{{Key: task.Key, Reason: reason}, {Key: &choirv1.RoundKey{Job: "nothing"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	s := f.wait(leader, "the job fails", func(s *state.State) bool { return s.Jobs["job"].Ended() })
	want := "0 of 3 updates in 4s, the minimum cohort is 1; a, b declined: its data are not of this schema toy; c declined: its disksays nono"
	if got := s.Jobs["job"].Reason; !strings.Contains(got, want) || len(got) > 500 {
		t.Errorf("the job failed with %q, want %q in it", got, want)
	}
	for _, c := range []string{leader, other} {
		m := f.member(c)
		f.wait(c, "the job fails", func(s *state.State) bool { return s.Jobs["job"].Ended() })
		m.declines.note(m.replica.State(), "a", []*choirv1.Decline{{Key: &choirv1.RoundKey{Job: "job"}}})
		if len(m.declines.jobs) > 0 {
			t.Errorf("%s remembers what nodes said of a job that has ended", c)
		}
	}
}
