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
