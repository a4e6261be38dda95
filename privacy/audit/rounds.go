package audit

import (
	"fmt"
	"slices"
)

// Kinds of rounds, as RoundOpened.RoundKind has them.
const (
	roundStatistics = 1 // round 0; jobs without a schema have none
	roundTraining   = 2 // the rounds after it
	roundEvaluation = 3 // the last one
)

// Bounds of the updates' grid: sums within them cannot overflow.
const (
	maxWeight      = 1 << 20 // of an update
	maxTotalWeight = 1 << 36 // of a round
)

// jobHistory is what happened in one job.
type jobHistory struct {
	spec     [32]byte
	ended    string          // its last state, empty while it may go on
	paused   bool            // no round opens
	stopping bool            // it stops when its open round ends
	released uint64          // the last training round of which a release was made
	next     uint64          // number of the next round
	tries    uint32          // attempts at it so far
	last     *attemptHistory // the last attempt opened, nil before the first
	model    [32]byte        // what the last closed round made, or the first one starts from
	strategy [32]byte        // what the last closed training round left of the strategy
	trained  uint64          // the last closed training round
	tested   [][32]byte      // candidates of the closed evaluation round, nil before
}

// phase says how far an attempt has come.
type phase int

const (
	phaseOpen phase = iota
	phaseCut
	phaseCharged
	phaseOver
)

// attemptHistory is what happened in one attempt at a round.
type attemptHistory struct {
	*RoundOpened
	phase    phase
	batches  map[[32]byte]bool
	sum      [32]byte        // of the last batch
	accepted map[string]bool // nodes
	weight   int64
	refused  map[string]string // reason of a node's last incident
}

func (a *attemptHistory) invites(node string) bool {
	_, ok := slices.BinarySearch(a.Cohort, node)
	return ok
}

func (h *history) submit(r *JobSubmitted) error {
	if h.jobs[r.Job] != nil {
		return fmt.Errorf("job %s was submitted twice", r.Job)
	}
	h.jobs[r.Job] = &jobHistory{spec: r.Spec}
	return nil
}

// running returns a job that has not ended.
func (h *history) running(job string) (*jobHistory, error) {
	j := h.jobs[job]
	if j == nil || j.ended != "" {
		return nil, fmt.Errorf("job %q does not run", job)
	}
	return j, nil
}

// idle returns a job that has not ended and has no open round.
func (h *history) idle(job string) (*jobHistory, error) {
	j, err := h.running(job)
	if err == nil && j.last != nil && j.last.phase != phaseOver {
		err = fmt.Errorf("round %d of job %s is still open", j.last.Round, job)
	}
	return j, err
}

// at returns the job and its last attempt, if that is the one named and it is in one of the phases.
func (h *history) at(what Record, job string, round uint64, attempt uint32, phases ...phase) (*jobHistory, *attemptHistory, error) {
	j, err := h.running(job)
	if err != nil {
		return nil, nil, fmt.Errorf("%v: %w", what.Kind(), err)
	}
	a := j.last
	if a == nil || a.Round != round || a.Attempt != attempt || a.phase == phaseOver {
		return nil, nil, fmt.Errorf("%v of round %d attempt %d of job %s, which is not open", what.Kind(), round, attempt, job)
	}
	if !slices.Contains(phases, a.phase) {
		return nil, nil, fmt.Errorf("%v of round %d of job %s is out of order: a round is opened, cut, charged, closed", what.Kind(), round, job)
	}
	return j, a, nil
}

// open checks what a round is to be, and its cohort.
func (h *history) open(r *RoundOpened) error {
	j, err := h.idle(r.Job)
	if err != nil {
		return fmt.Errorf("%v: %w", r.Kind(), err)
	}
	if j.paused || j.stopping {
		return fmt.Errorf("round %d of job %s opened, which was paused or is to stop", r.Round, r.Job)
	}
	if j.last == nil && r.Round == 1 && r.RoundKind == roundTraining { // no statistics round: the model it names is the job's first
		j.next, j.model = 1, r.Model
	}
	if r.Round != j.next || r.Attempt != j.tries+1 {
		return fmt.Errorf("round %d attempt %d of job %s opened, its next is round %d attempt %d", r.Round, r.Attempt, r.Job, j.next, j.tries+1)
	}
	if err := j.purpose(r); err != nil {
		return fmt.Errorf("round %d of job %s: %w", r.Round, r.Job, err)
	}
	if err := h.cohort(j, r); err != nil {
		return fmt.Errorf("round %d of job %s: %w", r.Round, r.Job, err)
	}
	j.tries++
	j.last = &attemptHistory{RoundOpened: r, batches: map[[32]byte]bool{}, accepted: map[string]bool{}, refused: map[string]string{}}
	return nil
}

