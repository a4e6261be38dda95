package model

import (
	"fmt"
	"math"
)

// ranking is what losses share whose first output scores what was chosen, and whose others score what was drawn at
// random, at every position. There are no targets.
type ranking struct{ positions, scores int }

func newRanking(shape []int) (ranking, error) {
	last := len(shape) - 1
	if shape[last] < 2 {
		return ranking{}, fmt.Errorf("%d output, want the score of what was chosen and one or more of what was not", shape[last])
	}
	return ranking{values(shape[:last]), shape[last]}, nil
}

func (ranking) targets() int         { return 0 }
func (ranking) accepts(float32) bool { return false }
func (ranking) wants() string        { return "none" }

// bpr is Bayesian personalised ranking (Rendle et al. 2009, §4.2): -log σ(chosen - other), here the mean over several
// others. Their regularisation is the optimiser's weight decay.
type bpr struct{ ranking }

func newBPR(shape []int) (loss, error) {
	r, err := newRanking(shape)
	return bpr{r}, err
}

func (l bpr) gradient(n int, out, _, dout []float32) float64 {
	pairs := n * l.positions * (l.scores - 1)
	sum, scale := 0.0, 1/float32(pairs)
	for at := 0; at < len(out); at += l.scores {
		z, d := out[at:at+l.scores], dout[at:at+l.scores]
		d[0] = 0
		for i := 1; i < len(z); i++ {
			wrong, cost := logisticLoss(float64(z[i]) - float64(z[0]))
			sum += cost
			d[i] = float32(wrong) * scale
			d[0] -= d[i]
		}
	}
	return sum / float64(pairs)
}

// logisticLoss is log(1+e^z) and its derivative, the probability, without overflow: e = e^-|z| is at most 1.
func logisticLoss(z float64) (p, cost float64) {
	e := math.Exp(-math.Abs(z))
	p = 1 / (1 + e)
	if z < 0 {
		p = e / (1 + e)
	}
	return p, max(z, 0) + math.Log1p(e)
}
