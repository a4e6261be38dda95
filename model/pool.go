package model

import (
	"fmt"

	"choir.example/model/kernel"
)

// pool takes the largest or the mean value of each channel in square windows without padding.
type pool struct {
	bare
	height, width, channels int
	rows, columns           int // of the output
	kernel, stride          int
}

func newPool(l LayerSpec, in [][]int) (p pool, err error) {
	if len(in[0]) != 3 {
		return p, fmt.Errorf("it reads %v, want an image of height, width and channels", in[0])
	}
	if err := checkWindow(l, in[0]); err != nil {
		return p, err
	}
	stride := l.Stride
	if stride == 0 {
		stride = l.Kernel
	}
	h, w := in[0][0], in[0][1]
	return pool{height: h, width: w, channels: in[0][2], kernel: l.Kernel, stride: stride,
		rows: slides(h, l.Kernel, stride, 0), columns: slides(w, l.Kernel, stride, 0)}, nil
}

func (p pool) output() []int { return []int{p.rows, p.columns, p.channels} }
func (p pool) flops() int64 {
	return int64(p.rows) * int64(p.columns) * int64(p.channels) * int64(p.kernel*p.kernel)
}

// each calls f for every window of an image and every pixel of it: offsets of their channels.
func (p pool) each(image int, f func(out, in int)) {
	for i := image * p.rows; i < (image+1)*p.rows; i++ {
		top := (i/p.rows*p.height + i%p.rows*p.stride) * p.width
		for x := range p.columns {
			for k := range p.kernel * p.kernel {
				in := top + k/p.kernel*p.width + x*p.stride + k%p.kernel
				f((i*p.columns+x)*p.channels, in*p.channels)
			}
		}
	}
}

// clearUnless makes an image's gradient zero that nobody gave before.
func (p pool) clearUnless(q *pass, image int) {
	if size := p.height * p.width * p.channels; !q.add[0] {
		clear(q.din[0][image*size:][:size])
	}
}

// maxPool gives the gradient to the first of the largest.
type maxPool struct{ pool }

func newMaxPool(l LayerSpec, in [][]int) (layer, error) {
	p, err := newPool(l, in)
	return maxPool{p}, err
}

// row is a row of windows.
func (m maxPool) row() kernel.Pool {
	return kernel.Pool{Columns: m.columns, Channels: m.channels, Kernel: m.kernel, Step: m.stride * m.channels, Width: m.width * m.channels}
}

// eachRow calls f for each row of windows over an image: where it begins, and where what it sees does.
func (m maxPool) eachRow(image int, f func(out, in int)) {
	for y := range m.rows {
		f((image*m.rows+y)*m.columns*m.channels, (image*m.height+y*m.stride)*m.width*m.channels)
	}
}

func (m maxPool) forward(p *pass) {
	row := m.row()
	for image := range p.n {
		m.eachRow(image, func(out, in int) { kernel.MaxPool(p.out[out:], p.in[0][in:], row) })
	}
}

func (m maxPool) backward(p *pass) {
	row, add := m.row(), p.add[0] || m.stride < m.kernel
	for image := range p.n {
		m.clearUnless(p, image)
		m.eachRow(image, func(out, in int) {
			kernel.RoutePool(p.din[0][in:], p.dout[out:], p.in[0][in:], p.out[out:], row, add)
		})
	}
}

// avgPool gives each pixel its share.
type avgPool struct{ pool }

func newAvgPool(l LayerSpec, in [][]int) (layer, error) {
	p, err := newPool(l, in)
	return avgPool{p}, err
}

// share is a pixel's part of its window.
func (a avgPool) share() float32 { return 1 / float32(a.kernel*a.kernel) }

func (a avgPool) forward(p *pass) {
	clear(p.out[:p.n*a.rows*a.columns*a.channels])
	c := a.channels
	for image := range p.n {
		a.each(image, func(out, in int) { kernel.Axpy(p.out[out:][:c], a.share(), p.in[0][in:][:c]) })
	}
}

func (a avgPool) backward(p *pass) {
	c := a.channels
	for image := range p.n {
		a.clearUnless(p, image)
		a.each(image, func(out, in int) { kernel.Axpy(p.din[0][in:][:c], a.share(), p.dout[out:][:c]) })
	}
}

// globalPool is the mean of each channel over the whole image, or over a sequence.
type globalPool struct {
	bare
	positions, channels int
}

func newGlobalPool(_ LayerSpec, in [][]int) (layer, error) {
	last := len(in[0]) - 1
	if last == 0 {
		return nil, fmt.Errorf("it reads %v, want an image or a sequence", in[0])
	}
	return globalPool{positions: values(in[0][:last]), channels: in[0][last]}, nil
}

func (g globalPool) output() []int { return []int{g.channels} }
func (g globalPool) flops() int64  { return int64(g.positions) * int64(g.channels) }

func (g globalPool) forward(p *pass) {
	size := g.positions * g.channels
	clear(p.out[:p.n*g.channels])
	for i := range p.n {
		kernel.AddColumnSums(p.out[i*g.channels:][:g.channels], p.in[0][i*size:], g.positions, g.channels, 1/float32(g.positions))
	}
}

func (g globalPool) backward(p *pass) {
	c := g.channels
	for i := range p.n * g.positions {
		kernel.Axpby(p.din[0][i*c:][:c], 1/float32(g.positions), p.dout[i/g.positions*c:][:c], p.beta(0))
	}
}
