package partition

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Dirichlet deals the examples of each label by shares that are drawn from Dir(Alpha) (Hsu et al. 2019; in the form of Li
// et al. 2022, §4.1): the smaller Alpha, the fewer labels a node has much of. A node that has its fair share already gets
// none of the labels still to come, as there. All is drawn anew until every node has at least Least examples.
type Dirichlet struct {
	Alpha float64 // concentration, more than 0
	Least int     // examples that every node has; 0: 10, or a quarter of the fair share where that is less
}

const (
	redraws  = 200 // before a partition is given up
	searched = 20  // draws for each number of nodes that might do instead
)

// Divide implements Partitioner.
func (d Dirichlet) Divide(x Examples, nodes int, rng *rand.Rand) ([][]int32, error) {
	switch {
	case x.Classes < 2:
		return nil, errNoLabels
	case !concentration(d.Alpha):
		return nil, fmt.Errorf("alpha is %v, want 0.001 to 1000000", d.Alpha)
	}
	draw := func(nodes int) [][]int32 { return d.draw(x, nodes, rng) }
	return redrawn(draw, len(x.Labels), nodes, d.Least, "alpha")
}

// draw is one draw, whatever comes out.
func (d Dirichlet) draw(x Examples, nodes int, rng *rand.Rand) [][]int32 {
	parts := make([][]int32, nodes)
	for _, list := range byLabel(x, rng) {
		shares := dirichlet(d.Alpha, nodes, rng)
		for i, part := range parts {
			if len(part)*nodes >= len(x.Labels) {
				shares[i] = 0
			}
		}
		at := 0
		for i, n := range portions(shares, len(list)) {
			parts[i] = append(parts[i], list[at:at+n]...)
			at += n
		}
	}
	return parts
}

// redrawn draws until the smallest part has so many examples; asked 0 is the usual number of so many nodes. Where that does
// not come it says what would do: the most that the smallest node had in any draw, or as many nodes as all have enough.
func redrawn(draw func(nodes int) [][]int32, examples, nodes, asked int, parameter string) ([][]int32, error) {
	least := usualLeast(asked, examples, nodes)
	if least < 1 || least > examples/nodes {
		return nil, fmt.Errorf("least is %d, want 1 to %d: so many examples a node there are", least, examples/nodes)
	}
	best := 0
	for range redraws {
		parts := draw(nodes)
		n := smallest(parts)
		if n >= least {
			return parts, nil
		}
		best = max(best, n)
	}
	if best > 0 {
		return nil, fmt.Errorf("in %d draws for %d nodes some node always has fewer than %d examples; least %d would do, or a larger %s",
			redraws, nodes, least, best, parameter)
	}
	fewer := largest(nodes, func(n int) bool {
		for range searched {
			if smallest(draw(n)) >= usualLeast(asked, examples, n) {
				return true
			}
		}
		return false
	})
	things := "nodes"
	if fewer == 1 {
		things = "node"
	}
	return nil, fmt.Errorf("in %d draws for %d nodes some node always has no example; %d %s would do, or a larger %s", redraws, nodes, fewer, things, parameter)
}

// largest is the largest number below n for which fits says yes, if it says so for all below; 1 always fits.
func largest(n int, fits func(n int) bool) int {
	low, high := 1, n // low fits, high does not
	for high-low > 1 {
		if middle := (low + high) / 2; fits(middle) {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}

func smallest(parts [][]int32) int {
	n := math.MaxInt
	for _, p := range parts {
		n = min(n, len(p))
	}
	return n
}

// concentration reports whether a Dirichlet distribution of this parameter can be drawn from.
func concentration(alpha float64) bool { return alpha >= 1e-3 && alpha <= 1e6 }

// dirichlet draws n shares that sum to 1. It divides gamma variates through their logarithms: those of a small alpha are
// often smaller than any float.
func dirichlet(alpha float64, n int, rng *rand.Rand) []float64 {
	logs, top := make([]float64, n), math.Inf(-1)
	for i := range logs {
		logs[i] = logGamma(alpha, rng)
		top = max(top, logs[i])
	}
	sum := 0.0
	for i, l := range logs {
		logs[i] = math.Exp(l - top)
		sum += logs[i]
	}
	for i := range logs {
		logs[i] /= sum
	}
	return logs
}

// logGamma draws the logarithm of a gamma variate of shape alpha and scale 1 (Marsaglia and Tsang 2000, "A Simple Method
// for Generating Gamma Variables"; a shape below 1 through one that is larger by 1, ibid. §6).
func logGamma(alpha float64, rng *rand.Rand) float64 {
	if alpha < 1 {
		return logGamma(alpha+1, rng) + math.Log(1-rng.Float64())/alpha
	}
	d := alpha - 1./3
	c := 1 / math.Sqrt(9*d)
	for {
		z := rng.NormFloat64()
		v := 1 + c*z
		if v <= 0 {
			continue
		}
		v = v * v * v
		if math.Log(1-rng.Float64()) < z*z/2+d-d*v+d*math.Log(v) {
			return math.Log(d * v)
		}
	}
}

// portions cuts n into whole portions by shares of any sum: the borders between them are those of the shares, rounded
// down. Without any share the portions are equal, but for one.
func portions(shares []float64, n int) []int {
	sum := 0.0
	for _, s := range shares {
		sum += s
	}
	out, at, done := make([]int, len(shares)), 0.0, 0
	for i, s := range shares {
		at += s
		border := n
		switch {
		case i == len(shares)-1:
		case sum > 0:
			border = min(int(at/sum*float64(n)), n)
		default:
			border = (i + 1) * n / len(shares)
		}
		out[i], done = border-done, border
	}
	return out
}
