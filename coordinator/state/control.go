package state

import (
	"crypto/sha256"
	"fmt"

	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/protobuf/proto"
)

// Actions of ControlJob.
const (
	ActionPause    = "pause"
	ActionResume   = "resume"
	ActionStop     = "stop"
	ActionContinue = "continue"
)

// controlJob does what an operator asks of a job, at a clean point: an open round may always finish. Asking for what is
// so already changes nothing.
func (t *transition) controlJob(c *choirv1.ControlJob) error {
	j, err := t.job(c.Job)
	if err != nil {
		return err
	}
	if c.Rounds > 0 && c.Action != ActionContinue {
		return fmt.Errorf("%w: %s job %s with %d rounds", ErrFormat, c.Action, c.Job, c.Rounds)
	}
	changed := false
	switch c.Action {
	case ActionPause:
		changed, err = j.move(JobRunning, JobPaused)
	case ActionResume:
		changed, err = j.move(JobPaused, JobRunning)
	case ActionStop:
		changed, err = j.stop()
	case ActionContinue:
		changed, err = true, j.goOn(c.Rounds)
	default:
		err = fmt.Errorf("%w: job action %q, want pause, resume, stop or continue", ErrFormat, c.Action)
	}
	if err != nil {
		return err
	}
	if changed {
		t.record(&audit.JobControlled{Job: j.Name, Action: c.Action, Rounds: c.Rounds, Spec: sha256.Sum256(j.Spec)})
		t.settle(j)
	}
	return nil
}

func (j *Job) refuse(action string) error {
	is := j.State
	if j.Stopping {
		is = "stopping"
	}
	return fmt.Errorf("%s job %s, which is %s: %w", action, j.Name, is, ErrState)
}

// move pauses or resumes.
func (j *Job) move(from, to string) (changed bool, err error) {
	switch {
	case j.State == to && !j.Stopping:
		return false, nil
	case j.State != from || j.Stopping:
		return false, j.refuse(map[string]string{JobPaused: ActionPause, JobRunning: ActionResume}[to])
	}
	j.State = to
	return true, nil
}

func (j *Job) stop() (changed bool, err error) {
	switch {
	case j.State == JobStopped || j.Stopping:
		return false, nil
	case j.Ended():
		return false, j.refuse(ActionStop)
	}
	j.Stopping = true
	return true, nil
}

// settle stops a job that was asked to, as soon as it has no open round.
func (t *transition) settle(j *Job) {
	if j.Stopping && j.Active() == nil {
		t.end(j, JobStopped, "")
	}
}

// goOn lets a job run again that was stopped, or that has finished and gets more rounds.
func (j *Job) goOn(rounds uint64) error {
	if j.State != JobStopped && j.State != JobFinished {
		return j.refuse(ActionContinue)
	}
	if j.State == JobFinished && rounds == 0 {
		return fmt.Errorf("%w: continue job %s, which is finished, for no rounds", ErrFormat, j.Name)
	}
	spec, err := j.JobSpec()
	if err != nil {
		return err
	}
	if rounds > 0 {
		spec.Rounds = j.last(spec) + min(rounds, 1<<32) // out of range all the same
	}
	if err := checkRunnable(spec); err != nil {
		return err
	}
	if j.Spec, err = (proto.MarshalOptions{Deterministic: true}).Marshal(spec); err != nil {
		return fmt.Errorf("%w: %v", ErrFormat, err)
	}
	j.State, j.Reason = JobRunning, ""
	return nil
}

// last is the number after which further training rounds are counted: that of the evaluation, if there was one. A
// number is never used for two rounds.
func (j *Job) last(spec *choirv1.JobSpec) uint64 {
	if r := j.Current(); r != nil && r.Kind == choirv1.RoundKind_ROUND_KIND_EVALUATE {
		return r.Number
	}
	return spec.Rounds
}
