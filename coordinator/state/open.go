package state

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"choir.example/fedavg"
	"choir.example/internal/canon"
	"choir.example/internal/jobspec"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/protobuf/proto"
)

// maxCandidates bounds an evaluation round; its close carries two histograms for each.
const maxCandidates = 8

// Next says which round a running job needs: its number, attempt and kind. ok is false when a round is active or all
// rounds, the evaluation among them, are closed.
func (j *Job) Next(spec *choirv1.JobSpec) (key *choirv1.RoundKey, kind choirv1.RoundKind, ok bool) {
	if j.State != JobRunning || j.Active() != nil {
		return nil, 0, false
	}
	number, attempt := uint64(0), uint32(1)
	if len(spec.Schema) == 0 { // there is nothing to gather statistics of
		number = 1
	}
	if last := j.Current(); last != nil {
		number, attempt = last.Number+1, 1
		again := last.Kind != choirv1.RoundKind_ROUND_KIND_EVALUATE || last.Number > spec.Rounds // it was, before the job got more rounds
		if last.Phase == PhaseAbandoned && again {
			number, attempt = last.Number, last.Attempt+1
		}
	}
	switch {
	case number == 0:
		kind = choirv1.RoundKind_ROUND_KIND_STATISTICS
	case number <= spec.Rounds:
		kind = choirv1.RoundKind_ROUND_KIND_TRAIN
	case number == spec.Rounds+1 && len(spec.Validation) == 0 && jobspec.Publishes(spec):
		kind = choirv1.RoundKind_ROUND_KIND_EVALUATE
	default:
		return nil, 0, false
	}
	return &choirv1.RoundKey{Job: j.Name, Round: number, Attempt: attempt}, kind, true
}

// openRound draws the cohort from those available that have budget left, and reserves that budget.
func (t *transition) openRound(c *choirv1.OpenRound) error {
	j, err := t.job(c.GetKey().GetJob())
	if err != nil {
		return err
	}
	spec, err := j.JobSpec()
	if err != nil {
		return err
	}
	key, kind, ok := j.Next(spec)
	switch {
	case !ok || !proto.Equal(key, c.Key) || kind != c.Kind || c.Roster != t.Roster:
		return fmt.Errorf("open round %d attempt %d of job %s: %w", c.Key.Round, c.Key.Attempt, j.Name, ErrStale)
	case c.Term != t.term: // planned by a leader that has lost its place since
		return fmt.Errorf("open by the plan of term %d in term %d: %w", c.Term, t.term, ErrStale)
	case len(c.NoiseSeed) > 0:
		return fmt.Errorf("%w: a noise seed without a mechanism", ErrFormat)
	}
	r := &Round{
		Number: key.Round, Attempt: key.Attempt, Kind: kind, Phase: PhaseOpen, Term: c.Term, Seed: c.Seed,
		Opened: t.index, Accepted: map[string]Acceptance{}, Incidents: map[string]string{},
	}
	if r.Model, r.Candidates, err = models(c); err != nil {
		return err
	}
	if j.starts(spec, kind) {
		j.Model = r.Model
	}
	if kind == choirv1.RoundKind_ROUND_KIND_TRAIN && r.Model != j.Model ||
		kind == choirv1.RoundKind_ROUND_KIND_EVALUATE && r.Candidates[0] != j.Model {
		return fmt.Errorf("open round %d of job %s: its model is not the job's: %w", r.Number, j.Name, ErrStale)
	}
	if r.Strategy, err = optional("strategy_state", c.StrategyState); err != nil {
		return err
	}
	if want := (kind == choirv1.RoundKind_ROUND_KIND_TRAIN); want && r.Strategy != j.Strategy || !want && !r.Strategy.IsZero() {
		return fmt.Errorf("open round %d of job %s: its strategy's state is not the job's: %w", r.Number, j.Name, ErrStale)
	}
	if r.Cohort, err = t.cohort(spec, kind, c); err != nil {
		return fmt.Errorf("open round %d of job %s: %w", r.Number, j.Name, err)
	}
	if len(spec.Algorithm) > 0 {
		r.Fleet = uint32(len(t.Eligible(spec)))
	}
	r.Invited, r.Goal = uint32(len(r.Cohort)), uint32(len(r.Cohort))
	if spec.Goal > 0 {
		r.Goal = min(r.Goal, spec.Goal)
	}
	r.Epochs = t.epochs()
	r.Plan = plan(t.Cluster, j, r)
	if kind == choirv1.RoundKind_ROUND_KIND_TRAIN {
		t.budget(r.Cohort, func(n *Node) { n.Reserved++ })
	}
	j.Rounds = append(compact(j.Rounds, r.Number), r)
	t.record(&audit.RoundOpened{
		Job: j.Name, Round: r.Number, Attempt: r.Attempt, RoundKind: uint8(kind), Plan: r.Plan, Model: r.Model,
		Candidates: raw(r.Candidates), Cohort: r.Cohort, MinimumCohort: spec.MinimumCohort, Goal: r.Goal, Strategy: r.Strategy,
	})
	return nil
}

// starts reports whether a round begins a job that has no statistics round: the model that it names is the job's first.
func (j *Job) starts(spec *choirv1.JobSpec, kind choirv1.RoundKind) bool {
	return len(spec.Schema) == 0 && kind == choirv1.RoundKind_ROUND_KIND_TRAIN && j.Model.IsZero()
}

