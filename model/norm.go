package model

import (
	"fmt"
	"math"
	"math/rand/v2"

	"choir.example/model/kernel"
)

// norm brings groups of channels to mean 0 and deviation 1, example by example, then scales and shifts each channel.
// Group norm (Wu and He 2018, §3.1) takes the mean over an image's positions too, layer norm (Ba et al. 2016, §3) over
// the channels of each position alone.
//
// There is no batch norm: its running means are taken from a node's own examples and enter neither gradient nor clip,
// and averaging them over nodes that hold different data makes models worse (Hsieh et al. 2020, The Non-IID Data
// Quagmire, §5, which finds that group norm does not suffer; Reddi et al. 2021 train federated ResNets with it for that
// reason). It also ties the examples of a batch together, so that no example's own gradient could be clipped.
type norm struct {
	shape     []int
	outer     int // parts of an example that are normalised each by itself
	rows      int // of such a part, each of width values: channels again and again
	width     int
	channels  int
	groups    int
	positions int // rows · width / channels
}

func newGroupNorm(l LayerSpec, in [][]int) (layer, error) {
	shape := in[0]
	c := shape[len(shape)-1]
	if l.Groups < 1 || c%l.Groups != 0 {
		return nil, fmt.Errorf("groups %d, want at least 1 that divide %d channels", l.Groups, c)
	}
	n := norm{shape: shape, outer: 1, rows: 1, width: c, channels: c, groups: l.Groups, positions: values(shape) / c}
	if len(shape) == 3 {
		n.rows, n.width = shape[0], shape[1]*c
	} else {
		n.rows = n.positions
	}
	return &n, nil
}

func newLayerNorm(_ LayerSpec, in [][]int) (layer, error) {
	shape := in[0]
	c := shape[len(shape)-1]
	return &norm{shape: shape, outer: values(shape) / c, rows: 1, width: c, channels: c, groups: 1, positions: 1}, nil
}

// normEpsilon is added to the variance, so that a constant does not divide by zero.
const normEpsilon = 1e-5

func (n *norm) output() []int { return n.shape }
func (n *norm) size() int     { return 2 * n.channels }
func (n *norm) flops() int64  { return 8 * int64(values(n.shape)) }

func (n *norm) tensors() []Tensor {
	return []Tensor{
		{Name: "gain", Shape: []int{n.channels}},
		{Name: "bias", Shape: []int{n.channels}, Offset: n.channels},
	}
}

func (n *norm) init(params []float32, _ *rand.Rand) {
	for i := range n.channels {
		params[i], params[n.channels+i] = 1, 0
	}
}

// scratch holds the normalised values, and one over the deviation of each group of each part.
func (n *norm) scratch(batch int) int { return batch * (values(n.shape) + n.outer*n.groups) }

// work holds three rows, a part, and sums of the channels.
func (n *norm) work(int) int { return 3*n.width + n.rows*n.width + 4*n.channels }

// part is the size of what is normalised together.
func (n *norm) part() int { return n.rows * n.width }

func (n *norm) forward(p *pass) {
	size, parts := n.part(), p.n*n.outer
	work := p.work[3*n.width:]
	for i := range parts {
		hat, inverse := work[:size], work[size:][:n.groups]
		if p.train {
			hat, inverse = p.scratch[i*size:][:size], p.scratch[len(p.scratch)-(i+1)*n.groups:][:n.groups]
		}
		n.normalise(hat, inverse, p.in[0][i*size:][:size], p.work[:3*n.width], work[size+n.groups:])
		n.scaleAndShift(p.out[i*size:][:size], hat, p.params, p.work[:3*n.width])
	}
}

