package simulate

import (
	"fmt"
	"slices"
	"testing"

	"choir.example/model/data"
)

// rowsOf makes rows that can be told apart, in groups of the given sizes.
func rowsOf(sizes ...int) (rows []data.Row, groups []int) {
	for g, n := range sizes {
		for range n {
			rows, groups = append(rows, data.Row{float64(len(rows))}), append(groups, g+1)
		}
	}
	return rows, groups
}

func TestPartition(t *testing.T) {
	rows, groups := rowsOf(40, 10, 3, 25, 7)
	for _, nodes := range []int{1, 2, 4, 5, 6, 11, 85} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%d nodes, seed %d", nodes, seed), func(t *testing.T) {
				parts := Partition(rows, groups, nodes, seed)
				if len(parts) != nodes {
					t.Fatalf("%d parts", len(parts))
				}
				var all []float64
				for i, p := range parts {
					if len(p) == 0 {
						t.Errorf("part %d is empty", i)
					}
					for _, r := range p {
						all = append(all, r[0])
					}
				}
				slices.Sort(all)
				if len(all) != len(rows) || len(slices.Compact(all)) != len(rows) {
					t.Errorf("%d rows of %d, or some twice", len(all), len(rows))
				}
				if again := Partition(rows, groups, nodes, seed); !slices.EqualFunc(parts, again, func(a, b []data.Row) bool {
					return slices.EqualFunc(a, b, slices.Equal)
				}) {
					t.Error("the same arguments gave other parts")
				}
			})
		}
	}
	for i, p := range Partition(rows, groups, 5, 9) { // as many nodes as groups: each is a group
		if want := []int{40, 10, 3, 25, 7}[i]; len(p) != want {
			t.Errorf("node %d holds %d rows, its group %d", i, len(p), want)
		}
	}
}
