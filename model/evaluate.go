package model

import (
	"cmp"
	"math"
	"math/big"
	"slices"
)

// Bins is the number of bins of a score histogram.
const Bins = 1024

// lossUnit is the fixed point of a loss: 2^-20 nat.
const lossUnit = 1 << 20

// maxLoss is the most that one example counts, in nat.
const maxLoss = 64

// Evaluation is how well a model does on some examples, as integers that add up exactly over nodes. The histograms
// count the logits of positive and negative examples by Bin. They are nil when there are no examples. A logit that is
// not a number counts as infinitely wrong, so that a model which answers nonsense never looks better for it. Of several
// classes there are no histograms: nil, with examples too.
type Evaluation struct {
	Examples  int64   // at least 0; the histograms add up to it
	Correct   int64   // on the right side of probability one half
	Loss      int64   // sum of cross entropies in 2^-20 nat, each at most 64 nat
	Positives []int64 // Bins counts by Bin, lowest logits first, of the examples whose label is 1; or nil
	Negatives []int64 // the same of those whose label is 0
}

// Bin is the place of a logit in a score histogram: Bins equal bins of z/(1+|z|), which lies in (-1, 1). They are 1/512
// wide around 0, (1+|z|)²/512 elsewhere: half of them for |z| < 1, the outermost beyond ±511. Equal bins of z would be
// too wide for a model that has hardly learnt, whose logits lie within a tenth of each other, and empty for most others.
// One addition, one division: the bits agree on every processor, as those of a logistic function would not. z is not
// NaN.
func Bin(z float64) int {
	z = min(max(z, -math.MaxFloat32), math.MaxFloat32) // ∞/∞ is no number
	squashed := z / (1 + math.Abs(z))
	return int(min((squashed+1)*(Bins/2), Bins-1))
}

// scorer gives the logit of each row, as a Predictor of one output does.
type scorer interface {
	Predict(x, logits []float32)
}

// Evaluate runs the predictor over len(y) rows of features x with labels y, 0 or 1.
func Evaluate(p scorer, x, y []float32) Evaluation {
	if len(y) == 0 {
		return Evaluation{}
	}
	logits := make([]float32, len(y))
	p.Predict(x, logits)
	e := Evaluation{Positives: make([]int64, Bins), Negatives: make([]int64, Bins)}
	for i, z := range logits {
		e.count(float64(z), y[i] > 0.5)
	}
	return e
}

func (e *Evaluation) count(z float64, positive bool) {
	if math.IsNaN(z) {
		z = worst(positive)
	}
	e.Examples++
	if (z > 0) == positive {
		e.Correct++
	}
	margin, histogram := z, e.Negatives
	if positive {
		margin, histogram = -z, e.Positives
	}
	loss := max(margin, 0) + math.Log1p(math.Exp(-math.Abs(margin))) // log(1+e^margin), safely
	e.Loss += int64(math.RoundToEven(min(loss, maxLoss) * lossUnit))
	histogram[Bin(z)]++
}

// worst is the score that is furthest from right.
func worst(positive bool) float64 {
	if positive {
		return math.Inf(-1)
	}
	return math.Inf(1)
}

// Add adds another evaluation. Counts add up exactly, in any order.
func (e *Evaluation) Add(o Evaluation) {
	e.Examples += o.Examples
	e.Correct += o.Correct
	e.Loss += o.Loss
	if o.Positives == nil {
		return
	}
	if e.Positives == nil {
		e.Positives, e.Negatives = make([]int64, Bins), make([]int64, Bins)
	}
	for i := range o.Positives {
		e.Positives[i] += o.Positives[i]
		e.Negatives[i] += o.Negatives[i]
	}
}

// Accuracy is the share of correct examples, 0 without examples.
func (e Evaluation) Accuracy() float64 { return float64(e.Correct) / float64(max(e.Examples, 1)) }

// MeanLoss is the mean cross entropy in nat, 0 without examples.
func (e Evaluation) MeanLoss() float64 {
	return float64(e.Loss) / lossUnit / float64(max(e.Examples, 1))
}

// AUC is the area under the ROC curve from the histograms, pairs within a bin counting half; 0.5 where a class is
// absent.
func (e Evaluation) AUC() float64 {
	twice, pairs := e.ranks()
	if pairs.Sign() == 0 {
		return 0.5
	}
	f, _ := new(big.Rat).SetFrac(twice, pairs.Lsh(pairs, 1)).Float64()
	return f
}

// ranks returns twice the Mann-Whitney statistic and the number of pairs, exactly.
func (e Evaluation) ranks() (twice, pairs *big.Int) {
	twice, pairs = new(big.Int), new(big.Int)
	var below, positives int64
	for i, p := range e.Positives {
		n := e.Negatives[i]
		twice.Add(twice, new(big.Int).Mul(big.NewInt(p), big.NewInt(2*below+n)))
		below += n
		positives += p
	}
	return twice, pairs.Mul(big.NewInt(positives), big.NewInt(below))
}

// AUCMillionths is the area under the ROC curve in millionths, rounded down: exact integers, for replicated state.
func (e Evaluation) AUCMillionths() int64 {
	twice, pairs := e.ranks()
	if pairs.Sign() == 0 {
		return 500_000
	}
	twice.Mul(twice, big.NewInt(500_000))
	return twice.Div(twice, pairs).Int64()
}

// LossOfAUCWithin reports whether e's AUC is at most ppm millionths below that of ref, decided by exact integers. An
// evaluation that lacks a class is never within.
func LossOfAUCWithin(ref, e Evaluation, ppm int64) bool {
	a, m := ref.ranks() // AUC = a / 2m
	b, n := e.ranks()
	if m.Sign() == 0 || n.Sign() == 0 {
		return false
	}
	// a/2m - b/2n ≤ ppm/10^6  ⇔  10^6·(a·n - b·m) ≤ 2·ppm·m·n
	left := new(big.Int).Sub(new(big.Int).Mul(a, n), new(big.Int).Mul(b, m))
	left.Mul(left, big.NewInt(1_000_000))
	right := new(big.Int).Mul(m, n)
	right.Lsh(right.Mul(right, big.NewInt(ppm)), 1)
	return left.Cmp(right) <= 0
}

// ExactAUC is the area under the ROC curve of the scores themselves, tied pairs counting half. A score that is not a
// number is infinitely wrong, as in an Evaluation; 0.5 where a class is absent.
func ExactAUC(scores, y []float32) float64 {
	type scored struct {
		score    float64
		positive bool
	}
	order := make([]scored, len(scores))
	for i, z := range scores {
		order[i] = scored{float64(z), y[i] > 0.5}
		if math.IsNaN(order[i].score) {
			order[i].score = worst(order[i].positive)
		}
	}
	slices.SortFunc(order, func(a, b scored) int { return cmp.Compare(a.score, b.score) })
	var won, below, positives float64
	for i := 0; i < len(order); {
		var p, n float64
		tie := order[i].score
		for ; i < len(order) && order[i].score == tie; i++ {
			if order[i].positive {
				p++
			} else {
				n++
			}
		}
		won += p * (below + n/2)
		below += n
		positives += p
	}
	if positives == 0 || below == 0 {
		return 0.5
	}
	return won / (positives * below)
}
