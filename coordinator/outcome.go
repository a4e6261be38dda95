package coordinator

import (
	"choir.example/coordinator/state"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// outcome answers for an update of a node from the applied log alone, so that any coordinator gives the same answer: a
// receipt if it is counted, a refusal if it never will be, pending otherwise. The signature is this coordinator's.
func (c *Coordinator) outcome(s *state.State, key attempt, node string, update state.Digest) *choirv1.Outcome {
	j, ok := s.Jobs[key.job]
	if !ok {
		return pending()
	}
	r := j.Find(key.round, key.attempt)
	if r == nil {
		if last := j.Current(); last != nil && (last.Number > key.round || last.Number == key.round && last.Attempt > key.attempt) {
			return c.refusal(s, key, node, update, last.Opened, "the job has no such attempt")
		}
		return pending()
	}
	if r.Accepted == nil {
		return c.refusal(s, key, node, update, r.Ended, "the round is too old to answer for")
	}
	if a, ok := r.Accepted[node]; ok {
		if a.Update == update {
			return c.receipt(s, key, node, a)
		}
		return c.refusal(s, key, node, update, a.Index, "another update of the node is counted")
	}
	switch {
	case !r.Invites(node):
		return c.refusal(s, key, node, update, r.Opened, "the node is not in the cohort")
	case r.Phase == state.PhaseAbandoned:
		return c.refusal(s, key, node, update, r.Ended, "abandoned: "+r.Reason)
	case r.Phase != state.PhaseOpen:
		return c.refusal(s, key, node, update, r.CutAt, "closed without this update")
	case j.Ended():
		return c.refusal(s, key, node, update, s.Index, "the job has ended")
	}
	return pending()
}

func pending() *choirv1.Outcome {
	return &choirv1.Outcome{Body: &choirv1.Outcome_Pending{Pending: true}}
}

func (c *Coordinator) receipt(s *state.State, key attempt, node string, a state.Acceptance) *choirv1.Outcome {
	body := audit.Receipt{
		Cluster: s.Cluster, Job: key.job, Round: key.round, Attempt: key.attempt, Node: node,
		Update: a.Update, Batch: a.Batch, Index: a.Index,
	}.Encode()
	return &choirv1.Outcome{Body: &choirv1.Outcome_Receipt{Receipt: &choirv1.Receipt{
		Body: body, Signatures: c.sign(audit.DomainReceipt, body), Chain: c.shown(),
	}}}
}

func (c *Coordinator) refusal(s *state.State, key attempt, node string, update state.Digest, index uint64, reason string) *choirv1.Outcome {
	body := audit.Refusal{
		Cluster: s.Cluster, Job: key.job, Round: key.round, Attempt: key.attempt, Node: node,
		Update: update, Index: index, Reason: reason,
	}.Encode()
	return &choirv1.Outcome{Body: &choirv1.Outcome_Refusal{Refusal: &choirv1.Refusal{
		Body: body, Signatures: c.sign(audit.DomainRefusal, body), Chain: c.shown(),
	}}}
}

// sign signs with this coordinator's certified key; the answer has room for a majority.
func (c *Coordinator) sign(domain string, body []byte) []*choirv1.Signature {
	return []*choirv1.Signature{{Signer: c.cfg.Name, Signature: seal.Sign(c.own.Load().key(), domain, body)}}
}
