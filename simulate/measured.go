package simulate

import (
	"math"
	"slices"

	"choir.example/model"
	"choir.example/simulate/attack"

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
	m := Measured{Accuracy: sum.Accuracy / targets, Loss: sum.Loss / targets}
	if a, ok := t.attack.(attack.Triggered); ok {
		success := t.taken(p, a, classes)
		m.Backdoor = &success
	}
	return m
}

// taken is the share of the test examples of other classes that the model takes for the attack's class when they bear its
// mark.
func (t *trial) taken(p *model.Predictor, a attack.Triggered, classes int) float64 {
	set, target := &t.data.Test, a.Target()
	n := set.Len()
	parts := make([][2]int, (n+chunk-1)/chunk) // taken, of how many
	var g errgroup.Group
	g.SetLimit(t.cfg.Workers)
	for i := range parts {
		g.Go(func() error {
			from, to := i*chunk, min(n, (i+1)*chunk)
			x, out := slices.Clone(set.X[from*set.Values():to*set.Values()]), make([]float32, (to-from)*classes)
			for e := range to - from {
				a.Mark(x[e*set.Values() : (e+1)*set.Values()])
			}
			p.Predict(x, out)
			for e, label := range set.Y[from:to] {
				if int(label) == target {
					continue
				}
				parts[i][1]++
				if right, _ := judge(out[e*classes:(e+1)*classes], float32(target)); right {
					parts[i][0]++
				}
			}
			return nil
		})
	}
	_ = g.Wait() // no part fails
	hit, all := 0, 0
	for _, part := range parts {
		hit, all = hit+part[0], all+part[1]
	}
	return float64(hit) / float64(max(all, 1))
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
