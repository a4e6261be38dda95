package fedavg

import (
	"fmt"
	"slices"
	"strings"

	"choir.example/model/kernel"
)

// Counted is what a round closes with.
type Counted struct {
	Sum     *Sum    // of all updates that count
	Each    []Named // the same one by one, in any order; wanted if the algorithm says Each
	Fleet   int     // nodes in the federation
	Seed    uint64  // of the round, for rules that draw
	Trusted *Update // of the server's own; wanted if the algorithm Trusts one
}

// Combine is the server's half of a round: from a cohort's updates to the next model. global is read only; state is the
// server's, as FirstState has it, and changes in place. The result is a new slice, of finite numbers; ErrServerDiverged where they
// are not.
func (a *Algorithm) Combine(global []float32, state [][]float32, c Counted) ([]float32, error) {
	needs, s := a.Strategy.Needs(), c.Sum
	if err := a.fits(global, state, &c); err != nil {
		return nil, fmt.Errorf("combine: %w", err)
	}
	each := slices.SortedFunc(slices.Values(c.Each), func(x, y Named) int { return strings.Compare(x.Node, y.Node) })
	r := &Round{
		Network: a.Network, Global: global, Next: append([]float32(nil), global...), State: state[:needs.State],
		Count: int(s.Count), Fleet: c.Fleet, Public: a.Public,
	}
	step := a.Grid.Step()
	for i := range s.Vectors {
		mean, err := a.combine(i, &c, each, state[needs.State:])
		if err != nil {
			return nil, err
		}
		for k, v := range mean {
			mean[k] = float64(v * step)
		}
		r.means = append(r.means, mean)
	}
	for i := range needs.Scalars {
		r.scalars = append(r.scalars, a.scalar(i, s, each))
	}
	if needs.Each {
		r.Each = singles(each, step)
	}
	if err := a.Strategy.Server(r); err != nil {
		return nil, serverError(err)
	}
	if err := a.checkStep(r.Next, state); err != nil {
		return nil, err
	}
	return r.Next, nil
}

// fits refuses what is not a round of this algorithm.
func (a *Algorithm) fits(global []float32, state [][]float32, c *Counted) error {
	needs, s := a.Strategy.Needs(), c.Sum
	if len(s.Vectors) != 1+needs.Vectors || len(s.Scalars) != scalarDigits*needs.Scalars || len(state) != a.stateVectors() || len(s.Vectors[0]) != len(global) {
		return fmt.Errorf("the sum does not fit a model of %d parameters", len(global))
	}
	if s.Weight <= 0 {
		return fmt.Errorf("the sum is empty")
	}
	if a.Each() && int64(len(c.Each)) != s.Count {
		return fmt.Errorf("%d updates one by one, and %d in their sum", len(c.Each), s.Count)
	}
	if needs.Public && len(a.Public) == 0 {
		return fmt.Errorf("there are no public inputs, which the strategy needs")
	}
	if a.Trusts() && (c.Trusted == nil || len(c.Trusted.Vectors) != len(s.Vectors)) {
		return fmt.Errorf("the rule trusts an update of the server's own, and there is none")
	}
	return nil
}

// Named is an update and who sent it.
type Named struct {
	Node string
	*Update
}

// combine is the i-th vectors together, on the grid. memory is the rule's.
func (a *Algorithm) combine(i int, c *Counted, each []Named, memory [][]float32) ([]float64, error) {
	s := c.Sum
	out := make([]float64, len(s.Vectors[i]))
	if a.Rule == nil {
		weight := float64(s.Weight)
		for k, v := range s.Vectors[i] {
			out[k] = float64(v) / weight
		}
		return out, nil
	}
	if err := a.CheckCohort(len(each)); err != nil {
		return nil, err
	}
	rc := &Combination{Out: out, Seed: c.Seed}
	for _, u := range each {
		rc.Vectors, rc.Weights = append(rc.Vectors, u.Vectors[i]), append(rc.Weights, u.Weight)
	}
	if a.Trusts() {
		rc.Trusted = c.Trusted.Vectors[i]
	}
	if !a.remembers() {
		return out, a.Rule.Combine(rc)
	}
	for _, v := range memory[i] {
		rc.Last = append(rc.Last, float64(v))
	}
	if err := a.Rule.Combine(rc); err != nil {
		return nil, err
	}
	for k, v := range out {
		memory[i][k] = float32(v)
	}
	return out, nil
}

// scalar is the i-th scalar of all updates together: their weighted mean or, where a rule holds liars off, the median of
// what each says, whatever its weight.
func (a *Algorithm) scalar(i int, s *Sum, each []Named) float64 {
	if a.Rule == nil {
		return scalarMean(s.Scalars[2*i], s.Scalars[2*i+1], s.Weight)
	}
	var said []float64
	for _, u := range each {
		said = append(said, scalarMean(u.Scalars[2*i], u.Scalars[2*i+1], u.Weight))
	}
	slices.Sort(said)
	return (said[(len(said)-1)/2] + said[len(said)/2]) / 2
}

// singles are the updates as a strategy sees them.
func singles(each []Named, step float64) []Single {
	out := make([]Single, len(each))
	for i, u := range each {
		out[i] = Single{Node: u.Node, Weight: u.Weight, Delta: make([]float32, len(u.Vectors[0]))}
		kernel.FromFixed(out[i].Delta, u.Vectors[0], step)
	}
	return out
}
