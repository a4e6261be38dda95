package model

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestRankByHand: item 1 has the best score, 3 and 4 are tied, 0 is last.
func TestRankByHand(t *testing.T) {
	scores := []float32{-1, 5, 2, 3, 3}
	for _, c := range []struct {
		target int
		seen   []int32
		want   int
	}{
		{1, nil, 1}, {4, nil, 3}, {3, nil, 3}, {2, nil, 4}, {0, nil, 5},
		{0, []int32{1, 2}, 3}, {4, []int32{3}, 2}, {4, []int32{3, 3, 1, 1}, 1}, {1, []int32{0, 2}, 1}, {2, []int32{0}, 4},
	} {
		if got, err := Rank(scores, c.target, c.seen); err != nil || got != c.want {
			t.Errorf("rank of %d without %v: %d, %v; want %d", c.target, c.seen, got, err, c.want)
		}
	}
	if got, _ := Rank(make([]float32, 100), 0, nil); got != 100 {
		t.Errorf("rank among equals: %d", got)
	}
}

// TestRankAgainstSorting: the rank is the place in the sorted list of what was not seen, the target last among equals.
func TestRankAgainstSorting(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 1))
	for range 300 {
		scores := make([]float32, 1+rng.IntN(30))
		for i := range scores {
			scores[i] = float32(rng.IntN(8))
		}
		target := rng.IntN(len(scores))
		var seen []int32
		for range rng.IntN(20) {
			if item := rng.IntN(len(scores)); item != target {
				seen = append(seen, int32(item))
			}
		}
		var left []float32
		for i, z := range scores {
			if !slices.Contains(seen, int32(i)) {
				left = append(left, -z)
			}
		}
		slices.Sort(left)
		want := len(left)
		for want > 0 && left[want-1] > -scores[target] {
			want--
		}
		if got, err := Rank(scores, target, seen); err != nil || got != want {
			t.Fatalf("rank of %d in %v without %v: %d, %v; want %d", target, scores, seen, got, err, want)
		}
	}
}

// TestRankingMetricsByHand: places 1, 2, 3 and 11.
func TestRankingMetricsByHand(t *testing.T) {
	ranks := []int{1, 2, 3, 11}
	for k, want := range map[int][2]float64{
		1:  {1. / 4, 1. / 4},
		2:  {2. / 4, (1 + 1/math.Log2(3)) / 4},
		10: {3. / 4, (1 + 1/math.Log2(3) + 1./2) / 4},
		11: {1, (1 + 1/math.Log2(3) + 1./2 + 1/math.Log2(12)) / 4},
	} {
		hit, err := HitRate(ranks, k)
		near(t, "hit rate", hit, err, want[0])
		gain, err := NDCG(ranks, k)
		near(t, "NDCG", gain, err, want[1])
	}
}

func TestRankingRefuses(t *testing.T) {
	scores := []float32{1, 2}
	for what, err := range map[string]error{
		"target below": second(Rank(scores, -1, nil)),
		"target above": second(Rank(scores, 2, nil)),
		"seen above":   second(Rank(scores, 0, []int32{2})),
		"seen below":   second(Rank(scores, 0, []int32{-1})),
		"target seen":  second(Rank(scores, 1, []int32{0, 1})),
		"rank 0":       second(HitRate([]int{1, 0}, 1)),
		"k 0":          second(NDCG([]int{1}, 0)),
	} {
		if err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	if _, err := Rank(nil, 0, nil); !errors.Is(err, ErrNoExamples) {
		t.Errorf("no items: %v", err)
	}
	if _, err := Rank([]float32{1, nan32}, 0, nil); !errors.Is(err, ErrNotFinite) {
		t.Errorf("NaN: %v", err)
	}
	if _, err := HitRate(nil, 1); !errors.Is(err, ErrNoExamples) {
		t.Errorf("no ranks: %v", err)
	}
}
