package model

// onnx is a product and a sum. MatMul takes any number of axes before the last; an int8 one reads rows straight from
// where they are dequantised: onnxruntime would take it for one of float32 rows otherwise, and round them once more.
func (d *dense) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	x := g.last(in[0])
	if g.int8 {
		x = g.rows(x, d.inputs)
	}
	y := g.binary("Add", g.binary("MatMul", x, g.put(g.own[0].moved(1, 0))), g.put(g.own[1]))
	y = g.activate(y, d.act)
	if g.int8 && len(d.shape) > 1 {
		y = g.reshape(y, d.shape...)
	}
	return onnxValue{name: y, shape: d.shape}
}

func (v view) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	return onnxValue{name: g.reshape(g.last(in[0]), v.shape...), shape: v.shape}
}
