package simulate

import (
	"math/rand/v2"

	"choir.example/model/data"
	"choir.example/simulate/partition"
)

// Partition says who holds which rows: one node a group, in order of group numbers. Fewer nodes than groups merge
// groups, more split the largest; which ones, and where, is decided by the seed. The same arguments give the same
// parts; no row is lost or doubled. nodes is in [1, len(rows)].
func Partition(rows []data.Row, groups []int, nodes int, seed uint64) [][]data.Row {
	of := make([]int32, len(rows))
	for i, g := range groups {
		of[i] = int32(g)
	}
	rng := rand.New(rand.NewPCG(seed, 0x7061727469))
	var parts [][]data.Row
	for _, places := range partition.Regroup(of, nodes, rng) {
		var part []data.Row
		for _, i := range places {
			part = append(part, rows[i])
		}
		parts = append(parts, part)
	}
	return parts
}
