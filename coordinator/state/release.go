package state

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/protobuf/proto"
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

// evaluation takes over one sum of evaluations, from the close of a round with so many updates; 0 stands for a public
// set. What fewer nodes than the minimum cohort measured must not be in it. A close of an older log does not say how many
// had examples: its nodes are all updates.
func evaluation(s *choirv1.EvaluationSum, updates, minimum uint32, classes int) (Evaluation, error) {
	if s.Updates > 0 {
		return evaluationOfNodes(s, updates, minimum, classes)
	}
	most := int64(fedavg.MaxUpdates) * fedavg.MaxExamples
	if updates > 0 {
		most = int64(updates) * fedavg.MaxExamples
	}
	if s.Nodes != uint64(updates) {
		return Evaluation{}, fmt.Errorf("%w: evaluation over %d nodes, want %d", ErrFormat, s.Nodes, updates)
	}
	return checked(s, most, classes)
}

func evaluationOfNodes(s *choirv1.EvaluationSum, updates, minimum uint32, classes int) (Evaluation, error) {
	switch {
	case s.Updates != uint64(updates):
		return Evaluation{}, fmt.Errorf("%w: evaluation in a round of %d updates, want %d", ErrFormat, s.Updates, updates)
	case s.Nodes > s.Updates || int64(s.Nodes) > max(s.Examples, 0):
		return Evaluation{}, fmt.Errorf("%w: evaluation of %d examples over %d nodes of %d", ErrFormat, s.Examples, s.Nodes, s.Updates)
	case s.Nodes > 0 && s.Nodes < uint64(minimum):
		return Evaluation{}, fmt.Errorf("%w: evaluation over %d nodes, the minimum cohort is %d", ErrCohort, s.Nodes, minimum)
	case s.Nodes == 0 && len(s.Positives) > 0:
		return Evaluation{}, fmt.Errorf("%w: histograms of no nodes", ErrFormat)
	}
	return checked(s, int64(s.Nodes)*fedavg.MaxExamples, classes)
}

// checked is the sum, which has at most most examples, with the AUC that follows from it: none of several classes.
func checked(s *choirv1.EvaluationSum, most int64, classes int) (Evaluation, error) {
	e := Evaluation{
		Nodes: int64(s.Nodes), Examples: s.Examples, Correct: s.Correct, Loss: s.Loss,
		Positives: s.Positives, Negatives: s.Negatives,
	}
	m := e.model()
	switch err := fedavg.CheckEvaluation(&m, most, classes); {
	case err != nil:
		return e, fmt.Errorf("%w: evaluation: %w", ErrFormat, err)
	case s.AucMillionths != 0:
		return e, fmt.Errorf("%w: evaluation with an AUC; it follows from the histograms", ErrFormat)
	}
	if classes <= 1 {
		e.AUC = m.AUCMillionths()
	}
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
	if j.State != JobRunning || j.Active() != nil || c.Round != spec.Rounds || j.Trained != c.Round || c.Term != t.term {
		return fmt.Errorf("publish round %d of job %s in term %d: %w", c.Round, j.Name, c.Term, ErrStale)
	}
	if err := checkVariants(c.Variants); err != nil {
		return err
	}
	if !bytes.Equal(c.Variants[0].Blob, j.Model[:]) {
		return fmt.Errorf("%w: a release starts with the float32 model of round %d", ErrFormat, c.Round)
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
		w.Evaluation.Positives, w.Evaluation.Negatives = nil, nil // the round that measured keeps them for a while
		rel.Variants = append(rel.Variants, w)
		record.Variants = append(record.Variants, audit.Variant{
			Name: w.Name, Blob: w.Blob, Bytes: w.Bytes, Published: w.Published, Reason: w.Reason,
		})
	}
	t.Releases = maps.Clone(t.Releases)
	t.Releases[spec.Model] = append(slices.Clone(t.Releases[spec.Model]), rel)
	j.Release = rel.Version
	t.record(record)
	t.end(j, JobFinished, "")
	return nil
}

