package model

// onnx is a product and a sum: MatMul takes any number of axes before the last.
func (d *dense) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	x := g.rounded(g.last(in[0]), d.inputs, in[0].shape...)
	y := g.binary("Add", g.binary("MatMul", x, g.put(g.own[0].moved(1, 0))), g.put(g.own[1]))
	return onnxValue{name: g.activate(y, d.act), shape: d.shape}
}

func (v view) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	return onnxValue{name: g.reshape(g.last(in[0]), v.shape...), shape: v.shape}
}
