package fedavg

import (
	"errors"
	"fmt"
	"math"
)

// An Asynchronous strategy has no rounds. A node trains from the model that there is when it begins, and the server takes
// its update whenever it arrives, at a discount for the steps that the model has gone meanwhile; after every so many updates
// the model goes a step. What such a strategy needs of a node is a delta alone.
//
// Its method Server, which combines a round, returns ErrAsynchronous. Arrive is under the same rules as Server: it gives
// the same bits on every processor.
type Asynchronous interface {
	Strategy
	// Buffer is how many updates make a step of the server, at least 1.
	Buffer() int
	// Discount is what an update counts whose node began so many steps ago, in (0, 1].
	Discount(stale int) float64
	// Arrive makes a step of the updates in the buffer.
	Arrive(a *Arrival) error
}

// ErrAsynchronous is what a strategy says that is to combine a round and has none.
var ErrAsynchronous = errors.New("the strategy is asynchronous: it takes updates as they arrive, and has no rounds to combine")

// Arrival is a buffer full of updates.
type Arrival struct {
	Global   []float32 // the model that there is; read only
	Next     []float32 // equal to Global: what becomes the next model, changed in place
	Begun    []float32 // the model that the last of the updates began with; read only
	Delta    []float64 // mean of the updates' deltas, weighted by their discounts, in units of a parameter; may be changed
	Discount float64   // mean of the updates' discounts
	Count    int       // updates in the buffer
	Fleet    int       // nodes in the federation
}

// Move is Next = Global + rate·delta, rounded once.
func (a *Arrival) Move(rate float64, delta []float64) {
	for i, d := range delta {
		a.Next[i] = float32(float64(a.Global[i]) + float64(rate*d))
	}
}

// discountUnit is a discount of 1 as a weight: discounts are on a grid of 2^-16, so that sums of updates are exact.
const discountUnit = 1 << 16

// Discounted is the update at a discount, in (0, 1], in place of its weight. It shares the update's vectors.
func (u *Update) Discounted(discount float64) (*Update, error) {
	if !(discount > 0 && discount <= 1) {
		return nil, fmt.Errorf("discount %v, want more than 0 and at most 1", discount)
	}
	d := *u
	d.Weight = max(1, int64(math.RoundToEven(discount*discountUnit)))
	return &d, nil
}

// Arrived is the server's half of an asynchronous strategy: from the sum of a buffer of discounted updates to the next
// model, a new slice. begun is the model that the last of them began with; it and global are read only.
func (a *Algorithm) Arrived(global, begun []float32, s *Sum, fleet int) ([]float32, error) {
	strategy, ok := a.Strategy.(Asynchronous)
	switch {
	case !ok:
		return nil, errors.New("combine: the strategy is not asynchronous")
	case len(s.Vectors) != 1 || len(s.Vectors[0]) != len(global) || len(begun) != len(global):
		return nil, fmt.Errorf("combine: the sum does not fit a model of %d parameters", len(global))
	case s.Count < 1 || s.Weight < 1:
		return nil, errors.New("combine: the sum is empty")
	}
	weight, step := float64(s.Weight), a.Grid.Step()
	arrival := &Arrival{
		Global: global, Next: append([]float32(nil), global...), Begun: begun, Delta: make([]float64, len(global)),
		Discount: weight / float64(s.Count*discountUnit), Count: int(s.Count), Fleet: fleet,
	}
	for k, v := range s.Vectors[0] {
		arrival.Delta[k] = float64(float64(v)/weight) * step
	}
	return arrival.Next, strategy.Arrive(arrival)
}

// checkAsynchronous refuses what an asynchronous strategy cannot do with.
func (a *Algorithm) checkAsynchronous(s Asynchronous) error {
	needs := s.Needs()
	needs.Uniform = false
	switch {
	case a.Rule != nil:
		return errors.New("robust: a rule is for a cohort's updates together, and an asynchronous strategy takes them as they arrive; want a mean")
	case needs.Vectors != 0 || needs.Scalars != 0 || needs.Memory != 0 || needs.State != 0 || needs.Shared != 0 || needs.Each:
		return errors.New("strategy: an asynchronous one needs more than a delta of a node")
	case s.Buffer() < 1 || s.Buffer() > MaxUpdates:
		return fmt.Errorf("strategy: buffer is %d, want 1 to %d", s.Buffer(), MaxUpdates)
	}
	return nil
}
