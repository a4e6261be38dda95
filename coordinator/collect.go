package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"
)

// attempt names one attempt at one round.
type attempt struct {
	job     string
	round   uint64
	attempt uint32
}

func attemptOf(k *choirv1.RoundKey) attempt { return attempt{k.GetJob(), k.GetRound(), k.GetAttempt()} }

// collector gathers the verified updates that nodes send to this coordinator for one attempt and commits them in
// batches. Each coordinator has its own; they meet in the log.
type collector struct {
	c     *Coordinator
	key   attempt
	shape fedavg.Shape
	each  bool // updates are kept one by one, not as their sum

	mu        sync.Mutex // guards the fields below
	receiving int        // uploads under way, not verified yet
	pending   []*verified
	taken     map[string]*verified // by node: what is pending, being committed or committed here
	wake      chan struct{}        // has room for one: something changed
}

// collector returns this coordinator's collector of an attempt and starts it if need be.
func (c *Coordinator) collector(key attempt, shape fedavg.Shape, each bool) *collector {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, ok := c.collectors[key]; ok {
		return k
	}
	k := &collector{c: c, key: key, shape: shape, each: each, taken: map[string]*verified{}, wake: make(chan struct{}, 1)}
	c.collectors[key] = k
	c.tasks.spawn(func(ctx context.Context) {
		k.run(ctx)
		c.mu.Lock()
		delete(c.collectors, key)
		c.mu.Unlock()
	})
	return k
}

func (k *collector) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// begin and end bracket an upload: a batch waits for those under way, within its delay.
func (k *collector) begin() {
	k.mu.Lock()
	k.receiving++
	k.mu.Unlock()
}

func (k *collector) end() {
	k.mu.Lock()
	k.receiving--
	k.mu.Unlock()
	k.signal()
}

// add takes a verified, spooled update into the next batch. The same update again gives the one that waits already;
// another one of the same node is refused, and is an incident.
func (k *collector) add(u *verified) (*verified, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old, ok := k.taken[u.payload.Node]; ok {
		if old.digest == u.digest {
			return old, nil
		}
		return nil, &refusedUpdate{
			reason: audit.ReasonEquivocation, first: old.digest[:], second: u.digest[:],
			err: fmt.Errorf("node %s signed two different updates for one attempt", u.payload.Node),
		}
	}
	k.taken[u.payload.Node] = u
	k.pending = append(k.pending, u)
	k.signal()
	return u, nil
}

// run cuts batches until the attempt is over.
func (k *collector) run(ctx context.Context) {
	for {
		batch, ok := k.next(ctx)
		if !ok {
			return
		}
		err := k.commit(ctx, batch)
		if err != nil && ctx.Err() == nil {
			k.c.deps.Log.Warn("batch not committed", "job", k.key.job, "round", k.key.round, "attempt", k.key.attempt,
				"updates", len(batch), "error", err)
		}
		k.settle(batch, err)
	}
}

// settle forgets a batch that was committed or given up. Who waits for one given up is told to send again; of one that
// was committed the identities stay, not the updates.
func (k *collector) settle(batch []*verified, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	outcome := "committed"
	if err != nil {
		outcome = "given_up"
	}
	k.c.metrics.updates.WithLabelValues(outcome).Add(float64(len(batch)))
	for _, u := range batch {
		k.c.spool.drop(u.digest)
		if err != nil {
			delete(k.taken, u.payload.Node)
			close(u.dropped)
			continue
		}
		k.taken[u.payload.Node] = &verified{digest: u.digest, dropped: u.dropped}
	}
}

// batchQuiet is how long a batch waits for an upload to begin, where none is under way here.
const batchQuiet = 20 * time.Millisecond

// next waits for the next batch: cut at BatchUpdates, when it completes the round, when the first update has waited
// BatchDelay, or when for a moment no other upload is under way here. ok is false when the attempt no longer collects.
func (k *collector) next(ctx context.Context) (batch []*verified, ok bool) {
	var late <-chan time.Time
	for {
		changed := k.c.replica.Changed()
		open := k.open()
		k.mu.Lock()
		n, busy := len(k.pending), k.receiving > 0
		if n >= k.c.cfg.BatchUpdates || n > 0 && !busy && k.completes(n) {
			batch = k.take(k.c.cfg.BatchUpdates)
		}
		k.mu.Unlock()
		if len(batch) > 0 {
			return batch, true
		}
		if !open && n == 0 && !busy {
			return nil, false
		}
		if n > 0 && late == nil {
			timer := time.NewTimer(k.c.cfg.BatchDelay)
			defer timer.Stop()
			late = timer.C
		}
		var quiet <-chan time.Time
		if n > 0 && !busy {
			quiet = time.After(batchQuiet)
		}
		select {
		case <-ctx.Done():
			return nil, false
		case <-k.wake:
		case <-changed:
		case <-quiet:
			return k.cut(), true
		case <-late:
			return k.cut(), true
		}
	}
}

// cut takes a batch as it is.
func (k *collector) cut() []*verified {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.take(k.c.cfg.BatchUpdates)
}