// purpose checks the kind of a round and the models it starts from: statistics, then training from the model that the
// round before made, then an evaluation.
func (j *jobHistory) purpose(r *RoundOpened) error {
	var want []uint8
	switch {
	case r.Attempt > 1:
		want = []uint8{j.last.RoundKind}
	case r.Round == 0:
		want = []uint8{roundStatistics}
	case j.tested != nil: // nothing follows the evaluation
	case j.trained == 0:
		want = []uint8{roundTraining}
	default:
		want = []uint8{roundTraining, roundEvaluation}
	}
	if !slices.Contains(want, r.RoundKind) {
		return fmt.Errorf("a round of kind %d has no place here", r.RoundKind)
	}
	var from [32]byte
	if r.RoundKind == roundTraining {
		from = j.model
	}
	if r.Model != from {
		return fmt.Errorf("it does not start from the model that the round before it made")
	}
	if r.RoundKind == roundTraining && r.Model == [32]byte{} {
		return fmt.Errorf("it starts from no model")
	}
	var left [32]byte
	if r.RoundKind == roundTraining {
		left = j.strategy
	}
	if r.Strategy != left {
		return fmt.Errorf("it does not start from what the round before it left of the strategy")
	}
	if (r.RoundKind == roundEvaluation) != (len(r.Candidates) > 0) {
		return fmt.Errorf("%d candidates in a round of kind %d", len(r.Candidates), r.RoundKind)
	}
	if len(r.Candidates) > 0 && r.Candidates[0] != j.model {
		return fmt.Errorf("its first candidate is not the model that training made")
	}
	return nil
}

func (h *history) cohort(j *jobHistory, r *RoundOpened) error {
	if !ascending(r.Cohort, func(name string) string { return name }) {
		return fmt.Errorf("its cohort is not a sorted set")
	}
	for _, n := range r.Cohort {
		if h.nodes[n] == nil || h.revoked[n] {
			return fmt.Errorf("its cohort names node %s, which is not enrolled, or revoked", n)
		}
	}
	if r.MinimumCohort < 1 || r.Goal < r.MinimumCohort || uint64(r.Goal) > uint64(len(r.Cohort)) {
		return fmt.Errorf("its goal is %d of a cohort of %d, the minimum is %d", r.Goal, len(r.Cohort), r.MinimumCohort)
	}
	if j.last != nil && r.MinimumCohort != j.last.MinimumCohort {
		return fmt.Errorf("its minimum cohort is %d, that of the round before %d", r.MinimumCohort, j.last.MinimumCohort)
	}
	return nil
}

// accept counts the updates of a batch.
func (h *history) accept(r *BatchAccepted) error {
	_, a, err := h.at(r, r.Job, r.Round, r.Attempt, phaseOpen)
	switch {
	case err != nil:
		return err
	case a.batches[r.Batch]:
		return fmt.Errorf("round %d of job %s accepts one batch twice", r.Round, r.Job)
	case len(a.accepted) >= int(a.Goal):
		return fmt.Errorf("round %d of job %s accepts a batch beyond its goal of %d", r.Round, r.Job, a.Goal)
	case len(r.Accepted) == 0:
		return fmt.Errorf("round %d of job %s accepts an empty batch", r.Round, r.Job)
	case h.keys[r.Coordinator] == nil:
		return fmt.Errorf("round %d of job %s accepts a batch of %s, which is no coordinator", r.Round, r.Job, r.Coordinator)
	case !ascending(r.Accepted, func(u Accepted) string { return u.Node }):
		return fmt.Errorf("round %d of job %s accepts a batch that does not list its nodes as a sorted set", r.Round, r.Job)
	}
	a.batches[r.Batch], a.sum = true, r.Sum
	for _, u := range r.Accepted {
		if err := h.count(a, u); err != nil {
			return fmt.Errorf("round %d of job %s counts node %s: %w", r.Round, r.Job, u.Node, err)
		}
	}
	return nil
}

