package model

import (
	"fmt"

	"choir.example/model/kernel"
)

// activation applies a function to each value.
type activation struct {
	bare
	shape []int
	act   kernel.Activation
}

func newActivation(l LayerSpec, in [][]int) (layer, error) {
	act, ok := activations[l.Activation]
	if !ok || act == kernel.Identity {
		return nil, errActivation(l.Activation)
	}
	return activation{shape: in[0], act: act}, nil
}

func errActivation(name string) error {
	return fmt.Errorf("activation %.40q, want relu, sigmoid or tanh", name)
}

func (a activation) output() []int { return a.shape }
func (a activation) flops() int64  { return int64(values(a.shape)) }

func (a activation) forward(p *pass) {
	size := p.n * values(a.shape)
	kernel.Activate(p.out[:size], p.in[0][:size], a.act)
}

func (a activation) backward(p *pass) {
	size := p.n * values(a.shape)
	kernel.ActivationGrad(p.dout[:size], p.out[:size], a.act)
	p.give(0, p.dout[:size])
}
