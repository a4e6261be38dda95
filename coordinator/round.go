package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/internal/jobspec"
	"choir.example/model"
	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"
)

// round runs one attempt at one round of a job, from wherever the log says it stands: a new leader enters the same
// function and finds the steps that are committed already done. Statistics, training and evaluation rounds differ in
// their payload alone.
func (c *Coordinator) round(ctx context.Context, term uint64, job string) error {
	r, err := c.open(ctx, term, job) // 1 plan, 2 open; 3 invite: nodes learn of it from their polls
	if err != nil {
		return err
	}
	if err := c.collect(ctx, job, r); err != nil { // 4: every coordinator ingests; the leader waits
		return err
	}
	if err := c.cut(ctx, job, r); err != nil { // 5
		return err
	}
	counted, err := c.combine(ctx, job, r) // 6: merge what was committed, charge before anything is made from it
	if err != nil {
		return err
	}
	made, err := c.store(ctx, job, r, counted) // 7
	if err != nil {
		return err
	}
	return c.close(ctx, job, r, counted, made) // 8
}

// open returns the job's active round, or plans and opens one.
func (c *Coordinator) open(ctx context.Context, term uint64, job string) (*state.Round, error) {
	if r := c.replica.State().Jobs[job].Active(); r != nil {
		return r, nil
	}
	plan, err := c.plan(ctx, term, job)
	if err != nil {
		return nil, err
	}
	if plan.Kind == choirv1.RoundKind_ROUND_KIND_EVALUATE {
		candidates, err := c.candidates(ctx, job)
		if err != nil {
			return nil, err
		}
		for _, v := range candidates {
			plan.Candidates = append(plan.Candidates, v.Blob)
		}
	}
	if err := c.decide(ctx, &choirv1.Command{Body: &choirv1.Command_OpenRound{OpenRound: plan}}); err != nil {
		return nil, err
	}
	r := c.replica.State().Jobs[job].Active()
	if r == nil {
		return nil, fmt.Errorf("open round %d of job %s: %w", plan.Key.Round, job, state.ErrStale)
	}
	return r, nil
}

// declinesAgain is how often a leader asks the other coordinators who declined.
const declinesAgain = 500 * time.Millisecond

// collect waits until the goal is reached, or there are enough updates and nobody is left to wait for, or the duration
// is over. A new leader starts the duration anew.
func (c *Coordinator) collect(ctx context.Context, job string, r *state.Round) error {
	if r.Phase != state.PhaseOpen {
		return nil
	}
	spec, err := c.replica.State().Jobs[job].JobSpec()
	if err != nil {
		return err
	}
	if err := c.gather(ctx, job, r, spec); err != nil {
		return err
	}
	if n := c.now(job, r).Count; n < spec.MinimumCohort {
		return &errAbandon{fmt.Sprintf("%d of %d updates in %v, the minimum cohort is %d%s", n, r.Goal,
			time.Duration(spec.DurationMs)*time.Millisecond, spec.MinimumCohort, c.declined(ctx, c.replica.State(), r.Key(job)))}
	}
	return nil
}

// gather waits for updates.
func (c *Coordinator) gather(ctx context.Context, job string, r *state.Round, spec *choirv1.JobSpec) error {
	over := time.NewTimer(time.Duration(spec.DurationMs) * time.Millisecond)
	defer over.Stop()
	ask := time.NewTicker(declinesAgain)
	defer ask.Stop()
	key, elsewhere := r.Key(job), map[string]bool{}
	for {
		changed, declined := c.replica.Changed(), c.declines.changed()
		s := c.replica.State()
		now := s.Jobs[job].Find(r.Number, r.Attempt)
		enough := now.Count >= spec.MinimumCohort
		if now.Phase != state.PhaseOpen || now.Full() || enough && c.awaited(s, now, attemptOf(key), elsewhere) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over.C:
			return nil
		case <-changed:
		case <-declined:
		case <-ask.C:
			if enough {
				elsewhere = c.declinedElsewhere(ctx, s, key)
			}
		}
	}
}

// now is the latest applied version of a round.
func (c *Coordinator) now(job string, r *state.Round) *state.Round {
	return c.replica.State().Jobs[job].Find(r.Number, r.Attempt)
}

// cut fixes which updates count: those committed before it in the log.
func (c *Coordinator) cut(ctx context.Context, job string, r *state.Round) error {
	if c.now(job, r).Phase != state.PhaseOpen {
		return nil
	}
	return c.decide(ctx, &choirv1.Command{Body: &choirv1.Command_CutRound{CutRound: &choirv1.CutRound{
		Key: r.Key(job), Term: r.Term,
	}}})
}

