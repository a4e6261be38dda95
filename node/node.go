// Package node is the edge agent: it keeps private data encrypted, trains on it when a coordinator invites it, protects
// and delivers the update, fetches released models and answers predictions on this machine.
//
//	err := node.Enrol(ctx, cfg, deps, token)    // once
//	n, err := node.New(cfg, deps)
//	_, err = n.Store().Import(ctx, node.Train, file, "sessions.csv")
//	err = n.Run(ctx)                            // until ctx ends
//
// The node only dials out. No row leaves it: what leaves are sums and deltas, signed by the node and sealed to the
// coordinators. It does not add noise or masks; docs/threat-model.md says what a coordinator can see.
package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"choir.example/fedavg"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// Node is one edge agent. Make it with New, start it with Run.
type Node struct {
	cfg    Config
	deps   Deps
	id     *identity
	store  *Store
	spool  *spool
	client *client
	shop   *workshop
	serve  *server // nil without HTTP
}

// New opens the node's directory. The node must be enrolled. Close releases what it opened.
func New(cfg Config, deps Deps) (_ *Node, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open node %s: %w", cfg.Name, err)
	}
	box, err := seal.OpenKeys(filepath.Join(cfg.Dir, "keys"), deps.Rand)
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, deps: deps}
	if n.id, err = loadIdentity(cfg.Dir, box.Sub("identity")); err != nil {
		return nil, err
	}
	if n.id == nil || len(n.id.chain) == 0 {
		return nil, fmt.Errorf("open node %s: it is not enrolled; enrol it with a token", cfg.Name)
	}
	if n.spool, err = openSpool(filepath.Join(cfg.Dir, "spool"), box.Sub("spool")); err != nil {
		return nil, err
	}
	if n.store, err = openStore(filepath.Join(cfg.Dir, "store.db"), box.Sub("store")); err != nil {
		return nil, err
	}
	n.client = newClient(n.id, deps)
	n.shop = &workshop{store: n.store, fetch: n.client.fetch, name: n.id.name}
	if cfg.HTTP != "" {
		if n.serve, err = newServer(cfg, deps); err != nil {
			return nil, errors.Join(err, n.store.Close())
		}
	}
	return n, nil
}

// Store is the node's private data.
func (n *Node) Store() *Store { return n.store }

// Address is where the prediction server listens, empty if there is none.
func (n *Node) Address() string {
	if n.serve == nil {
		return ""
	}
	return n.serve.listener.Addr().String()
}

// Close releases files and ports of a node that does not run.
func (n *Node) Close() error {
	n.client.close()
	err := n.store.Close()
	if n.serve != nil {
		err = errors.Join(err, n.serve.close())
	}
	return err
}

// Run works until ctx ends: it settles what a restart interrupted, then waits for invitations and releases. It returns
// nil when it stopped because ctx ended. An update under way stays in the spool.
func (n *Node) Run(ctx context.Context) error {
	if n.serve != nil {
		stop := n.serve.start(ctx)
		defer stop()
	}
	if err := n.loadRelease(); err != nil {
		n.deps.Log.Warn("kept release not served", "error", err)
	}
	if err := n.resume(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("run node %s: %w", n.id.name, err)
	}
	done := &choirv1.RoundKey{}
	for ctx.Err() == nil {
		reply, err := n.client.poll(ctx, &choirv1.PollRequest{
			Done: done, WaitMs: uint64(n.cfg.Poll / time.Millisecond), Versions: n.held(),
		})
		if err != nil {
			continue // ctx has ended: poll tries for as long as it has not
		}
		n.client.prefer(reply.Addresses)
		for _, ref := range reply.Releases {
			n.follow(ctx, ref)
		}
		if reply.Task != nil {
			if err := n.do(ctx, reply.Task); err != nil && ctx.Err() == nil {
				n.deps.Log.Warn("task not done", "job", reply.Task.Key.GetJob(), "round", reply.Task.Key.GetRound(), "error", err)
			}
			done = reply.Task.Key
		}
	}
	return nil
}

// do answers one invitation.
func (n *Node) do(ctx context.Context, t *choirv1.Task) error {
	h, err := headerOf(t, n.id.name)
	if err != nil {
		return err
	}
	to, err := recipients(n.id, t.Cluster, t.Keys, n.deps)
	if err != nil {
		return err
	}
	payload, err := n.payload(ctx, t, h)
	if err != nil {
		return err
	}
	got, err := n.deliver(ctx, h, payload, to)
	if err != nil {
		return err
	}
	return n.answered(h, payload, got)
}

// payload returns the attempt's signed payload: the spooled one if there is one, so that a restart sends the same
// bytes, else a new one, made durable before it is used.
func (n *Node) payload(ctx context.Context, t *choirv1.Task, h fedavg.Header) ([]byte, error) {
	payload, err := n.spool.get(h)
	if err != nil || payload != nil {
		return payload, err
	}
	u, err := n.shop.work(ctx, t)
	if err != nil {
		return nil, err
	}
	payload = (&fedavg.Payload{Header: h, Update: *u}).Encode()
	return payload, n.spool.put(h, payload)
}

// answered tells the observer and forgets the payload.
func (n *Node) answered(h fedavg.Header, payload []byte, a *answer) error {
	switch {
	case a.receipt != nil:
		n.deps.Log.Debug("update counted", "round", h.Round, "attempt", h.Attempt, "index", a.receipt.Index)
		if f := n.deps.Observe.Receipt; f != nil {
			f(*a.receipt, payload)
		}
	case a.refusal != nil:
		n.deps.Log.Info("update not counted", "round", h.Round, "attempt", h.Attempt, "reason", a.refusal.Reason)
		if f := n.deps.Observe.Refused; f != nil {
			f(*a.refusal)
		}
	}
	return n.spool.drop(h)
}

// resume asks for the outcome of what was sent before a restart. What is pending stays spooled and goes out again with
// the next task of its attempt.
func (n *Node) resume(ctx context.Context) error {
	payloads, damaged, err := n.spool.unanswered()
	if err != nil {
		return err
	}
	for _, name := range damaged {
		n.deps.Log.Error("spooled update is damaged and was removed", "file", name)
	}
	for _, payload := range payloads {
		p, err := fedavg.DecodePayload(payload)
		if err != nil {
			return err
		}
		got, err := n.settle(ctx, p.Header, payload)
		if final := (*finalError)(nil); errors.As(err, &final) {
			continue // nobody knows the round yet
		}
		if err != nil {
			return err
		}
		if got != nil {
			if err := n.answered(p.Header, payload, got); err != nil {
				return err
			}
		}
	}
	return nil
}
