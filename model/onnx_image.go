package model

// ONNX's operators of images want channels before height and width; ours come last. A value is transposed where an
// operator wants the other order, so that between convolutions nothing is.

// imageValue is a value with channels first.
func imageValue(name string, shape []int) onnxValue {
	return onnxValue{name: name, shape: shape, channelsFirst: true}
}

// slide are the settings of a window.
func slide(kernel, stride int) []onnxAttribute {
	return []onnxAttribute{intsAttribute("kernel_shape", kernel, kernel), intsAttribute("strides", stride, stride)}
}

// onnx rounds the image of an example as a whole, as convInt8 does.
func (c *conv) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	v := in[0]
	v.name = g.rounded(v.name, values(v.shape))
	return c.convolve(g, v)
}

// onnx rounds nothing: with weights of int8 too it computes in float32.
func (d *depthwise) onnx(g *onnxGraph, in []onnxValue) onnxValue { return d.convolve(g, in[0]) }

// convolve turns the weights from filters × kernel columns × rows × channels to ONNX's filters × channels × rows ×
// columns.
func (c *conv) convolve(g *onnxGraph, v onnxValue) onnxValue {
	weights := g.put(g.own[0].moved(0, 3, 2, 1))
	y := g.op("Conv", []string{g.first(v), weights, g.put(g.own[1])}, append(slide(c.kernel, c.stride),
		intAttribute("group", c.groups), intsAttribute("pads", c.padding, c.padding, c.padding, c.padding))...)
	return imageValue(g.activate(y, c.act), c.output())
}

func (p maxPool) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	return imageValue(g.op("MaxPool", []string{g.first(in[0])}, slide(p.kernel, p.stride)...), p.output())
}

func (p avgPool) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	return imageValue(g.op("AveragePool", []string{g.first(in[0])}, slide(p.kernel, p.stride)...), p.output())
}

func (p globalPool) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	axes := []int{1, 2}[:len(in[0].shape)-1]
	if in[0].channelsFirst {
		axes = []int{2, 3}
	}
	y := g.op("ReduceMean", []string{in[0].name}, intsAttribute("axes", axes...), intAttribute("keepdims", 0))
	return onnxValue{name: y, shape: p.output()}
}

// onnx exchanges the two axes that the channels are.
func (s shuffle) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	v, per := in[0], s.from[1]
	groups, positions := s.channels/per, values(s.shape)/s.channels
	if v.channelsFirst {
		x := g.transpose(g.reshape(v.name, groups, per, positions), 0, 2, 1, 3)
		return imageValue(g.reshape(x, s.channels, s.shape[0], s.shape[1]), s.shape)
	}
	x := g.transpose(g.reshape(v.name, positions, groups, per), 0, 1, 3, 2)
	return onnxValue{name: g.reshape(x, s.shape...), shape: s.shape}
}
