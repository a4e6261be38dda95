package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"choir.example/fedavg"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// headerOf is what a payload for the task says of itself. The cluster is the one that certified the node, whatever a
// task says.
func headerOf(t *choirv1.Task, id *identity) (fedavg.Header, error) {
	h := fedavg.Header{Cluster: t.Cluster, Job: t.Key.GetJob(), Round: t.Key.GetRound(), Attempt: t.Key.GetAttempt(), Node: id.name}
	switch own := id.trusted().Subject.CommonName; {
	case t.Cluster != own:
		return h, fmt.Errorf("task of round %d is of cluster %q, not %q: %w", h.Round, t.Cluster, own, seal.ErrForeign)
	case t.Job == nil || h.Job == "" || t.Job.Name != h.Job:
		return h, fmt.Errorf("task of round %d names no job, or two", h.Round)
	case len(t.Plan) != len(h.Plan):
		return h, fmt.Errorf("task of round %d: plan digest of %d bytes", h.Round, len(t.Plan))
	case len(t.Model) != 0 && len(t.Model) != len(h.Model):
		return h, fmt.Errorf("task of round %d: model id of %d bytes", h.Round, len(t.Model))
	}
	copy(h.Plan[:], t.Plan)
	copy(h.Model[:], t.Model)
	return h, nil
}

