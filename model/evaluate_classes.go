package model

import "math"

// EvaluateClasses is Evaluate for a model of several classes, one logit each: y holds the class of each row. It has no
// histograms. The first of the largest logits is the answer; a logit that is not a number makes the row count as
// infinitely wrong.
func EvaluateClasses(p scorer, classes int, x, y []float32) Evaluation {
	if len(y) == 0 {
		return Evaluation{}
	}
	logits := make([]float32, len(y)*classes)
	p.Predict(x, logits)
	var e Evaluation
	for i, class := range y {
		e.countClass(logits[i*classes:(i+1)*classes], int(class))
	}
	return e
}

func (e *Evaluation) countClass(z []float32, class int) {
	e.Examples++
	best, top, nan := 0, math.Inf(-1), false
	for c, v := range z {
		nan = nan || math.IsNaN(float64(v))
		if float64(v) > top {
			best, top = c, float64(v)
		}
	}
	if nan || math.IsInf(top, 0) {
		e.Loss += maxLoss * lossUnit
		return
	}
	if best == class {
		e.Correct++
	}
	sum := 0.0
	for _, v := range z {
		sum += math.Exp(float64(v) - top)
	}
	loss := math.Log(sum) + top - float64(z[class])
	e.Loss += int64(math.RoundToEven(min(loss, maxLoss) * lossUnit))
}
