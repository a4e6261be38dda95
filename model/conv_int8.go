package model

import "choir.example/model/kernel"

// convInt8 is conv with int8 weights. The image of an example is quantised as a whole, before windows are made of it.
type convInt8 struct {
	*conv
	groupWeights []int8Matrix
	bias         []float32
}

func (c *conv) int8(ts []Int8Tensor) int8Layer {
	q := &convInt8{conv: c, bias: ts[1].Floats}
	filters, depth := c.filters/c.groups, c.depth()
	for g := range c.groups {
		from := g * filters
		q.groupWeights = append(q.groupWeights, newInt8Matrix(Int8Tensor{
			Weights: ts[0].Weights[from*depth : (from+filters)*depth],
			Scales:  ts[0].Scales[from : from+filters],
		}, depth, filters))
	}
	return q
}

// image is the size of an input.
func (c *convInt8) imageSize() int { return c.height * c.width * c.channels }

func (c *convInt8) work(int) int { return c.columns } // a scale a window

func (c *convInt8) integers(int) (bytes, words int) {
	windows := c.columns * c.groupWeights[0].stride()
	return c.imageSize() + c.turnedSize() + windows, c.groupWeights[0].words(c.columns)
}

// turnedSize is the size of a group's turned image.
func (c *convInt8) turnedSize() int {
	v := c.input(0)
	return (v.width + 2*v.padding) * v.column()
}

func (c *convInt8) forward(p *pass) {
	size := c.imageSize()
	image, turned := p.bytes[:size], p.bytes[size:][:c.turnedSize()]
	windows := p.bytes[size+len(turned):]
	scales := p.work[:c.columns]
	for example := range p.n {
		scale := kernel.QuantiseRow(image, p.in[0][example*size:][:size])
		for i := range scales {
			scales[i] = scale
		}
		for g := range c.groups {
			c.turn(turned, image, g)
			for y := range c.rows {
				c.windows(windows, turned, y)
				filters := c.filters / c.groups
				out := p.out[(example*c.rows+y)*c.columns*c.filters+g*filters:]
				c.groupWeights[g].multiply(out, c.filters, windows, scales, c.bias[g*filters:][:filters], c.act, p.words)
			}
		}
	}
}

// turn is window.turn.
func (c *convInt8) turn(dst, image []int8, group int) {
	v := c.input(group)
	clear(dst)
	for i := range v.height * v.width {
		copy(dst[v.at(i%v.width, i/v.width):][:v.seen], image[i*v.channels+v.from:])
	}
}

// windows writes the windows of a row of the output as rows that do not overlap, which the product of int8 wants.
func (c *convInt8) windows(dst, turned []int8, y int) {
	v, stride := c.input(0), c.groupWeights[0].stride()
	for x := range c.columns {
		for k := range c.kernel {
			copy(dst[x*stride+k*v.block():][:v.block()], turned[(x*v.stride+k)*v.column()+y*v.stride*v.seen:])
		}
	}
}