// normalise writes x with mean 0 and deviation 1 in each group, and one over the deviation it had.
func (n *norm) normalise(hat, inverse, x, tiles, sums []float32) {
	c, perGroup := n.channels, float32(n.positions*n.channels/n.groups)
	shift, squares := sums[:c], tiles[n.width:][:n.width]
	clear(shift)
	kernel.AddColumnSums(shift, x, n.positions, c, -1/perGroup)
	n.overGroups(shift, nil)
	tile(tiles[:n.width], shift)
	clear(squares)
	for at := 0; at < len(x); at += n.width {
		row := hat[at:][:n.width]
		kernel.Add(row, x[at:][:n.width], tiles[:n.width])
		kernel.AddProduct(squares, row, row)
	}
	scale := sums[:c]
	clear(scale)
	kernel.AddColumnSums(scale, squares, n.width/c, c, 1/perGroup)
	n.overGroups(scale, func(group int, variance float32) float32 {
		inverse[group] = float32(1 / math.Sqrt(float64(variance)+normEpsilon))
		return inverse[group]
	})
	tile(tiles[:n.width], scale)
	for at := 0; at < len(x); at += n.width {
		row := hat[at:][:n.width]
		kernel.Multiply(row, row, tiles[:n.width])
	}
}

// overGroups replaces each channel's value by the sum over its group, or by what of makes of that sum.
func (n *norm) overGroups(v []float32, of func(group int, sum float32) float32) {
	size := n.channels / n.groups
	for g := range n.groups {
		group := v[g*size:][:size]
		sum := kernel.Sum(group)
		if of != nil {
			sum = of(g, sum)
		}
		for i := range group {
			group[i] = sum
		}
	}
}

// scaleAndShift is out = gain·hat + bias.
func (n *norm) scaleAndShift(out, hat, params, tiles []float32) {
	gain, bias := tiles[:n.width], tiles[n.width:][:n.width]
	tile(gain, params[:n.channels])
	tile(bias, params[n.channels:])
	for at := 0; at < len(out); at += n.width {
		row := out[at:][:n.width]
		kernel.Multiply(row, hat[at:][:n.width], gain)
		kernel.Add(row, row, bias)
	}
}

// backward follows Ioffe and Szegedy 2015, §3, with sums over a group: with h the normalised values and d the gradient
// times gain, dx = (d - mean d - h·mean(d·h)) / deviation.
func (n *norm) backward(p *pass) {
	c, size := n.channels, n.part()
	products := p.work[3*n.width:][:size]
	totals := p.work[3*n.width+size:][:2*c] // of the gain and of the bias, over all parts
	sums := p.work[3*n.width+size+2*c:][:2*c]
	clear(totals)
	for i := range p.n * n.outer {
		dout, hat := p.dout[i*size:][:size], p.scratch[i*size:][:size]
		kernel.Multiply(products, dout, hat)
		clear(sums)
		kernel.AddColumnSums(sums[:c], products, n.positions, c, 1)
		kernel.AddColumnSums(sums[c:], dout, n.positions, c, 1)
		kernel.Add(totals, totals, sums)
		if p.din[0] != nil {
			inverse := p.scratch[len(p.scratch)-(i+1)*n.groups:][:n.groups]
			n.backwardInput(p, i, sums, inverse)
		}
	}
	p.bias(0, 2*c, totals, 1)
}

// backwardInput is the gradient of one part; sums are those of dout·hat and of dout, for each channel.
func (n *norm) backwardInput(p *pass, part int, sums, inverse []float32) {
	c, size, perGroup := n.channels, n.part(), float32(n.positions*n.channels/n.groups)
	fromDout, fromHat, constant := p.work[:n.width], p.work[n.width:][:n.width], p.work[2*n.width:][:n.width]
	gain := p.params[:c]
	kernel.Multiply(sums[:c], sums[:c], gain)
	kernel.Multiply(sums[c:], sums[c:], gain)
	mean := func(group int, sum float32) float32 { return -sum / perGroup * inverse[group] }
	n.overGroups(sums[:c], mean)
	n.overGroups(sums[c:], mean)
	tile(fromHat, sums[:c])
	tile(constant, sums[c:])
	for i := range c {
		fromDout[i] = gain[i] * inverse[i/(c/n.groups)]
	}
	tile(fromDout[c:], fromDout[:c])
	for at := part * size; at < (part+1)*size; at += n.width {
		din, dout, hat := p.din[0][at:][:n.width], p.dout[at:][:n.width], p.scratch[at:][:n.width]
		if !p.add[0] {
			clear(din)
		}
		kernel.AddProduct(din, dout, fromDout)
		kernel.AddProduct(din, hat, fromHat)
		kernel.Add(din, din, constant)
	}
}
