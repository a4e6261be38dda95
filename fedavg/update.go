// Package fedavg turns many updates into one model: the update a node sends, the exact integer sum of updates, and
// the strategies that make the next global model from a sum.
//
// An update is all integers on a public grid, so that sums are exact: the same set of updates gives the same bits in
// any order, in any grouping, on every replica. Floats appear only after the sum, in a strategy's server step, where
// + − × ÷ in float64 give the same result on every processor.
//
//	sum := fedavg.NewSum(shape)
//	for _, u := range updates {
//		if err := u.Check(shape); err != nil { … }
//		if err := sum.Add(u); err != nil { … }
//	}
//	next, err := algorithm.Combine(global, state, fedavg.Counted{Sum: sum, Fleet: nodes})
//
// The package knows nothing of networks, keys or privacy mechanisms.
package fedavg

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"choir.example/internal/canon"
	"choir.example/model"
	"choir.example/model/codec"
)

// Bounds of the public grid. They make an overflow of the int64 sums impossible:
//
//	|q| ≤ 2^23 and Σ weight ≤ 2^36, each weight ≥ 1, so |Σ weight·q| ≤ 2^23 · 2^36 = 2^59 < 2^63;
//	a scalar is itself a sum over the update's examples, |s| ≤ weight · 2^23, so |Σ s| ≤ 2^59 as well;
//	an evaluation's counts are at most MaxExamples = 2^20 and its loss at most 2^20 · 2^26 = 2^46, and there are at
//	most MaxUpdates = 2^16 updates in a sum, so those sums stay below 2^62.
//
// Sum enforces the bound on the total; Check the others.
const (
	MaxQ           = 1 << 23 // largest magnitude of a vector's coordinate
	MaxWeight      = 1 << 20 // largest weight of one update
	MaxTotalWeight = 1 << 36 // largest sum of weights in one sum
	MaxUpdates     = 1 << 16 // most updates in one sum
	MaxExamples    = 1 << 20 // most examples in one evaluation
	MaxParts       = 16      // most vectors, and most evaluations, in one update; an encoding with more is refused
)

// Header says what an update answers: it binds the update to one attempt of one round and to the model it started
// from. Two payloads of one node for one (Job, Round, Attempt) that differ are an incident.
type Header struct {
	Cluster string   // name of the federation
	Job     string   // name of the job
	Round   uint64   // of the job; 0 is the statistics round
	Attempt uint32   // at the round, from 1
	Node    string   // name of the node that signs
	Plan    [32]byte // digest of the round's plan, as recorded
	Model   [32]byte // blob id of the global model; zero in a statistics round
}

// Update is what one node contributes, as integers.
type Update struct {
	Vectors     [][]int32          // coordinates of the delta on the grid, each in ±MaxQ; FedAvg has one vector
	Scalars     []int64            // sums over the node's examples (statistics), each in ±Weight·MaxQ
	Weight      int64              // in [1, cap]: the number of examples behind Vectors and Scalars
	Evaluations []model.Evaluation // of the received model (train), or of each candidate in order (evaluate)
}

// Payload is an update with its header: what a node signs.
type Payload struct {
	Header
	Update
}

// Shape is what an update of a round must look like; the coordinator derives it from the plan.
type Shape struct {
	Vectors     []int // length of each vector
	Scalars     int   // how many
	Evaluations int   // how many, at most MaxParts
	Classes     int   // of what is evaluated: with more than one, evaluations have no histograms
	WeightCap   int64 // largest weight of an update, in [1, MaxWeight]
	ClipSquared int64 // largest squared L2 norm of Vectors on the grid; 0: no bound
}

