package partition

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// QuantityDirichlet deals examples at random in amounts that are drawn from Dir(Alpha) (Li et al. 2022, §4.3, q ~ Dir):
// nodes differ in how much they have alone. It is drawn anew until every node has at least Least examples.
type QuantityDirichlet struct {
	Alpha float64 // concentration, more than 0
	Least int     // examples that every node has; 0: 10, or a quarter of the fair share where that is less
}

// Divide implements Partitioner.
func (q QuantityDirichlet) Divide(x Examples, nodes int, rng *rand.Rand) ([][]int32, error) {
	if !concentration(q.Alpha) {
		return nil, fmt.Errorf("alpha is %v, want 0.001 to 1000000", q.Alpha)
	}
	order := shuffled(len(x.Labels), rng)
	draw := func(nodes int) [][]int32 { return cut(order, portions(dirichlet(q.Alpha, nodes, rng), len(order))) }
	return redrawn(draw, len(order), nodes, q.Least, "alpha")
}

// QuantityLogNormal deals examples at random: Least to each node, and the others in proportion to exp(Sigma·z) for a
// standard normal z of each node.
type QuantityLogNormal struct {
	Sigma float64 // 0 is IID
	Least int     // examples that every node has; 0: 10, or a quarter of the fair share where that is less
}

// Divide implements Partitioner.
func (q QuantityLogNormal) Divide(x Examples, nodes int, rng *rand.Rand) ([][]int32, error) {
	if !(q.Sigma >= 0 && q.Sigma <= 10) {
		return nil, fmt.Errorf("sigma is %v, want above 0 and at most 10", q.Sigma)
	}
	shares := make([]float64, nodes)
	for i := range shares {
		shares[i] = math.Exp(q.Sigma * rng.NormFloat64())
	}
	return above(q.Least, shares, shuffled(len(x.Labels), rng))
}

// QuantityPowerLaw deals examples at random: Least to each node, and the others in proportion to r^-Exponent, where r is
// the node's place, from 1, in a random order (Zipf's law).
type QuantityPowerLaw struct {
	Exponent float64 // 0 is IID
	Least    int     // examples that every node has; 0: 10, or a quarter of the fair share where that is less
}

// Divide implements Partitioner.
func (q QuantityPowerLaw) Divide(x Examples, nodes int, rng *rand.Rand) ([][]int32, error) {
	if !(q.Exponent >= 0 && q.Exponent <= 10) {
		return nil, fmt.Errorf("exponent is %v, want above 0 and at most 10", q.Exponent)
	}
	shares := make([]float64, nodes)
	for i, place := range rng.Perm(nodes) {
		shares[i] = math.Pow(float64(place+1), -q.Exponent)
	}
	return above(q.Least, shares, shuffled(len(x.Labels), rng))
}

// above gives every node so many of the list, and of the others as its share says.
func above(least int, shares []float64, list []int32) ([][]int32, error) {
	nodes := len(shares)
	least = usualLeast(least, len(list), nodes)
	if most := len(list) / nodes; least < 1 || least > most {
		return nil, fmt.Errorf("least is %d, want 1 to %d: so many examples a node there are", least, most)
	}
	sizes := portions(shares, len(list)-nodes*least)
	for i := range sizes {
		sizes[i] += least
	}
	return cut(list, sizes), nil
}

// cut cuts a list into parts of these sizes.
func cut(list []int32, sizes []int) [][]int32 {
	parts, at := make([][]int32, len(sizes)), 0
	for i, n := range sizes {
		parts[i] = list[at : at+n : at+n]
		at += n
	}
	return parts
}
