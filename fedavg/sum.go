package fedavg

import (
	"errors"
	"fmt"

	"choir.example/internal/canon"
	"choir.example/model"
	"choir.example/model/codec"
	"choir.example/model/kernel"
)

// ErrTooMuch is returned when a sum would pass MaxTotalWeight or MaxUpdates.
var ErrTooMuch = errors.New("sum is full")

// Sum is the exact weighted sum of updates of one shape: Σ weight·vector, Σ scalars, Σ weight, and the merged
// evaluations. The order of Add, Sub and Merge does not matter, to the last bit. A Sum is not for concurrent use.
type Sum struct {
	Vectors     [][]int64          // Σ weight·q of the shape's vectors, on the grid of the updates; magnitudes at most Weight·MaxQ
	Scalars     []int64            // Σ of the updates' scalars, unweighted; magnitudes at most Weight·MaxQ
	Weight      int64              // Σ of the updates' weights, in [Count, MaxTotalWeight]; 0 in an empty sum
	Count       int64              // updates in the sum, in [0, MaxUpdates]
	Evaluations []model.Evaluation // one a place of the shape, unweighted: counts of all updates' examples together
	Evaluated   []int64            // as long as Evaluations: how many of the updates have examples in each
}

// NewSum returns an empty sum for updates of the shape. It takes eight bytes a coordinate.
func NewSum(s Shape) *Sum {
	sum := &Sum{
		Scalars:     make([]int64, s.Scalars),
		Evaluations: make([]model.Evaluation, s.Evaluations), Evaluated: make([]int64, s.Evaluations),
	}
	for _, n := range s.Vectors {
		sum.Vectors = append(sum.Vectors, make([]int64, n))
	}
	return sum
}

// Add folds in one update, which must have passed Check for the sum's shape. It keeps nothing of u.
func (s *Sum) Add(u *Update) error { return s.fold(u, 1, nil) }

// AddWithin is Add of an update whose vectors are zero outside the given parts, as Client.Changed says of those it made, at
// the cost of these parts alone.
func (s *Sum) AddWithin(u *Update, parts []model.Range) error {
	if parts == nil {
		parts = []model.Range{}
	}
	return s.fold(u, 1, parts)
}

// Sub takes out an update that was added. It refuses one that cannot be in the sum.
func (s *Sum) Sub(u *Update) error { return s.fold(u, -1, nil) }

// fold adds or takes out; parts are nil for everything.
func (s *Sum) fold(u *Update, sign int64, parts []model.Range) error {
	if len(u.Vectors) != len(s.Vectors) || len(u.Scalars) != len(s.Scalars) || len(u.Evaluations) != len(s.Evaluations) {
		return fmt.Errorf("fold update: its shape is not the sum's")
	}
	if u.Weight < 1 || u.Weight > MaxWeight {
		return fmt.Errorf("fold update: weight %d is outside [1, %d]", u.Weight, MaxWeight)
	}
	if s.Weight+sign*u.Weight > MaxTotalWeight || s.Count+sign > MaxUpdates {
		return fmt.Errorf("fold update: %w", ErrTooMuch)
	}
	if s.Weight+sign*u.Weight < 0 || s.Count+sign < 0 {
		return fmt.Errorf("fold update: it was not in the sum")
	}
	for i, v := range u.Vectors {
		if len(v) != len(s.Vectors[i]) {
			return fmt.Errorf("fold update: vector %d has length %d, want %d", i, len(v), len(s.Vectors[i]))
		}
	}
	for i := range u.Evaluations {
		if !histogramsFit(&s.Evaluations[i], &u.Evaluations[i]) {
			return fmt.Errorf("fold update: the histograms of evaluation %d do not fit", i)
		}
		if s.Evaluated[i]+sign*evaluated(&u.Evaluations[i]) < 0 {
			return fmt.Errorf("fold update: its evaluation %d was not in the sum", i)
		}
	}
	for i, v := range u.Vectors {
		if parts == nil {
			kernel.AddScaled(s.Vectors[i], v, int32(sign*u.Weight)) // a weight is at most 2^20
		}
		for _, r := range parts {
			kernel.AddScaled(s.Vectors[i][r.From:r.To], v[r.From:r.To], int32(sign*u.Weight))
		}
	}
	for i, v := range u.Scalars {
		s.Scalars[i] += sign * v
	}
	for i := range u.Evaluations {
		foldEvaluation(&s.Evaluations[i], &u.Evaluations[i], sign)
		s.Evaluated[i] += sign * evaluated(&u.Evaluations[i])
	}
	s.Weight += sign * u.Weight
	s.Count += sign
	return nil
}