// Check refuses an update that does not fit the shape or leaves the grid's bounds. Its text names what is wrong and
// is fit to be shown to the node.
func (u *Update) Check(s Shape) error {
	if u.Weight <= 0 || u.Weight > s.WeightCap || u.Weight > MaxWeight {
		return fmt.Errorf("weight %d is outside [1, %d]", u.Weight, min(s.WeightCap, MaxWeight))
	}
	if len(u.Vectors) != len(s.Vectors) {
		return fmt.Errorf("%d vectors, want %d", len(u.Vectors), len(s.Vectors))
	}
	for i, v := range u.Vectors {
		if err := checkVector(v, s.Vectors[i], s.ClipSquared); err != nil {
			return fmt.Errorf("vector %d: %w", i, err)
		}
	}
	if len(u.Scalars) != s.Scalars {
		return fmt.Errorf("%d scalars, want %d", len(u.Scalars), s.Scalars)
	}
	for i, v := range u.Scalars {
		if bound := u.Weight * MaxQ; v > bound || v < -bound {
			return fmt.Errorf("scalar %d: %d is outside ±weight·2^23", i, v)
		}
	}
	if len(u.Evaluations) != s.Evaluations {
		return fmt.Errorf("%d evaluations, want %d", len(u.Evaluations), s.Evaluations)
	}
	for i := range u.Evaluations {
		if err := CheckEvaluation(&u.Evaluations[i], MaxExamples, s.Classes); err != nil {
			return fmt.Errorf("evaluation %d: %w", i, err)
		}
	}
	return nil
}

func checkVector(v []int32, length int, clipSquared int64) error {
	if len(v) != length {
		return fmt.Errorf("length %d, want %d", len(v), length)
	}
	var squared float64 // rounded above 2^53, in the same order as codec.Clip does, so that both see the same norm
	for i, q := range v {
		if q > MaxQ || q < -MaxQ {
			return fmt.Errorf("coordinate %d: %d is outside ±2^23", i, q)
		}
		squared += float64(int64(q) * int64(q))
	}
	if clipSquared > 0 && squared > float64(clipSquared) {
		return fmt.Errorf("norm exceeds the clip norm")
	}
	return nil
}

// CheckEvaluation refuses counts that no model gives on at most most examples. Of more classes than one there are no
// histograms.
func CheckEvaluation(e *model.Evaluation, most int64, classes int) error {
	if e.Examples < 0 || e.Examples > most {
		return fmt.Errorf("%d examples is outside [0, %d]", e.Examples, most)
	}
	if e.Correct < 0 || e.Correct > e.Examples {
		return fmt.Errorf("%d correct of %d examples", e.Correct, e.Examples)
	}
	if e.Loss < 0 || e.Loss > e.Examples<<26 {
		return fmt.Errorf("loss %d is outside [0, 64 nat an example]", e.Loss)
	}
	if len(e.Positives) == 0 && len(e.Negatives) == 0 && (e.Examples == 0 || classes > 1) {
		return nil
	}
	if classes > 1 {
		return fmt.Errorf("histograms of scores, of %d classes", classes)
	}
	if len(e.Positives) != model.Bins || len(e.Negatives) != model.Bins {
		return fmt.Errorf("histograms of %d and %d bins, want %d", len(e.Positives), len(e.Negatives), model.Bins)
	}
	var total int64
	for i := range e.Positives {
		p, n := e.Positives[i], e.Negatives[i]
		if p < 0 || n < 0 || p > e.Examples || n > e.Examples {
			return fmt.Errorf("bin %d: counts %d and %d", i, p, n)
		}
		total += p + n
	}
	if total != e.Examples {
		return fmt.Errorf("histograms hold %d examples, want %d", total, e.Examples)
	}
	return nil
}

// payloadVersion is the first value of an encoded payload. Version 1 had other bins in its histograms, version 2 held
// weights as outputs × inputs: they do not add up.
const payloadVersion = 3

// Encode is the canonical encoding of the payload, the bytes that a node signs. The result is the caller's.
func (p *Payload) Encode() []byte {
	w := canon.Writer{Buf: make([]byte, 0, roomBefore)}
	w.Uint(payloadVersion)
	w.String(p.Cluster)
	w.String(p.Job)
	w.Uint(p.Round)
	w.Uint(uint64(p.Attempt))
	w.String(p.Node)
	w.Fixed(p.Plan[:])
	w.Fixed(p.Model[:])
	w.Int(p.Weight)
	writeVectors(&w, p.Vectors)
	writeInts(&w, p.Scalars)
	writeEvaluations(&w, p.Evaluations)
	return w.Buf
}

