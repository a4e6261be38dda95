package model

import (
	"fmt"
	"math/rand/v2"

	"choir.example/model/kernel"
)

// conv is a convolution over images with square kernels: out = act(windows·W + b). Its weights are kernel columns ×
// kernel rows × channels of a group × filters: the columns come first because a line of windows is laid out so. Filters
// of a group see the group's channels only.
type conv struct {
	height, width, channels int // of the input
	rows, columns, filters  int // of the output
	kernel, stride, padding int
	groups                  int
	abreast                 int // windows that a row of a product takes
	act                     kernel.Activation
}

func newConv(l LayerSpec, in [][]int) (layer, error) {
	if len(in[0]) != 3 {
		return nil, fmt.Errorf("it reads %v, want an image of height, width and channels", in[0])
	}
	c := conv{height: in[0][0], width: in[0][1], channels: in[0][2], filters: l.Filters,
		kernel: l.Kernel, stride: max(l.Stride, 1), padding: l.Padding, groups: max(l.Groups, 1)}
	var known bool
	if c.act, known = activations[l.Activation]; !known {
		return nil, errActivation(l.Activation)
	}
	if err := between("filters", l.Filters, 1, maxWidth); err != nil {
		return nil, err
	}
	if err := checkWindow(l, in[0]); err != nil {
		return nil, err
	}
	if l.Groups < 0 || c.channels%c.groups != 0 || c.filters%c.groups != 0 {
		return nil, fmt.Errorf("groups %d do not divide %d channels and %d filters", l.Groups, c.channels, c.filters)
	}
	if err := c.checkMemory(); err != nil {
		return nil, err
	}
	c.rows, c.columns = slides(c.height, l.Kernel, c.stride, l.Padding), slides(c.width, l.Kernel, c.stride, l.Padding)
	c.abreast = abreastOf(&c)
	if c.groups == c.channels && c.groups == c.filters && c.groups > 1 {
		return &depthwise{c}, nil
	}
	return &c, nil
}

// checkMemory refuses what would need more weights or more temporary memory than there should be.
func (c *conv) checkMemory() error {
	taps := int64(c.kernel * c.kernel)
	if depth := taps * int64(c.channels/c.groups); depth > maxWidth {
		return fmt.Errorf("kernel %d over %d channels: a filter sees %d values, at most 2^17", c.kernel, c.channels/c.groups, depth)
	}
	padded := int64(c.height+2*c.padding) * int64(c.width+2*c.padding)
	if taps*int64(c.channels/c.groups)*int64(c.filters) > maxParameters || taps*padded*int64(max(c.channels, c.filters)) > maxWindows {
		return fmt.Errorf("kernel %d over %d×%d pixels of %d channels with %d filters is too large",
			c.kernel, c.height, c.width, c.channels, c.filters)
	}
	return nil
}

// checkWindow refuses a window that does not fit the image.
func checkWindow(l LayerSpec, image []int) error {
	if err := between("kernel", l.Kernel, 1, 64); err != nil {
		return err
	}
	if err := between("stride", l.Stride, 0, 64); err != nil {
		return err
	}
	if err := between("padding", l.Padding, 0, l.Kernel-1); err != nil {
		return err
	}
	if side := min(image[0], image[1]) + 2*l.Padding; l.Kernel > side {
		return fmt.Errorf("kernel %d is larger than the padded image, %d", l.Kernel, side)
	}
	return nil
}

// slides is how many places a window has along an axis.
func slides(axis, kernel, stride, padding int) int { return (axis+2*padding-kernel)/stride + 1 }

func (c *conv) output() []int { return []int{c.rows, c.columns, c.filters} }

// depth is the number of values that a filter sees.
func (c *conv) depth() int { return c.kernel * c.kernel * c.channels / c.groups }

func (c *conv) weights() int    { return c.depth() * c.filters }
func (c *conv) size() int       { return c.weights() + c.filters }
func (c *conv) scratch(int) int { return 0 }
func (c *conv) flops() int64    { return 2 * int64(c.rows) * int64(c.columns) * int64(c.weights()) }

func (c *conv) tensors() []Tensor {
	return []Tensor{
		{Name: "weight", Shape: []int{c.kernel, c.kernel, c.channels / c.groups, c.filters}, Weight: true},
		{Name: "bias", Shape: []int{c.filters}, Offset: c.weights()},
	}
}

func (c *conv) init(params []float32, rng *rand.Rand) {
	glorot(params[:c.weights()], c.depth(), c.kernel*c.kernel*c.filters/c.groups, c.filters, rng)
	clear(params[c.weights():])
}

// input is the window of a group over the input.
func (c *conv) input(group int) window {
	seen := c.channels / c.groups
	return window{c.height, c.width, c.channels, group * seen, seen, c.kernel, c.stride, c.padding, c.abreast}
}

