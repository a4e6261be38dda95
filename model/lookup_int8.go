package model

import "choir.example/model/kernel"

// tableInt8 is rows of int8, each with its own scale: a row stands for Scales[row]·Weights[row].
type tableInt8 struct {
	rows   []int8
	scales []float32
	dim    int
}

// newTableInt8 joins a lookup's tables.
func newTableInt8(ts []Int8Tensor, dim int) tableInt8 {
	t := tableInt8{dim: dim}
	for _, own := range ts {
		t.rows, t.scales = append(t.rows, own.Weights...), append(t.scales, own.Scales...)
	}
	return t
}

// add is out += share·row.
func (t *tableInt8) add(out []float32, row int, share float32) {
	kernel.AxpyInt8(out, share*t.scales[row], t.rows[row*t.dim:][:t.dim])
}

// embeddingInt8 is embedding over rows of int8.
type embeddingInt8 struct {
	*embedding
	int8s tableInt8
}

func (e *embedding) int8(ts []Int8Tensor) int8Layer {
	return &embeddingInt8{e, newTableInt8(ts, e.dim)}
}

func (*embeddingInt8) integers(int) (bytes, words int) { return 0, 0 }

func (e *embeddingInt8) forward(p *pass) {
	in, out := e.examples(p), p.out
	for ; len(in) > 0; in = in[e.width:] {
		for j := range e.columns {
			clear(out[:e.int8s.dim])
			if r := e.row(in, j); r >= 0 {
				e.int8s.add(out[:e.int8s.dim], r, 1)
			}
			out = out[e.int8s.dim:]
		}
	}
}

// embeddingBagInt8 is embeddingBag over rows of int8.
type embeddingBagInt8 struct {
	*embeddingBag
	table tableInt8
}

func (b *embeddingBag) int8(ts []Int8Tensor) int8Layer {
	return &embeddingBagInt8{b, newTableInt8(ts, b.dim)}
}

func (*embeddingBagInt8) integers(int) (bytes, words int) { return 0, 0 }

func (b *embeddingBagInt8) forward(p *pass) {
	for i := range p.n * values(b.shape) / b.table.dim {
		bag, out := p.in[0][i*b.bag:][:b.bag], p.out[i*b.table.dim:][:b.table.dim]
		clear(out)
		share := b.scale(bag)
		for _, v := range bag {
			if r := id(v, b.count); r > 0 {
				b.table.add(out, r, share)
			}
		}
	}
}
