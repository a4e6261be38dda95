package partition

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"choir.example/internal/nearest"
)

// Column gives each node the examples of one value of a column, in order of the values' places: one node a region, a user,
// a device. Fewer nodes than values merge values, more split the nodes that have most, at random. An empty name is the
// column that the data set says is natural.
type Column struct{ Name string }

// groups are the group of each example.
func (c Column) groups(x Examples) ([]int32, error) {
	name := c.Name
	if name == "" {
		name = x.Natural
	}
	names := slices.Sorted(maps.Keys(x.Columns))
	switch groups, ok := x.Columns[name]; {
	case ok:
		return groups, nil
	case len(names) == 0:
		return nil, errors.New("the data set has no column to divide by; want kind iid or dirichlet, for example")
	case name == "":
		return nil, fmt.Errorf("the data set does not say who had its examples; want kind column, and column one of %s", strings.Join(names, ", "))
	default:
		return nil, fmt.Errorf("column %.40q: %s", name, nearest.OneOf(name, names))
	}
}

// Nodes implements Sized: one a value that occurs.
func (c Column) Nodes(x Examples) int {
	groups, err := c.groups(x)
	if err != nil {
		return 1 // and Divide says what is wrong
	}
	seen := map[int32]bool{}
	for _, g := range groups {
		seen[g] = true
	}
	return len(seen)
}

// Divide implements Partitioner.
func (c Column) Divide(x Examples, nodes int, rng *rand.Rand) ([][]int32, error) {
	groups, err := c.groups(x)
	if err != nil {
		return nil, err
	}
	if len(groups) != len(x.Labels) {
		return nil, fmt.Errorf("column %s tells the groups of %d examples, want %d", c.Name, len(groups), len(x.Labels))
	}
	return Regroup(groups, nodes, rng), nil
}

// Regroup gives each of nodes the places of one group's members, in order of group numbers. Fewer nodes than groups merge
// groups, more split the largest; which ones, and where, is decided by rng. nodes is in [1, len(groups)].
func Regroup(groups []int32, nodes int, rng *rand.Rand) [][]int32 {
	byGroup := map[int32][]int32{}
	for i, g := range groups {
		byGroup[g] = append(byGroup[g], int32(i))
	}
	var parts [][]int32
	for _, g := range slices.Sorted(maps.Keys(byGroup)) {
		parts = append(parts, byGroup[g])
	}
	for len(parts) > nodes { // merge the two at the end of a random order
		rng.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		last := len(parts) - 1
		parts[last-1] = append(slices.Clip(parts[last-1]), parts[last]...)
		parts = parts[:last]
	}
	if len(parts) < nodes {
		parts = halved(parts, nodes, rng)
	}
	return parts
}

// halved splits the largest part at random until there are enough, fewer than which there are. All stand in order, the
// largest first, but for the two that were split last: one at each end.
func halved(parts [][]int32, nodes int, rng *rand.Rand) [][]int32 {
	slices.SortStableFunc(parts, larger)
	for {
		whole := slices.Clone(parts[0])
		mix(whole, rng)
		half := len(whole) / 2
		first, second := whole[:half:half], whole[half:]
		parts[0] = first
		if len(parts) == nodes-1 {
			return append(parts, second)
		}
		parts = parts[1:]
		before, _ := slices.BinarySearchFunc(parts, first, larger)
		parts = slices.Insert(parts, before, first)
		after, _ := slices.BinarySearchFunc(parts, len(second)-1, func(p []int32, size int) int { return size - len(p) })
		parts = slices.Insert(parts, after, second)
	}
}

// larger compares parts, the one with more examples first.
func larger(a, b []int32) int { return len(b) - len(a) }
