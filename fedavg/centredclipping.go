package fedavg

import (
	"cmp"
	"slices"
)

// CentredClipping starts from what came out last, and moves by the mean of the vectors' ways from there, none of which
// counts as longer than the radius (Karimireddy et al. 2021, "Learning from History for Byzantine Robust Optimization",
// Algorithm 2). The paper wants the radius set; 0 is the median of the ways' lengths, so that it follows the training and
// fewer than half cannot choose it. Weights do not count.
type CentredClipping struct {
	F          int     // how many may lie: fewer than half. 0: not said
	Radius     float64 // τ, on the grid; 0: the median of the lengths
	Iterations int     // L, each from where the last ended; 0: 1
}

// Check implements Rule.
func (r CentredClipping) Check(updates int) error {
	return atLeast("centred-clipping", r.F, updates, majority)
}

// Needs implements Rule.
func (CentredClipping) Needs() RuleNeeds { return RuleNeeds{Memory: true} }

// Combine implements Rule.
func (r CentredClipping) Combine(c *Combination) error {
	copy(c.Out, c.Last)
	n := float64(len(c.Vectors))
	for range cmp.Or(r.Iterations, 1) {
		lengths := make([]float64, len(c.Vectors))
		for i, v := range c.Vectors {
			lengths[i] = distance(c.Out, v)
		}
		shares, total := clipped(lengths, r.Radius), 0.
		for i, s := range shares {
			shares[i] = s / n
			total += shares[i]
		}
		for i, v := range c.Out { // v + Σ share·(x − v)
			c.Out[i] = float64(v * (1 - total))
		}
		weighted(c.Vectors, shares, c.Out)
	}
	return nil
}

// clipped are the parts of vectors of these lengths that are no longer than the bound; a bound of 0 is the median length.
func clipped(lengths []float64, bound float64) []float64 {
	if bound == 0 {
		order := slices.Sorted(slices.Values(lengths))
		bound = (order[(len(order)-1)/2] + order[len(order)/2]) / 2
	}
	shares := make([]float64, len(lengths))
	for i, l := range lengths {
		if shares[i] = 1; l > bound {
			shares[i] = bound / l
		}
	}
	return shares
}
