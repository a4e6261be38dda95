package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"
)

const (
	peerTimeout = 5 * time.Second  // bounds one call to a peer, and so one try at a command
	patience    = 30 * time.Second // bounds all tries at a command: an election and a leader that answers no more fit in
)

// refusedCommand is a command that Apply refused: the same answer everywhere, so trying again is of no use.
type refusedCommand struct{ err error }

func (e *refusedCommand) Error() string { return e.err.Error() }
func (e *refusedCommand) Unwrap() error { return e.err }

func isRefusal(err error) bool {
	var r *refusedCommand
	return errors.As(err, &r)
}

// propose puts a command into the log, by the leader if that is another, and waits until this replica has applied it.
// A *refusedCommand says that it was refused; any other error that its fate is unknown: read the state.
func (c *Coordinator) propose(ctx context.Context, cmd *choirv1.Command) error {
	b, err := state.Encode(cmd)
	if err != nil {
		return &refusedCommand{err}
	}
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	_, err = c.replica.Propose(ctx, b)
	if !errors.Is(err, errNotLeader) {
		return err
	}
	return c.forward(ctx, b)
}

// command puts a caller's command into the log, through changes of leader, as long as ctx and patience allow. A try
// whose fate is unknown may have been committed after all, so the next may be refused as a repetition: done then tells
// from the state whether what the command wants is there. It is nil where Apply accepts repetitions.
func (c *Coordinator) command(ctx context.Context, cmd *choirv1.Command, done func(*state.State) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	unknown := false
	return c.retry(ctx, func() error {
		err := c.propose(ctx, cmd)
		if isRefusal(err) && unknown && done != nil && done(c.replica.State()) {
			return nil
		}
		unknown = unknown || err != nil && !errors.Is(err, errNotLeader)
		return err
	})
}

// forward hands an encoded command to the leader.
func (c *Coordinator) forward(ctx context.Context, cmd []byte) error {
	name, address := c.replica.Leader()
	if name == "" || name == c.cfg.Name {
		return fmt.Errorf("propose: %w: no leader is known", errNotLeader)
	}
	peer, err := c.peers.client(name, address)
	if err != nil {
		return err
	}
	reply, err := peer.Propose(ctx, &choirv1.ProposeRequest{Command: cmd})
	if err != nil {
		return fmt.Errorf("propose by leader %s: %w", name, err)
	}
	if _, err := c.replica.Wait(ctx, func(s *state.State) bool { return s.Index >= reply.Index }); err != nil {
		return fmt.Errorf("wait for entry %d: %w", reply.Index, err)
	}
	switch {
	case len(reply.Duplicates) > 0:
		return &refusedCommand{&state.DuplicateError{Nodes: reply.Duplicates}}
	case reply.Stale:
		return &refusedCommand{fmt.Errorf("%s: %w", reply.Refused, state.ErrStale)}
	case reply.Refused != "":
		return &refusedCommand{classify(reply.Refused)}
	}
	return nil
}

// classify restores the sentinel of a refusal that crossed the wire as text.
func classify(text string) error {
	for _, sentinel := range []error{state.ErrToken, state.ErrExists, state.ErrBudget, state.ErrCohort} {
		if strings.Contains(text, sentinel.Error()) {
			return &remoteError{text, sentinel}
		}
	}
	return errors.New(text)
}

// remoteError is an error that another coordinator put into words.
type remoteError struct {
	text     string
	sentinel error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.sentinel }

// decide proposes a command of the round as its leader; it does not forward: whoever lost leadership stops.
func (c *Coordinator) decide(ctx context.Context, cmd *choirv1.Command) error {
	b, err := state.Encode(cmd)
	if err != nil {
		return err
	}
	_, err = c.replica.Propose(ctx, b)
	return err
}

// retry calls f until it succeeds, is refused, or ctx ends; the pause between grows from 20 ms to 500 ms.
func (c *Coordinator) retry(ctx context.Context, f func() error) error {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		err := f()
		if err == nil || isRefusal(err) || errors.Is(err, state.ErrStale) {
			return err
		}
		if c.pause(ctx, wait) != nil {
			return err
		}
	}
}

// put stores bytes that nodes will ask for on a quorum and returns their id. A leader whose own disk takes nothing hands
// on: another one can go on with what is committed.
func (c *Coordinator) put(ctx context.Context, body []byte) (id state.Digest, err error) {
	err = c.retry(ctx, func() error {
		raw, _, err := c.blobs.PutQuorum(ctx, body)
		id = raw
		if own := (*ownDiskError)(nil); errors.As(err, &own) {
			c.diskFailed(err)
			_ = c.replica.raft.LeadershipTransfer().Error() // a lone voter has nobody, and tries again
		}
		return err
	})
	if err == nil {
		c.blobs.expect(id, body)
	}
	return id, err
}

// incident records a refusal in the background: the node's answer does not wait for the log. What the log holds already,
// or is about to, or would not take, costs neither a place in it nor a goroutine.
func (c *Coordinator) incident(key attempt, node, reason string, first, second []byte) {
	o := offence{key, node, reason}
	c.mu.Lock()
	known := c.offences[o] || !news(c.replica.State(), o)
	if !known {
		c.offences[o] = true
	}
	c.mu.Unlock()
	if known {
		return
	}
	c.tasks.spawn(func(ctx context.Context) {
		err := c.command(ctx, &choirv1.Command{Body: &choirv1.Command_RecordIncident{RecordIncident: &choirv1.RecordIncident{
			Key:  &choirv1.RoundKey{Job: key.job, Round: key.round, Attempt: key.attempt},
			Node: node, Reason: reason, First: first, Second: second,
		}}}, nil)
		if err != nil && ctx.Err() == nil {
			c.deps.Log.Warn("incident not recorded", "node", node, "reason", reason, "error", err)
		}
		c.mu.Lock()
		delete(c.offences, o)
		c.mu.Unlock()
	})
}

// offence is why a node was refused in an attempt.
type offence struct {
	attempt
	node, reason string
}

// news reports whether the log would record an offence: the first of a node in the job's last attempt, and two
// different updates whatever came before.
func news(s *state.State, o offence) bool {
	j, ok := s.Jobs[o.job]
	if !ok {
		return false
	}
	r := j.Current()
	if r == nil || r.Number != o.round || r.Attempt != o.attempt.attempt {
		return false
	}
	was := r.Incidents[o.node]
	return was == "" || was != audit.ReasonEquivocation && o.reason == audit.ReasonEquivocation
}
