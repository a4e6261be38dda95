package model

import (
	"fmt"
	"math/rand/v2"

	"choir.example/model/kernel"
)

// factorisation scores items for a user (Koren, Bell and Volinsky 2009, eq. 4): μ + b_u + b_i + p_u·q_i. It reads one
// vector of a user and one or more of items, all of one length; their last values are b_u and b_i.
type factorisation struct{ items, dim int }

func newFactorisation(_ LayerSpec, in [][]int) (layer, error) {
	user, item := in[0], in[1]
	f := factorisation{dim: user[len(user)-1]}
	f.items = values(item) / f.dim
	if f.dim < 2 || values(user) != f.dim || item[len(item)-1] != f.dim {
		return nil, fmt.Errorf("it reads shapes %v and %v, want one vector and one or more of the same length, 2 at least", user, item)
	}
	return f, nil
}

func (f factorisation) output() []int                       { return []int{f.items} }
func (f factorisation) size() int                           { return 1 }
func (f factorisation) scratch(int) int                     { return 0 }
func (f factorisation) work(int) int                        { return 0 }
func (f factorisation) flops() int64                        { return 2 * int64(f.items) * int64(f.dim) }
func (f factorisation) tensors() []Tensor                   { return []Tensor{{Name: "bias", Shape: []int{1}}} }
func (f factorisation) init(params []float32, _ *rand.Rand) { clear(params) }

func (f factorisation) forward(p *pass) {
	last := f.dim - 1
	for e := range p.n {
		user, items := f.vectors(p.in, e)
		for i := range f.items {
			item := items[i*f.dim:][:f.dim]
			p.out[e*f.items+i] = p.params[0] + user[last] + item[last] + kernel.Dot(user[:last], item[:last])
		}
	}
}

// vectors are those of example e.
func (f factorisation) vectors(of [][]float32, e int) (user, items []float32) {
	n := f.items * f.dim
	return of[0][e*f.dim:][:f.dim], of[1][e*n:][:n]
}

func (f factorisation) backward(p *pass) {
	dout := p.dout[:p.n*f.items]
	for i, d := range p.din {
		if d != nil && !p.add[i] {
			clear(d)
		}
	}
	for e := range p.n {
		user, items := f.vectors(p.in, e)
		for i := range f.items {
			f.back(p, e, i, dout[e*f.items+i], user, items[i*f.dim:][:f.dim])
		}
	}
	p.bias(0, 1, dout, len(dout))
}

// back adds the gradients that one score gives.
func (f factorisation) back(p *pass, e, i int, d float32, user, item []float32) {
	last := f.dim - 1
	if p.din[0] != nil {
		du := p.din[0][e*f.dim:][:f.dim]
		kernel.Axpy(du[:last], d, item[:last])
		du[last] += d
	}
	if p.din[1] != nil {
		di := p.din[1][(e*f.items+i)*f.dim:][:f.dim]
		kernel.Axpy(di[:last], d, user[:last])
		di[last] += d
	}
}