// checkVariants refuses a list that is not float32 and then distinct variants, and one that claims what is decided here.
func checkVariants(vs []*choirv1.Variant) error {
	if len(vs) == 0 || vs[0].Name != VariantFloat32 {
		return fmt.Errorf("%w: a release starts with its float32 model", ErrFormat)
	}
	for i, v := range vs {
		switch {
		case slices.ContainsFunc(vs[:i], func(o *choirv1.Variant) bool { return o.Name == v.Name }):
			return fmt.Errorf("%w: variant %s is named twice", ErrFormat, v.Name)
		case v.Bytes == 0:
			return fmt.Errorf("%w: variant %s has no bytes", ErrFormat, v.Name)
		case v.Published || v.Reason != "":
			return fmt.Errorf("%w: variant %s says whether it is published; its gate decides", ErrFormat, v.Name)
		}
	}
	return nil
}

// measured returns the evaluation of each variant: on the job's public set, or by the job's evaluation round.
func (t *transition) measured(j *Job, spec *choirv1.JobSpec, c *choirv1.PublishRelease) ([]Evaluation, error) {
	if !bytes.Equal(c.Validation, spec.Validation) {
		return nil, fmt.Errorf("%w: publish job %s: not measured on its public set", ErrFormat, j.Name)
	}
	if len(spec.Validation) > 0 {
		return measuredPublic(c)
	}
	r := j.Closed(spec.Rounds + 1)
	if r == nil || !proto.Equal(c.Evaluation, r.Key(j.Name)) || len(r.Candidates) != len(c.Variants) {
		return nil, fmt.Errorf("publish job %s: no evaluation round measured these variants: %w", j.Name, ErrStale)
	}
	for i, v := range c.Variants {
		if !bytes.Equal(v.Blob, r.Candidates[i][:]) || v.Evaluation != nil {
			return nil, fmt.Errorf("publish job %s: variant %s is not what round %d evaluated: %w", j.Name, v.Name, r.Number, ErrStale)
		}
	}
	return r.Evaluation, nil
}

func measuredPublic(c *choirv1.PublishRelease) ([]Evaluation, error) {
	if c.Evaluation != nil {
		return nil, fmt.Errorf("%w: a release measured on a public set names an evaluation round", ErrFormat)
	}
	out := make([]Evaluation, len(c.Variants))
	for i, v := range c.Variants {
		if v.Evaluation == nil {
			return nil, fmt.Errorf("%w: variant %s was not evaluated", ErrFormat, v.Name)
		}
		var err error
		if out[i], err = evaluation(v.Evaluation, 0, 0, 1); err != nil {
			return nil, fmt.Errorf("variant %s: %w", v.Name, err)
		}
	}
	return out, nil
}

// gated decides on one variant.
func gated(spec *choirv1.JobSpec, v *choirv1.Variant, float, own Evaluation) (Variant, error) {
	blob, err := digest("blob", v.Blob)
	if err != nil {
		return Variant{}, err
	}
	gate, err := Gate(spec, v.Name)
	if err != nil {
		return Variant{}, err
	}
	w := Variant{Name: v.Name, Blob: blob, Bytes: v.Bytes, Published: true, Evaluation: own}
	if model.LossOfAUCWithin(float.model(), own.model(), gate) {
		return w, nil
	}
	w.Published = false
	w.Reason = fmt.Sprintf("AUC %d millionths against %d of float32, the gate is %d", own.AUC, float.AUC, gate)
	switch {
	case own.Nodes == 0 && len(spec.Validation) == 0:
		w.Reason = fmt.Sprintf("fewer nodes have validation examples than the minimum cohort of %d", spec.MinimumCohort)
	case isZero(own.Positives) || isZero(own.Negatives):
		w.Reason = "evaluated on examples of one class: no AUC to hold against the gate"
	}
	return w, nil
}

func isZero(counts []int64) bool {
	return !slices.ContainsFunc(counts, func(n int64) bool { return n != 0 })
}
