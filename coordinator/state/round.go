package state

import (
	"fmt"
	"maps"
	"slices"

	"choir.example/internal/jobspec"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"
)

// budget changes the books of the named nodes.
func (t *transition) budget(names []string, change func(*Node)) {
	t.Nodes = maps.Clone(t.Nodes)
	for _, name := range names {
		n := t.Nodes[name]
		change(&n)
		t.Nodes[name] = n
	}
}

// at returns the job and a changeable copy of its last round, if that is the attempt of the key and in the phase.
func (t *transition) at(key *choirv1.RoundKey, phases ...string) (*Job, *Round, error) {
	j, err := t.job(key.GetJob())
	if err != nil {
		return nil, nil, err
	}
	r := j.Current()
	if r == nil || r.Number != key.Round || r.Attempt != key.Attempt || !slices.Contains(phases, r.Phase) {
		return nil, nil, fmt.Errorf("round %d attempt %d of job %s: %w", key.Round, key.Attempt, j.Name, ErrStale)
	}
	return j, j.edit(), nil
}

// cutRound ends the collection: what is committed before it counts, what comes after does not.
func (t *transition) cutRound(c *choirv1.CutRound) error {
	j, r, err := t.at(c.Key, PhaseOpen)
	if err != nil {
		return err
	}
	spec, err := j.JobSpec()
	if err != nil {
		return err
	}
	if r.Term != c.Term {
		return fmt.Errorf("cut by the plan of term %d, not %d: %w", c.Term, r.Term, ErrStale)
	}
	if r.Count < spec.MinimumCohort {
		return fmt.Errorf("%w: %d updates, the minimum cohort is %d", ErrCohort, r.Count, spec.MinimumCohort)
	}
	r.Phase, r.CutAt = PhaseCut, t.index
	t.record(&audit.RoundCut{Job: j.Name, Round: r.Number, Attempt: r.Attempt, Count: uint64(r.Count), Weight: r.Weight})
	return nil
}

// charge books what the round costs, before anything made from it is released: the reservation of each node whose
// update counts becomes spent, the others get theirs back.
func (t *transition) charge(c *choirv1.Charge) error {
	j, r, err := t.at(c.Key, PhaseCut)
	if err != nil {
		return err
	}
	if r.Term != c.Term {
		return fmt.Errorf("charge by the plan of term %d, not %d: %w", c.Term, r.Term, ErrStale)
	}
	if c.Mechanism != "none" {
		return fmt.Errorf("%w: mechanism %q, want none", ErrFormat, c.Mechanism)
	}
	if r.Kind == choirv1.RoundKind_ROUND_KIND_TRAIN {
		t.budget(r.Cohort, func(n *Node) { n.Reserved-- })
		t.budget(slices.Sorted(maps.Keys(r.Accepted)), func(n *Node) { n.Spent++ })
	}
	r.Phase = PhaseCharged
	t.record(&audit.Charged{Job: j.Name, Round: r.Number, Attempt: r.Attempt, Mechanism: c.Mechanism, Nodes: uint64(r.Count)})
	return nil
}

// closeRound fixes what the round made.
func (t *transition) closeRound(c *choirv1.CloseRound) error {
	j, r, err := t.at(c.Key, PhaseCharged)
	if err != nil {
		return err
	}
	if r.Term != c.Term {
		return fmt.Errorf("close by the plan of term %d, not %d: %w", c.Term, r.Term, ErrStale)
	}
	if r.Sum, err = digest("sum", c.Sum); err != nil {
		return err
	}
	if len(r.Batches) == 1 && r.Sum != r.Batches[0].Sum {
		return fmt.Errorf("%w: sum %v is not that of the round's only batch", ErrFormat, r.Sum)
	}
	spec, err := j.JobSpec()
	if err != nil {
		return err
	}
	strategy, err := strategyState(spec, r, c)
	if err != nil {
		return err
	}
	if r.Evaluation, err = evaluations(spec, r, c.Evaluations); err != nil {
		return err
	}
	if r.Next, err = optional("model", c.Model); err != nil {
		return err
	}
	statistics, err := optional("statistics", c.Statistics)
	if err != nil {
		return err
	}
	r.Phase, r.Ended = PhaseClosed, t.index
	wantModel := r.Kind != choirv1.RoundKind_ROUND_KIND_EVALUATE
	wantStatistics := r.Kind == choirv1.RoundKind_ROUND_KIND_STATISTICS
	if r.Next.IsZero() == wantModel || statistics.IsZero() == wantStatistics {
		return fmt.Errorf("%w: close of a %v round with model %v and statistics %v", ErrFormat, r.Kind, r.Next, statistics)
	}
	if wantModel {
		j.Model = r.Next
	}
	if wantStatistics {
		j.Statistics = statistics
	}
	if r.Kind == choirv1.RoundKind_ROUND_KIND_TRAIN {
		j.Trained, j.Strategy = r.Number, strategy
	}
	t.record(closedRecord(j, r, statistics, strategy))
	t.over(j, r)
	return nil
}

