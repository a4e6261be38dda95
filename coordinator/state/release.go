package state

import (
	"fmt"
	"maps"
	"slices"

	"choir.example/model"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"
)

// Variants of a release, in the order of an evaluation round's candidates.
const (
	VariantFloat32     = "float32"
	VariantInt8        = "int8"
	VariantStudent     = "student"
	VariantStudentInt8 = "student-int8"
)

// Gate is how much AUC a variant may lose against the float model, in millionths.
func Gate(spec *choirv1.JobSpec, variant string) (ppm int64, err error) {
	switch variant {
	case VariantFloat32:
		return 0, nil
	case VariantInt8:
		return spec.GateInt8Ppm, nil
	case VariantStudent, VariantStudentInt8:
		return spec.GateStudentPpm, nil
	}
	return 0, fmt.Errorf("%w: variant %q", ErrFormat, variant)
}

// evaluation takes over one sum of evaluations.
func evaluation(s *choirv1.EvaluationSum) (Evaluation, error) {
	e := Evaluation{
		Nodes: int64(s.Nodes), Examples: s.Examples, Correct: s.Correct, Loss: s.Loss,
		Positives: s.Positives, Negatives: s.Negatives,
	}
	if s.Examples < 0 || s.Correct < 0 || s.Correct > s.Examples || len(s.Positives) != len(s.Negatives) {
		return e, fmt.Errorf("%w: evaluation with %d correct of %d", ErrFormat, s.Correct, s.Examples)
	}
	var total int64
	for i := range s.Positives {
		p, n := s.Positives[i], s.Negatives[i]
		if p < 0 || n < 0 || p > s.Examples || n > s.Examples {
			return e, fmt.Errorf("%w: evaluation with counts %d and %d in bin %d", ErrFormat, p, n, i)
		}
		total += p + n
	}
	if total != s.Examples {
		return e, fmt.Errorf("%w: evaluation whose histograms hold %d of %d examples", ErrFormat, total, s.Examples)
	}
	e.AUC = e.model().AUCMillionths()
	return e, nil
}

func (e Evaluation) model() model.Evaluation {
	return model.Evaluation{
		Examples: e.Examples, Correct: e.Correct, Loss: e.Loss, Positives: e.Positives, Negatives: e.Negatives,
	}
}

// publishRelease publishes the variants that stay within their gates, and withholds the others. The gate is decided
// here, from the committed evaluation round or the evaluation over the job's public set, by exact integers.
func (t *transition) publishRelease(c *choirv1.PublishRelease) error {
	j, err := t.job(c.Job)
	if err != nil {
		return err
	}
	spec, err := j.JobSpec()
	if err != nil {
		return err
	}
	if j.State != JobRunning || j.Release != 0 || j.Active() != nil || c.Round != spec.Rounds || j.Trained != c.Round {
		return fmt.Errorf("publish round %d of job %s: %w", c.Round, j.Name, ErrStale)
	}
	measured, err := t.measured(j, spec, c)
	if err != nil {
		return err
	}
	rel := Release{Model: spec.Model, Version: uint64(len(t.Releases[spec.Model])) + 1, Job: j.Name, Round: c.Round, Index: t.index}
	record := &audit.Released{Model: rel.Model, Version: rel.Version, Job: j.Name, Round: c.Round}
	for i, v := range c.Variants {
		w, err := gated(spec, v, measured[0], measured[i])
		if err != nil {
			return err
		}
		rel.Variants = append(rel.Variants, w)
		record.Variants = append(record.Variants, audit.Variant{
			Name: w.Name, Blob: w.Blob, Bytes: w.Bytes, Published: w.Published, Reason: w.Reason,
		})
	}
	if rel.Variants[0].Name != VariantFloat32 || rel.Variants[0].Blob != j.Model {
		return fmt.Errorf("%w: a release starts with the float32 model of round %d", ErrFormat, c.Round)
	}
	t.Releases = maps.Clone(t.Releases)
	t.Releases[spec.Model] = append(slices.Clone(t.Releases[spec.Model]), rel)
	j.Release = rel.Version
	t.record(record)
	t.end(j, JobFinished, "")
	return nil
}

// measured returns the evaluation of each variant.
func (t *transition) measured(j *Job, spec *choirv1.JobSpec, c *choirv1.PublishRelease) ([]Evaluation, error) {
	if len(c.Variants) == 0 {
		return nil, fmt.Errorf("%w: a release without variants", ErrFormat)
	}
	out := make([]Evaluation, len(c.Variants))
	if len(spec.Validation) > 0 {
		for i, v := range c.Variants {
			if v.Evaluation == nil {
				return nil, fmt.Errorf("%w: variant %s was not evaluated", ErrFormat, v.Name)
			}
			var err error
			if out[i], err = evaluation(v.Evaluation); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	r := j.Closed(spec.Rounds + 1)
	if r == nil || c.Evaluation.GetRound() != r.Number || c.Evaluation.GetAttempt() != r.Attempt || len(r.Candidates) != len(out) {
		return nil, fmt.Errorf("publish job %s: no evaluation round measured these variants: %w", j.Name, ErrStale)
	}
	for i, v := range c.Variants {
		if string(v.Blob) != string(r.Candidates[i][:]) {
			return nil, fmt.Errorf("publish job %s: variant %s is not what round %d evaluated: %w", j.Name, v.Name, r.Number, ErrStale)
		}
		out[i] = r.Evaluation[i]
	}
	return out, nil
}

// gated decides on one variant.
func gated(spec *choirv1.JobSpec, v *choirv1.Variant, float, own Evaluation) (Variant, error) {
	blob, err := digests(v.Blob)
	if err != nil {
		return Variant{}, err
	}
	gate, err := Gate(spec, v.Name)
	if err != nil {
		return Variant{}, err
	}
	w := Variant{Name: v.Name, Blob: blob[0], Bytes: v.Bytes, Published: true, Evaluation: own}
	if !model.LossOfAUCWithin(float.model(), own.model(), gate) {
		w.Published = false
		w.Reason = fmt.Sprintf("AUC %d millionths against %d of float32, the gate is %d", own.AUC, float.AUC, gate)
	}
	return w, nil
}
