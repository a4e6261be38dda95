package fedavg

import (
	"cmp"
	"math"
)

// GeometricMedian takes the point with the least sum of distances to the vectors, by the smoothed Weiszfeld algorithm
// (Pillutla et al. 2022, "Robust Aggregation for Federated Learning", Algorithm 2, RFA). The paper stops after three
// iterations, because each costs it a round of secure aggregation. Here every point on the way is a mean of the vectors with
// other weights, and its distances to them follow from those among them: an iteration costs no look at the vectors, and
// there are as many as it takes. The paper weighs vectors by their nodes' examples; as a liar may claim any number, weights
// do not count here.
type GeometricMedian struct {
	F          int     // how many may lie: fewer than half. 0: not said
	Smoothing  float64 // ν: distances are taken as at least this, on the grid
	Iterations int     // at most; 0: 100
}

// Check implements Rule.
func (r GeometricMedian) Check(updates int) error {
	return atLeast("geometric-median", r.F, updates, majority)
}

// Needs implements Rule.
func (GeometricMedian) Needs() RuleNeeds { return RuleNeeds{} }

// Combine implements Rule.
func (r GeometricMedian) Combine(c *Combination) error {
	weighted(c.Vectors, r.weights(squaredDistances(c.Vectors), len(c.Vectors)), c.Out)
	return nil
}

// settled is how little weights change when the iterations end.
const settled = 1e-12

// weights are those whose mean is the geometric median of n vectors; their sum is 1.
func (r GeometricMedian) weights(squared []float64, n int) []float64 {
	w, next := make([]float64, n), make([]float64, n)
	for i := range w {
		w[i] = 1 / float64(n)
	}
	for range cmp.Or(r.Iterations, 100) {
		var total float64
		for i, d := range fromMean(squared, w) {
			next[i] = 1 / max(math.Sqrt(max(d, 0)), r.Smoothing)
			total += next[i]
		}
		change := 0.
		for i := range next {
			next[i] /= total
			change = max(change, math.Abs(next[i]-w[i]))
		}
		w, next = next, w
		if change < settled {
			break
		}
	}
	return w
}

// fromMean are the squared distances of the vectors to their mean with weights w: for each j, Σ w_k·D_kj − ½·Σ w_k·w_l·D_kl.
func fromMean(squared, w []float64) []float64 {
	n := len(w)
	out := make([]float64, n)
	var spread float64
	for j := range out {
		for k, d := range squared[j*n : (j+1)*n] {
			out[j] += float64(w[k] * d)
		}
		spread += float64(w[j] * out[j])
	}
	for j := range out {
		out[j] -= spread / 2
	}
	return out
}
