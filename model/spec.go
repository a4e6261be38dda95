// Package model is what a model is, as numbers: its shape, its parameters in one flat slice, how it is trained, how it
// predicts, how well it does, and its file format. Here that is a multilayer perceptron with ReLU layers and one
// sigmoid output: a binary classifier over the features of a schema.
//
//	spec := model.Spec{Inputs: schema.Features(), Hidden: []int{32}}
//	params := spec.Init(seed)
//	t, err := model.NewTrainer(spec, 32)
//	steps, err := t.Train(ctx, params, x, y, model.TrainConfig{Epochs: 2, Rate: 0.1, Seed: seed})
//	e := model.Evaluate(model.NewFloat(spec, params), x, y)
//
// Parameters are one flat []float32, so that averaging, clipping, encoding and hashing see a vector; layers see views
// of it. Training may differ in the last bits between processors; nothing depends on that.
package model

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Spec is the shape of a multilayer perceptron: Inputs features, ReLU layers of the widths Hidden, one output whose
// value is the logit of the positive class.
type Spec struct {
	Inputs int   `json:"inputs"` // features, in [1, 2^17]
	Hidden []int `json:"hidden"` // width of each hidden layer, input side first: 1 to 8 of them, each in [1, 2^14]
}

// Validate names the dimension that is out of range.
func (s Spec) Validate() error {
	if s.Inputs < 1 || s.Inputs > maxInputs {
		return fmt.Errorf("model: %d inputs, want 1 to 2^17", s.Inputs)
	}
	if len(s.Hidden) < 1 || len(s.Hidden) > 8 {
		return fmt.Errorf("model: %d hidden layers, want 1 to 8", len(s.Hidden))
	}
	for i, h := range s.Hidden {
		if h < 1 || h > 1<<14 {
			return fmt.Errorf("model: hidden layer %d of width %d, want 1 to 2^14", i+1, h)
		}
	}
	if n := s.parameters(); n > 1<<28 {
		return fmt.Errorf("model: %d parameters, at most 2^28", n)
	}
	return nil
}

// maxInputs is the widest layer: a dot product of so many int8 values, at most 128·127 each, stays below 2^31.
const maxInputs = 1 << 17

// Size is the number of parameters of a valid Spec.
func (s Spec) Size() int { return int(s.parameters()) }

// parameters counts in 64 bits, so that a Spec out of range does not wrap to one in range where int has 32.
func (s Spec) parameters() int64 {
	var n int64
	for _, l := range s.layers(nil) {
		n += int64(l.outputs) * (int64(l.inputs) + 1)
	}
	return n
}

// layer is a view of one dense layer: weights of outputs × inputs, row-major, and a bias an output.
type layer struct {
	inputs, outputs int
	weights, bias   []float32
}

// layers lays the views over params, which has Size parameters: for each layer its weights, then its bias. With nil
// params it gives the dimensions only.
func (s Spec) layers(params []float32) []layer {
	var out []layer
	in, at := s.Inputs, 0
	for i := 0; i <= len(s.Hidden); i++ {
		l := layer{inputs: in, outputs: 1}
		if i < len(s.Hidden) {
			l.outputs = s.Hidden[i]
		}
		if params != nil {
			w := at + l.outputs*l.inputs
			l.weights, l.bias = params[at:w:w], params[w:w+l.outputs:w+l.outputs]
			at = w + l.outputs
		}
		out = append(out, l)
		in = l.outputs
	}
	return out
}

// Init draws parameters from the seed: weights uniform in ±sqrt(6/(inputs+outputs)) (Glorot and Bengio 2010, §4.2),
// biases zero. It uses only operations that give the same bits on every processor.
func (s Spec) Init(seed uint64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 0x696e6974))
	params := make([]float32, s.Size())
	for _, l := range s.layers(params) {
		bound := math.Sqrt(6 / float64(l.inputs+l.outputs))
		for i := range l.weights {
			u := float64(rng.Float64()*2) - 1
			l.weights[i] = float32(u * bound)
		}
	}
	return params
}
