package model

import (
	"fmt"
	"slices"

	"choir.example/model/kernel"
)

// add is the sum of its inputs: a residual connection (He et al. 2016, §3.2).
type add struct {
	bare
	shape  []int
	inputs int
}

func newAdd(_ LayerSpec, in [][]int) (layer, error) {
	for _, shape := range in[1:] {
		if !slices.Equal(shape, in[0]) {
			return nil, fmt.Errorf("it adds %v to %v: the shapes must be the same", shape, in[0])
		}
	}
	return add{shape: in[0], inputs: len(in)}, nil
}

func (a add) output() []int { return a.shape }
func (a add) flops() int64  { return int64(values(a.shape)) * int64(a.inputs-1) }

func (a add) forward(p *pass) {
	size := p.n * values(a.shape)
	kernel.Add(p.out[:size], p.in[0][:size], p.in[1][:size])
	for _, in := range p.in[2:] {
		kernel.Add(p.out[:size], p.out[:size], in[:size])
	}
}

func (a add) backward(p *pass) {
	for i := range p.din {
		p.give(i, p.dout[:p.n*values(a.shape)])
	}
}

// give is the gradient of input i, all of it.
func (p *pass) give(i int, gradient []float32) {
	switch din := p.din[i]; {
	case din == nil:
	case p.add[i]:
		kernel.Add(din[:len(gradient)], din[:len(gradient)], gradient)
	default:
		copy(din, gradient)
	}
}
