package node

import (
	"context"
	"errors"
	"fmt"

	"choir.example/fedavg"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// headerOf is what a payload for the task says of itself.
func headerOf(t *choirv1.Task, node string) (fedavg.Header, error) {
	h := fedavg.Header{Cluster: t.Cluster, Job: t.Key.GetJob(), Round: t.Key.GetRound(), Attempt: t.Key.GetAttempt(), Node: node}
	if len(t.Plan) != 32 || len(t.Model) != 0 && len(t.Model) != 32 {
		return h, fmt.Errorf("task of round %d is malformed", h.Round)
	}
	copy(h.Plan[:], t.Plan)
	copy(h.Model[:], t.Model)
	return h, nil
}

// recipients verifies the voters' epoch keys in a task: each signed by a coordinator's certificate of this federation.
func recipients(id *identity, cluster string, keys []*choirv1.EpochKey, deps Deps) ([]string, error) {
	var out []string
	for _, k := range keys {
		who, err := seal.VerifyChain(k.Chain, id.root, deps.Now())
		if err != nil {
			return nil, fmt.Errorf("epoch key of %s: %w", k.Coordinator, err)
		}
		if who.Role != seal.RoleCoordinator || who.Name != k.Coordinator {
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
	who, err := seal.VerifyChain(chain, id.root, deps.Now())
	if err != nil {
		return err
	}
	if who.Role != seal.RoleCoordinator {
		return fmt.Errorf("signed by %s %s: %w", who.Role, who.Name, seal.ErrRole)
	}
	for _, s := range sigs {
		if s.Signer == who.Name && seal.Verify(who.Key, domain, body, s.Signature) {
			return nil
		}
	}
	return seal.ErrSignature
}

// deliver sends a payload until a coordinator gives a signed answer: the same signed payload each time, sealed anew, to
// any coordinator.
func (n *Node) deliver(ctx context.Context, h fedavg.Header, payload []byte, to []string) (*answer, error) {
	envelope, digest, err := seal.SealUpdate(payload, n.id.key, to)
	if err != nil {
		return nil, err
	}
	if f := n.deps.Observe.Sending; f != nil {
		f(h.Job, h.Round, h.Attempt, payload)
	}
	key := &choirv1.RoundKey{Job: h.Job, Round: h.Round, Attempt: h.Attempt}
	return n.ask(ctx, h, digest, func(ctx context.Context, c choirv1.NodesClient) (*choirv1.Outcome, error) {
		return upload(ctx, c, &choirv1.UploadHeader{Key: key, Update: digest[:]}, envelope)
	})
}

// settle asks for the outcome of a payload sent before a restart. It does not send it again: whether the round still
// runs is told by the next task.
func (n *Node) settle(ctx context.Context, h fedavg.Header, payload []byte) (*answer, error) {
	digest := seal.UpdateDigest(payload)
	key := &choirv1.RoundKey{Job: h.Job, Round: h.Round, Attempt: h.Attempt}
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
		if err != nil {
			n.deps.Log.Debug("update not answered", "round", h.Round, "attempt", h.Attempt, "error", err)
		}
		return err
	})
	return got, err
}
