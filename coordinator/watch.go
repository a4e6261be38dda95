package coordinator

import (
	"context"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"
)

// watch follows the applied state, tells the observer what changed, in the order of the log as far as one state shows
// it, and forgets what is over.
func (c *Coordinator) watch(ctx context.Context) {
	seen := c.replica.State()
	for {
		changed := c.replica.Changed()
		now := c.replica.State()
		c.report(seen, now)
		seen = now
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// report compares two states of the same log.
func (c *Coordinator) report(old, now *state.State) {
	for name, j := range now.Jobs {
		if was := old.Jobs[name]; was != j {
			c.reportJob(was, j)
		}
	}
	for model, rs := range now.Releases {
		for _, rel := range rs[len(old.Releases[model]):] {
			if f := c.deps.Observe.Released; f != nil {
				f(c.cfg.Name, model, rel.Version)
			}
		}
	}
}

func (c *Coordinator) reportJob(was, now *state.Job) {
	for i, r := range now.Rounds {
		var old *state.Round
		if was != nil && i < len(was.Rounds) {
			old = was.Rounds[i]
		}
		if old != r {
			c.reportRound(now.Name, old, r)
		}
	}
}

func (c *Coordinator) reportRound(job string, old, now *state.Round) {
	e, o := roundEvent(job, now), c.deps.Observe
	if old == nil && o.RoundOpened != nil {
		o.RoundOpened(c.cfg.Name, e)
	}
	known := 0
	if old != nil {
		known = len(old.Batches)
	}
	if o.BatchApplied != nil && len(now.Batches) > known {
		for _, b := range now.Batches[known:] {
			o.BatchApplied(c.cfg.Name, e, BatchEvent{Index: b.Index, Term: b.Term, Coordinator: b.Coordinator, Nodes: b.Nodes})
		}
	}
	if now.Over() && (old == nil || !old.Over()) {
		c.metrics.rounds.WithLabelValues(e.Kind, now.Phase).Inc()
		if leader, _ := c.replica.Leader(); leader == c.cfg.Name {
			c.deps.Log.Info("round is "+now.Phase, "job", job, "round", now.Number, "attempt", now.Attempt, "kind", e.Kind,
				"updates", now.Count, "invited", now.Invited, "reason", now.Reason)
		}
	}
	if now.Phase == state.PhaseClosed || now.Phase == state.PhaseAbandoned {
		c.made.take(attemptOf(now.Key(job)))
	}
	if o.RoundClosed != nil && now.Phase == state.PhaseClosed && (old == nil || old.Phase != state.PhaseClosed) {
		o.RoundClosed(c.cfg.Name, e)
	}
}

func roundEvent(job string, r *state.Round) RoundEvent {
	return RoundEvent{Job: job, Round: r.Number, Attempt: r.Attempt, Kind: kindName(r.Kind)}
}

func kindName(k choirv1.RoundKind) string {
	switch k {
	case choirv1.RoundKind_ROUND_KIND_STATISTICS:
		return "statistics"
	case choirv1.RoundKind_ROUND_KIND_TRAIN:
		return "train"
	case choirv1.RoundKind_ROUND_KIND_EVALUATE:
		return "evaluate"
	}
	return "unknown"
}