// models checks which models a round names: one to train from, or candidates to evaluate, or none.
func models(c *choirv1.OpenRound) (Digest, []Digest, error) {
	m, err := optional("model", c.Model)
	if err != nil {
		return m, nil, err
	}
	var ds []Digest
	for _, b := range c.Candidates {
		d, err := digest("candidates", b)
		if err != nil {
			return m, nil, err
		}
		if slices.Contains(ds, d) {
			return m, nil, fmt.Errorf("%w: candidate %v is named twice", ErrFormat, d)
		}
		ds = append(ds, d)
	}
	train, evaluate := c.Kind == choirv1.RoundKind_ROUND_KIND_TRAIN, c.Kind == choirv1.RoundKind_ROUND_KIND_EVALUATE
	if train == m.IsZero() || evaluate == (len(ds) == 0) || len(ds) > maxCandidates {
		return m, nil, fmt.Errorf("%w: a %v round with model %v and %d candidates", ErrFormat, c.Kind, m, len(ds))
	}
	return m, ds, nil
}

// Eligible lists the nodes that a job may invite, whether they are available or not: those that are not revoked and have
// the labels it wants. They are in order of names.
func (s *State) Eligible(spec *choirv1.JobSpec) []string {
	return slices.DeleteFunc(s.NodeNames(), func(name string) bool { return !s.Nodes[name].eligible(spec) })
}

func (n Node) eligible(spec *choirv1.JobSpec) bool {
	return !n.Revoked && !slices.ContainsFunc(spec.Where, func(m *choirv1.LabelMatch) bool {
		return !slices.Contains(m.Values, n.Labels[m.Label])
	})
}

// Budget tells of a round of a job whether the node has budget left for it, and whether other rounds have not reserved
// that.
func (n Node) Budget(spec *choirv1.JobSpec, kind choirv1.RoundKind) (left, unreserved bool) {
	if kind != choirv1.RoundKind_ROUND_KIND_TRAIN || spec.BudgetRounds == 0 {
		return true, true
	}
	return n.Spent < spec.BudgetRounds, n.Spent+n.Reserved < spec.BudgetRounds
}

// cohort draws as many nodes as the job wants to invite, all of them where it names no goal.
func (t *transition) cohort(spec *choirv1.JobSpec, kind choirv1.RoundKind, c *choirv1.OpenRound) ([]string, error) {
	names := t.NodeNames()
	if n := len(c.Available); n != (len(names)+7)/8 || n > 0 && len(names)%8 > 0 && c.Available[n-1]>>(len(names)%8) != 0 {
		return nil, fmt.Errorf("%w: the availability bitmap of %d bytes is not one of %d nodes", ErrFormat, n, len(names))
	}
	var free []string
	eligible, left := 0, 0 // left have some budget, be they away or reserved by other rounds
	for i, name := range names {
		n := t.Nodes[name]
		if !n.eligible(spec) {
			continue
		}
		eligible++
		some, unreserved := n.Budget(spec, kind)
		if !some {
			continue
		}
		left++
		if available := c.Available[i/8]>>(i%8)&1 == 1; available && unreserved {
			free = append(free, name)
		}
	}
	if least := int(spec.MinimumCohort); len(free) < least {
		if left < least && left < eligible {
			return nil, fmt.Errorf("%w: %d of %d nodes have some left, the minimum cohort is %d", ErrBudget, left, eligible, least)
		}
		return nil, fmt.Errorf("%w: %d available with budget, the minimum cohort is %d", ErrCohort, len(free), least)
	}
	return fedavg.Cohort(c.Seed, free, Invite(spec)), nil
}

// Invite is how many nodes a round invites, if there are as many: the goal, and so many percent more that may stay away
// without the round waiting for them. No sum holds more than fedavg.MaxUpdates.
func Invite(spec *choirv1.JobSpec) int {
	if spec.Goal == 0 {
		return fedavg.MaxUpdates
	}
	more := (uint64(spec.Goal)*uint64(spec.OverSelectionPercent) + 99) / 100
	return int(min(uint64(spec.Goal)+more, fedavg.MaxUpdates))
}

// plan is the digest of everything that a node is asked to trust about a round.
func plan(cluster string, j *Job, r *Round) Digest {
	var w canon.Writer
	w.String("choir/plan/v1")
	w.String(cluster)
	w.String(j.Name)
	w.Bytes(j.Spec)
	w.Uint(r.Number)
	w.Uint(uint64(r.Attempt))
	w.Uint(uint64(r.Kind))
	w.Uint(r.Seed)
	w.Fixed(r.Model[:])
	w.Uint(uint64(len(r.Candidates)))
	for _, d := range r.Candidates {
		w.Fixed(d[:])
	}
	w.Uint(uint64(len(r.Cohort)))
	for _, name := range r.Cohort {
		w.String(name)
	}
	w.Uint(uint64(r.Goal))
	w.Bytes(r.Noise)
	if r.Fleet > 0 {
		w.Uint(uint64(r.Fleet))
		w.Fixed(r.Strategy[:])
	}
	return sha256.Sum256(w.Buf)
}

// compact drops the details that are too old for receipts: those of rounds closed more than KeepRounds ago, and those
// of attempts abandoned more than KeepRounds attempts ago, since a round may have many.
func compact(rounds []*Round, number uint64) []*Round {
	rounds = slices.Clone(rounds)
	for i, r := range rounds {
		recent := r.Number+KeepRounds >= number && (r.Phase == PhaseClosed || i+KeepRounds >= len(rounds))
		if recent || r.Accepted == nil {
			continue
		}
		small := *r
		small.Accepted, small.Batches, small.Cohort, small.Incidents = nil, nil, nil, nil
		small.Evaluation = slices.Clone(r.Evaluation)
		for k := range small.Evaluation {
			small.Evaluation[k].Positives, small.Evaluation[k].Negatives = nil, nil
		}
		rounds[i] = &small
	}
	return rounds
}
