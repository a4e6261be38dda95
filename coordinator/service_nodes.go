package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/internal/rpc"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	maxPoll     = 30 * time.Second // longest a poll is held
	newsTimeout = 2 * time.Second  // how long a replica may be behind what a caller learnt from another
)

// nodesService is what edge nodes call.
type nodesService struct {
	choirv1.UnimplementedNodesServer
	*Coordinator
}

// Poll holds the call until the node has something to do or to fetch.
func (c nodesService) Poll(ctx context.Context, req *choirv1.PollRequest) (*choirv1.PollReply, error) {
	node := caller(ctx).Name
	if req.Resting {
		c.presence.rests(node)
	} else {
		defer c.presence.seen(node, c.deps.Now)()
	}
	if len(req.Declined) > 0 {
		c.declines.note(c.replica.State(), node, req.Declined)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(min(req.WaitMs, uint64(maxPoll/time.Millisecond)))*time.Millisecond)
	defer cancel()
	for {
		turned, doubt := c.standing.look()
		if doubt != nil {
			return nil, status.Errorf(codes.Unavailable, "poll: %v", doubt)
		}
		changed := c.replica.Changed()
		s := c.replica.State()
		reply := &choirv1.PollReply{Releases: newer(s, req.Versions), Roster: c.newerRoster(req.Roster), Officers: s.OfficerKeys()}
		var err error
		if reply.Task, err = c.taskFor(s, node, req); err != nil {
			return nil, status.Errorf(codes.Internal, "poll: %v", err)
		}
		if reply.Task != nil || len(reply.Releases) > 0 || len(reply.Roster) > 0 || ctx.Err() != nil {
			reply.Addresses, reply.Head, reply.Ended = c.addresses(s, reply.Task), c.ownHead(s), ended(s, req.Uncertain)
			return reply, nil
		}
		select {
		case <-changed:
		case <-turned:
		case <-ctx.Done():
		case <-c.stopping:
			return nil, status.Error(codes.Unavailable, "this coordinator is stopping")
		}
	}
}

// maxUncertain bounds how many attempts a poll may ask about: a node is uncertain of one a job.
const maxUncertain = 64

// ended tells of attempts how they ended, those that did.
func ended(s *state.State, keys []*choirv1.RoundKey) (out []*choirv1.RoundEnd) {
	for _, k := range keys[:min(len(keys), maxUncertain)] {
		j := s.Jobs[k.GetJob()]
		if j == nil {
			continue
		}
		if r := j.Find(k.Round, k.Attempt); r != nil && r.Over() {
			out = append(out, &choirv1.RoundEnd{Key: k, Closed: r.Phase == state.PhaseClosed})
		}
	}
	return out
}

// newer lists releases the node does not hold.
func newer(s *state.State, held map[string]uint64) []*choirv1.ReleaseRef {
	var out []*choirv1.ReleaseRef
	for _, name := range slices.Sorted(maps.Keys(s.Releases)) {
		if v := uint64(len(s.Releases[name])); v > held[name] {
			out = append(out, &choirv1.ReleaseRef{Model: name, Version: v})
		}
	}
	return out
}

// taskFor is the task that answers a poll, nil if there is none or the node rests.
func (c *Coordinator) taskFor(s *state.State, node string, req *choirv1.PollRequest) (*choirv1.Task, error) {
	if req.Resting {
		return nil, nil
	}
	return c.task(s, node, append(req.Finished, req.Done))
}

// task is the node's invitation, nil if there is none: an open round that drew it, that has not counted it, and that
// comes after what it has finished with. Of several jobs it is one that the node has not worked for yet, or not for longest.
func (c *Coordinator) task(s *state.State, node string, finished []*choirv1.RoundKey) (*choirv1.Task, error) {
	for _, name := range byTurn(s.Jobs, finished) {
		j := s.Jobs[name]
		r := j.Active()
		if j.Ended() || r == nil || r.Phase != state.PhaseOpen || !r.Invites(node) {
			continue
		}
		done := func(k *choirv1.RoundKey) bool { return k.GetJob() == name && !after(r, k) }
		if _, counted := r.Accepted[node]; counted || slices.ContainsFunc(finished, done) {
			continue
		}
		spec, err := j.JobSpec()
		if err != nil {
			return nil, err
		}
		t := &choirv1.Task{
			Key: r.Key(name), Kind: r.Kind, Plan: r.Plan[:], Job: spec, Seed: r.Seed, Keys: epochKeys(s, r),
			RemainingMs: spec.DurationMs, Cluster: s.Cluster,
		}
		if !r.Model.IsZero() {
			t.Model = r.Model[:]
		}
		if !j.Statistics.IsZero() {
			t.Statistics = j.Statistics[:]
		}
		if !r.Strategy.IsZero() {
			t.StrategyState = r.Strategy[:]
		}
		for _, d := range r.Candidates {
			t.Candidates = append(t.Candidates, d[:])
		}
		return t, nil
	}
	return nil, nil
}