// lines is how n images are cut: row by row, but all at once where windows are single pixels side by side.
func (c *conv) lines(n int) (images, lines, positions int) {
	if c.kernel == 1 && c.stride == 1 {
		return 1, 1, n * c.rows * c.columns
	}
	return n, c.rows, c.columns
}

// work holds the weights transposed, those of windows abreast, and a turned image or its gradient.
func (c *conv) work(int) int { return c.weights() + c.wideSize() + c.input(0).size() }

func (c *conv) forward(p *pass) {
	params, work := p.params, p.work[c.wideSize():]
	if c.abreast > 1 {
		params = p.work[:c.wideSize()]
		c.widen(params, p.params)
	}
	images, lines, positions := c.lines(p.n)
	filters, depth, stride := c.wideFilters(), c.wideDepth(), c.filters*c.abreast
	for g := range c.groups {
		v, at := c.input(g), g*filters
		weights := kernel.Matrix{Data: params[at:], Stride: stride}
		e := kernel.Epilogue{Bias: params[depth*stride+at:][:filters], Activation: c.act}
		for i := range images {
			out := kernel.Matrix{Data: p.out[i*c.rows*c.columns*c.filters+at:], Stride: stride}
			t := v.turn(work, c.image(p.in[0], i))
			down := kernel.Repeat{Times: lines, Dst: positions * c.filters, A: c.stride * t.row}
			kernel.Products(down, out, v.rows(t), weights, positions/c.abreast, filters, depth, 1, e)
		}
	}
}

// image is the input of one example, and those after it.
func (c *conv) image(x []float32, example int) []float32 {
	return x[example*c.height*c.width*c.channels:]
}

// backward goes image by image: what it computes of one is still in the cache when it is read again.
func (c *conv) backward(p *pass) {
	transposed, work := p.work[:c.weights()], p.work[c.weights()+c.wideSize():] // the weights as they were before the step
	if p.din[0] != nil {
		kernel.Transpose(matrix(transposed, c.depth()), matrix(p.params, c.filters), c.depth(), c.filters)
	}
	weights, alpha, beta := p.target(0, c.size())
	if beta == 0 {
		clear(weights)
	}
	wide := weights
	if c.abreast > 1 {
		wide = p.work[c.weights():][:c.wideSize()]
		clear(wide)
	}
	in, out := c.height*c.width*c.channels, c.rows*c.columns*c.filters
	for i := range p.n {
		dout := p.dout[i*out:][:out]
		kernel.ActivationGrad(dout, p.out[i*out:][:out], c.act)
		for g := range c.groups {
			if p.din[0] != nil {
				c.backwardInput(p.din[0][i*in:][:in], dout, transposed, work, g, p.add[0])
			}
			c.backwardWeights(wide, p.in[0][i*in:][:in], dout, work, g, alpha)
		}
		kernel.AddColumnSums(weights[c.weights():], dout, c.rows*c.columns, c.filters, alpha)
	}
	if c.abreast > 1 {
		c.addWide(weights, wide)
	}
}

// backwardInput is a group's part of an image's gradient. Of the windows of a line it computes the gradient of one column
// each, and adds it where it came from: columns of one window may lie in others, too, and wait for their turn.
func (c *conv) backwardInput(din, dout, transposed, work []float32, group int, add bool) {
	v, filters := c.input(group), c.filters/c.groups
	_, lines, positions := c.lines(1)
	t, beta := v.over(work, din), float32(1)
	switch {
	case !v.pixels():
		clear(t.data)
	case c.stride == 1 && !add:
		beta = 0 // each pixel is written once
	case c.stride > 1 && !add && group == 0:
		clear(din)
	}
	down := kernel.Repeat{Times: lines, Dst: c.stride * t.row, A: positions * c.filters}
	from := kernel.Strided{Data: dout[group*filters:], Row: c.filters, Column: 1, Block: filters}
	for k := range c.kernel {
		to := kernel.Matrix{Data: t.data[k*t.column:], Stride: c.stride * t.column}
		w := kernel.Matrix{Data: transposed[group*filters*c.depth()+k*v.block():], Stride: c.depth()}
		kernel.Products(down, to, from, w, positions, v.block(), filters, 1, kernel.Epilogue{Beta: beta})
	}
	if !v.pixels() {
		v.turnBack(din, t, add)
	}
}

// backwardWeights adds the products of an image's windows and gradients, a kernel column at a time.
func (c *conv) backwardWeights(dst, image, dout, work []float32, group int, alpha float32) {
	v, filters, stride := c.input(group), c.wideFilters(), c.filters*c.abreast
	from := kernel.Matrix{Data: dout[group*filters:], Stride: stride}
	t := v.turn(work, image)
	positions := c.rows * c.columns / c.abreast
	for k := range c.span() {
		w := kernel.Matrix{Data: dst[k*v.block()*stride+group*filters:], Stride: stride}
		kernel.Products(kernel.Repeat{Times: 1}, w, v.values(t, k, c.columns/c.abreast), from, v.block(), filters, positions, alpha, kernel.Epilogue{Beta: 1})
	}
}
