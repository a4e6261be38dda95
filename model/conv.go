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
	return window{c.height, c.width, c.channels, group * seen, seen, c.kernel, c.stride, c.padding}
}

// gradient is the window over the gradient of the output through which the input's gradient is a convolution too, with
// the kernel turned around; the stride is 1.
func (c *conv) gradient(group int) window {
	seen := c.filters / c.groups
	return window{c.rows, c.columns, c.filters, group * seen, seen, c.kernel, 1, c.kernel - 1 - c.padding}
}

// lines is how the output is cut into products: row by row, but all at once where windows are single pixels side by
// side, which have nothing to copy.
func (c *conv) lines(n int) (lines, positions int) {
	if c.kernel == 1 && c.stride == 1 {
		return 1, n * c.rows * c.columns
	}
	return n * c.rows, c.columns
}

func (c *conv) work(int) int {
	line, back := c.input(0).lineSize(), c.gradient(0).lineSize()
	unrolled := c.columns * c.depth()
	return c.weights() + max(c.rows*line, back, unrolled)
}

func (c *conv) forward(p *pass) {
	w, bias := p.params[:c.weights()], p.params[c.weights():]
	lines, positions := c.lines(p.n)
	filters := c.filters / c.groups
	for g := range c.groups {
		v, at := c.input(g), g*filters
		for i := range lines {
			a := v.line(p.work, c.image(p.in[0], i/c.rows), i%c.rows)
			out := kernel.Matrix{Data: p.out[i*positions*c.filters+at:], Stride: c.filters}
			kernel.NN(out, a, kernel.Matrix{Data: w[at:], Stride: c.filters}, positions, filters, c.depth(),
				kernel.Epilogue{Bias: bias[at:][:filters], Activation: c.act})
		}
	}
}

// image is the input of one example, and those after it.
func (c *conv) image(x []float32, example int) []float32 {
	return x[example*c.height*c.width*c.channels:]
}

// backward goes image by image: what it computes of one is still in the cache when it is read again.
func (c *conv) backward(p *pass) {
	turned, work := p.work[:c.weights()], p.work[c.weights():] // the weights as they were before the step
	switch {
	case p.din[0] == nil:
	case c.stride == 1:
		c.turn(turned, p.params)
	default:
		kernel.Transpose(matrix(turned, c.depth()), matrix(p.params, c.filters), c.depth(), c.filters)
	}
	weights, alpha, beta := p.target(0, c.size())
	if beta == 0 {
		clear(weights)
	}
	in, out := c.height*c.width*c.channels, c.rows*c.columns*c.filters
	for i := range p.n {
		dout := p.dout[i*out:][:out]
		kernel.ActivationGrad(dout, p.out[i*out:][:out], c.act)
		if p.din[0] != nil && c.stride == 1 {
			c.backwardInput(p.din[0][i*in:][:in], dout, turned, work, p.beta(0))
		} else if p.din[0] != nil {
			c.backwardStrided(p.din[0][i*in:][:in], dout, turned, work, p.add[0])
		}
		c.backwardWeights(weights[:c.weights()], p.in[0][i*in:][:in], dout, work, alpha)
		kernel.AddColumnSums(weights[c.weights():], dout, c.rows*c.columns, c.filters, alpha)
	}
}

// backwardInput is an image's gradient at stride 1: the convolution of the output's gradient with the kernel turned
// around.
func (c *conv) backwardInput(din, dout, turned, work []float32, beta float32) {
	seen, filters := c.channels/c.groups, c.filters/c.groups
	depth := c.kernel * c.kernel * filters
	lines, positions := c.height, c.width
	if c.kernel == 1 {
		lines, positions = 1, c.height*c.width
	}
	for g := range c.groups {
		v, w := c.gradient(g), kernel.Matrix{Data: turned[g*depth*seen:], Stride: seen}
		for y := range lines {
			dst := kernel.Matrix{Data: din[y*positions*c.channels+g*seen:], Stride: c.channels}
			kernel.NN(dst, v.line(work, dout, y), w, positions, seen, depth, kernel.Epilogue{Beta: beta})
		}
	}
}

// turn writes the weights, group by group, as kernel columns × kernel rows × filters × channels, both axes of the kernel
// reversed.
func (c *conv) turn(dst, w []float32) {
	seen, filters, taps := c.channels/c.groups, c.filters/c.groups, c.kernel*c.kernel
	for g := range c.groups {
		for i := range taps {
			from := kernel.Matrix{Data: w[i*seen*c.filters+g*filters:], Stride: c.filters}
			to := dst[(g*taps+taps-1-i)*filters*seen:]
			kernel.Transpose(matrix(to, seen), from, seen, filters)
		}
	}
}

// backwardStrided is an image's gradient at any stride: the gradient of each line of windows is computed, and added to
// the pixels that it came from.
func (c *conv) backwardStrided(din, dout, transposed, line []float32, add bool) {
	filters, depth := c.filters/c.groups, c.depth()
	if !add {
		clear(din)
	}
	for g := range c.groups {
		v, w := c.input(g), matrix(transposed[g*filters*depth:], depth)
		for y := range c.rows {
			from := kernel.Matrix{Data: dout[y*c.columns*c.filters+g*filters:], Stride: c.filters}
			kernel.NN(matrix(line, depth), from, w, c.columns, depth, filters, kernel.Epilogue{})
			v.addLine(din, line, c.columns, y)
		}
	}
}

// inCache is how many weights the innermost cache holds beside what they are multiplied with.
const inCache = 1 << 13

// backwardWeights adds the products of an image's windows and gradients. More weights than the cache holds are taken a
// kernel column at a time, each over all lines.
func (c *conv) backwardWeights(dst, image, dout, work []float32, alpha float32) {
	filters, part, parts := c.filters/c.groups, c.depth(), 1
	if part*filters > inCache {
		part, parts = part/c.kernel, c.kernel
	}
	lines, positions := c.lines(1)
	for g := range c.groups {
		v := c.input(g)
		size := v.lineSize()
		for y := range lines {
			v.line(work[y*size:], image, y)
		}
		for k := range parts {
			w := kernel.Matrix{Data: dst[k*part*c.filters+g*filters:], Stride: c.filters}
			for y := range lines {
				a := v.view(work[y*size:], image, y)
				a.Data = a.Data[k*part:]
				from := kernel.Matrix{Data: dout[y*positions*c.filters+g*filters:], Stride: c.filters}
				kernel.TN(w, a, from, part, filters, positions, alpha, 1)
			}
		}
	}
}
