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
// Where the algorithm looks at each update, the batch holds all of them: the envelopes, or, if one is not open to every
// voter, the payloads, sealed anew.
const (
	batchEnvelopes = 1
	batchPartial   = 2
	batchPayloads  = 3
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
	if size, open := envelopesSize(updates, recipients); open && size <= len(sum) {
		return encodeEnvelopes(updates, size), nil
	}
	return encodeSealed(batchPartial, sum, recipients)
}

// encodeEach writes a batch whose updates are combined one by one.
func encodeEach(updates []*verified, recipients []string) ([]byte, error) {
	if size, open := envelopesSize(updates, recipients); open {
		return encodeEnvelopes(updates, size), nil
	}
	var w canon.Writer
	w.Uint(uint64(len(updates)))
	for _, u := range updates {
		w.Bytes(u.payload.Encode())
	}
	return encodeSealed(batchPayloads, w.Buf, recipients)
}

// envelopesSize is about how many bytes envelopes have together, and whether all recipients can open all of them.
func envelopesSize(updates []*verified, recipients []string) (size int, open bool) {
	for _, u := range updates {
		if !u.sealedTo(recipients) {
			return 0, false
		}
		size += len(u.envelope) + 4
	}
	return size, true
}

// encodeEnvelopes writes envelopes as they were received; they have about size bytes together.
func encodeEnvelopes(updates []*verified, size int) []byte {
	w := canon.Writer{Buf: make([]byte, 0, size+8)}
	w.Uint(batchEnvelopes)
	w.Uint(uint64(len(updates)))
	for _, u := range updates {
		w.Bytes(u.envelope)
	}
	return w.Buf
}

// encodeSealed writes a form whose body is sealed to the recipients.
func encodeSealed(form uint64, body []byte, recipients []string) ([]byte, error) {
	sealed, err := seal.SealTo(body, recipients)
	if err != nil {
		return nil, fmt.Errorf("seal batch: %w", err)
	}
	w := canon.Writer{Buf: make([]byte, 0, len(sealed)+16)}
	w.Uint(form)
	w.Bytes(sealed)
	return w.Buf, nil
}

// batchSum is the sum of a committed batch: the one that this coordinator folded, if it is the one committed, or what the
// batch's blob holds.
func (c *Coordinator) batchSum(ctx context.Context, s *state.State, r *state.Round, shape fedavg.Shape, b state.Batch, own map[state.Digest]partial, each func(*fedavg.Payload)) (*fedavg.Sum, error) {
	if p, ok := own[b.ID]; ok && p.digest == b.Sum && p.sum.Weight == b.Weight && p.sum.Count == int64(len(b.Nodes)) {
		return p.sum, nil
	}
	body, err := c.blobs.Get(ctx, b.ID)
	if err != nil {
		return nil, fmt.Errorf("batch %v is lost: %w", b.ID, err)
	}
	return c.openBatch(s, r, shape, b, body, each)
}

// openBatch returns the sum that a committed batch holds, after checking it against what was committed. each, if not nil,
// is called with every update: a batch that holds none but their sum is then refused.
func (c *Coordinator) openBatch(s *state.State, r *state.Round, shape fedavg.Shape, b state.Batch, body []byte, each func(*fedavg.Payload)) (*fedavg.Sum, error) {
	rd := canon.NewReader(body)
	var sum *fedavg.Sum
	var err error
	fold := &folded{sum: fedavg.NewSum(shape), shape: shape, round: r, each: each}
	switch form := rd.Uint(); {
	case form == batchEnvelopes:
		sum, err = fold.sum, c.foldEnvelopes(s, rd, fold)
	case form == batchPayloads:
		sum, err = fold.sum, c.foldPayloads(rd.Bytes(), fold)
	case form == batchPartial && each == nil:
		sum, err = c.openPartial(rd.Bytes(), shape)
	default:
		err = fmt.Errorf("form %d is not known, or not what the algorithm needs", form)
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

// folded is a batch's updates, as they are opened.
type folded struct {
	sum   *fedavg.Sum
	shape fedavg.Shape
	round *state.Round
	each  func(*fedavg.Payload) // may be nil
}

// add takes in an update with its digest, if that is the one accepted of its node.
func (f *folded) add(p *fedavg.Payload, digest state.Digest) error {
	if a, ok := f.round.Accepted[p.Node]; !ok || a.Update != digest {
		return fmt.Errorf("it holds an update of node %s that was not accepted", p.Node)
	}
	if err := p.Check(f.shape); err != nil {
		return err
	}
	if f.each != nil {
		f.each(p)
	}
	return f.sum.Add(&p.Update)
}

func (c *Coordinator) foldEnvelopes(s *state.State, rd *canon.Reader, fold *folded) error {
	for n := rd.Len(1); n > 0 && rd.Err() == nil; n-- {
		u, err := c.openEnvelope(s, rd.Bytes())
		if err != nil {
			return err
		}
		if err := fold.add(u.payload, u.digest); err != nil {
			return err
		}
	}
	return nil
}

// foldPayloads opens payloads that whoever verified their signatures has sealed anew. The digests accepted are of what
// the nodes signed.
func (c *Coordinator) foldPayloads(sealed []byte, fold *folded) error {
	plain, err := openBy(c.epochs, func(k *seal.EpochKey) ([]byte, error) { return seal.OpenFrom(sealed, k) })
	if err != nil {
		return err
	}
	rd := canon.NewReader(plain)
	for n := rd.Len(1); n > 0 && rd.Err() == nil; n-- {
		body := rd.Bytes()
		if rd.Err() != nil {
			break
		}
		p, err := fedavg.DecodePayload(body)
		if err == nil {
			err = fold.add(p, seal.UpdateDigest(body))
		}
		if err != nil {
			return err
		}
	}
	return rd.Close()
}