// counted are the updates of a round that is cut.
type counted struct {
	sum  *fedavg.Sum
	each []fedavg.Named // by name, if the algorithm looks at each
}

// combine merges the committed batches and charges the round.
func (c *Coordinator) combine(ctx context.Context, job string, r *state.Round) (*counted, error) {
	s := c.replica.State()
	j := s.Jobs[job]
	now := j.Find(r.Number, r.Attempt)
	all, err := c.merge(ctx, s, j, now, c.made.take(attemptOf(r.Key(job))))
	if err != nil {
		return nil, err
	}
	if now.Phase == state.PhaseCut {
		err := c.decide(ctx, &choirv1.Command{Body: &choirv1.Command_Charge{Charge: &choirv1.Charge{
			Key: r.Key(job), Mechanism: "none", Term: r.Term,
		}}})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// merge adds up the committed batches of a round that is cut. It uses the sums in own up.
func (c *Coordinator) merge(ctx context.Context, s *state.State, j *state.Job, r *state.Round, own map[state.Digest]partial) (*counted, error) {
	p, err := c.planned(j)
	if err != nil {
		return nil, err
	}
	shape := p.shape(r)
	all := &counted{}
	var each func(*fedavg.Payload)
	if p.each(r) {
		each = func(u *fedavg.Payload) { all.each = append(all.each, fedavg.Named{Node: u.Node, Update: &u.Update}) }
	}
	for _, b := range r.Batches {
		part, err := c.batchSum(ctx, s, r, shape, b, own, each)
		if err != nil {
			return nil, &errAbandon{err.Error()}
		}
		if all.sum == nil { // the first one's memory takes the others in
			all.sum = part
		} else if err := all.sum.Merge(part); err != nil {
			return nil, err
		}
	}
	if all.sum == nil {
		all.sum = fedavg.NewSum(shape)
	}
	slices.SortFunc(all.each, func(a, b fedavg.Named) int { return strings.Compare(a.Node, b.Node) })
	return all, nil
}

// made is what a round made, by blob id; zero where it makes none.
type made struct{ model, statistics, strategy state.Digest }

// store makes the next model (a training round) or the statistics and the initial model (a statistics round) durable
// on a quorum.
func (c *Coordinator) store(ctx context.Context, job string, r *state.Round, all *counted) (m made, err error) {
	j := c.replica.State().Jobs[job]
	p, err := c.planned(j)
	if err != nil {
		return m, err
	}
	switch r.Kind {
	case choirv1.RoundKind_ROUND_KIND_STATISTICS:
		return c.storeStatistics(ctx, p, all.sum)
	case choirv1.RoundKind_ROUND_KIND_TRAIN:
		return c.storeNext(ctx, j, p, r, all)
	}
	return m, nil
}

// storeStatistics makes the federated statistics and the initial model.
func (c *Coordinator) storeStatistics(ctx context.Context, p *planned, sum *fedavg.Sum) (m made, err error) {
	t, err := data.NewStatistics(p.Schema, sum.Scalars)
	if err != nil {
		return m, &errAbandon{err.Error()}
	}
	if m.statistics, err = c.put(ctx, t.Encode()); err != nil {
		return m, err
	}
	params := p.Network.Initial(p.spec.Seed)
	if !p.inRows() {
		body, err := model.EncodeNetwork(p.Network, params)
		if err != nil {
			return m, &errAbandon{err.Error()}
		}
		m.model, err = c.put(ctx, body)
		return m, err
	}
	first := &model.Model{Name: p.spec.Model, Variant: state.VariantFloat32, Network: p.Network, Schema: p.Schema, Statistics: t,
		Params: params}
	body, err := first.Encode()
	if err != nil {
		return m, &errAbandon{err.Error()}
	}
	m.model, err = c.put(ctx, body)
	return m, err
}

// storeNext makes the next model by the strategy, and what the strategy keeps.
func (c *Coordinator) storeNext(ctx context.Context, j *state.Job, p *planned, r *state.Round, all *counted) (m made, err error) {
	params, encode, err := c.global(ctx, p, r.Model)
	if err != nil {
		return m, err
	}
	kept, err := c.kept(ctx, p, r.Strategy)
	if err != nil {
		return m, err
	}
	next, err := c.next(ctx, j, p, r, params, kept, all)
	if err != nil {
		return m, err
	}
	body, err := encode(next)
	if err != nil {
		return m, &errAbandon{err.Error()}
	}
	if m.model, err = c.put(ctx, body); err != nil || len(kept) == 0 {
		return m, err
	}
	m.strategy, err = c.put(ctx, fedavg.EncodeState(kept))
	return m, err
}

// close commits the round's result: the record becomes a leaf of the audit log in the same step.
func (c *Coordinator) close(ctx context.Context, job string, r *state.Round, all *counted, m made) error {
	spec, err := c.replica.State().Jobs[job].JobSpec()
	if err != nil {
		return err
	}
	sum := all.sum
	digest := sum.Digest()
	cmd := &choirv1.CloseRound{Key: r.Key(job), Sum: digest[:], Term: r.Term}
	if !m.model.IsZero() {
		cmd.Model = m.model[:]
	}
	if !m.statistics.IsZero() {
		cmd.Statistics = m.statistics[:]
	}
	if !m.strategy.IsZero() {
		cmd.StrategyState = m.strategy[:]
	}
	for i := range sum.Evaluations {
		cmd.Evaluations = append(cmd.Evaluations, published(sum, i, spec.MinimumCohort))
	}
	return c.decide(ctx, &choirv1.Command{Body: &choirv1.Command_CloseRound{CloseRound: cmd}})
}

// published is what leaves the coordinator of one evaluation: its sum, if at least the minimum cohort had examples to
// measure on. Fewer do not hide each other, one alone would be seen as it is: then nothing.
func published(sum *fedavg.Sum, i int, minimum uint32) *choirv1.EvaluationSum {
	out := &choirv1.EvaluationSum{}
	if sum.Evaluated[i] >= int64(minimum) {
		out = evaluationSum(sum.Evaluated[i], sum.Evaluations[i])
	}
	out.Updates = uint64(sum.Count)
	return out
}

func evaluationSum(nodes int64, e model.Evaluation) *choirv1.EvaluationSum {
	return &choirv1.EvaluationSum{
		Nodes: uint64(nodes), Examples: e.Examples, Correct: e.Correct, Loss: e.Loss,
		Positives: e.Positives, Negatives: e.Negatives,
	}
}

// drivable reports whether there is something to do for a job: an open round is always brought to its end, a new one
// begins only while the job runs.
func drivable(j *state.Job) bool {
	return j.Active() != nil || j.State == state.JobRunning && !j.Stopping
}

// run drives one job while this coordinator leads: round after round, then the release. It returns when the job ends,
// pauses or stops.
func (c *Coordinator) run(ctx context.Context, term uint64, job string) {
	log, said := c.deps.Log.With("job", job), ""
	for ctx.Err() == nil {
		j := c.replica.State().Jobs[job]
		if !drivable(j) {
			return
		}
		spec, err := j.JobSpec()
		if err == nil {
			switch _, _, more := j.Next(spec); {
			case more || j.Active() != nil:
				err = c.round(ctx, term, job)
			case jobspec.Publishes(spec):
				err = c.publish(ctx, term, job)
			default:
				err = c.decide(ctx, endJob(job, state.JobFinished, "it makes no release", term))
			}
		}
		if err == nil || ctx.Err() != nil || errors.Is(err, state.ErrStale) {
			said = ""
			continue
		}
		if text := err.Error(); text != said { // once, however long it lasts
			said = text
			log.Warn("round did not complete", "error", err)
		}
		c.setback(ctx, term, job, err)
	}
}

func endJob(job, end, reason string, term uint64) *choirv1.Command {
	return &choirv1.Command{Body: &choirv1.Command_EndJob{EndJob: &choirv1.EndJob{Job: job, State: end, Reason: reason, Term: term}}}
}

// setback abandons the active round for good reason, or ends a job that cannot go on; what may pass by itself is
// tried again after a pause.
func (c *Coordinator) setback(ctx context.Context, term uint64, job string, cause error) {
	var err error
	r := c.replica.State().Jobs[job].Active()
	var reason *errAbandon
	switch {
	case r != nil && errors.As(cause, &reason):
		err = c.decide(ctx, &choirv1.Command{Body: &choirv1.Command_AbandonRound{AbandonRound: &choirv1.AbandonRound{
			Key: r.Key(job), Reason: abandonReason(cause), Term: r.Term,
		}}})
	case r == nil && (errors.Is(cause, state.ErrBudget) || errors.As(cause, &reason)):
		err = c.decide(ctx, endJob(job, state.JobFailed, abandonReason(cause), term))
	default:
		err = c.pause(ctx, 200*time.Millisecond)
	}
	if err != nil && ctx.Err() == nil {
		c.deps.Log.Warn("setback not recorded", "job", job, "error", err)
	}
}