// byTurn orders jobs by when a node last finished with a task of theirs, those first of which it had none, and by name.
func byTurn(jobs map[string]*state.Job, finished []*choirv1.RoundKey) []string {
	last := map[string]int{}
	for i, k := range finished { // the latest stands last
		last[k.GetJob()] = i + 1
	}
	return slices.SortedFunc(maps.Keys(jobs), func(a, b string) int { return cmp.Or(cmp.Compare(last[a], last[b]), cmp.Compare(a, b)) })
}

func after(r *state.Round, done *choirv1.RoundKey) bool {
	return r.Number > done.Round || r.Number == done.Round && r.Attempt > done.Attempt
}

// epochKeys are what updates of a round are sealed to.
func epochKeys(s *state.State, r *state.Round) []*choirv1.EpochKey {
	var out []*choirv1.EpochKey
	for _, k := range s.RoundKeys(r) {
		out = append(out, &choirv1.EpochKey{
			Coordinator: k.Coordinator, Epoch: k.Epoch, Recipient: k.Recipient, Signature: k.Signature, Chain: k.Chain,
		})
	}
	return out
}

// addresses orders the voters by gossiped load; those that gossip does not know come last, by name. One that came after
// the round of the task began cannot open what is sealed for it, and is left out.
func (c *Coordinator) addresses(s *state.State, task *choirv1.Task) []*choirv1.UploadAddress {
	var out []*choirv1.UploadAddress
	listed := map[string]bool{}
	for _, m := range c.members.ByLoad() {
		if v, ok := s.Coordinator(m.Name); ok && !listed[m.Name] {
			listed[m.Name] = true
			out = append(out, &choirv1.UploadAddress{Name: v.Name, Address: v.Address})
		}
	}
	for _, v := range s.Coordinators {
		if !listed[v.Name] {
			out = append(out, &choirv1.UploadAddress{Name: v.Name, Address: v.Address})
		}
	}
	if task != nil {
		out = slices.DeleteFunc(out, func(a *choirv1.UploadAddress) bool {
			return !slices.ContainsFunc(task.Keys, func(k *choirv1.EpochKey) bool { return k.Coordinator == a.Name })
		})
	}
	return out
}

// Upload takes one update, and answers once the log knows its outcome.
func (c nodesService) Upload(stream choirv1.Nodes_UploadServer) error {
	node := caller(stream.Context()).Name
	defer c.presence.seen(node, c.deps.Now)()
	first, err := stream.Recv()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	h := first.GetHeader()
	if h == nil || len(h.Update) != 32 {
		return status.Error(codes.InvalidArgument, "upload: the first message is not a header with a digest")
	}
	key, digest := attemptOf(h.Key), state.Digest(h.Update)
	s, err := c.known(stream.Context(), key)
	if err != nil {
		return status.Errorf(codes.NotFound, "upload: %v", err)
	}
	out := c.outcome(s, key, node, digest)
	switch {
	case out.GetPending() && !c.opens(s, key):
		return status.Errorf(codes.Unavailable, "upload: coordinator %s came after the round began and cannot open its updates; send to another", c.cfg.Name)
	case out.GetPending():
		defer c.busy()()
		u, err := c.ingest(stream, s, key, node, h)
		if err != nil {
			return c.reject(key, node, err)
		}
		if out, err = c.decided(stream.Context(), key, node, digest, u.dropped); err != nil {
			return err
		}
	case conflicts(s, key, node, digest):
		if err := c.witness(stream, s, key, node, h); err != nil {
			return c.reject(key, node, err)
		}
	}
	return stream.Send(&choirv1.UploadReply{Body: &choirv1.UploadReply_Outcome{Outcome: out}})
}

