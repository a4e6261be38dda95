package state

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/model/codec"
	"choir.example/model/data"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/protobuf/proto"
)

// CheckSpec refuses a job that cannot run to its end. Its errors name the field and the allowed range.
func CheckSpec(s *choirv1.JobSpec) error {
	if err := checkRunnable(s); err != nil {
		return err
	}
	// Apply does not refuse this: logs hold such jobs, which fail when they come to publish.
	if s.StudentRows < 1 {
		return fmt.Errorf("job %s: student_rows is 0, want 1 to %d: a release has a student, which learns from them", s.Name, 1<<22)
	}
	return nil
}

// checkRunnable is what Apply holds a job to.
func checkRunnable(s *choirv1.JobSpec) error {
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
	if err := schema.CheckBinary(); err != nil {
		return fmt.Errorf("job %s: schema %s: %w", s.Name, schema.Name, err)
	}
	for _, f := range []struct {
		field    string
		value    float64
		low, top float64
	}{
		{"hidden: number of layers", float64(len(s.Hidden)), 1, 8},
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
		{"where: number of labels", float64(len(s.Where)), 0, 64},
		{"minimum_examples", float64(s.MinimumExamples), 0, fedavg.MaxExamples},
		{"over_selection_percent", float64(s.OverSelectionPercent), 0, 400},
	} {
		if math.IsNaN(f.value) || f.value < f.low || f.value > f.top {
			return fmt.Errorf("job %s: %s is %s, want %s to %s", s.Name, f.field, number(f.value), number(f.low), number(f.top))
		}
	}
	var hidden []int
	for _, h := range s.Hidden {
		hidden = append(hidden, int(min(h, 1<<30))) // fits an int of 32 bits, and stays out of range
	}
	if err := model.CheckMLP(schema.Features(), hidden); err != nil {
		return fmt.Errorf("job %s: hidden: %w", s.Name, err)
	}
	if err := model.CheckMLPBatch(schema.Features(), hidden, int(s.Batch)); err != nil {
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
	if s.Goal == 0 && s.OverSelectionPercent > 0 {
		return fmt.Errorf("job %s: over_selection_percent is %d, but goal 0 invites every node already", s.Name, s.OverSelectionPercent)
	}
	if err := checkWhere(s.Where); err != nil {
		return fmt.Errorf("job %s: %w", s.Name, err)
	}
	return nil
}

// number writes whole numbers out, and others as short as they are exact.
func number(x float64) string {
	if x == math.Trunc(x) && math.Abs(x) < 1<<53 {
		return strconv.FormatInt(int64(x), 10)
	}
	return strconv.FormatFloat(x, 'g', -1, 64)
}

// checkWhere refuses a condition that says nothing, or says two things of one label.
func checkWhere(where []*choirv1.LabelMatch) error {
	for i, m := range where {
		if n := len(m.Label); n < 1 || n > maxText {
			return fmt.Errorf("where: label of %d bytes, want 1 to %d", n, maxText)
		}
		if slices.ContainsFunc(where[:i], func(o *choirv1.LabelMatch) bool { return o.Label == m.Label }) {
			return fmt.Errorf("where: label %s is named twice", m.Label)
		}
		if n := len(m.Values); n < 1 || n > 1024 {
			return fmt.Errorf("where: label %s has %d values, want 1 to 1024", m.Label, n)
		}
		for _, v := range m.Values {
			if n := len(v); n < 1 || n > maxText {
				return fmt.Errorf("where: value of label %s of %d bytes, want 1 to %d", m.Label, n, maxText)
			}
		}
	}
	return nil
}

func (t *transition) submitJob(c *choirv1.SubmitJob) error {
	if err := cmp.Or(checkRunnable(c.Spec), checkTime(c.TimeMs)); err != nil {
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
	j.State, j.Reason, j.Stopping = state, reason, false
	t.record(&audit.JobEnded{Job: j.Name, State: state, Reason: reason})
}