// evaluated is 1 for an evaluation with examples: a node without validation examples adds nothing to a sum, and is not
// among those that hide each other in it.
func evaluated(e *model.Evaluation) int64 { return min(e.Examples, 1) }

// AddDelta folds in a delta that is not on the grid yet, and says how many of its coordinates saturated: one pass that adds
// to a sum of one vector what Add does with grid.Quantise's integers. A delta that is not finite is an error and leaves
// the sum as it was.
func (s *Sum) AddDelta(g codec.Grid, delta []float32, weight int64) (saturated int, err error) {
	if len(s.Vectors) != 1 || len(s.Vectors[0]) != len(delta) || len(s.Scalars) > 0 || len(s.Evaluations) > 0 {
		return 0, fmt.Errorf("fold delta: its shape is not the sum's")
	}
	if weight < 1 || weight > MaxWeight {
		return 0, fmt.Errorf("fold delta: weight %d is outside [1, %d]", weight, MaxWeight)
	}
	if s.Weight+weight > MaxTotalWeight || s.Count+1 > MaxUpdates {
		return 0, fmt.Errorf("fold delta: %w", ErrTooMuch)
	}
	if saturated, err = g.AddTo(s.Vectors[0], delta, int32(weight)); err != nil {
		return 0, fmt.Errorf("fold delta: %w", err)
	}
	s.Weight += weight
	s.Count++
	return saturated, nil
}

// Merge folds in another sum of the same shape, which it only reads. A sum that it refuses leaves s as it was.
func (s *Sum) Merge(o *Sum) error {
	if err := s.sameShape(o); err != nil {
		return err
	}
	if s.Weight+o.Weight > MaxTotalWeight || s.Count+o.Count > MaxUpdates {
		return fmt.Errorf("merge sums: %w", ErrTooMuch)
	}
	for i, v := range o.Vectors {
		acc := s.Vectors[i][:len(v)]
		for j, x := range v {
			acc[j] += x
		}
	}
	for i, v := range o.Scalars {
		s.Scalars[i] += v
	}
	for i := range o.Evaluations {
		foldEvaluation(&s.Evaluations[i], &o.Evaluations[i], 1)
		s.Evaluated[i] += o.Evaluated[i]
	}
	s.Weight += o.Weight
	s.Count += o.Count
	return nil
}

func (s *Sum) sameShape(o *Sum) error {
	if len(o.Vectors) != len(s.Vectors) || len(o.Scalars) != len(s.Scalars) || len(o.Evaluations) != len(s.Evaluations) {
		return fmt.Errorf("merge sums: shapes differ")
	}
	for i, v := range o.Vectors {
		if len(v) != len(s.Vectors[i]) {
			return fmt.Errorf("merge sums: vector %d has length %d, want %d", i, len(v), len(s.Vectors[i]))
		}
	}
	for i := range o.Evaluations {
		if !histogramsFit(&s.Evaluations[i], &o.Evaluations[i]) {
			return fmt.Errorf("merge sums: the histograms of evaluation %d do not fit", i)
		}
	}
	return nil
}

// histogramsFit reports whether the histograms of src can be added to those of dst.
func histogramsFit(dst, src *model.Evaluation) bool {
	n := len(src.Positives)
	return len(src.Negatives) == n && (n == 0 || dst.Positives == nil || len(dst.Positives) == n)
}

