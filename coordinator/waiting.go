package coordinator

import (
	"context"
	"fmt"
	"maps"
	"slices"
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
	_, _, more := next(j)
	return more
}

// next is the round that a job would open, if it is to open one.
func next(j *state.Job) (spec *choirv1.JobSpec, kind choirv1.RoundKind, more bool) {
	if j.Active() != nil || !drivable(j) {
		return nil, 0, false
	}
	spec, err := j.JobSpec()
	if err != nil {
		return nil, 0, false
	}
	_, kind, more = j.Next(spec)
	return spec, kind, more
}

// attendance is which nodes a job's next round may have, and why it may not have others.
type attendance struct {
	eligible int
	present  int
	free     int // of those present: with budget that no open round has reserved
	reserved int // of those present: with budget, all of it reserved
	atWork   int // of those away: invited by an open round that has no update of them yet

	reservers, employers map[string]bool // the jobs of those rounds
}

// attend counts the nodes for a job's next round, and names the jobs whose open rounds have them.
func attend(s *state.State, job string, spec *choirv1.JobSpec, kind choirv1.RoundKind, present map[string]bool) attendance {
	a := attendance{reservers: map[string]bool{}, employers: map[string]bool{}}
	for _, name := range s.Eligible(spec) {
		a.eligible++
		if !present[name] {
			if rivals(s, job, a.employers, worksFor(name)) {
				a.atWork++
			}
			continue
		}
		a.present++
		switch left, unreserved := s.Nodes[name].Budget(spec, kind); {
		case unreserved:
			a.free++
		case left:
			a.reserved++
			rivals(s, job, a.reservers, reserves(name))
		}
	}
	return a
}

// working says how many of those that are away will be back after their work for other jobs.
func (a *attendance) working() string {
	if a.atWork == 0 {
		return ""
	}
	return fmt.Sprintf(", away at work for %s: %d", list(a.employers), a.atWork)
}

func list(names map[string]bool) string { return strings.Join(slices.Sorted(maps.Keys(names)), ", ") }

// worksFor tells the rounds that wait for a node. It does one task at a time and may not be heard meanwhile.
func worksFor(node string) func(*state.Round) bool {
	return func(r *state.Round) bool {
		_, counted := r.Accepted[node]
		return r.Phase == state.PhaseOpen && r.Invites(node) && !counted
	}
}

// reserves tells the rounds that have reserved budget of a node.
func reserves(node string) func(*state.Round) bool {
	return func(r *state.Round) bool {
		return r.Kind == choirv1.RoundKind_ROUND_KIND_TRAIN && r.Phase != state.PhaseCharged && r.Invites(node)
	}
}

// rivals adds the other jobs that have such a round, and reports whether there is one.
func rivals(s *state.State, job string, to map[string]bool, such func(*state.Round) bool) (any bool) {
	for name, j := range s.Jobs {
		if r := j.Active(); name != job && r != nil && such(r) {
			to[name], any = true, true
		}
	}
	return any
}

// waitsFor says what a job's next round lacks, empty if it lacks nothing.
func waitsFor(s *state.State, j *state.Job, present map[string]bool) string {
	spec, kind, more := next(j)
	if !more {
		return ""
	}
	a := attend(s, j.Name, spec, kind, present)
	want := int(spec.Goal)
	if want == 0 {
		want = a.eligible
	}
	least := int(spec.MinimumCohort)
	there := fmt.Sprintf("%d of the %d that may take part%s are present", a.present, a.eligible, where(spec))
	switch {
	case a.present < least:
		return fmt.Sprintf("waits for nodes: %s%s, the minimum cohort is %d", there, a.working(), least)
	case a.free < least && a.reserved > 0:
		return fmt.Sprintf("waits for budget: %s, with budget left: %d, reserved by rounds of %s: %d; the minimum cohort is %d", there, a.free, list(a.reservers), a.reserved, least)
	case a.free < least:
		return fmt.Sprintf("waits for nodes: %s%s, with budget left: %d; the minimum cohort is %d", there, a.working(), a.free, least)
	case a.present < want:
		return fmt.Sprintf("waits for nodes, at most %v: %s%s, the goal is %d", time.Duration(spec.WaitMs)*time.Millisecond, there, a.working(), want)
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
