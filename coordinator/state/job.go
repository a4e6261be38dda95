package state

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"math"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/model/codec"
	"choir.example/model/data"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/protobuf/proto"
)

// CheckSpec refuses a job that cannot run. Its errors name the field and the allowed range.
func CheckSpec(s *choirv1.JobSpec) error {
	if s == nil {
		return fmt.Errorf("job: no specification")
	}
	if err := CheckName("job", s.Name); err != nil {
		return err
	}
	if err := CheckName("model", s.Model); err != nil {
		return err
	}
	schema, err := data.ParseSchema(s.Schema)
	if err != nil {
		return fmt.Errorf("job %s: %w", s.Name, err)
	}
	for _, f := range []struct {
		field    string
		value    float64
		low, top float64
	}{
		{"hidden", float64(len(s.Hidden)), 1, 8},
		{"rounds", float64(s.Rounds), 1, 1e6},
		{"local_epochs", float64(s.LocalEpochs), 0, 1000},
		{"batch", float64(s.Batch), 1, 1 << 16},
		{"learning_rate", s.LearningRate, 1e-9, 1e3},
		{"range", s.Range, 1e-6, 1e6},
		{"clip", s.Clip, 0, 1e9},
		{"weight_cap", float64(s.WeightCap), 1, fedavg.MaxWeight},
		{"minimum_cohort", float64(s.MinimumCohort), 1, 1 << 16},
		{"goal", float64(s.Goal), 0, 1 << 16},
		{"duration_ms", float64(s.DurationMs), 100, 7 * 24 * 3600e3},
		{"max_attempts", float64(s.MaxAttempts), 1, 1000},
		{"student_hidden", float64(s.StudentHidden), 0, 1 << 14},
		{"gate_int8_ppm", float64(s.GateInt8Ppm), 0, 1e6},
		{"gate_student_ppm", float64(s.GateStudentPpm), 0, 1e6},
		{"student_rows", float64(s.StudentRows), 0, 1 << 22},
		{"student_temperature", s.StudentTemperature, 0.1, 100},
		{"student_epochs", float64(s.StudentEpochs), 0, 1000},
		{"wait_ms", float64(s.WaitMs), 0, 24 * 3600e3},
		{"server_rate", s.ServerRate, 0, 1e3},
		{"student_rate", s.StudentRate, 0, 1e3},
	} {
		if math.IsNaN(f.value) || f.value < f.low || f.value > f.top {
			return fmt.Errorf("job %s: %s is %v, want %v to %v", s.Name, f.field, f.value, f.low, f.top)
		}
	}
	shape := model.Spec{Inputs: schema.Features()}
	for _, h := range s.Hidden {
		shape.Hidden = append(shape.Hidden, int(min(h, 1<<30))) // fits an int of 32 bits, and stays out of range
	}
	if err := shape.Validate(); err != nil {
		return fmt.Errorf("job %s: hidden: %w", s.Name, err)
	}
	if err := shape.CheckBatch(int(s.Batch)); err != nil {
		return fmt.Errorf("job %s: batch: %w", s.Name, err)
	}
	// No update but zero is within a clip norm below one step, and none at all would be the opposite of what was asked.
	if step := (codec.Grid{Range: s.Range}).Step(); s.Clip > 0 && s.Clip < step {
		return fmt.Errorf("job %s: clip is %v, want at least one step of the grid, range / 2^23 = %v, or 0 for none", s.Name, s.Clip, step)
	}
	if _, err := optional("validation", s.Validation); err != nil {
		return fmt.Errorf("job %s: %w", s.Name, err)
	}
	if s.Goal > 0 && s.Goal < s.MinimumCohort {
		return fmt.Errorf("job %s: goal %d is below minimum_cohort %d", s.Name, s.Goal, s.MinimumCohort)
	}
	return nil
}

func (t *transition) submitJob(c *choirv1.SubmitJob) error {
	if err := cmp.Or(CheckSpec(c.Spec), checkTime(c.TimeMs)); err != nil {
		return err
	}
	if _, ok := t.Jobs[c.Spec.Name]; ok {
		return fmt.Errorf("job %s %w", c.Spec.Name, ErrExists)
	}
	spec, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.Spec)
	if err != nil {
		return fmt.Errorf("%w: %v", ErrFormat, err)
	}
	t.Jobs = maps.Clone(t.Jobs)
	t.Jobs[c.Spec.Name] = &Job{Name: c.Spec.Name, Spec: spec, State: JobRunning}
	t.record(&audit.JobSubmitted{Job: c.Spec.Name, Spec: sha256.Sum256(spec)})
	return nil
}

// MaxReason is the longest reason for an end, in bytes.
const MaxReason = 4096

// endJob ends a running job that has no open round. Only the leader of the present term may.
func (t *transition) endJob(c *choirv1.EndJob) error {
	j, err := t.job(c.Job)
	if err != nil {
		return err
	}
	if j.State != JobRunning || j.Active() != nil || c.Term != t.term {
		return fmt.Errorf("end job %s in term %d: %w", c.Job, c.Term, ErrStale)
	}
	if err := checkText("reason", c.Reason, MaxReason); err != nil {
		return err
	}
	if c.State != JobFinished && c.State != JobFailed {
		return fmt.Errorf("%w: job state %q", ErrFormat, c.State)
	}
	t.end(j, c.State, c.Reason)
	return nil
}

func (t *transition) end(j *Job, state, reason string) {
	j.State, j.Reason = state, reason
	t.record(&audit.JobEnded{Job: j.Name, State: state, Reason: reason})
}
