package fedavg

import (
	"fmt"
	"math"
	"math/rand/v2"

	"choir.example/model/kernel"
)

// Bucketing puts the vectors into buckets of a few, by chance, and hands another rule the mean of each bucket: nodes with
// unlike data then look more alike, and the rule does not take honest ones for liars (Karimireddy et al. 2022,
// "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", Algorithm 1). Means are rounded to the grid, half to
// even. Weights do not count.
type Bucketing struct {
	Rule Rule
	F    int // how many may lie; 0: not said
	Size int // of a bucket, at least 2; the last may be smaller
}

// Check implements Rule.
func (r Bucketing) Check(updates int) error {
	if r.F > 0 && r.Size > updates/(2*r.F) {
		return fmt.Errorf("bucket is %d with f %d and %d updates, want at most %d: half of the buckets may hold a liar", r.Size, r.F, updates, updates/(2*r.F))
	}
	if r.Size >= updates {
		return fmt.Errorf("bucket is %d of %d updates, want at most %d: the rule would see a single mean", r.Size, updates, updates-1)
	}
	if err := r.Rule.Check((updates + r.Size - 1) / r.Size); err != nil {
		return fmt.Errorf("%d updates in buckets of %d: %w", updates, r.Size, err)
	}
	return nil
}

// Needs implements Rule.
func (r Bucketing) Needs() RuleNeeds { return r.Rule.Needs() }

// Combine implements Rule.
func (r Bucketing) Combine(c *Combination) error {
	rng := rand.New(rand.NewPCG(c.Seed, 0x6275636b657473))
	order := rng.Perm(len(c.Vectors))
	inner := *c
	inner.Vectors, inner.Weights = nil, nil
	for len(order) > 0 {
		bucket := order[:min(r.Size, len(order))]
		order = order[len(bucket):]
		inner.Vectors = append(inner.Vectors, roundedMean(pick(c.Vectors, bucket)))
		inner.Weights = append(inner.Weights, 1)
	}
	return r.Rule.Combine(&inner)
}

// roundedMean is the mean of vectors on the grid.
func roundedMean(vectors [][]int32) []int32 {
	sum, out, count := make([]int64, len(vectors[0])), make([]int32, len(vectors[0])), float64(len(vectors))
	for _, v := range vectors {
		kernel.AddScaled(sum, v, 1)
	}
	for i, s := range sum {
		out[i] = int32(math.RoundToEven(float64(s) / count))
	}
	return out
}
