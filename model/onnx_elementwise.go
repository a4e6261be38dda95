package model

// onnx keeps the order of axes that the value has.
func (a activation) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	v := in[0]
	v.name = g.activate(v.name, a.act)
	return v
}

// onnx is nothing: a network that predicts drops nothing out.
func (d dropout) onnx(_ *onnxGraph, in []onnxValue) onnxValue { return in[0] }

func (a add) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	names, v := g.aligned(in)
	v.name = names[0]
	for _, name := range names[1:] {
		v.name = g.binary("Add", v.name, name)
	}
	return v
}

func (c concat) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	names, v := g.aligned(in)
	axis := len(c.shape)
	if v.channelsFirst {
		axis = 1
	}
	v.name, v.shape = g.op("Concat", names, intAttribute("axis", axis)), c.shape
	return v
}

// aligned are values in one order of axes: channels first if any has it. Like it comes what is made of them.
func (g *onnxGraph) aligned(in []onnxValue) (names []string, like onnxValue) {
	order := g.last
	for _, v := range in {
		if v.channelsFirst {
			order = g.first
			like.channelsFirst = true
		}
	}
	for _, v := range in {
		names = append(names, order(v))
	}
	like.shape = in[0].shape
	return names, like
}

// onnx normalises with InstanceNormalization, over all that follows an axis of groups; opset 13 has neither group nor
// layer norm.
func (n *norm) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	switch v := in[0]; {
	case n.positions == 1: // the channels of each position alone
		hat := g.reshape(n.groupsAlone(g, g.reshape(g.last(v), n.groups, n.channels/n.groups)), n.shape...)
		return onnxValue{name: n.affine(g, hat, n.channels), shape: n.shape}
	case len(n.shape) == 3:
		hat := n.groupsAlone(g, g.reshape(g.first(v), n.groups, values(n.shape)/n.groups))
		hat = g.reshape(hat, n.channels, n.shape[0], n.shape[1])
		return imageValue(n.affine(g, hat, n.channels, 1, 1), n.shape)
	default: // a sequence
		hat := n.groupsAlone(g, g.reshape(g.transpose(v.name, 0, 2, 1), n.groups, values(n.shape)/n.groups))
		hat = g.transpose(g.reshape(hat, n.channels, n.positions), 0, 2, 1)
		return onnxValue{name: n.affine(g, hat, n.channels), shape: n.shape}
	}
}

func (n *norm) groupsAlone(g *onnxGraph, x string) string {
	ones, zeros := make([]float32, n.groups), make([]float32, n.groups)
	for i := range ones {
		ones[i] = 1
	}
	in := []string{x, g.floats("one", []int{n.groups}, ones), g.floats("zero", []int{n.groups}, zeros)}
	return g.op("InstanceNormalization", in, floatAttribute("epsilon", normEpsilon))
}

// affine scales and shifts each channel; shape places the channels.
func (n *norm) affine(g *onnxGraph, x string, shape ...int) string {
	gain, bias := g.own[0], g.own[1]
	gain.shape, bias.shape = shape, shape
	return g.binary("Add", g.binary("Mul", x, g.put(gain)), g.put(bias))
}
