package model

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"choir.example/model/kernel"
)

// embeddingBag is the mean or the sum of the rows that a bag of ids names; id 0 is padding and counts for nothing. An
// empty bag is zeros.
type embeddingBag struct {
	shape []int
	bag   int // ids, with padding
	count int // rows of the table
	dim   int
	mean  bool
}

func newEmbeddingBag(l LayerSpec, in [][]int) (layer, error) {
	last := len(in[0]) - 1
	b := &embeddingBag{bag: in[0][last], dim: l.Dim, mean: l.Pool != "sum"}
	if err := between("dim", l.Dim, 1, maxWidth); err != nil {
		return nil, err
	}
	if len(l.Rows) != 1 {
		return nil, fmt.Errorf("%d tables, want one", len(l.Rows))
	}
	if l.Pool != "" && l.Pool != "mean" && l.Pool != "sum" {
		return nil, fmt.Errorf("pool %.40q, want mean or sum", l.Pool)
	}
	var err error
	b.count, err = countRows(l.Rows, l.Dim)
	b.shape = append(slices.Clone(in[0][:last]), l.Dim)
	return b, err
}

func (b *embeddingBag) output() []int            { return b.shape }
func (b *embeddingBag) size() int                { return b.count * b.dim }
func (b *embeddingBag) scratch(int) int          { return 0 }
func (b *embeddingBag) work(int) int             { return 0 }
func (b *embeddingBag) flops() int64             { return int64(values(b.shape)) * int64(b.bag) }
func (b *embeddingBag) rows() (rows, length int) { return b.count, b.dim }
func (b *embeddingBag) tensors() []Tensor        { return tableTensors([]int{b.count}, b.dim) }

func (b *embeddingBag) init(params []float32, rng *rand.Rand) {
	clear(params[:b.dim])
	glorot(params[b.dim:], b.dim, b.dim, 1, rng)
}

func (b *embeddingBag) badID(in []float32) (at, rows int) {
	for i, v := range in {
		if id(v, b.count) < 0 || v != float32(int(v)) {
			return i, b.count
		}
	}
	return -1, 0
}

func (b *embeddingBag) reads(each func(column, rows int)) {
	for column := range b.bag {
		each(column, b.count)
	}
}

func (b *embeddingBag) read(in []float32, rows *rowSet) {
	for _, v := range in {
		if r := id(v, b.count); r > 0 {
			rows.add(r)
		}
	}
}

func (b *embeddingBag) forward(p *pass) {
	for i := range p.n * values(b.shape) / b.dim {
		bag, out := p.in[0][i*b.bag:][:b.bag], p.out[i*b.dim:][:b.dim]
		clear(out)
		for _, v := range bag {
			if r := id(v, b.count); r > 0 {
				kernel.Add(out, out, p.params[r*b.dim:][:b.dim])
			}
		}
		if s := b.scale(bag); s != 1 {
			kernel.Scale(out, s)
		}
	}
}

// scale is what each row of the bag counts.
func (b *embeddingBag) scale(bag []float32) float32 {
	n := 0
	for _, v := range bag {
		if id(v, b.count) > 0 {
			n++
		}
	}
	if n == 0 || !b.mean {
		return 1
	}
	return 1 / float32(n)
}

func (b *embeddingBag) backward(p *pass) {
	if p.grad != nil {
		p.rows.clear()
	}
	for i := range p.n * values(b.shape) / b.dim {
		bag, dout := p.in[0][i*b.bag:][:b.bag], p.dout[i*b.dim:][:b.dim]
		scale := b.scale(bag)
		for _, v := range bag {
			if r := id(v, b.count); r > 0 {
				p.addToRow(r, dout, scale)
			}
		}
	}
}
