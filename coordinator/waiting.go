package coordinator

import (
	"context"
	"fmt"
	"strings"
	"time"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"
)

// waitingAgain is how often somebody who watches a job is told anew what it waits for.
const waitingAgain = 2 * time.Second

// statuses describes jobs, each with what it waits for.
func (c *Coordinator) statuses(ctx context.Context, s *state.State, jobs ...*state.Job) (out []*choirv1.JobStatus) {
	var present map[string]bool
	for _, j := range jobs {
		status := jobStatus(j)
		if waits(j) {
			if present == nil {
				present = c.heard(ctx, s)
			}
			status.Reason = waitsFor(s, j, present)
		}
		out = append(out, status)
	}
	return out
}

// waits reports whether a job goes on as soon as there are nodes for its next round.
func waits(j *state.Job) bool {
	if j.Active() != nil || !drivable(j) {
		return false
	}
	spec, err := j.JobSpec()
	if err != nil {
		return false
	}
	_, _, more := j.Next(spec)
	return more
}

// waitsFor says which nodes a job's next round lacks, empty if it lacks none.
func waitsFor(s *state.State, j *state.Job, present map[string]bool) string {
	spec, err := j.JobSpec()
	if err != nil {
		return ""
	}
	eligible := s.Eligible(spec)
	n := 0
	for _, name := range eligible {
		if present[name] {
			n++
		}
	}
	want := int(spec.Goal)
	if want == 0 {
		want = len(eligible)
	}
	switch {
	case n < int(spec.MinimumCohort):
		return fmt.Sprintf("waits for nodes: %d of the %d that may take part%s are present, the minimum cohort is %d",
			n, len(eligible), where(spec), spec.MinimumCohort)
	case n < want:
		return fmt.Sprintf("waits for nodes, at most %v: %d of the %d that may take part%s are present, the goal is %d",
			time.Duration(spec.WaitMs)*time.Millisecond, n, len(eligible), where(spec), want)
	}
	return ""
}

// where is a job's condition on nodes, as its file has it.
func where(spec *choirv1.JobSpec) string {
	var all []string
	for _, m := range spec.Where {
		all = append(all, fmt.Sprintf("%s in [%s]", m.Label, strings.Join(m.Values, ", ")))
	}
	if len(all) == 0 {
		return ""
	}
	return " (" + strings.Join(all, ", ") + ")"
}
