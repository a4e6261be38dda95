package model

import (
	"math/rand/v2"
	"slices"

	"choir.example/model/kernel"
)

// dense is out = act(in·W + b) over the last axis of its input, with W of inputs × outputs. Its positions, the axes
// before the last, are so many more rows.
type dense struct {
	shape           []int // of one example's output
	positions       int
	inputs, outputs int
	act             kernel.Activation
}

func newDense(l LayerSpec, in [][]int) (layer, error) {
	if err := between("units", l.Units, 1, maxWidth); err != nil {
		return nil, err
	}
	act, ok := activations[l.Activation]
	if !ok {
		return nil, errActivation(l.Activation)
	}
	last := len(in[0]) - 1
	d := &dense{shape: slices.Clone(in[0]), inputs: in[0][last], outputs: l.Units, act: act}
	d.positions, d.shape[last] = values(in[0][:last]), l.Units
	return d, nil
}

func (d *dense) output() []int   { return d.shape }
func (d *dense) weights() int    { return d.inputs * d.outputs }
func (d *dense) size() int       { return d.weights() + d.outputs }
func (d *dense) scratch(int) int { return 0 }
func (d *dense) flops() int64    { return 2 * int64(d.positions) * int64(d.weights()) }

func (d *dense) tensors() []Tensor {
	return []Tensor{
		{Name: "weight", Shape: []int{d.inputs, d.outputs}, Weight: true},
		{Name: "bias", Shape: []int{d.outputs}, Offset: d.weights()},
	}
}

func (d *dense) init(params []float32, rng *rand.Rand) {
	glorot(params[:d.weights()], d.inputs, d.outputs, d.outputs, rng)
	clear(params[d.weights():])
}

func (d *dense) work(int) int { return kernel.NTScratch }

// matrix is a matrix without gaps.
func matrix(data []float32, columns int) kernel.Matrix {
	return kernel.Matrix{Data: data, Stride: columns}
}

func (d *dense) forward(p *pass) {
	w, bias := p.params[:d.weights()], p.params[d.weights():]
	kernel.NN(matrix(p.out, d.outputs), matrix(p.in[0], d.inputs), matrix(w, d.outputs), p.n*d.positions, d.outputs, d.inputs,
		kernel.Epilogue{Bias: bias, Activation: d.act})
}

func (d *dense) backward(p *pass) {
	rows, w := p.n*d.positions, d.weights()
	dout := matrix(p.dout, d.outputs)
	kernel.ActivationGrad(p.dout[:rows*d.outputs], p.out[:rows*d.outputs], d.act)
	if p.din[0] != nil { // from the weights as they were before the step
		kernel.NT(matrix(p.din[0], d.inputs), dout, matrix(p.params[:w], d.outputs), rows, d.inputs, d.outputs, p.beta(0), p.work)
	}
	dst, alpha, beta := p.target(0, w)
	kernel.TN(matrix(dst, d.outputs), matrix(p.in[0], d.inputs), dout, d.inputs, d.outputs, rows, alpha, beta)
	p.bias(w, d.outputs, p.dout, rows)
}
