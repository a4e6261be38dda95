package simulate

import (
	"math/rand/v2"
	"slices"

	"choir.example/model/data"
)

// Partition says who holds which rows: one node a group, in order of group numbers. Fewer nodes than groups merge
// groups, more split the largest; which ones, and where, is decided by the seed. The same arguments give the same
// parts; no row is lost or doubled. nodes is in [1, len(rows)].
func Partition(rows []data.Row, groups []int, nodes int, seed uint64) [][]data.Row {
	byGroup := map[int][]data.Row{}
	for i, r := range rows {
		byGroup[groups[i]] = append(byGroup[groups[i]], r)
	}
	var names []int
	for g := range byGroup {
		names = append(names, g)
	}
	slices.Sort(names)
	var parts [][]data.Row
	for _, g := range names {
		parts = append(parts, byGroup[g])
	}
	rng := rand.New(rand.NewPCG(seed, 0x7061727469))
	for len(parts) > nodes { // merge the two at the end of a random order
		rng.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		last := len(parts) - 1
		parts[last-1] = append(slices.Clone(parts[last-1]), parts[last]...)
		parts = parts[:last]
	}
	for len(parts) < nodes { // split the largest at random
		slices.SortStableFunc(parts, func(a, b []data.Row) int { return len(b) - len(a) })
		whole := slices.Clone(parts[0])
		rng.Shuffle(len(whole), func(i, j int) { whole[i], whole[j] = whole[j], whole[i] })
		parts[0] = whole[:len(whole)/2]
		parts = append(parts, whole[len(whole)/2:])
	}
	return parts
}
