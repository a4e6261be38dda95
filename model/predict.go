package model

import (
	"math"

	"choir.example/model/kernel"
)

// Predictor computes logits. It owns scratch memory: one goroutine at a time.
type Predictor interface {
	// Predict writes the logit of each row of x, which holds len(logits) rows of the model's inputs, to logits. It keeps
	// neither and does not write to x.
	Predict(x, logits []float32)
}

// Probability is the probability of the positive class for a logit.
func Probability(logit float32) float64 { return 1 / (1 + math.Exp(-float64(logit))) }

// predictBatch is how many rows a Predictor works on at once.
const predictBatch = 64

// floatPredictor computes in float32.
type floatPredictor struct {
	inputs  int
	layers  []layer
	scratch [][]float32
}

// NewFloat returns a predictor over params, which it keeps and reads only.
func NewFloat(spec Spec, params []float32) Predictor {
	p := &floatPredictor{inputs: spec.Inputs, layers: spec.layers(params)}
	for _, l := range p.layers {
		p.scratch = append(p.scratch, make([]float32, predictBatch*l.outputs))
	}
	return p
}

func (p *floatPredictor) Predict(x, logits []float32) {
	for len(logits) > 0 {
		n := min(len(logits), predictBatch)
		in := x[:n*p.inputs]
		for i, l := range p.layers {
			out := p.scratch[i][:n*l.outputs]
			kernel.MulNT(out, in, l.weights, n, l.outputs, l.inputs)
			if i < len(p.layers)-1 {
				kernel.AddBiasReLU(out, l.bias, n, l.outputs)
			} else {
				kernel.AddBias(out, l.bias, n, l.outputs)
			}
			in = out
		}
		copy(logits, in)
		x, logits = x[n*p.inputs:], logits[n:]
	}
}

// Int8Layer is a dense layer with int8 weights, symmetric, one scale an output channel: w ≈ Scales[o]·Weights[o][i].
type Int8Layer struct {
	Inputs, Outputs int       // widths; Inputs is at most 2^17, so that a dot product fits an int32
	Weights         []int8    // Outputs × Inputs, row-major
	Scales          []float32 // of length Outputs, finite: what a step of a weight means
	Bias            []float32 // of length Outputs, not quantised
}

// int8Predictor quantises each layer's input row by row and multiplies in integers.
type int8Predictor struct {
	inputs int
	layers []Int8Layer
	q      []int8    // a layer's input
	out    []float32 // its output
}

// NewInt8 returns a predictor over quantised layers, which it keeps and reads only.
func NewInt8(layers []Int8Layer) Predictor {
	widest := 0
	for _, l := range layers {
		widest = max(widest, l.Inputs, l.Outputs)
	}
	return &int8Predictor{
		inputs: layers[0].Inputs, layers: layers,
		q: make([]int8, widest), out: make([]float32, widest),
	}
}

func (p *int8Predictor) Predict(x, logits []float32) {
	for i := range logits {
		in := x[i*p.inputs : (i+1)*p.inputs]
		for k := range p.layers {
			l := &p.layers[k]
			q, out := p.q[:l.Inputs], p.out[:l.Outputs]
			scale := kernel.QuantiseRow(q, in) // the input is not needed after this
			for o := range out {
				dot := kernel.DotInt8(q, l.Weights[o*l.Inputs:(o+1)*l.Inputs])
				v := float32(dot)*scale*l.Scales[o] + l.Bias[o]
				if k < len(p.layers)-1 {
					v = max(v, 0)
				}
				out[o] = v
			}
			in = out
		}
		logits[i] = in[0]
	}
}
