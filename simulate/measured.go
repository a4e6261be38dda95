package simulate

import (
	"math"

	"choir.example/model"

	"golang.org/x/sync/errgroup"
)

// chunk is how many test examples are measured at a time: sums over chunks, in order, do not depend on how many cores
// there are.
const chunk = 500

// measure tests a model on the test set, on all cores.
func (t *trial) measure(params []float32) Measured {
	set, network := &t.data.Test, t.algorithm.Network
	p := model.NewPredictor(network, params)
	n, classes := set.Len(), network.Outputs()/max(set.Targets, 1)
	parts := make([]Measured, (n+chunk-1)/chunk)
	var g errgroup.Group
	g.SetLimit(t.cfg.Workers)
	for i := range parts {
		g.Go(func() error {
			from, to := i*chunk, min(n, (i+1)*chunk)
			parts[i] = measureChunk(p, classes, network.Outputs(), set.X[from*set.Values():to*set.Values()], set.Y[from*set.Targets:to*set.Targets])
			return nil
		})
	}
	_ = g.Wait() // no part fails
	var sum Measured
	for _, m := range parts {
		sum.Accuracy += m.Accuracy
		sum.Loss += m.Loss
	}
	targets := float64(len(set.Y))
	return Measured{Accuracy: sum.Accuracy / targets, Loss: sum.Loss / targets}
}

// measureChunk sums over some examples: how many were right, and their cross entropies in nat.
func measureChunk(p *model.Predictor, classes, outputs int, x, y []float32) (m Measured) {
	out := make([]float32, len(y)*classes)
	p.Predict(x, out)
	for i, target := range y {
		row := out[i*classes : (i+1)*classes]
		right, loss := judge(row, target)
		if right {
			m.Accuracy++
		}
		m.Loss += loss
	}
	return m
}

// judge says whether the largest logit is the target's, and its cross entropy.
func judge(row []float32, target float32) (right bool, loss float64) {
	if len(row) == 1 {
		z := float64(row[0])
		if target > 0.5 {
			return z > 0, softplus(-z)
		}
		return z <= 0, softplus(z)
	}
	best, top := 0, math.Inf(-1)
	for c, z := range row {
		if float64(z) > top {
			best, top = c, float64(z)
		}
	}
	sum := 0.0
	for _, z := range row {
		sum += math.Exp(float64(z) - top)
	}
	return best == int(target), math.Log(sum) + top - float64(row[int(target)])
}

// softplus is log(1+e^z).
func softplus(z float64) float64 { return max(z, 0) + math.Log1p(math.Exp(-math.Abs(z))) }
