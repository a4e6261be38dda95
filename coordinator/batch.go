package coordinator

import (
	"context"
	"fmt"
	"sync"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/internal/canon"
	"choir.example/privacy/seal"
)

// A batch is made durable on a quorum before an entry names it, in one of two forms, whichever is smaller: the sealed
// envelopes as they were received, or their exact partial sum, sealed to the voters' epoch keys. Either way only a
// voter can open it, and only until its epoch key is destroyed. Envelopes must be open to every voter that may have to
// combine them: a node that has not heard of a new coordinator yet seals to the others, and its update goes as a sum.
const (
	batchEnvelopes = 1
	batchPartial   = 2
)

// partials are the sums of the batches that this coordinator folded and committed itself, so that a leader need not read
// its own back. They are merged by combine, after the cut, as all others are. What is not in memory, after a restart or
// from another coordinator, is read from its blob.
type partials struct {
	mu    sync.Mutex // guards byJob
	byJob map[string]*attemptPartials
}

// attemptPartials are the batches of the latest attempt seen of a job, in memory up to partialBytes.
type attemptPartials struct {
	key     attempt
	bytes   int
	batches map[state.Digest]partial
}

// partial is the sum of one batch and the digest under which it was proposed.
type partial struct {
	sum    *fedavg.Sum
	digest state.Digest
}

// partialBytes bounds the sums of an attempt that are kept in memory: eight batches of a model of a million parameters,
// at eight bytes each. A coordinator of a hundred nodes stays within a hundred MB; further batches are read back.
const partialBytes = 64 << 20

// add keeps the sum of a batch that is committed, if there is room. The sum belongs to p from here on.
func (p *partials) add(key attempt, batch state.Digest, one partial) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byJob[key.job]
	if known == nil || known.key != key {
		known = &attemptPartials{key: key, batches: map[state.Digest]partial{}}
		p.byJob[key.job] = known
	}
	size := 8 * len(one.sum.Scalars)
	for _, v := range one.sum.Vectors {
		size += 8 * len(v)
	}
	if _, twice := known.batches[batch]; twice || known.bytes+size > partialBytes {
		return
	}
	known.bytes += size
	known.batches[batch] = one
}

// take returns what is known of an attempt, by batch, and forgets it.
func (p *partials) take(key attempt) map[state.Digest]partial {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byJob[key.job]
	if known == nil || known.key != key {
		return nil
	}
	delete(p.byJob, key.job)
	return known.batches
}

// encodeBatch writes the smaller form that all recipients can open. sum is the partial sum's encoding; recipients are the voters' epoch recipients.
func encodeBatch(updates []*verified, sum []byte, recipients []string) ([]byte, error) {
	envelopes, open := 0, true
	for _, u := range updates {
		envelopes += len(u.envelope) + 4
		open = open && u.sealedTo(recipients)
	}
	var w canon.Writer
	if open && envelopes <= len(sum) {
		w.Buf = make([]byte, 0, envelopes+8)
		w.Uint(batchEnvelopes)
		w.Uint(uint64(len(updates)))
		for _, u := range updates {
			w.Bytes(u.envelope)
		}
		return w.Buf, nil
	}
	sealed, err := seal.SealTo(sum, recipients)
	if err != nil {
		return nil, fmt.Errorf("seal partial sum: %w", err)
	}
	w.Buf = make([]byte, 0, len(sealed)+16)
	w.Uint(batchPartial)
	w.Bytes(sealed)
	return w.Buf, nil
}

// batchSum is the sum of a committed batch: the one that this coordinator folded, if it is the one committed, or what the
// batch's blob holds.
func (c *Coordinator) batchSum(ctx context.Context, s *state.State, r *state.Round, shape fedavg.Shape, b state.Batch, own map[state.Digest]partial) (*fedavg.Sum, error) {
	if p, ok := own[b.ID]; ok && p.digest == b.Sum && p.sum.Weight == b.Weight && p.sum.Count == int64(len(b.Nodes)) {
		return p.sum, nil
	}
	body, err := c.blobs.Get(ctx, b.ID)
	if err != nil {
		return nil, fmt.Errorf("batch %v is lost: %w", b.ID, err)
	}
	return c.openBatch(s, r, shape, b, body)
}

// openBatch returns the sum that a committed batch holds, after checking it against what was committed.
func (c *Coordinator) openBatch(s *state.State, r *state.Round, shape fedavg.Shape, b state.Batch, body []byte) (*fedavg.Sum, error) {
	rd := canon.NewReader(body)
	var sum *fedavg.Sum
	var err error
	switch form := rd.Uint(); form {
	case batchEnvelopes:
		sum, err = c.foldEnvelopes(s, r, shape, rd)
	case batchPartial:
		sum, err = c.openPartial(rd.Bytes(), shape)
	default:
		err = fmt.Errorf("form %d is not known", form)
	}
	if err == nil {
		err = rd.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("open batch %v: %w", b.ID, err)
	}
	if sum.Digest() != b.Sum || sum.Weight != b.Weight || sum.Count != int64(len(b.Nodes)) {
		return nil, fmt.Errorf("open batch %v: it does not hold the sum that was committed", b.ID)
	}
	return sum, nil
}

func (c *Coordinator) openPartial(sealed []byte, shape fedavg.Shape) (*fedavg.Sum, error) {
	plain, err := openBy(c.epochs, func(k *seal.EpochKey) ([]byte, error) { return seal.OpenFrom(sealed, k) })
	if err != nil {
		return nil, err
	}
	sum, err := fedavg.DecodeSum(plain)
	if err != nil {
		return nil, err
	}
	if err := fedavg.NewSum(shape).Merge(sum); err != nil { // the shape of the round, or no merge
		return nil, err
	}
	return sum, nil
}

func (c *Coordinator) foldEnvelopes(s *state.State, r *state.Round, shape fedavg.Shape, rd *canon.Reader) (*fedavg.Sum, error) {
	sum := fedavg.NewSum(shape)
	for n := rd.Len(1); n > 0 && rd.Err() == nil; n-- {
		u, err := c.openEnvelope(s, rd.Bytes())
		if err != nil {
			return nil, err
		}
		if a, ok := r.Accepted[u.payload.Node]; !ok || a.Update != u.digest {
			return nil, fmt.Errorf("it holds an update of node %s that was not accepted", u.payload.Node)
		}
		if err := u.payload.Check(shape); err != nil {
			return nil, err
		}
		if err := sum.Add(&u.payload.Update); err != nil {
			return nil, err
		}
	}
	return sum, nil
}
