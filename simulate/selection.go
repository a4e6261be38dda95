package simulate

import (
	"fmt"
	"math"
	"math/bits"

	"choir.example/fedavg"
	"choir.example/internal/seeds"

	"gonum.org/v1/gonum/mathext/prng"
)

// selection is how chance names nodes of a round.
type selection interface {
	// cohort is who takes part: n of the nodes that are there, which are named by place.
	cohort(round int, seed uint64, there []string, n int) []string

	// stragglers are a share of a cohort, in the order in which it was drawn, who do not manage all epochs, each with
	// those that it does manage: 1 to epochs - 1, or 0 where there is but one.
	stragglers(round int, seed uint64, cohort []string, share float64, epochs int) []straggler

	// fewest is how many of a cohort's n are stragglers at least.
	fewest(share float64, n int) int
}

// straggler is a node that does not manage all epochs.
type straggler struct {
	name   string
	epochs int
}

// The values of CohortSettings.Draw.
const (
	drawBySeed  = "seed"
	drawByNumPy = "numpy"
)

// selection is the one that the settings name.
func (s CohortSettings) selection() (selection, error) {
	switch s.Draw {
	case "", drawBySeed:
		return seedSelection{}, nil
	case drawByNumPy:
		return numpySelection{}, nil
	}
	return nil, fmt.Errorf("cohort: draw is %.40q, want %s or %s", s.Draw, drawBySeed, drawByNumPy)
}

// seedSelection follows from the run's seed, by the function by which a federation draws.
type seedSelection struct{}

func (seedSelection) cohort(_ int, seed uint64, there []string, n int) []string {
	return fedavg.Cohort(seed, there, n)
}

func (seedSelection) stragglers(round int, seed uint64, cohort []string, share float64, epochs int) (slow []straggler) {
	for _, name := range chosen("stragglers", round, seed, cohort, share) {
		s := straggler{name: name}
		if epochs > 1 {
			s.epochs = 1 + int(seeds.Derive("choir/epochs/v1", seed, name, uint64(round))%uint64(epochs-1))
		}
		slow = append(slow, s)
	}
	return slow
}

func (seedSelection) fewest(share float64, n int) int { return int(share * float64(n)) }

// chosen is a share of the names, for one use.
func chosen(use string, round int, seed uint64, names []string, share float64) []string {
	seed = seeds.Derive("choir/fleet/v1", seed, use, uint64(round))
	n := part(share, len(names), seed)
	if n == 0 {
		return nil
	}
	return fedavg.Cohort(seed, names, n)
}

// numpySelection draws as the programs of FedProx (Li et al. 2020) and LEAF (Caldas et al. 2018) do, by NumPy's older generator
// with the number of the round as its seed, the first being 0. So every run meets the same nodes, whatever its seed and
// strategy: FedProx §5 compares that way.
type numpySelection struct{}

func (numpySelection) cohort(round int, _ uint64, there []string, n int) []string {
	return newRandomState(round-1).choice(there, n)
}

func (numpySelection) stragglers(round int, _ uint64, cohort []string, share float64, epochs int) (slow []straggler) {
	g := newRandomState(round - 1) // anew, as they do
	keeps := map[string]bool{}
	for _, name := range g.choice(cohort, keeping(share, len(cohort))) {
		keeps[name] = true
	}
	for _, name := range cohort {
		if keeps[name] {
			continue
		}
		s := straggler{name: name}
		if epochs > 1 {
			s.epochs = 1 + int(g.below(uint32(epochs-1)))
		}
		slow = append(slow, s)
	}
	return slow
}

func (numpySelection) fewest(share float64, n int) int { return n - keeping(share, n) }

// keeping is how many of n are no stragglers, rounded as Python rounds.
func keeping(share float64, n int) int { return int(math.RoundToEven(float64(n) * (1 - share))) }

// randomState makes the numbers of numpy.random.RandomState.
type randomState struct{ *prng.MT19937 }

func newRandomState(seed int) randomState {
	g := randomState{prng.NewMT19937()}
	g.Seed(uint64(seed))
	return g
}

// below is a number from 0 to n-1, by masks and rejection; n is at least 1.
func (g randomState) below(n uint32) uint32 {
	if n == 1 {
		return 0
	}
	mask := uint32(1)<<bits.Len32(n-1) - 1
	for {
		if v := g.Uint32() & mask; v < n {
			return v
		}
	}
}

// choice is n of the names without replacement, in the order in which they were drawn.
func (g randomState) choice(names []string, n int) []string {
	at := make([]int, len(names))
	for i := range at {
		at[i] = i
	}
	for i := len(at) - 1; i > 0; i-- {
		k := g.below(uint32(i + 1))
		at[i], at[k] = at[k], at[i]
	}
	out := make([]string, min(n, len(at)))
	for i := range out {
		out[i] = names[at[i]]
	}
	return out
}