// opens reports whether this coordinator has a key of those that the round's updates are sealed to.
func (c *Coordinator) opens(s *state.State, key attempt) bool {
	r := s.Jobs[key.job].Find(key.round, key.attempt)
	return r == nil || slices.ContainsFunc(s.RoundKeys(r), func(k state.NamedKey) bool { return k.Coordinator == c.cfg.Name })
}

// conflicts reports whether another update of the node is counted in the attempt, and that was not recorded yet.
func conflicts(s *state.State, key attempt, node string, digest state.Digest) bool {
	r := s.Jobs[key.job].Find(key.round, key.attempt)
	if r == nil || r.Incidents[node] == audit.ReasonEquivocation {
		return false
	}
	a, counted := r.Accepted[node]
	return counted && a.Update != digest
}

// witness receives an update that differs from the counted one, to see whether the node really signed both. If it did,
// that is an incident.
func (c *Coordinator) witness(stream choirv1.Nodes_UploadServer, s *state.State, key attempt, node string, h *choirv1.UploadHeader) error {
	j := s.Jobs[key.job]
	r := j.Find(key.round, key.attempt)
	u, err := c.receiveUpdate(stream, s, j, r, node, h)
	if err != nil {
		return err
	}
	counted := r.Accepted[node].Update
	c.incident(key, node, audit.ReasonEquivocation, counted[:], u.digest[:])
	return nil
}

// known waits, for a moment, until this replica has heard of the attempt: the node may have learnt of it from another.
func (c *Coordinator) known(ctx context.Context, key attempt) (*state.State, error) {
	ctx, cancel := context.WithTimeout(ctx, newsTimeout)
	defer cancel()
	s, err := c.replica.Wait(ctx, func(s *state.State) bool {
		j, ok := s.Jobs[key.job]
		return ok && len(j.Rounds) > 0 && (j.Find(key.round, key.attempt) != nil || j.Current().Number > key.round)
	})
	if err != nil {
		return nil, fmt.Errorf("round %d attempt %d of job %q is not known", key.round, key.attempt, key.job)
	}
	return s, nil
}

// ingest receives, verifies, spools and hands over one update.
func (c *Coordinator) ingest(stream choirv1.Nodes_UploadServer, s *state.State, key attempt, node string, h *choirv1.UploadHeader) (*verified, error) {
	j := s.Jobs[key.job]
	r := j.Find(key.round, key.attempt)
	p, err := c.planned(j)
	if err != nil {
		return nil, err
	}
	k := c.collector(key, p.shape(r), p.each(r))
	k.begin()
	defer k.end()
	u, err := c.receiveUpdate(stream, s, j, r, node, h)
	if err != nil {
		return nil, err
	}
	if err := c.spool.put(u.digest, u.envelope); err != nil {
		return nil, err
	}
	if f := c.deps.Observe.Spooled; f != nil {
		f(c.cfg.Name, roundEvent(key.job, r), node)
	}
	added, err := k.add(u)
	if err != nil {
		c.spool.drop(u.digest)
	}
	return added, err
}

// receiveUpdate receives and verifies one update, when there is room for it.
func (c *Coordinator) receiveUpdate(stream choirv1.Nodes_UploadServer, s *state.State, j *state.Job, r *state.Round, node string, h *choirv1.UploadHeader) (*verified, error) {
	shape, err := c.shape(j, r)
	if err != nil {
		return nil, err
	}
	if limit := c.envelopeLimit(shape); h.Size == 0 || h.Size > uint64(limit) {
		return nil, refuse(audit.ReasonShape, "envelope of %d bytes, want 1 to %d", h.Size, limit)
	}
	done, err := c.limits.carry(node, int64(h.Size), c.cfg.MaxUpdate)
	if err != nil {
		return nil, err
	}
	defer done()
	select {
	case c.uploads <- struct{}{}:
		defer func() { <-c.uploads }()
	case <-stream.Context().Done():
		return nil, stream.Context().Err()
	}
	envelope, err := receive(stream, int(h.Size))
	if err != nil {
		return nil, err
	}
	c.metrics.bytes.Add(float64(len(envelope)))
	return c.verify(s, j, r, node, h, envelope)
}

// envelopeLimit bounds what is received for a round: an update of its shape at full width, with room for the header,
// histograms, signatures and age's framing.
func (c *Coordinator) envelopeLimit(shape fedavg.Shape) int64 {
	n := int64(64<<10) + int64(shape.Scalars)*9 + int64(shape.Evaluations)*(20<<10)
	for _, length := range shape.Vectors {
		n += int64(length) * 4
	}
	return min(n+n/256, c.cfg.MaxUpdate)
}

