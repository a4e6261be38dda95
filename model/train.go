package model

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"choir.example/model/kernel"
)

// TrainConfig says how long and how fast to train.
type TrainConfig struct {
	Epochs int     // passes over the examples; 0 leaves the parameters alone
	Rate   float64 // learning rate of plain SGD, at least 0 and finite
	Seed   uint64  // of the order of examples
	Pause  func()  // called before each step, in the goroutine that trains: it may block to leave the processor to others
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
	if err := spec.CheckBatch(batch); err != nil {
		return nil, fmt.Errorf("trainer: %w", err)
	}
	t := &Trainer{spec: spec, batch: batch, labels: make([]float32, batch)}
	t.activations = append(t.activations, make([]float32, batch*spec.Inputs))
	for _, l := range spec.layers(nil) {
		t.activations = append(t.activations, make([]float32, batch*l.outputs))
		t.gradients = append(t.gradients, make([]float32, batch*l.outputs))
	}
	return t, nil
}

// maxActivations bounds what a batch holds of one layer: 256 MiB.
const maxActivations = 1 << 26

// CheckBatch refuses a batch for which a Trainer of the valid shape would allocate without end, or more than an int of
// 32 bits counts.
func (s Spec) CheckBatch(rows int) error {
	if rows < 1 || rows > 1<<16 {
		return fmt.Errorf("batch of %d, want 1 to 2^16", rows)
	}
	if widest := max(s.Inputs, slices.Max(s.Hidden)); int64(rows)*int64(widest) > maxActivations {
		return fmt.Errorf("batch of %d rows of up to %d values, at most 2^26 values", rows, widest)
	}
	return nil
}

// Train changes params in place. x holds len(y) rows of Inputs features; y holds targets in [0, 1], soft ones for
// distillation. The last, smaller batch of an epoch is used too. It returns the number of steps. What it refuses leaves
// params as they were; if they are no longer finite after training, that is an error too. When ctx ends it stops before
// the next step, with ctx's error.
func (t *Trainer) Train(ctx context.Context, params, x, y []float32, cfg TrainConfig) (steps int, err error) {
	if err := t.check(params, x, y, cfg); err != nil {
		return 0, fmt.Errorf("train: %w", err)
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
			if err := ctx.Err(); err != nil {
				return steps, fmt.Errorf("train: stopped after %d steps: %w", steps, err)
			}
			if cfg.Pause != nil {
				cfg.Pause()
			}
			n := t.load(x, y, order[at:min(at+t.batch, len(order))])
			t.step(layers, n, float32(cfg.Rate))
			steps++
		}
	}
	if i := notFinite(params); i >= 0 {
		return steps, fmt.Errorf("train: parameter %d is %v after %d steps; lower the learning rate", i, params[i], steps)
	}
	return steps, nil
}

// check refuses what would train to nonsense.
func (t *Trainer) check(params, x, y []float32, cfg TrainConfig) error {
	if len(params) != t.spec.Size() || len(x) != len(y)*t.spec.Inputs {
		return fmt.Errorf("%d parameters and %d features for %d examples do not fit the model", len(params), len(x), len(y))
	}
	if !(cfg.Rate >= 0) || math.IsInf(cfg.Rate, 0) {
		return fmt.Errorf("learning rate %v, want a finite one of at least 0", cfg.Rate)
	}
	if cfg.Epochs < 0 {
		return fmt.Errorf("%d epochs, want at least 0", cfg.Epochs)
	}
	if i := notFinite(params); i >= 0 {
		return fmt.Errorf("parameter %d is %v before the first step", i, params[i])
	}
	if i := notFinite(x); i >= 0 {
		return fmt.Errorf("example %d: feature %d is %v", i/t.spec.Inputs, i%t.spec.Inputs, x[i])
	}
	for i, v := range y {
		if !(v >= 0 && v <= 1) {
			return fmt.Errorf("example %d: target %v, want 0 to 1", i, v)
		}
	}
	return nil
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
