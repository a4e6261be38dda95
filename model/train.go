package model

import (
	"fmt"
	"math"
	"math/rand/v2"

	"choir.example/model/kernel"
)

// TrainConfig says how long and how fast to train.
type TrainConfig struct {
	Epochs int     // passes over the examples; 0 leaves the parameters alone
	Rate   float64 // learning rate of plain SGD
	Seed   uint64  // of the order of examples
}

// Trainer runs minibatch SGD on a multilayer perceptron with sigmoid cross entropy. It owns its buffers and allocates
// nothing per step. It is not for concurrent use: one Trainer a goroutine.
type Trainer struct {
	spec        Spec
	batch       int
	activations [][]float32 // input and output of each layer: batch × width
	gradients   [][]float32 // with respect to each layer's output
	labels      []float32
	order       []int32
}

// NewTrainer makes a trainer for batches of the given size.
func NewTrainer(spec Spec, batch int) (*Trainer, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if batch < 1 || batch > 1<<16 {
		return nil, fmt.Errorf("trainer: batch of %d, want 1 to 2^16", batch)
	}
	t := &Trainer{spec: spec, batch: batch, labels: make([]float32, batch)}
	t.activations = append(t.activations, make([]float32, batch*spec.Inputs))
	for _, l := range spec.layers(nil) {
		t.activations = append(t.activations, make([]float32, batch*l.outputs))
		t.gradients = append(t.gradients, make([]float32, batch*l.outputs))
	}
	return t, nil
}

// Train changes params in place. x holds len(y) rows of Inputs features; y holds targets in [0, 1], soft ones for
// distillation. The last, smaller batch of an epoch is used too. It returns the number of steps, and an error if the
// parameters are no longer finite.
func (t *Trainer) Train(params, x, y []float32, cfg TrainConfig) (steps int, err error) {
	if len(params) != t.spec.Size() || len(x) != len(y)*t.spec.Inputs {
		return 0, fmt.Errorf("train: %d parameters and %d features for %d examples do not fit the model", len(params), len(x), len(y))
	}
	if !(cfg.Rate >= 0) || math.IsInf(cfg.Rate, 0) {
		return 0, fmt.Errorf("train: learning rate %v, want a finite one of at least 0", cfg.Rate)
	}
	if cap(t.order) < len(y) {
		t.order = make([]int32, len(y))
	}
	order := t.order[:len(y)]
	for i := range order {
		order[i] = int32(i)
	}
	layers := t.spec.layers(params)
	rng := rand.New(rand.NewPCG(cfg.Seed, 0x747261696e))
	for range cfg.Epochs {
		rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for at := 0; at < len(order); at += t.batch {
			n := t.load(x, y, order[at:min(at+t.batch, len(order))])
			t.step(layers, n, float32(cfg.Rate))
			steps++
		}
	}
	for i, p := range params {
		if d := p - p; d != 0 { // NaN or infinite
			return steps, fmt.Errorf("train: parameter %d is %v after %d steps; lower the learning rate", i, p, steps)
		}
	}
	return steps, nil
}

// load gathers one batch.
func (t *Trainer) load(x, y []float32, rows []int32) int {
	w := t.spec.Inputs
	for i, r := range rows {
		copy(t.activations[0][i*w:(i+1)*w], x[int(r)*w:(int(r)+1)*w])
		t.labels[i] = y[r]
	}
	return len(rows)
}

// step is one SGD step on the n examples loaded: forward, the gradient of the mean cross entropy, backward.
func (t *Trainer) step(layers []layer, n int, rate float32) {
	last := len(layers) - 1
	for i, l := range layers {
		out := t.activations[i+1][:n*l.outputs]
		kernel.MulNT(out, t.activations[i][:n*l.inputs], l.weights, n, l.outputs, l.inputs)
		if i < last {
			kernel.AddBiasReLU(out, l.bias, n, l.outputs)
		} else {
			kernel.AddBias(out, l.bias, n, l.outputs)
		}
	}
	logits, top := t.activations[last+1][:n], t.gradients[last][:n]
	for i, z := range logits {
		top[i] = (sigmoid(z) - t.labels[i]) / float32(n)
	}
	for i := last; i >= 0; i-- {
		l, grad := layers[i], t.gradients[i][:n*layers[i].outputs]
		if i > 0 {
			below := t.gradients[i-1][:n*l.inputs]
			kernel.MulNN(below, grad, l.weights, n, l.inputs, l.outputs)
			kernel.MaskReLU(below, t.activations[i][:n*l.inputs])
		}
		kernel.AddMulTN(l.weights, grad, t.activations[i][:n*l.inputs], l.outputs, l.inputs, n, -rate)
		kernel.AddColumnSums(l.bias, grad, n, l.outputs, -rate)
	}
}

func sigmoid(z float32) float32 { return float32(1 / (1 + math.Exp(-float64(z)))) }