// DecodePayload decodes what Encode wrote, and nothing else. The result shares no memory with b. It refuses counts
// that b cannot hold, but knows no shape: call Check on the result.
func DecodePayload(b []byte) (*Payload, error) {
	r := canon.NewReader(b)
	if v := r.Uint(); r.Err() == nil && v != payloadVersion {
		return nil, fmt.Errorf("decode update: version %d is not known", v)
	}
	p := &Payload{}
	p.Cluster = r.String()
	p.Job = r.String()
	p.Round = r.Uint()
	p.Attempt = readUint32(r)
	p.Node = r.String()
	copy(p.Plan[:], r.Fixed(32))
	copy(p.Model[:], r.Fixed(32))
	p.Weight = r.Int()
	p.Vectors = readVectors[int32](r)
	p.Scalars = readInts[int64](r)
	p.Evaluations = readEvaluations(r)
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("decode update: %w", err)
	}
	return p, nil
}

func readUint32(r *canon.Reader) uint32 {
	v := r.Uint()
	if v > 1<<32-1 {
		r.Fail("%d does not fit 32 bits", v)
	}
	return uint32(v)
}

// What an encoding has before its vectors, and after them, is seldom more, in bytes.
const (
	roomBefore = 512
	roomAfter  = 16 << 10
)

// writeVectors writes a count and the vectors, and makes room for what follows, so that they are not copied again.
func writeVectors[T codec.Int](w *canon.Writer, vs [][]T) {
	w.Uint(uint64(len(vs)))
	widths, size := make([]int, len(vs)), roomAfter
	for i, v := range vs {
		widths[i] = codec.Width(v)
		size += widths[i]*len(v) + 32
	}
	w.Buf = slices.Grow(w.Buf, size)
	for i, v := range vs {
		w.Uint(uint64(len(v)))
		if len(v) > 0 {
			w.Buf = codec.PackWidth(w.Buf, v, widths[i])
		}
	}
}

// writeInts writes a count and the integers at the least width that holds them all.
func writeInts[T codec.Int](w *canon.Writer, v []T) {
	w.Uint(uint64(len(v)))
	if len(v) > 0 {
		w.Buf = codec.PackInts(w.Buf, v)
	}
}

// readInts reads what writeInts wrote. An empty slice comes back as nil.
func readInts[T codec.Int](r *canon.Reader) []T {
	n := r.Len(1)
	if n == 0 || r.Err() != nil {
		return nil
	}
	width := r.Fixed(1)
	if r.Err() != nil {
		return nil
	}
	if width[0] < 1 || width[0] > 8 {
		r.Fail("integer width %d", width[0])
		return nil
	}
	body := r.Fixed(n * int(width[0]))
	if r.Err() != nil {
		return nil
	}
	v, err := codec.UnpackInts[T](int(width[0]), body)
	if err != nil {
		r.Fail("%v", err)
		return nil
	}
	return v
}

// readVectors reads a count, at most MaxParts, and the vectors.
func readVectors[T codec.Int](r *canon.Reader) [][]T {
	var vs [][]T
	for n := readParts(r); len(vs) < n && r.Err() == nil; {
		vs = append(vs, readInts[T](r))
	}
	return vs
}

func readParts(r *canon.Reader) int {
	n := r.Len(1)
	if n > MaxParts {
		r.Fail("%d parts, at most %d are allowed", n, MaxParts)
		return 0
	}
	return n
}

func writeEvaluations(w *canon.Writer, es []model.Evaluation) {
	w.Uint(uint64(len(es)))
	for i := range es {
		e := &es[i]
		w.Int(e.Examples)
		w.Int(e.Correct)
		w.Int(e.Loss)
		writeInts(w, e.Positives)
		writeInts(w, e.Negatives)
	}
}

func readEvaluations(r *canon.Reader) []model.Evaluation {
	var es []model.Evaluation
	for n := readParts(r); len(es) < n && r.Err() == nil; {
		es = append(es, model.Evaluation{
			Examples: r.Int(), Correct: r.Int(), Loss: r.Int(),
			Positives: readInts[int64](r), Negatives: readInts[int64](r),
		})
	}
	return es
}

// digest hashes the parts under a domain string.
func digest(domain string, body []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte(domain))
	h.Write(body)
	return [32]byte(h.Sum(nil))
}

// Clone is a copy that shares no memory with u.
func (u *Update) Clone() *Update {
	c := *u
	c.Vectors = slices.Clone(u.Vectors)
	for i, v := range c.Vectors {
		c.Vectors[i] = slices.Clone(v)
	}
	c.Scalars, c.Evaluations = slices.Clone(u.Scalars), slices.Clone(u.Evaluations)
	return &c
}