// recipients verifies the voters' epoch keys in a task: each signed by a coordinator's certificate of this federation.
// Those of coordinators that are not in the roster are left out.
func recipients(id *identity, cluster string, keys []*choirv1.EpochKey, deps Deps) ([]string, error) {
	var out []string
	for _, k := range keys {
		who, err := id.coordinator(k.Chain, deps.Now())
		if errors.Is(err, errNotListed) {
			deps.Log.Warn("update not sealed to a coordinator", "coordinator", k.Coordinator, "error", err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("epoch key of %s: %w", k.Coordinator, err)
		}
		if who.Name != k.Coordinator {
			return nil, fmt.Errorf("epoch key of %s is certified for %s %s: %w", k.Coordinator, who.Role, who.Name, seal.ErrRole)
		}
		if !seal.VerifyEpochKey(who.Key, cluster, k.Coordinator, k.Epoch, k.Recipient, k.Signature) {
			return nil, fmt.Errorf("epoch key of %s: %w", k.Coordinator, seal.ErrSignature)
		}
		out = append(out, k.Recipient)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the task names no epoch key to seal to")
	}
	return out, nil
}

// answer is what a coordinator signed about an update: one of both is set.
type answer struct {
	receipt *audit.Receipt
	refusal *audit.Refusal
}

// update is the digest of the update that the answer is about.
func (a *answer) update() [32]byte {
	if a.receipt != nil {
		return a.receipt.Update
	}
	return a.refusal.Update
}

// verifyAnswer checks an outcome: signed by a coordinator of this federation, about this update. A pending outcome gives
// nil.
func verifyAnswer(id *identity, deps Deps, h fedavg.Header, update [32]byte, out *choirv1.Outcome) (*answer, error) {
	if r := out.GetReceipt(); r != nil {
		if err := verifySigned(id, deps, audit.DomainReceipt, r.Body, r.Signatures, r.Chain); err != nil {
			return nil, fmt.Errorf("receipt: %w", err)
		}
		got, err := audit.DecodeReceipt(r.Body)
		if err != nil {
			return nil, err
		}
		want := audit.Receipt{Cluster: h.Cluster, Job: h.Job, Round: h.Round, Attempt: h.Attempt, Node: h.Node,
			Update: update, Batch: got.Batch, Index: got.Index}
		if got != want {
			return nil, fmt.Errorf("receipt is for another update")
		}
		return &answer{receipt: &got}, nil
	}
	r := out.GetRefusal()
	if r == nil {
		return nil, nil
	}
	if err := verifySigned(id, deps, audit.DomainRefusal, r.Body, r.Signatures, r.Chain); err != nil {
		return nil, fmt.Errorf("refusal: %w", err)
	}
	got, err := audit.DecodeRefusal(r.Body)
	if err != nil {
		return nil, err
	}
	want := audit.Refusal{Cluster: h.Cluster, Job: h.Job, Round: h.Round, Attempt: h.Attempt, Node: h.Node,
		Update: update, Index: got.Index, Reason: got.Reason}
	if got != want {
		return nil, fmt.Errorf("refusal is for another update")
	}
	return &answer{refusal: &got}, nil
}

func verifySigned(id *identity, deps Deps, domain string, body []byte, sigs []*choirv1.Signature, chain [][]byte) error {
	who, err := id.coordinator(chain, deps.Now())
	if err != nil {
		return fmt.Errorf("signed by %s %s: %w", who.Role, who.Name, err)
	}
	for _, s := range sigs {
		if s.Signer == who.Name && seal.Verify(who.Key, domain, body, s.Signature) {
			return nil
		}
	}
	return seal.ErrSignature
}

// grace is how long after a round's end the node goes on to ask for its answer; whenever that is had later, the payload
// is kept until then.
const grace = time.Minute

// deliver sends a payload until a coordinator gives a signed answer: the same signed payload each time, sealed anew, to
// any coordinator. It gives up when the round must have been over for a while.
func (n *Node) deliver(ctx context.Context, t *choirv1.Task, h fedavg.Header, payload []byte, to []string) (*answer, error) {
	envelope, digest, err := seal.SealUpdate(payload, n.id.key, to)
	if err != nil {
		return nil, err
	}
	if err := n.journal.sending(t, digest, len(envelope), n.deps.Now()); err != nil {
		return nil, err
	}
	n.metrics.sending(len(envelope))
	if f := n.deps.Observe.Sending; f != nil {
		f(h.Job, h.Round, h.Attempt, payload)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(min(t.RemainingMs, maxRoundMs))*time.Millisecond+grace)
	defer cancel()
	return n.ask(ctx, h, digest, func(ctx context.Context, c choirv1.NodesClient) (*choirv1.Outcome, error) {
		return upload(ctx, c, &choirv1.UploadHeader{Key: t.Key, Update: digest[:]}, envelope)
	})
}

// settleTimeout is how long settle tries.
const settleTimeout = 30 * time.Second

// maxRoundMs is a week: no round takes longer.
const maxRoundMs = 7 * 24 * 3600 * 1000

// settle asks for the outcome of a payload sent before a restart. It does not send it again: whether the round still
// runs is told by the next task.
func (n *Node) settle(ctx context.Context, h fedavg.Header, payload []byte) (*answer, error) {
	digest := seal.UpdateDigest(payload)
	key := &choirv1.RoundKey{Job: h.Job, Round: h.Round, Attempt: h.Attempt}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	var got *answer
	err := n.client.try(ctx, func(ctx context.Context, c choirv1.NodesClient) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		out, err := c.GetOutcome(ctx, &choirv1.OutcomeRequest{Key: key, Update: digest[:]})
		if status.Code(err) == codes.NotFound {
			return &finalError{err}
		}
		if err == nil {
			got, err = verifyAnswer(n.id, n.deps, h, digest, out)
		}
		return err
	})
	return got, err
}

// ask repeats a call until it brings a verified answer.
func (n *Node) ask(ctx context.Context, h fedavg.Header, digest [32]byte, call func(context.Context, choirv1.NodesClient) (*choirv1.Outcome, error)) (got *answer, err error) {
	err = n.client.try(ctx, func(ctx context.Context, c choirv1.NodesClient) error {
		out, err := call(ctx, c)
		if err == nil {
			got, err = verifyAnswer(n.id, n.deps, h, digest, out)
		}
		if err == nil && got == nil {
			err = errors.New("the outcome is still pending")
		}
		if status.Code(err) == codes.InvalidArgument { // tried on all the same: when the round is over the refusal is signed
			n.deps.Log.Warn("update turned away", "job", h.Job, "round", h.Round, "attempt", h.Attempt, "error", err)
			if pause(ctx, lastBackoff) != nil {
				return err
			}
		}
		return err
	})
	return got, err
}
