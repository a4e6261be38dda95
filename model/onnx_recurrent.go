package model

import "strings"

// onnx is one operator a layer; each goes through the sequence by itself. With int8 weights the input of each step is
// rounded as recurrentInt8 rounds it; the output of the step before is not, for it stays inside of the operator.
func (r *recurrent) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	var x string
	if len(in[0].shape) == 1 {
		x = g.binary("Unsqueeze", in[0].name, g.ints(0))
	} else {
		x = g.transpose(in[0].name, 1, 0, 2) // steps before examples
	}
	kind := strings.ToUpper(g.kind)
	for l := range r.depth {
		own := g.own[3*l:][:3]
		weights, bias := own[0], r.onnxBias(own[2])
		attributes := []onnxAttribute{intAttribute("hidden_size", r.units)}
		if kind == "GRU" { // of the input n, z, r: ONNX has z, r, n; of the step before both have z, r, q
			weights = weights.blocks(1, 2, 0)
			attributes = append(attributes, intAttribute("linear_before_reset", 1))
		}
		all, last := g.inner("y"), g.inner("y_h")
		g.operators = append(g.operators, onnxOperator(kind, "",
			[]string{g.rounded(x, r.part(l).inputs), g.put(weights.stacked()), g.put(own[1].stacked()), g.put(bias)}, []string{all, last}, attributes))
		if l == r.depth-1 && !r.sequence {
			return onnxValue{name: g.binary("Squeeze", last, g.ints(0)), shape: r.shape}
		}
		x = g.binary("Squeeze", all, g.ints(1))
	}
	return onnxValue{name: g.transpose(x, 1, 0, 2), shape: r.shape}
}

// onnxBias is the bias as ONNX has it: that of the input, then that of the step before, which is zero but for the
// half q of a GRU's candidate.
func (r *recurrent) onnxBias(w onnxWeight) onnxWeight {
	b := make([]float32, 2*max(r.fed, r.sums-r.from)*r.units)
	copy(b, w.floats[:r.fed*r.units])
	if r.fed < r.sums {
		copy(b, reordered(w.floats[:r.fed*r.units], []int{1, 2, 0}))
		copy(b[len(b)-r.units:], w.floats[r.fed*r.units:])
	}
	w.floats, w.shape = b, []int{1, len(b)}
	return w
}