// foldEvaluation adds sign times src. The two histograms are nil together while both hold nothing but zeros, so that a
// sum over empty evaluations has one encoding; a class without examples keeps its zeros beside the other's counts.
func foldEvaluation(dst, src *model.Evaluation, sign int64) {
	dst.Examples += sign * src.Examples
	dst.Correct += sign * src.Correct
	dst.Loss += sign * src.Loss
	if len(src.Positives) == 0 {
		return
	}
	if dst.Positives == nil {
		dst.Positives, dst.Negatives = make([]int64, len(src.Positives)), make([]int64, len(src.Positives))
	}
	var any int64
	for i := range src.Positives {
		dst.Positives[i] += sign * src.Positives[i]
		dst.Negatives[i] += sign * src.Negatives[i]
		any |= dst.Positives[i] | dst.Negatives[i]
	}
	if any == 0 {
		dst.Positives, dst.Negatives = nil, nil
	}
}

// sumVersion is the first value of an encoded sum. Version 1 did not say how many updates have examples;
// version 2 held weights as outputs × inputs.
const sumVersion = 3

// Encode is the sum's canonical encoding, each part at the least width that holds it.
func (s *Sum) Encode() []byte {
	w := canon.Writer{Buf: make([]byte, 0, roomBefore)}
	w.Uint(sumVersion)
	w.Int(s.Weight)
	w.Int(s.Count)
	writeVectors(&w, s.Vectors)
	writeInts(&w, s.Scalars)
	writeEvaluations(&w, s.Evaluations)
	for _, n := range s.Evaluated {
		w.Int(n)
	}
	return w.Buf
}

// DecodeSum decodes what Encode wrote, and nothing else. The sum shares no memory with b.
func DecodeSum(b []byte) (*Sum, error) {
	r := canon.NewReader(b)
	if v := r.Uint(); r.Err() == nil && v != sumVersion {
		return nil, fmt.Errorf("decode sum: version %d is not known", v)
	}
	s := &Sum{Weight: r.Int(), Count: r.Int()}
	s.Vectors = readVectors[int64](r)
	s.Scalars = readInts[int64](r)
	s.Evaluations = readEvaluations(r)
	for range s.Evaluations {
		s.Evaluated = append(s.Evaluated, r.Int())
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("decode sum: %w", err)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("decode sum: %w", err)
	}
	return s, nil
}

// check refuses what no sum of checked updates can be, so that merging decoded sums cannot overflow.
func (s *Sum) check() error {
	if s.Count < 0 || s.Count > MaxUpdates || s.Weight < s.Count || s.Weight > min(s.Count*MaxWeight, MaxTotalWeight) {
		return fmt.Errorf("weight %d or count %d is outside its bounds", s.Weight, s.Count)
	}
	bound := s.Weight * MaxQ
	for i, v := range s.Vectors {
		if !within(v, bound) {
			return fmt.Errorf("vector %d is outside ±weight·2^23", i)
		}
	}
	if !within(s.Scalars, bound) {
		return fmt.Errorf("scalars are outside ±weight·2^23")
	}
	for i := range s.Evaluations {
		e, nodes := &s.Evaluations[i], s.Evaluated[i]
		if e.Examples == 0 && e.Positives != nil {
			return fmt.Errorf("evaluation %d: histograms without examples", i)
		}
		if nodes < 0 || nodes > min(s.Count, e.Examples) {
			return fmt.Errorf("evaluation %d: %d examples of %d updates with examples, in a sum of %d", i, e.Examples, nodes, s.Count)
		}
		classes := 1
		if e.Positives == nil {
			classes = 2 // or more: the sum does not say
		}
		if err := CheckEvaluation(e, nodes*MaxExamples, classes); err != nil {
			return fmt.Errorf("evaluation %d: %w", i, err)
		}
	}
	return nil
}

// within reports whether all of v lie in [-bound, bound].
func within(v []int64, bound int64) bool {
	for _, x := range v {
		if x > bound || x < -bound {
			return false
		}
	}
	return true
}

// Digest identifies the sum: SHA-256 over a domain string and its encoding.
func (s *Sum) Digest() [32]byte { return DigestOf(s.Encode()) }

// DigestOf is the digest of an encoded sum.
func DigestOf(encoded []byte) [32]byte { return digest("choir/sum/v1", encoded) }
