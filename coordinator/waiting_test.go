package coordinator

import (
	"strings"
	"testing"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"
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