// over follows the end of a round, which is a copy of the transition's own: it names epoch keys no more, and a job that
// waits to be stopped is.
func (t *transition) over(j *Job, r *Round) {
	r.Epochs = nil
	t.forgetEpochs()
	t.settle(j)
}

// strategyState is what a close leaves of the strategy for the next round. Whether it keeps anything is the algorithm's
// affair; a job without one keeps nothing.
func strategyState(spec *choirv1.JobSpec, r *Round, c *choirv1.CloseRound) (Digest, error) {
	if len(c.StrategyState) > 0 && (len(spec.Algorithm) == 0 || r.Kind != choirv1.RoundKind_ROUND_KIND_TRAIN) {
		return Digest{}, fmt.Errorf("%w: strategy state, but the strategy keeps none", ErrFormat)
	}
	return optional("strategy_state", c.StrategyState)
}

func closedRecord(j *Job, r *Round, statistics, strategy Digest) *audit.RoundClosed {
	record := &audit.RoundClosed{
		Job: j.Name, Round: r.Number, Attempt: r.Attempt, Count: uint64(r.Count), Weight: r.Weight,
		Sum: r.Sum, Model: r.Next, Statistics: statistics, Strategy: strategy,
	}
	if len(r.Evaluation) > 0 {
		e := r.Evaluation[0]
		record.EvalExamples, record.EvalCorrect, record.EvalLoss = e.Examples, e.Correct, e.Loss
	}
	return record
}

// evaluated is how many models the round's nodes evaluate: the one they train from, or each candidate.
func (r *Round) evaluated() int {
	switch r.Kind {
	case choirv1.RoundKind_ROUND_KIND_TRAIN:
		return 1
	case choirv1.RoundKind_ROUND_KIND_EVALUATE:
		return len(r.Candidates)
	}
	return 0
}

// evaluations takes over the sums of the round's evaluations.
func evaluations(spec *choirv1.JobSpec, r *Round, sums []*choirv1.EvaluationSum) ([]Evaluation, error) {
	if want := r.evaluated(); len(sums) != want {
		return nil, fmt.Errorf("%w: %d evaluations, want %d", ErrFormat, len(sums), want)
	}
	_, classes, _, err := jobspec.Shape(spec)
	if err != nil {
		return nil, err
	}
	out := make([]Evaluation, len(sums))
	for i, s := range sums {
		if out[i], err = evaluation(s, r.Count, spec.MinimumCohort, classes); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// abandonRound ends an attempt without a result. After the last attempt the job has failed.
func (t *transition) abandonRound(c *choirv1.AbandonRound) error {
	j, r, err := t.at(c.Key, PhaseOpen, PhaseCut, PhaseCharged)
	if err != nil {
		return err
	}
	spec, err := j.JobSpec()
	if err != nil {
		return err
	}
	if r.Term != c.Term {
		return fmt.Errorf("abandon by the plan of term %d, not %d: %w", c.Term, r.Term, ErrStale)
	}
	if err := checkText("reason", c.Reason, MaxReason); err != nil {
		return err
	}
	if r.Kind == choirv1.RoundKind_ROUND_KIND_TRAIN && r.Phase != PhaseCharged {
		t.budget(r.Cohort, func(n *Node) { n.Reserved-- })
	}
	r.Phase, r.Reason, r.Ended = PhaseAbandoned, c.Reason, t.index
	t.record(&audit.RoundAbandoned{Job: j.Name, Round: r.Number, Attempt: r.Attempt, Reason: c.Reason})
	if r.Attempt >= spec.MaxAttempts {
		t.end(j, JobFailed, fmt.Sprintf("round %d abandoned after %d attempts: %s", r.Number, r.Attempt, c.Reason))
	}
	t.over(j, r)
	return nil
}

func raw(ds []Digest) [][32]byte {
	out := make([][32]byte, len(ds))
	for i, d := range ds {
		out[i] = d
	}
	return out
}
