package coordinator

import (
	"strings"
	"testing"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"
)

// A student that cannot be distilled ends its job with the reason: it would fail again, so waiting helps nobody.
func TestDistillationThatFailsEndsTheJob(t *testing.T) {
	f := startFederation(t, 1, nil, Observer{})
	nodes := f.enrol("n1")
	spec := testJob(t, 1)
	spec.StudentRows = 0 // no operator may submit this any more; logs of an earlier version hold such jobs
	cmd := &choirv1.Command{Body: &choirv1.Command_SubmitJob{SubmitJob: &choirv1.SubmitJob{Spec: spec, TimeMs: 1}}}
	if err := f.member("c1").command(f.ctx(), cmd, nil); err != nil {
		t.Fatal(err)
	}
	f.statistics(nodes)
	nodes[0].answer("c1", nodes[0].poll("c1"), 1)
	s := f.wait("c1", "ended", func(s *state.State) bool { return s.Jobs["job"].State != state.JobRunning })
	if j := s.Jobs["job"]; j.State != state.JobFailed || !strings.Contains(j.Reason, "distil model toy: 0 rows of 1 features") {
		t.Errorf("job is %v: %s", j.State, j.Reason)
	}
}

// The coordinators publish an evaluation only as a sum over the minimum cohort of nodes that had examples. Here that is
// two of three: with two of them the sum is published, what one alone measured is nowhere, and no variant is released on
// its word.
func TestEvaluationOfOneNodeIsNotPublished(t *testing.T) {
	f := startFederation(t, 1, nil, Observer{})
	nodes := f.enrol("n1", "n2", "n3")
	spec := testJob(t, 2)
	spec.MinimumCohort = 2
	f.submit(spec)
	f.statistics(nodes)
	for round, seeing := range []int{2, 1, 1} { // two training rounds and the evaluation
		for i, n := range nodes {
			n.blind = i >= seeing
			n.answer("c1", n.poll("c1"), 1)
		}
		s := f.wait("c1", "closed", func(s *state.State) bool { return s.Jobs["job"].Closed(uint64(round)+1) != nil })
		r := s.Jobs["job"].Closed(uint64(round) + 1)
		for _, e := range r.Evaluation {
			published := e.Nodes == 2 && e.Examples == 4 && e.Positives[600] == 2
			nothing := e.Nodes == 0 && e.Examples == 0 && e.Correct == 0 && e.Loss == 0 && e.Positives == nil && e.Negatives == nil
			if r.Count != 3 || seeing == 2 && !published || seeing == 1 && !nothing {
				t.Errorf("round %d, %d nodes with examples of %d: %+v", r.Number, seeing, r.Count, e)
			}
		}
	}
	s := f.wait("c1", "finished", func(s *state.State) bool { return s.Jobs["job"].State == state.JobFinished })
	rel, _ := s.Release("toy", 1)
	if len(rel.Variants) != 4 {
		t.Fatalf("release %+v", rel)
	}
	for _, v := range rel.Variants {
		if v.Published || v.Reason != "fewer nodes have validation examples than the minimum cohort of 2" || v.Evaluation.Examples != 0 {
			t.Errorf("variant %s: published %v, %s, %+v", v.Name, v.Published, v.Reason, v.Evaluation)
		}
	}
}