// firstRoom is what an upload gets at once, in bytes; the memory of a larger one grows with what arrives.
const firstRoom = 8 << 20

// receive reads an envelope of a known size and acknowledges each chunk.
func receive(stream choirv1.Nodes_UploadServer, size int) ([]byte, error) {
	envelope := make([]byte, 0, min(size, firstRoom))
	in := newPrompt(stream, chunkStall)
	for len(envelope) < size {
		m, err := in.next(stream.Context())
		if errors.Is(err, io.EOF) {
			return nil, status.Errorf(codes.DataLoss, "upload ended after %d of %d bytes", len(envelope), size)
		}
		if err != nil {
			return nil, err
		}
		chunk := m.GetChunk()
		if len(chunk) == 0 || len(chunk) > rpc.ChunkBytes || len(envelope)+len(chunk) > size {
			return nil, refuse(audit.ReasonEncoding, "chunk of %d bytes after %d of %d", len(chunk), len(envelope), size)
		}
		envelope = append(envelope, chunk...)
		ack := &choirv1.UploadReply{Body: &choirv1.UploadReply_Acknowledged{Acknowledged: uint64(len(envelope))}}
		if err := stream.Send(ack); err != nil {
			return nil, err
		}
	}
	return envelope, nil
}

// reject answers an upload that was turned away; a refusal for cause is recorded, the first of a node in a round.
func (c *Coordinator) reject(key attempt, node string, err error) error {
	var r *refusedUpdate
	if !errors.As(err, &r) {
		if _, ok := status.FromError(err); ok {
			return err
		}
		return status.Errorf(codes.Unavailable, "upload: %v", err)
	}
	c.metrics.updates.WithLabelValues("refused").Inc()
	c.deps.Log.Warn("update refused", "node", node, "job", key.job, "round", key.round, "reason", r.reason, "error", r.err)
	c.incident(key, node, r.reason, r.first, r.second)
	return status.Errorf(codes.InvalidArgument, "node %s, round %d: %v", node, key.round, r.err)
}

// decided waits for the outcome of an update that waits in a batch here.
func (c *Coordinator) decided(ctx context.Context, key attempt, node string, update state.Digest, dropped <-chan struct{}) (*choirv1.Outcome, error) {
	for {
		changed := c.replica.Changed()
		if out := c.outcome(c.replica.State(), key, node, update); !out.GetPending() {
			return out, nil
		}
		turned, doubt := c.standing.look()
		if doubt != nil {
			return nil, status.Errorf(codes.Unavailable, "upload: %v; send to another", doubt)
		}
		select {
		case <-changed:
		case <-turned:
		case <-dropped:
			return nil, status.Error(codes.Unavailable, "the batch was not committed; send again")
		case <-c.stopping:
			return nil, status.Error(codes.Unavailable, "this coordinator is stopping")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// GetOutcome answers for an update sent earlier, from the applied log.
func (c nodesService) GetOutcome(ctx context.Context, req *choirv1.OutcomeRequest) (*choirv1.Outcome, error) {
	if len(req.Update) != 32 {
		return nil, status.Error(codes.InvalidArgument, "get outcome: the update's digest is missing")
	}
	key := attemptOf(req.Key)
	s, err := c.known(ctx, key)
	if err != nil {
		return nil, status.Errorf(codes.NotFound, "get outcome: %v", err)
	}
	return c.outcome(s, key, caller(ctx).Name, state.Digest(req.Update)), nil
}

// GetBlob streams what nodes may read: models, statistics and the published variants of releases.
func (c nodesService) GetBlob(req *choirv1.BlobRequest, stream choirv1.Nodes_GetBlobServer) error {
	return c.streamPublic(stream.Context(), req, stream.Send)
}

// GetRelease describes a release and proves that it was committed. Should a majority of the voters not sign in time, it
// comes without the proof.
func (c nodesService) GetRelease(ctx context.Context, req *choirv1.ReleaseRequest) (*choirv1.Release, error) {
	rel, err := c.release(req)
	if err != nil {
		return nil, err
	}
	rel.Proof = c.proof(ctx, rel.Model, rel.Version)
	return rel, nil
}
