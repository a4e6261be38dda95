package partition

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Noise deals examples as IID does, and node i of n, from 1, sees them under Gaussian noise of variance Variance·i/n (Li et
// al. 2022, §4.2, noise-based feature skew): nodes differ in what their examples look like alone. The noise of an example
// is the same in every round; there it is drawn anew each time the example is used.
type Noise struct {
	IID
	Variance float64 // of the last node, in squared units of a value
}

// Divide implements Partitioner.
func (n Noise) Divide(x Examples, nodes int, rng *rand.Rand) ([][]int32, error) {
	if !(n.Variance >= 0 && n.Variance <= 1e6) {
		return nil, fmt.Errorf("variance is %v, want above 0 and at most 1000000", n.Variance)
	}
	return n.IID.Divide(x, nodes, rng)
}

// Distort implements Distorter.
func (n Noise) Distort(node, nodes int, values []float32, rng *rand.Rand) {
	deviation := math.Sqrt(n.Variance * float64(node+1) / float64(nodes))
	for i := range values {
		values[i] += float32(deviation * rng.NormFloat64())
	}
}
