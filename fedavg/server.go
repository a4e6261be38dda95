package fedavg

import (
	"fmt"

	"choir.example/model/kernel"
)

// Combine is the server's half of a round: from a cohort's updates to the next model. global is read only; state is the
// server's, Needs.State vectors, and changes in place. each are the updates by name of their nodes, and wanted if the
// algorithm says Each; the sum is over the same. The result is a new slice.
func (a *Algorithm) Combine(global []float32, state [][]float32, s *Sum, each []Named, fleet int) ([]float32, error) {
	needs := a.Strategy.Needs()
	if len(s.Vectors) != 1+needs.Vectors || len(s.Scalars) != scalarDigits*needs.Scalars || len(state) != needs.State || len(s.Vectors[0]) != len(global) {
		return nil, fmt.Errorf("combine: the sum does not fit a model of %d parameters", len(global))
	}
	if s.Weight <= 0 {
		return nil, fmt.Errorf("combine: the sum is empty")
	}
	if a.Each() && int64(len(each)) != s.Count {
		return nil, fmt.Errorf("combine: %d updates one by one, and %d in their sum", len(each), s.Count)
	}
	if needs.Public && len(a.Public) == 0 {
		return nil, fmt.Errorf("combine: there are no public inputs, which the strategy needs")
	}
	r := &Round{
		Network: a.Network, Global: global, Next: append([]float32(nil), global...), State: state, Count: int(s.Count), Fleet: fleet, Public: a.Public,
	}
	step := a.Grid.Step()
	for i := range s.Vectors {
		mean, err := a.combine(i, s, each)
		if err != nil {
			return nil, err
		}
		for k, v := range mean {
			mean[k] = float64(v * step)
		}
		r.means = append(r.means, mean)
	}
	for i := range needs.Scalars {
		r.scalars = append(r.scalars, scalarMean(s.Scalars[2*i], s.Scalars[2*i+1], s.Weight))
	}
	if needs.Each {
		r.Each = singles(each, step)
	}
	if err := a.Strategy.Server(r); err != nil {
		return nil, err
	}
	return r.Next, nil
}

// Named is an update and who sent it.
type Named struct {
	Node string
	*Update
}

// combine is the i-th vectors together, on the grid.
func (a *Algorithm) combine(i int, s *Sum, each []Named) ([]float64, error) {
	out := make([]float64, len(s.Vectors[i]))
	if a.Rule == nil {
		weight := float64(s.Weight)
		for k, v := range s.Vectors[i] {
			out[k] = float64(v) / weight
		}
		return out, nil
	}
	c := &Combination{Out: out}
	for _, u := range each {
		c.Vectors, c.Weights = append(c.Vectors, u.Vectors[i]), append(c.Weights, u.Weight)
	}
	if err := a.Rule.Check(len(each)); err != nil {
		return nil, err
	}
	return out, a.Rule.Combine(c)
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
