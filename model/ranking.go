package model

import (
	"fmt"
	"math"
	"slices"
)

// Rank is the place of the target among all items by descending score, 1 for the best: a full ranking, against every
// item and not a sample of them, which would flatter (Krichene and Rendle 2020). Items in seen, such as those a user has
// already, are left out of the ranking; they may repeat. An item with the target's score is ahead of it, so that a model
// which scores all the same ranks nothing high. Errors: no items at all (ErrNoExamples), a score that is not finite
// (ErrNotFinite), a target or seen item that is no index of scores, a target that was seen.
func Rank(scores []float32, target int, seen []int32) (int, error) {
	if err := checkRank(scores, target, seen); err != nil {
		return 0, fmt.Errorf("rank: %w", err)
	}
	rank := 0
	for _, z := range scores {
		if z >= scores[target] { // the target itself is its own last rival
			rank++
		}
	}
	for i, item := range seen {
		if scores[item] >= scores[target] && !slices.Contains(seen[:i], item) {
			rank--
		}
	}
	return rank, nil
}

func checkRank(scores []float32, target int, seen []int32) error {
	if len(scores) == 0 {
		return ErrNoExamples
	}
	if i := notFinite(scores); i >= 0 {
		return fmt.Errorf("score of item %d is %v: %w", i, scores[i], ErrNotFinite)
	}
	if target < 0 || target >= len(scores) {
		return fmt.Errorf("target %d, want 0 to %d", target, len(scores)-1)
	}
	for _, item := range seen {
		switch {
		case item < 0 || int(item) >= len(scores):
			return fmt.Errorf("seen item %d, want 0 to %d", item, len(scores)-1)
		case int(item) == target:
			return fmt.Errorf("the target %d was seen, so it is not in the ranking", target)
		}
	}
	return nil
}

// HitRate is HR@k, 0 to 1: the share of ranks, as Rank gives them, that are at most k. With one target an example it is
// recall at k, too.
func HitRate(ranks []int, k int) (float64, error) {
	return overRanks("hit rate", ranks, k, func(int) float64 { return 1 })
}

// NDCG is NDCG@k, 0 to 1, for one target an example: the mean of 1/log2(1+rank), 0 for ranks beyond k. The best order
// has the target first, which counts 1, so no further division is needed.
func NDCG(ranks []int, k int) (float64, error) {
	return overRanks("NDCG", ranks, k, func(rank int) float64 { return 1 / math.Log2(1+float64(rank)) })
}

// overRanks is the mean of the gains of the ranks up to k.
func overRanks(metric string, ranks []int, k int, gain func(rank int) float64) (float64, error) {
	if len(ranks) == 0 {
		return 0, fmt.Errorf("%s: %w", metric, ErrNoExamples)
	}
	if k < 1 {
		return 0, fmt.Errorf("%s: k is %d, want at least 1", metric, k)
	}
	sum := 0.0
	for i, rank := range ranks {
		if rank < 1 {
			return 0, fmt.Errorf("%s: example %d: rank %d, want at least 1", metric, i, rank)
		}
		if rank <= k {
			sum += gain(rank)
		}
	}
	return sum / float64(len(ranks)), nil
}
