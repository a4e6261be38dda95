package state

import (
	"fmt"
	"maps"
	"slices"

	"choir.example/fedavg"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"
)

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
