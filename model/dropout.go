package model

import (
	"fmt"

	"choir.example/model/kernel"
)

// dropout sets a share of its values to zero while training, and scales the others up so that the mean stays
// (Srivastava et al. 2014, §10). It is the identity when predicting.
type dropout struct {
	bare
	shape []int
	rate  float64
}

func newDropout(l LayerSpec, in [][]int) (layer, error) {
	if !(l.Rate > 0 && l.Rate < 1) {
		return nil, fmt.Errorf("rate %v, want one between 0 and 1", l.Rate)
	}
	return dropout{shape: in[0], rate: l.Rate}, nil
}

func (d dropout) output() []int         { return d.shape }
func (d dropout) flops() int64          { return int64(values(d.shape)) }
func (d dropout) scratch(batch int) int { return batch * values(d.shape) }

func (d dropout) forward(p *pass) {
	size := p.n * values(d.shape)
	if !p.train {
		copy(p.out[:size], p.in[0])
		return
	}
	mask, kept := p.scratch[:size], float32(1/(1-d.rate))
	for i := range mask {
		mask[i] = 0
		if p.rng.Float64() >= d.rate {
			mask[i] = kept
		}
	}
	kernel.Multiply(p.out[:size], p.in[0][:size], mask)
}

func (d dropout) backward(p *pass) {
	size := p.n * values(d.shape)
	kernel.Multiply(p.dout[:size], p.dout[:size], p.scratch[:size])
	p.give(0, p.dout[:size])
}
