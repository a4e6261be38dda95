package coordinator

import (
	"fmt"
	"sync"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/internal/canon"
	"choir.example/privacy/seal"
)

// A batch is made durable on a quorum before an entry names it, in one of two forms, whichever is smaller: the sealed
// envelopes as they were received, or their exact partial sum, sealed to the voters' epoch keys. Either way only a
// voter can open it, and only until its epoch key is destroyed.
const (
	batchEnvelopes = 1
	batchPartial   = 2
)

// partials are the sums of the batches that this coordinator committed itself, so that a leader need not read its own
// back. What is not in memory, after a restart or from another coordinator, is read from its blob.
type partials struct {
	mu    sync.Mutex // guards byJob
	byJob map[string]*partial
}

// partial is the sum of some batches of the latest attempt seen of a job.
type partial struct {
	key     attempt
	sum     *fedavg.Sum
	batches map[state.Digest]bool
}

// add keeps the sum of a batch that is committed. The sum belongs to p from here on.
func (p *partials) add(key attempt, batch state.Digest, sum *fedavg.Sum) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.byJob[key.job]
	if old == nil || old.key != key {
		p.byJob[key.job] = &partial{key, sum, map[state.Digest]bool{batch: true}}
		return
	}
	if old.batches[batch] || old.sum.Merge(sum) != nil { // one that cannot be merged is read from its blob, and says why
		return
	}
	old.batches[batch] = true
}

// take returns what is known of an attempt, and forgets it: nil, or the sum of some of the batches.
func (p *partials) take(key attempt) *partial {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byJob[key.job]
	if known == nil || known.key != key {
		return nil
	}
	delete(p.byJob, key.job)
	return known
}

// encodeBatch writes the smaller form. sum is the partial sum's encoding; recipients are the voters' epoch recipients.
func encodeBatch(updates []*verified, sum []byte, recipients []string) ([]byte, error) {
	envelopes := 0
	for _, u := range updates {
		envelopes += len(u.envelope) + 4
	}
	var w canon.Writer
	if envelopes <= len(sum) {
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
