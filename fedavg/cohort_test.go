package fedavg

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func fleet(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("edge-%03d", i)
	}
	return names
}

func TestCohortIsASortedSubset(t *testing.T) {
	const seed = 5
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		names := fleet(rng.IntN(40))
		goal := rng.IntN(45) - 2
		draw := rng.Uint64()
		shuffled := slices.Clone(names)
		rng.Shuffle(len(shuffled), func(i, k int) { shuffled[i], shuffled[k] = shuffled[k], shuffled[i] })
		before := slices.Clone(shuffled)
		got := Cohort(draw, shuffled, goal)
		want := goal
		if goal <= 0 || goal > len(names) {
			want = len(names)
		}
		if len(got) != want || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != want {
			t.Fatalf("seed %d: %d of %d: %v", draw, goal, len(names), got)
		}
		for _, n := range got {
			if !slices.Contains(names, n) {
				t.Fatalf("seed %d: %s is not in the list", draw, n)
			}
		}
		if !slices.Equal(got, Cohort(draw, names, goal)) {
			t.Fatalf("seed %d: the order of the names matters", draw)
		}
		if !slices.Equal(shuffled, before) {
			t.Fatalf("seed %d: the caller's list was changed", draw)
		}
	}
}

// The first goal names of a draw are also in every larger one, and a name that leaves changes no other's draw.
func TestCohortGrowsAndShrinksByNames(t *testing.T) {
	names := fleet(30)
	for seed := range uint64(50) {
		small, large := Cohort(seed, names, 7), Cohort(seed, names, 12)
		for _, n := range small {
			if !slices.Contains(large, n) {
				t.Fatalf("seed %d: %s is among 7 and not among 12", seed, n)
			}
		}
		gone := small[0]
		rest := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == gone })
		for _, n := range Cohort(seed, rest, 7) {
			if !slices.Contains(Cohort(seed, names, 8), n) {
				t.Fatalf("seed %d: %s came in for another reason than %s leaving", seed, n, gone)
			}
		}
	}
}

// Over 2000 seeds each of 20 names is drawn 5/20 of the time: 500 ± 5σ, σ = √(2000·¼·¾) = 19.4.
func TestCohortIsFair(t *testing.T) {
	names, drawn := fleet(20), map[string]int{}
	for seed := range uint64(2000) {
		for _, n := range Cohort(seed, names, 5) {
			drawn[n]++
		}
	}
	for _, n := range names {
		if math.Abs(float64(drawn[n]-500)) > 97 {
			t.Errorf("%s was drawn %d times, want about 500", n, drawn[n])
		}
	}
}

// Replicas of every later version must draw the same. The answers come from another implementation of the draw.
func TestCohortKnownAnswer(t *testing.T) {
	if got, want := Cohort(42, fleet(10), 3), []string{"edge-000", "edge-001", "edge-002"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := Cohort(1000, fleet(10), 3), []string{"edge-003", "edge-006", "edge-009"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