// completes reports whether n more updates are all that the round wants, as far as this replica knows.
func (k *collector) completes(n int) bool {
	j, ok := k.c.replica.State().Jobs[k.key.job]
	if !ok {
		return false
	}
	r := j.Find(k.key.round, k.key.attempt)
	return r == nil || r.Phase != state.PhaseOpen || int(r.Count)+n >= int(r.Goal)
}

// take removes up to n updates from the front; k.mu is held.
func (k *collector) take(n int) []*verified {
	n = min(n, len(k.pending))
	batch := slices.Clone(k.pending[:n])
	k.pending = slices.Delete(k.pending, 0, n) // and the array behind it forgets them
	return batch
}

// open reports whether the attempt still accepts batches, as far as this replica knows.
func (k *collector) open() bool {
	j, ok := k.c.replica.State().Jobs[k.key.job]
	if !ok {
		return false
	}
	r := j.Find(k.key.round, k.key.attempt)
	return r != nil && r.Phase == state.PhaseOpen
}

// commit makes the batch durable on a quorum, proposes it, and reads the outcome from the own log. It subtracts nodes
// that turn out to be counted already, and goes on through changes of leader until the attempt is over.
func (k *collector) commit(ctx context.Context, batch []*verified) error {
	slices.SortFunc(batch, func(a, b *verified) int { return strings.Compare(a.payload.Node, b.payload.Node) })
	sum := fedavg.NewSum(k.shape)
	for _, u := range batch {
		if err := sum.Add(&u.payload.Update); err != nil {
			return err
		}
	}
	for len(batch) > 0 {
		id, digest, err := k.propose(ctx, batch, sum)
		if err == nil && !k.each {
			k.c.made.add(k.key, id, partial{sum, digest})
		}
		var twice *state.DuplicateError
		if !errors.As(err, &twice) {
			return err
		}
		left := batch[:0:0]
		for _, u := range batch {
			if !slices.Contains(twice.Nodes, u.payload.Node) {
				left = append(left, u)
				continue
			}
			k.equivocation(u)
			if err := sum.Sub(&u.payload.Update); err != nil {
				return err
			}
		}
		batch = left
	}
	return nil
}

// equivocation records that a node's update differs from the one that is counted, if it does.
func (k *collector) equivocation(u *verified) {
	j := k.c.replica.State().Jobs[k.key.job]
	if j == nil {
		return
	}
	if r := j.Find(k.key.round, k.key.attempt); r != nil {
		if a, ok := r.Accepted[u.payload.Node]; ok && a.Update != u.digest {
			k.c.incident(k.key, u.payload.Node, audit.ReasonEquivocation, a.Update[:], u.digest[:])
		}
	}
}

// propose commits one batch, as often as it takes to know that it is committed or refused, and returns its blob
// and the digest of its sum.
func (k *collector) propose(ctx context.Context, batch []*verified, sum *fedavg.Sum) (id, digest state.Digest, err error) {
	encoded := sum.Encode()
	s := k.c.replica.State()
	r := s.Jobs[k.key.job].Find(k.key.round, k.key.attempt)
	if r == nil || r.Over() {
		return id, digest, fmt.Errorf("round %d: %w", k.key.round, state.ErrStale)
	}
	body, err := k.encode(batch, encoded, recipients(s, r))
	if err != nil {
		return id, digest, err
	}
	cmd := &choirv1.AcceptBatch{
		Key:    &choirv1.RoundKey{Job: k.key.job, Round: k.key.round, Attempt: k.key.attempt},
		Weight: sum.Weight, Coordinator: k.c.cfg.Name,
	}
	digest = fedavg.DigestOf(encoded)
	cmd.Sum = digest[:]
	for _, u := range batch {
		cmd.Accepted = append(cmd.Accepted, &choirv1.Accepted{Node: u.payload.Node, Update: u.digest[:], Weight: u.payload.Weight})
	}
	err = k.c.retry(ctx, func() error {
		raw, holders, err := k.c.blobs.PutQuorum(ctx, body)
		if err != nil {
			return err
		}
		id = raw
		cmd.Batch, cmd.Holders = id[:], holders
		err = k.c.propose(ctx, &choirv1.Command{Body: &choirv1.Command_AcceptBatch{AcceptBatch: cmd}})
		if err == nil || isRefusal(err) {
			return err
		}
		if k.committed(id) { // the reply was lost, the batch was not
			return nil
		}
		if !k.open() {
			return fmt.Errorf("round %d: %w", k.key.round, state.ErrStale)
		}
		return err
	})
	return id, digest, err
}

// encode writes a batch in the form in which it is kept.
func (k *collector) encode(batch []*verified, sum []byte, recipients []string) ([]byte, error) {
	if k.each {
		return encodeEach(batch, recipients)
	}
	return encodeBatch(batch, sum, recipients)
}

// committed reports whether the own log holds the batch.
func (k *collector) committed(id [32]byte) bool {
	j := k.c.replica.State().Jobs[k.key.job]
	if j == nil {
		return false
	}
	r := j.Find(k.key.round, k.key.attempt)
	return r != nil && slices.ContainsFunc(r.Batches, func(b state.Batch) bool { return b.ID == id })
}

// recipients are what a batch of a round is sealed to, in order of names.
func recipients(s *state.State, r *state.Round) []string {
	var out []string
	for _, k := range s.RoundKeys(r) {
		out = append(out, k.Recipient)
	}
	return out
}
