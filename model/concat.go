package model

import (
	"fmt"
	"slices"

	"choir.example/model/kernel"
)

// concat puts its inputs side by side along the last axis; the axes before it must be the same.
type concat struct {
	bare
	shape     []int
	positions int
	widths    []int // of each input's last axis
}

func newConcat(_ LayerSpec, in [][]int) (layer, error) {
	last := len(in[0]) - 1
	c := concat{shape: slices.Clone(in[0]), positions: values(in[0][:last])}
	c.shape[last] = 0
	for _, shape := range in {
		if len(shape) != last+1 || !slices.Equal(shape[:last], in[0][:last]) {
			return nil, fmt.Errorf("it puts %v beside %v: only the last axis may differ", shape, in[0])
		}
		c.widths = append(c.widths, shape[last])
		c.shape[last] += shape[last]
	}
	return c, nil
}

func (c concat) output() []int { return c.shape }
func (c concat) flops() int64  { return 0 }

func (c concat) forward(p *pass) {
	at := p.out
	for i := range p.n * c.positions {
		for k, width := range c.widths {
			copy(at[:width], p.in[k][i*width:])
			at = at[width:]
		}
	}
}

func (c concat) backward(p *pass) {
	at := p.dout
	for i := range p.n * c.positions {
		for k, width := range c.widths {
			if p.din[k] != nil {
				kernel.Axpby(p.din[k][i*width:][:width], 1, at[:width], p.beta(k))
			}
			at = at[width:]
		}
	}
}