// count counts one update.
func (h *history) count(a *attemptHistory, u Accepted) error {
	switch {
	case !a.invites(u.Node):
		return fmt.Errorf("it is not in the cohort")
	case h.revoked[u.Node]:
		return fmt.Errorf("it was revoked")
	case a.accepted[u.Node]:
		return fmt.Errorf("it is counted already")
	case h.updates[u.Update]:
		return fmt.Errorf("its update is counted already")
	case u.Weight < 1 || u.Weight > maxWeight:
		return fmt.Errorf("weight %d is outside [1, %d]", u.Weight, maxWeight)
	case a.weight+u.Weight > maxTotalWeight:
		return fmt.Errorf("the round's weight passes %d", int64(maxTotalWeight))
	}
	a.accepted[u.Node], h.updates[u.Update] = true, true
	a.weight += u.Weight
	return nil
}

// holds checks counts that a record claims against the accepted batches.
func (a *attemptHistory) holds(r Record, count uint64, weight int64) error {
	if count != uint64(len(a.accepted)) || weight != a.weight {
		return fmt.Errorf("%v of round %d of job %s: it counts %d updates of weight %d, the accepted batches hold %d of %d",
			r.Kind(), a.Round, a.Job, count, weight, len(a.accepted), a.weight)
	}
	return nil
}

func (h *history) cut(r *RoundCut) error {
	_, a, err := h.at(r, r.Job, r.Round, r.Attempt, phaseOpen)
	if err != nil {
		return err
	}
	if len(a.accepted) < int(a.MinimumCohort) {
		return fmt.Errorf("round %d of job %s was cut with %d updates, its minimum cohort is %d", a.Round, a.Job, len(a.accepted), a.MinimumCohort)
	}
	a.phase = phaseCut
	return a.holds(r, r.Count, r.Weight)
}

func (h *history) charge(r *Charged) error {
	_, a, err := h.at(r, r.Job, r.Round, r.Attempt, phaseCut)
	if err != nil {
		return err
	}
	a.phase = phaseCharged
	return a.holds(r, r.Nodes, a.weight)
}

// close checks what a round made of its batches. The sum is known when there was one batch alone.
func (h *history) close(r *RoundClosed) error {
	j, a, err := h.at(r, r.Job, r.Round, r.Attempt, phaseCharged)
	if err != nil {
		return err
	}
	if err := a.holds(r, r.Count, r.Weight); err != nil {
		return err
	}
	if len(a.batches) == 1 && r.Sum != a.sum {
		return fmt.Errorf("round %d of job %s closed with another sum than that of its only batch", r.Round, r.Job)
	}
	none := [32]byte{}
	if (r.Model != none) != (a.RoundKind != roundEvaluation) || (r.Statistics != none) != (a.RoundKind == roundStatistics) {
		return fmt.Errorf("round %d of job %s closed with what a round of kind %d does not make", r.Round, r.Job, a.RoundKind)
	}
	if r.Strategy != none && a.RoundKind != roundTraining {
		return fmt.Errorf("round %d of job %s closed with a strategy's state, which a round of kind %d does not make", r.Round, r.Job, a.RoundKind)
	}
	if r.EvalCorrect < 0 || r.EvalCorrect > r.EvalExamples || r.EvalLoss < 0 || a.RoundKind == roundStatistics && r.EvalExamples != 0 {
		return fmt.Errorf("round %d of job %s closed with %d of %d examples correct and a loss of %d", r.Round, r.Job, r.EvalCorrect, r.EvalExamples, r.EvalLoss)
	}
	if a.RoundKind == roundEvaluation {
		j.tested = a.Candidates
	} else {
		j.model = r.Model
	}
	if a.RoundKind == roundTraining {
		j.trained, j.strategy = r.Round, r.Strategy
	}
	a.phase = phaseOver
	j.next, j.tries = j.next+1, 0
	h.closed++
	return nil
}

// abandon ends an attempt in any phase; what it counted counts no more.
func (h *history) abandon(r *RoundAbandoned) error {
	_, a, err := h.at(r, r.Job, r.Round, r.Attempt, phaseOpen, phaseCut, phaseCharged)
	if err != nil {
		return err
	}
	a.phase = phaseOver
	return nil
}

