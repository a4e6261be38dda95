package fedavg

import "choir.example/model/kernel"

// Bulyan chooses θ = n-2f vectors, one after the other by Krum among those that are left, and of each of their coordinates
// takes the mean of the θ-2f values that are closest to the median (El Mhamdi et al. 2018, "The Hidden Vulnerability of
// Distributed Learning in Byzantium", §4). Where so few are left that Krum's n-f-2 neighbours are none, it looks at one; of
// values that are equally close to the median the lesser ones are taken. Weights do not count.
type Bulyan struct {
	F int // how many may lie: n ≥ 4f+3
}

// Check implements Rule.
func (r Bulyan) Check(updates int) error { return atLeast("bulyan", r.F, updates, fourTimesAndThree) }

// Needs implements Rule.
func (Bulyan) Needs() RuleNeeds { return RuleNeeds{} }

// Combine implements Rule.
func (r Bulyan) Combine(c *Combination) error {
	n := len(c.Vectors)
	k := newNeighbours(squaredDistances(c.Vectors), n, r.F)
	var chosen []int
	for range n - 2*r.F {
		best := k.best()
		k.remove(best)
		chosen = append(chosen, best)
	}
	aroundMedian(pick(c.Vectors, chosen), len(chosen)-2*r.F, c.Out)
	return nil
}

// aroundMedian writes to out, coordinate by coordinate, the mean of the count values that are closest to the median. In
// order of size they lie side by side: from the least values on, the window moves up while the next value is closer to
// the median than the one that it would leave behind, which it does at once for all columns, without a branch.
func aroundMedian(vectors [][]int32, count int, out []float64) {
	n := len(vectors)
	network := kernel.NewNetwork(n, 0, n)
	tiles(vectors, func(at, lanes int, tile []int32) {
		network.Sort(tile)
		row := func(i int) *[kernel.Lanes]int32 { return (*[kernel.Lanes]int32)(tile[i*kernel.Lanes:]) }
		var sum, twice [kernel.Lanes]int64 // twice the median
		kernel.AddRows(&twice, row((n - 1) / 2)[:])
		kernel.AddRows(&twice, row(n / 2)[:])
		kernel.AddRows(&sum, tile[:count*kernel.Lanes])
		for i := range n - count {
			leaves, comes := row(i), row(i+count)
			for l := range sum {
				x, y := int64(leaves[l]), int64(comes[l])
				closer := (x + y - twice[l]) >> 63 // all ones if y - median < median - x
				sum[l] += (y - x) & closer
			}
		}
		for i, s := range sum[:lanes] {
			out[at+i] = float64(s) / float64(count)
		}
	})
}
