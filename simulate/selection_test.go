package simulate

import (
	"slices"
	"testing"
)

// The nodes, and the epochs of those who straggle, are what NumPy 1.24.2 says to the lines of FedProx's program:
//
//	chosen = RandomState(r).choice(nodes, cohort, replace=False)
//	rs = RandomState(r); active = rs.choice(chosen, round(cohort*(1-share)), replace=False)
//	[(c, rs.randint(1, epochs)) for c in chosen if c not in active]
func TestNumPyDraws(t *testing.T) {
	type slow struct{ node, epochs int }
	for _, c := range []struct {
		r, nodes int
		share    float64
		epochs   int
		chosen   []int
		slow     []slow
	}{
		{0, 30, .5, 20, []int{2, 28, 13, 10, 26, 24, 27, 11, 17, 22}, []slow{{2, 5}, {10, 7}, {24, 13}, {27, 2}, {11, 7}}},
		{1, 30, .9, 20, []int{17, 21, 10, 19, 14, 20, 26, 3, 24, 22}, []slow{{17, 8}, {21, 14}, {19, 7}, {14, 19}, {20, 6}, {26, 19}, {3, 12}, {24, 11}, {22, 15}}},
		{99, 30, .5, 20, []int{23, 24, 16, 12, 21, 27, 10, 15, 2, 7}, []slow{{23, 2}, {24, 4}, {12, 18}, {15, 2}, {7, 17}}},
		{7, 5, .5, 3, []int{0, 3, 2, 1, 4}, []slow{{3, 2}, {2, 2}, {4, 2}}}, // Python rounds 2.5 to 2
		{3, 300, .35, 2, []int{84, 217, 211, 286, 31, 134, 201, 248, 16, 177}, []slow{{84, 1}, {286, 1}, {248, 1}, {16, 1}}},
	} {
		var there, want []string
		for i := range c.nodes {
			there = append(there, NodeName(i))
		}
		for _, i := range c.chosen {
			want = append(want, NodeName(i))
		}
		var stragglers []straggler
		for _, s := range c.slow {
			stragglers = append(stragglers, straggler{NodeName(s.node), s.epochs})
		}
		var s numpySelection
		cohort := s.cohort(c.r+1, 5, there, len(want)) // rounds begin with 1
		if !slices.Equal(cohort, want) {
			t.Errorf("round %d: %v, want %v", c.r, cohort, want)
		}
		if got := s.stragglers(c.r+1, 5, cohort, c.share, c.epochs); !slices.Equal(got, stragglers) || s.fewest(c.share, len(cohort)) != len(got) {
			t.Errorf("round %d: stragglers %v, at least %d, want %v", c.r, got, s.fewest(c.share, len(cohort)), stragglers)
		}
	}
}
