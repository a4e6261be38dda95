package partition

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
)

// Shards sorts examples by label, cuts them into nodes·Each shards of equal size and deals each node Each of them
// (McMahan et al. 2017, §3): most nodes see few labels.
type Shards struct{ Each int }

// Divide implements Partitioner.
func (s Shards) Divide(x Examples, nodes int, rng *rand.Rand) ([][]int32, error) {
	most := len(x.Labels) / nodes
	if x.Classes < 2 {
		return nil, errNoLabels
	}
	if s.Each < 1 || s.Each > most {
		return nil, fmt.Errorf("%d shards a node, want 1 to %d: so many examples a node there are", s.Each, most)
	}
	order := places(len(x.Labels))
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(x.Labels[a], x.Labels[b]) })
	shards := chunks(order, nodes*s.Each)
	rng.Shuffle(len(shards), func(i, j int) { shards[i], shards[j] = shards[j], shards[i] })
	parts := make([][]int32, nodes)
	for i, shard := range shards {
		parts[i/s.Each] = append(parts[i/s.Each], shard...)
	}
	return parts, nil
}
