package fedavg

import (
	"cmp"
	"slices"
)

// Krum takes the one vector that is closest to its n-f-2 nearest neighbours, in the sum of squared distances; of several the
// first by name of its node (Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient
// Descent", §4). Weights do not count.
type Krum struct {
	F int // how many may lie: n ≥ 2f+3
}

// Check implements Rule.
func (r Krum) Check(updates int) error { return atLeast("krum", r.F, updates, twiceAndThree) }

// Needs implements Rule.
func (Krum) Needs() RuleNeeds { return RuleNeeds{} }

// Combine implements Rule.
func (r Krum) Combine(c *Combination) error {
	k := newNeighbours(squaredDistances(c.Vectors), len(c.Vectors), r.F)
	mean(c.Vectors[k.best():][:1], c.Out)
	return nil
}

// MultiKrum takes the mean of the vectors that are best by Krum's measure (Blanchard et al. 2017, §4, "Multi-Krum").
// Weights do not count.
type MultiKrum struct {
	F      int // how many may lie: n ≥ 2f+3
	Select int // of how many vectors, at most n-f; 0: n-f
}

// Check implements Rule.
func (r MultiKrum) Check(updates int) error {
	if err := atLeast("multi-krum", r.F, updates, twiceAndThree); err != nil {
		return err
	}
	return atMost("multi-krum: select", r.Select, updates-r.F, updates)
}

// Needs implements Rule.
func (MultiKrum) Needs() RuleNeeds { return RuleNeeds{} }

// Combine implements Rule.
func (r MultiKrum) Combine(c *Combination) error {
	n := len(c.Vectors)
	k := newNeighbours(squaredDistances(c.Vectors), n, r.F)
	order := places(n)
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(k.score(a), k.score(b)) })
	chosen := order[:cmp.Or(r.Select, n-r.F)]
	mean(pick(c.Vectors, chosen), c.Out)
	return nil
}

// neighbours are the vectors of a round, each with the others in order of their distance. Those that were taken out are
// nobody's neighbours.
type neighbours struct {
	squared []float64 // distances, n×n
	near    [][]int   // of each vector the others, the closest first
	gone    []bool
	n, left int
	f       int
}

func newNeighbours(squared []float64, n, f int) *neighbours {
	k := &neighbours{squared: squared, gone: make([]bool, n), n: n, left: n, f: f}
	for i := range n {
		near := slices.DeleteFunc(places(n), func(j int) bool { return j == i })
		slices.SortStableFunc(near, func(a, b int) int { return cmp.Compare(squared[i*n+a], squared[i*n+b]) })
		k.near = append(k.near, near)
	}
	return k
}

// score is the sum of the squared distances to the left-f-2 nearest that are left, at least one of them.
func (k *neighbours) score(i int) (sum float64) {
	count := max(k.left-k.f-2, 1)
	for _, j := range k.near[i] {
		if k.gone[j] {
			continue
		}
		sum += k.squared[i*k.n+j]
		if count--; count == 0 {
			break
		}
	}
	return sum
}

// best is the vector with the lowest score of those that are left, the first of several.
func (k *neighbours) best() int {
	best, least := -1, 0.
	for i, gone := range k.gone {
		if gone {
			continue
		}
		if s := k.score(i); best < 0 || s < least {
			best, least = i, s
		}
	}
	return best
}

// remove takes one out.
func (k *neighbours) remove(i int) {
	k.gone[i] = true
	k.left--
}

// places are 0 to n-1.
func places(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// pick are some of the vectors.
func pick(vectors [][]int32, chosen []int) [][]int32 {
	out := make([][]int32, len(chosen))
	for i, at := range chosen {
		out[i] = vectors[at]
	}
	return out
}
