package state

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"choir.example/fedavg"
	"choir.example/internal/jobspec"
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
	// What follows Apply does not refuse: its rules may change, and logs hold such jobs, which fail when they come so far.
	if _, err := jobspec.Algorithm(s); err != nil {
		return err
	}
	if s.StudentRows < 1 && jobspec.Publishes(s) {
		return fmt.Errorf("job %s: student_rows is 0, want 1 to %d: a release has a student, which learns from them", s.Name, 1<<22)
	}
	return nil
}

// bound is the range of one field of a job.
type bound struct {
	field    string
	value    float64
	low, top float64
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
	bounds, err := checkTraining(s)
	if err != nil {
		return err
	}
	bounds = append(bounds, []bound{
		{"rounds", float64(s.Rounds), 1, 1e6},
		{"weight_cap", float64(s.WeightCap), 1, fedavg.MaxWeight},
		{"minimum_cohort", float64(s.MinimumCohort), 1, 1 << 16},
		{"goal", float64(s.Goal), 0, 1 << 16},
		{"duration_ms", float64(s.DurationMs), 100, 7 * 24 * 3600e3},
		{"max_attempts", float64(s.MaxAttempts), 1, 1000},
		{"wait_ms", float64(s.WaitMs), 0, 24 * 3600e3},
		{"where: number of labels", float64(len(s.Where)), 0, 64},
		{"minimum_examples", float64(s.MinimumExamples), 0, fedavg.MaxExamples},
		{"over_selection_percent", float64(s.OverSelectionPercent), 0, 400},
	}...)
	for _, f := range append(bounds, release(s)...) {
		if math.IsNaN(f.value) || f.value < f.low || f.value > f.top {
			return fmt.Errorf("job %s: %s is %s, want %s to %s", s.Name, f.field, number(f.value), number(f.low), number(f.top))
		}
	}
	if len(s.Algorithm) == 0 {
		if err := checkPerceptron(s); err != nil {
			return err
		}
	}
	if _, err := optional("validation", s.Validation); err != nil {
		return fmt.Errorf("job %s: %w", s.Name, err)
	}
	if _, err := optional("public", s.Public); err != nil {
		return fmt.Errorf("job %s: %w", s.Name, err)
	}
	if len(s.Public) > 0 && len(s.Schema) == 0 {
		return fmt.Errorf("job %s: public rows are of a schema, and the job has none", s.Name)
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

// release are the bounds of what a release is made by.
func release(s *choirv1.JobSpec) []bound {
	if !jobspec.Publishes(s) {
		return nil
	}
	return []bound{
		{"student_hidden", float64(s.StudentHidden), 0, 1 << 14},
		{"gate_int8_ppm", float64(s.GateInt8Ppm), 0, 1e6},
		{"gate_student_ppm", float64(s.GateStudentPpm), 0, 1e6},
		{"student_rows", float64(s.StudentRows), 0, 1 << 22},
		{"student_temperature", s.StudentTemperature, 0.1, 100},
		{"student_epochs", float64(s.StudentEpochs), 0, 1000},
		{"student_rate", s.StudentRate, 0, 1e3},
	}
}

// maxAlgorithm bounds an algorithm's settings in bytes: they are in the log, and in each task.
const maxAlgorithm = 16 << 10

// checkTraining checks what a job says of its examples and of training. Of an algorithm it looks at the frame alone.
func checkTraining(s *choirv1.JobSpec) ([]bound, error) {
	if len(s.Algorithm) == 0 && s.Examples == nil && s.Publish == "" {
		return checkOlder(s)
	}
	switch {
	case len(s.Algorithm) == 0 || len(s.Algorithm) > maxAlgorithm || !json.Valid(s.Algorithm):
		return nil, fmt.Errorf("job %s: algorithm is not JSON of 1 to %d bytes", s.Name, maxAlgorithm)
	case len(s.Hidden) > 0 || s.LocalEpochs != 0 || s.Batch != 0 || s.LearningRate != 0 || s.Range != 0 || s.Clip != 0 || s.ServerRate != 0:
		return nil, fmt.Errorf("job %s: algorithm says what hidden, local_epochs, batch, learning_rate, range, clip and server_rate said; want either", s.Name)
	case s.Publish != "" && s.Publish != jobspec.PublishNone:
		return nil, fmt.Errorf("job %s: publish is %.40q, want %s, or nothing for a release after the last round", s.Name, s.Publish, jobspec.PublishNone)
	case !jobspec.Publishes(s) && len(s.Validation) > 0:
		return nil, fmt.Errorf("job %s: publish is %s, and validation is for a release", s.Name, jobspec.PublishNone)
	}
	if len(s.Schema) == 0 {
		return nil, checkExamples(s)
	}
	if s.Examples != nil {
		return nil, fmt.Errorf("job %s: examples and a schema, want one", s.Name)
	}
	schema, err := data.ParseSchema(s.Schema)
	if err != nil {
		return nil, fmt.Errorf("job %s: %w", s.Name, err)
	}
	if err := schema.CheckPlain(); err != nil {
		return nil, fmt.Errorf("job %s: schema %s: %w", s.Name, schema.Name, err)
	}
	if err := schema.CheckBinary(); err != nil && jobspec.Publishes(s) { // a release answers yes or no
		return nil, fmt.Errorf("job %s: schema %s: %w, or publish %s", s.Name, schema.Name, err, jobspec.PublishNone)
	}
	return nil, nil
}

// checkExamples is about a job whose examples are tensors: its model fits no rows, and nobody can be asked with one.
func checkExamples(s *choirv1.JobSpec) error {
	switch x := s.Examples; {
	case x == nil || len(x.Input) < 1 || len(x.Input) > 8 || len(x.Ids) > 64:
		return fmt.Errorf("job %s: want a schema, or examples with 1 to 8 sides and at most 64 kinds of ids", s.Name)
	case jobspec.Publishes(s):
		return fmt.Errorf("job %s: a release needs a schema; want publish %s", s.Name, jobspec.PublishNone)
	case s.MinimumExamples > 0:
		return fmt.Errorf("job %s: minimum_examples counts rows of a schema, and it has none", s.Name)
	}
	return nil
}

// checkOlder checks a job without an algorithm, but for what checkPerceptron does.
func checkOlder(s *choirv1.JobSpec) ([]bound, error) {
	schema, err := data.ParseSchema(s.Schema)
	if err != nil {
		return nil, fmt.Errorf("job %s: %w", s.Name, err)
	}
	if err := schema.CheckBinary(); err != nil {
		return nil, fmt.Errorf("job %s: schema %s: %w", s.Name, schema.Name, err)
	}
	return []bound{
		{"hidden: number of layers", float64(len(s.Hidden)), 1, 8},
		{"local_epochs", float64(s.LocalEpochs), 0, 1000},
		{"batch", float64(s.Batch), 1, 1 << 16},
		{"learning_rate", s.LearningRate, 1e-9, 1e3},
		{"range", s.Range, 1e-6, 1e6},
		{"clip", s.Clip, 0, 1e9},
		{"server_rate", s.ServerRate, 0, 1e3},
	}, nil
}

// checkPerceptron checks what a job without an algorithm trains.
func checkPerceptron(s *choirv1.JobSpec) error {
	schema, err := data.ParseSchema(s.Schema)
	if err != nil {
		return fmt.Errorf("job %s: %w", s.Name, err)
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