// release checks that what is published is what the last training round made and the evaluation round measured.
func (h *history) release(r *Released) error {
	j, err := h.idle(r.Job)
	switch {
	case err != nil:
		return fmt.Errorf("%v: %w", r.Kind(), err)
	case j.paused || j.stopping:
		return fmt.Errorf("job %s released while it was paused or is to stop", r.Job)
	case j.released > 0 && j.released == r.Round:
		return fmt.Errorf("job %s released twice", r.Job)
	case r.Version != h.models[r.Model]+1:
		return fmt.Errorf("release %d of model %s does not follow %d", r.Version, r.Model, h.models[r.Model])
	case j.trained == 0 || r.Round != j.trained:
		return fmt.Errorf("release %d of model %s is of round %d of job %s, whose last training round is %d", r.Version, r.Model, r.Round, r.Job, j.trained)
	case len(r.Variants) == 0 || r.Variants[0].Blob != j.model:
		return fmt.Errorf("release %d of model %s does not begin with the model that round %d made", r.Version, r.Model, r.Round)
	case j.tested != nil && !slices.EqualFunc(r.Variants, j.tested, func(v Variant, c [32]byte) bool { return v.Blob == c }):
		return fmt.Errorf("release %d of model %s: its variants are not those that were evaluated", r.Version, r.Model)
	}
	for i, v := range r.Variants {
		if slices.ContainsFunc(r.Variants[:i], func(o Variant) bool { return o.Name == v.Name }) {
			return fmt.Errorf("release %d of model %s names variant %s twice", r.Version, r.Model, v.Name)
		}
		if v.Published != (v.Reason == "") {
			return fmt.Errorf("release %d of model %s: variant %s missed its gate and was published, or was withheld for no reason", r.Version, r.Model, v.Name)
		}
	}
	j.released = r.Round
	h.models[r.Model]++
	return nil
}

func (h *history) endJob(r *JobEnded) error {
	j, err := h.idle(r.Job)
	if err != nil {
		return fmt.Errorf("%v: %w", r.Kind(), err)
	}
	switch r.State {
	case "failed":
	case "finished":
		if j.paused || j.stopping {
			return fmt.Errorf("job %s finished, which was paused or is to stop", r.Job)
		}
	case "stopped":
		if !j.stopping {
			return fmt.Errorf("job %s stopped, and nobody asked for it", r.Job)
		}
	default:
		return fmt.Errorf("job %s ended as %q, which is neither finished, failed nor stopped", r.Job, r.State)
	}
	j.ended, j.paused, j.stopping = r.State, false, false
	return nil
}

// control checks what an operator did with a job. Asking for what is so already leaves no record.
func (h *history) control(r *JobControlled) error {
	j := h.jobs[r.Job]
	if j == nil {
		return fmt.Errorf("%v: there is no job %q", r.Kind(), r.Job)
	}
	lawful := r.Rounds == 0
	switch r.Action {
	case "pause":
		lawful = lawful && j.ended == "" && !j.paused && !j.stopping
		j.paused = true
	case "resume":
		lawful = lawful && j.ended == "" && j.paused && !j.stopping
		j.paused = false
	case "stop":
		lawful = lawful && j.ended == "" && !j.stopping
		j.stopping = true
	case "continue":
		lawful = j.ended == "stopped" || j.ended == "finished" && r.Rounds > 0
		j.goOn(r.Rounds)
	default:
		lawful = false
	}
	if !lawful {
		return fmt.Errorf("job %s was told to %q for %d rounds, which it could not do then", r.Job, r.Action, r.Rounds)
	}
	if changed := r.Spec != j.spec; changed != (r.Rounds > 0) {
		return fmt.Errorf("job %s was told to %q for %d rounds; more rounds change its specification, and nothing else does", r.Job, r.Action, r.Rounds)
	}
	j.spec = r.Spec
	return nil
}

// goOn lets a job go on. With more rounds to train, an evaluation is behind it: measured or not, its number is used.
func (j *jobHistory) goOn(rounds uint64) {
	j.ended = ""
	if rounds == 0 || j.last == nil || j.last.RoundKind != roundEvaluation {
		return
	}
	j.tested = nil
	j.next, j.tries = j.last.Round+1, 0
}
