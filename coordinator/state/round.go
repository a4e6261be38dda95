package state

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"choir.example/fedavg"
	"choir.example/internal/canon"
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
	case number == spec.Rounds+1 && len(spec.Validation) == 0:
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
	if kind == choirv1.RoundKind_ROUND_KIND_TRAIN && r.Model != j.Model ||
		kind == choirv1.RoundKind_ROUND_KIND_EVALUATE && r.Candidates[0] != j.Model {
		return fmt.Errorf("open round %d of job %s: its model is not the job's: %w", r.Number, j.Name, ErrStale)
	}
	if r.Cohort, err = t.cohort(spec, kind, c); err != nil {
		return fmt.Errorf("open round %d of job %s: %w", r.Number, j.Name, err)
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
		Candidates: raw(r.Candidates), Cohort: r.Cohort, MinimumCohort: spec.MinimumCohort, Goal: r.Goal,
	})
	return nil
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
	return sha256.Sum256(w.Buf)
}

// budget changes the books of the named nodes.
func (t *transition) budget(names []string, change func(*Node)) {
	t.Nodes = maps.Clone(t.Nodes)
	for _, name := range names {
		n := t.Nodes[name]
		change(&n)
		t.Nodes[name] = n
	}
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

// acceptBatch counts the updates of a batch, all or none.
func (t *transition) acceptBatch(c *choirv1.AcceptBatch) error {
	j, r, err := t.at(c.Key, PhaseOpen, PhaseCut, PhaseCharged, PhaseClosed)
	if err != nil {
		return err
	}
	spec, err := j.JobSpec()
	if err != nil {
		return err
	}
	batch, accepted, err := t.batch(c)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(r.Batches, func(b Batch) bool { return b.ID == batch.ID }); i >= 0 {
		if b := r.Batches[i]; b.Sum != batch.Sum || b.Weight != batch.Weight || !slices.Equal(b.Nodes, batch.Nodes) {
			return fmt.Errorf("%w: batch %v is committed with other contents", ErrFormat, batch.ID)
		}
		return nil // proposed again: it counts once
	}
	if r.Phase != PhaseOpen {
		return fmt.Errorf("batch for round %d attempt %d of job %s, which is %s: %w", r.Number, r.Attempt, j.Name, r.Phase, ErrStale)
	}
	var twice, revoked []string
	for _, a := range accepted {
		if !r.Invites(a.Node) {
			return fmt.Errorf("node %s is not in the cohort of round %d", a.Node, r.Number)
		}
		if a.Weight < 1 || a.Weight > spec.WeightCap {
			return fmt.Errorf("node %s: weight %d is outside [1, %d]", a.Node, a.Weight, spec.WeightCap)
		}
		_, counted := r.Accepted[a.Node]
		if t.Nodes[a.Node].Revoked && !counted {
			revoked = append(revoked, a.Node)
		}
		if counted || t.Nodes[a.Node].Revoked {
			twice = append(twice, a.Node)
		}
	}
	if len(twice) > 0 {
		return &DuplicateError{Nodes: twice, Revoked: revoked}
	}
	if r.Full() {
		return fmt.Errorf("batch for round %d attempt %d of job %s, which has its %d updates: %w", r.Number, r.Attempt, j.Name, r.Goal, ErrStale)
	}
	if node := r.shared(accepted); node != "" {
		return fmt.Errorf("%w: node %s brings an update that counts for another node", ErrFormat, node)
	}
	if r.Weight+batch.Weight > fedavg.MaxTotalWeight {
		return fmt.Errorf("batch of weight %d: %w", batch.Weight, fedavg.ErrTooMuch)
	}
	r.count(batch, accepted)
	t.record(&audit.BatchAccepted{
		Job: j.Name, Round: r.Number, Attempt: r.Attempt, Batch: batch.ID, Sum: batch.Sum, Coordinator: batch.Coordinator,
		Accepted: accepted,
	})
	return nil
}

// batch checks what can be said of a batch without its round: digests, a sorted set of nodes, and that it is on a
// majority of the voters, its folder among them. Only voters count, each once.
func (t *transition) batch(c *choirv1.AcceptBatch) (b Batch, accepted []audit.Accepted, err error) {
	b = Batch{Coordinator: c.Coordinator, Weight: c.Weight, Index: t.index, Term: t.term}
	if b.ID, err = digest("batch", c.Batch); err != nil {
		return b, nil, err
	}
	if b.Sum, err = digest("sum", c.Sum); err != nil {
		return b, nil, err
	}
	held := map[string]bool{}
	for _, h := range c.Holders {
		if _, ok := t.Coordinator(h); ok {
			held[h] = true
		}
	}
	if len(held) < t.Majority() || !held[c.Coordinator] {
		return b, nil, fmt.Errorf("batch of %s is held by %d voters, want a majority of %d and its folder", c.Coordinator, len(held), t.Majority())
	}
	var weight int64
	for i, a := range c.Accepted {
		if i > 0 && c.Accepted[i-1].Node >= a.Node {
			return b, nil, fmt.Errorf("%w: the batch does not list its nodes in order", ErrFormat)
		}
		update, err := digest("update of node "+a.Node, a.Update)
		if err != nil {
			return b, nil, err
		}
		weight += a.Weight
		b.Nodes = append(b.Nodes, a.Node)
		accepted = append(accepted, audit.Accepted{Node: a.Node, Update: update, Weight: a.Weight})
	}
	if len(accepted) == 0 || weight != c.Weight {
		return b, nil, fmt.Errorf("%w: the batch claims weight %d and holds %d updates of %d", ErrFormat, c.Weight, len(accepted), weight)
	}
	return b, accepted, nil
}

// shared names a node whose update would count for two, empty if there is none: an update names its node, so no honest
// batch holds one, and no audit would pass it.
func (r *Round) shared(accepted []audit.Accepted) string {
	counted := make(map[Digest]bool, len(r.Accepted)+len(accepted))
	for _, a := range r.Accepted {
		counted[a.Update] = true
	}
	for _, a := range accepted {
		if counted[a.Update] {
			return a.Node
		}
		counted[a.Update] = true
	}
	return ""
}

// count adds a batch to the round, which is a copy of the transition's own.
func (r *Round) count(b Batch, accepted []audit.Accepted) {
	r.Accepted = maps.Clone(r.Accepted)
	for _, a := range accepted {
		r.Accepted[a.Node] = Acceptance{Update: a.Update, Weight: a.Weight, Batch: b.ID, Index: b.Index}
	}
	r.Batches = append(slices.Clone(r.Batches), b)
	r.Count, r.Weight = uint32(len(r.Accepted)), r.Weight+b.Weight
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
	if len(c.StrategyState) > 0 {
		return fmt.Errorf("%w: strategy state, but the strategy keeps none", ErrFormat)
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
	if r.Evaluation, err = evaluations(r, c.Evaluations, spec.MinimumCohort); err != nil {
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
		j.Trained = r.Number
	}
	t.record(closedRecord(j, r, statistics))
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

func closedRecord(j *Job, r *Round, statistics Digest) *audit.RoundClosed {
	record := &audit.RoundClosed{
		Job: j.Name, Round: r.Number, Attempt: r.Attempt, Count: uint64(r.Count), Weight: r.Weight,
		Sum: r.Sum, Model: r.Next, Statistics: statistics,
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
func evaluations(r *Round, sums []*choirv1.EvaluationSum, minimum uint32) ([]Evaluation, error) {
	if want := r.evaluated(); len(sums) != want {
		return nil, fmt.Errorf("%w: %d evaluations, want %d", ErrFormat, len(sums), want)
	}
	out := make([]Evaluation, len(sums))
	for i, s := range sums {
		var err error
		if out[i], err = evaluation(s, r.Count, minimum); err != nil {
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

// recordIncident records the first refusal of a node in an attempt, and counts the nodes refused. Two different signed
// updates are more than a refusal: they are recorded, once, whatever came before.
func (t *transition) recordIncident(c *choirv1.RecordIncident) error {
	j, r, err := t.at(c.Key, PhaseOpen, PhaseCut, PhaseCharged, PhaseClosed, PhaseAbandoned)
	if err != nil {
		return err
	}
	if err := checkIncident(c); err != nil {
		return err
	}
	if !r.Invites(c.Node) {
		return fmt.Errorf("incident of node %q, which is not in the cohort of round %d", c.Node, r.Number)
	}
	known, refused := r.Incidents[c.Node]
	if known == audit.ReasonEquivocation || refused && c.Reason != audit.ReasonEquivocation {
		return nil
	}
	r.Incidents = maps.Clone(r.Incidents)
	r.Incidents[c.Node] = c.Reason
	r.Refused = uint32(len(r.Incidents))
	t.record(&audit.Incident{
		Job: j.Name, Round: r.Number, Attempt: r.Attempt, Node: c.Node, Reason: c.Reason, First: c.First, Second: c.Second,
	})
	return nil
}

// checkIncident refuses a reason that is not one of a round's, and an equivocation without its two updates.
func checkIncident(c *choirv1.RecordIncident) error {
	if !audit.KnownReason(c.Reason) || c.Reason == audit.ReasonTokenReuse {
		return fmt.Errorf("%w: incident reason %q", ErrFormat, c.Reason)
	}
	if c.Reason != audit.ReasonEquivocation {
		if len(c.First)+len(c.Second) > 0 {
			return fmt.Errorf("%w: incident %s names updates", ErrFormat, c.Reason)
		}
		return nil
	}
	for _, b := range [][]byte{c.First, c.Second} {
		if _, err := digest("update", b); err != nil {
			return err
		}
	}
	if bytes.Equal(c.First, c.Second) {
		return fmt.Errorf("%w: an equivocation of one update with itself", ErrFormat)
	}
	return nil
}

func raw(ds []Digest) [][32]byte {
	out := make([][32]byte, len(ds))
	for i, d := range ds {
		out[i] = d
	}
	return out
}
