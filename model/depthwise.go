package model

import "choir.example/model/kernel"

// depthwise is a convolution with as many groups as channels and filters: each channel has a kernel of its own. It works
// on whole rows of the image at once: the kernel's values, tiled over the row, are multiplied with it element by element.
type depthwise struct{ conv }

func (d *depthwise) taps() int { return d.kernel * d.kernel }

// row is the size of a row of the output.
func (d *depthwise) row() int { return d.columns * d.channels }

// work holds tiled weights and bias, or as many sums of gradients, and a row.
func (d *depthwise) work(int) int { return (2*d.taps() + 2) * d.row() }

// tile repeats v all over dst.
func tile(dst, v []float32) {
	for len(dst) > 0 {
		dst = dst[copy(dst, v):]
	}
}

// tileWeights tiles each of the kernel's values, or the bias, over a row.
func (d *depthwise) tileWeights(dst, w []float32, rows int) {
	for i := range rows {
		tile(dst[i*d.row():][:d.row()], w[i*d.channels:][:d.channels])
	}
}

// reach is what a tap sees of a row of the image: columns from to to of the output, of which the first sees column at of
// the input.
func (d *depthwise) reach(tap int) (from, to, at int) {
	shift := tap/d.kernel - d.padding
	from = max(0, (d.stride-1-shift)/d.stride)
	to = min(d.columns, (d.width-shift+d.stride-1)/d.stride)
	return from, max(from, to), from*d.stride + shift
}

// sees is the row of the image under a tap of output row y; not ok outside of the image.
func (d *depthwise) sees(tap, y int) (row int, ok bool) {
	row = y*d.stride + tap%d.kernel - d.padding
	return row, row >= 0 && row < d.height
}

// each calls f for the part of every row of the output and the part of the image that a tap multiplies: ranges of the
// output's row and offsets into both.
func (d *depthwise) each(n int, f func(tap, out, lo, hi, in int)) {
	for i := range n * d.rows {
		for tap := range d.taps() {
			row, ok := d.sees(tap, i%d.rows)
			from, to, at := d.reach(tap)
			if !ok || from == to {
				continue
			}
			in := ((i/d.rows*d.height+row)*d.width + at) * d.channels
			f(tap, i*d.row(), from*d.channels, to*d.channels, in)
		}
	}
}

func (d *depthwise) forward(p *pass) {
	size, taps := d.row(), d.taps()
	tiled, spare := p.work[:(taps+1)*size], p.work[(taps+1)*size:]
	d.tileWeights(tiled, p.params, taps+1)
	for i := range p.n * d.rows {
		copy(p.out[i*size:][:size], tiled[taps*size:])
	}
	d.each(p.n, func(tap, out, lo, hi, in int) {
		x := d.gather(spare, p.in[0][in:], hi-lo)
		kernel.AddProduct(p.out[out+lo:out+hi], x, tiled[tap*size+lo:][:hi-lo])
	})
	all := p.n * d.rows * size
	kernel.Activate(p.out[:all], p.out[:all], d.act)
}

// gather is n values of every stride-th pixel of x.
func (d *depthwise) gather(spare, x []float32, n int) []float32 {
	if d.stride == 1 {
		return x[:n]
	}
	for at := 0; at < n; at += d.channels {
		copy(spare[at:][:d.channels], x[at*d.stride:])
	}
	return spare[:n]
}

func (d *depthwise) backward(p *pass) {
	all := p.n * d.rows * d.row()
	kernel.ActivationGrad(p.dout[:all], p.out[:all], d.act)
	if p.din[0] != nil { // from the weights as they were before the step
		d.backwardInput(p)
	}
	d.backwardWeights(p)
	p.bias(d.weights(), d.channels, p.dout, p.n*d.rows*d.columns)
}

func (d *depthwise) backwardInput(p *pass) {
	size, taps := d.row(), d.taps()
	tiled, spare := p.work[:taps*size], p.work[(taps+1)*size:]
	d.tileWeights(tiled, p.params, taps)
	if !p.add[0] {
		clear(p.din[0][:p.n*d.height*d.width*d.channels])
	}
	d.each(p.n, func(tap, out, lo, hi, in int) {
		dout, w := p.dout[out+lo:out+hi], tiled[tap*size+lo:][:hi-lo]
		if d.stride == 1 {
			kernel.AddProduct(p.din[0][in:][:hi-lo], dout, w)
			return
		}
		kernel.Multiply(spare[:hi-lo], dout, w)
		for at := 0; at < hi-lo; at += d.channels {
			dst := p.din[0][in+at*d.stride:][:d.channels]
			kernel.Add(dst, dst, spare[at:][:d.channels])
		}
	})
}

func (d *depthwise) backwardWeights(p *pass) {
	size, taps := d.row(), d.taps()
	sums, spare := p.work[:taps*size], p.work[(taps+1)*size:]
	clear(sums)
	d.each(p.n, func(tap, out, lo, hi, in int) {
		x := d.gather(spare, p.in[0][in:], hi-lo)
		kernel.AddProduct(sums[tap*size+lo:][:hi-lo], x, p.dout[out+lo:out+hi])
	})
	for tap := range taps {
		p.bias(tap*d.channels, d.channels, sums[tap*size:], d.columns)
	}
}

// int8 declines: a filter has too few weights for products of int8 to gain.
func (d *depthwise) int8([]Int8Tensor) int8Layer { return nil }
