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
	Discount float64   // mean of the updates' discounts; 1 if Delta is what a robust rule made of the deltas times their discounts
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

// Buffered is what a step of an asynchronous server closes with.
type Buffered struct {
	Sum   *Sum      // of all updates in the buffer, at their discounts
	Each  []Named   // the same one by one, in order of the nodes' names; wanted if the algorithm says Each
	Begun []float32 // the model that the last of them began with; read only
	Fleet int       // nodes in the federation
	Seed  uint64    // of the step, for rules that draw
}

// Arrived is the server's half of an asynchronous strategy: from a buffer of discounted updates to the next model, a new
// slice of finite numbers. global is read only; state is the server's, as FirstState has it, and changes in place. Numbers that are
// not finite are ErrServerDiverged.
func (a *Algorithm) Arrived(global []float32, state [][]float32, b Buffered) ([]float32, error) {
	strategy, ok := a.Strategy.(Asynchronous)
	s := b.Sum
	switch {
	case !ok:
		return nil, errors.New("combine: the strategy is not asynchronous")
	case len(s.Vectors) != 1 || len(s.Vectors[0]) != len(global) || len(b.Begun) != len(global) || len(state) != a.stateVectors():
		return nil, fmt.Errorf("combine: the sum does not fit a model of %d parameters", len(global))
	case s.Count < 1 || s.Weight < 1:
		return nil, errors.New("combine: the sum is empty")
	case a.Each() && int64(len(b.Each)) != s.Count:
		return nil, fmt.Errorf("combine: %d updates one by one, and %d in their sum", len(b.Each), s.Count)
	}
	arrival := &Arrival{
		Global: global, Next: append([]float32(nil), global...), Begun: b.Begun,
		Discount: float64(s.Weight) / float64(s.Count*discountUnit), Count: int(s.Count), Fleet: b.Fleet,
	}
	each := b.Each
	if a.Rule != nil {
		each, arrival.Discount = shortened(each), 1
	}
	delta, err := a.combine(0, &Counted{Sum: s, Seed: b.Seed}, each, state)
	if err != nil {
		return nil, err
	}
	for k, v := range delta {
		delta[k] = float64(v * a.Grid.Step())
	}
	arrival.Delta = delta
	if err := strategy.Arrive(arrival); err != nil {
		return nil, serverError(err)
	}
	if err := a.checkStep(arrival.Next, state); err != nil {
		return nil, err
	}
	return arrival.Next, nil
}

// shortened are the updates as a rule sees them, that looks at no weights: each delta times its discount, to the nearest on
// the grid.
func shortened(each []Named) []Named {
	out := make([]Named, len(each))
	for i, u := range each {
		v := make([]int32, len(u.Vectors[0]))
		for k, q := range u.Vectors[0] {
			v[k] = int32(math.RoundToEven(float64(int64(q)*u.Weight) / discountUnit))
		}
		out[i] = Named{u.Node, &Update{Vectors: [][]int32{v}, Weight: u.Weight}}
	}
	return out
}

// checkAsynchronous refuses what an asynchronous strategy cannot do with.
func (a *Algorithm) checkAsynchronous(s Asynchronous) error {
	needs := s.Needs()
	needs.Uniform = false
	switch {
	case a.Rule != nil && s.Buffer() < 2:
		return errors.New("robust: a rule is for several updates together, and a buffer of 1 holds one; want fedbuff with a larger buffer, or a mean")
	case a.Trusts():
		return errors.New("robust: the rule holds updates against one of the server's own, which is never stale as those of an asynchronous strategy are; want another rule, or a mean")
	case needs.Vectors != 0 || needs.Scalars != 0 || needs.Memory != 0 || needs.State != 0 || needs.Shared != 0 || needs.Each:
		return errors.New("strategy: an asynchronous one needs more than a delta of a node")
	case s.Buffer() < 1 || s.Buffer() > MaxUpdates:
		return fmt.Errorf("strategy: buffer is %d, want 1 to %d", s.Buffer(), MaxUpdates)
	}
	return nil
}
