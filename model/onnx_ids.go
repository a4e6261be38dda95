package model

import "slices"

// A graph that gets an id which no table has stops with an error, where a Predictor reads zeros; but -1 is the last row,
// -2 the one before, as ONNX's Gather has it.

// ids is a value of ids as int64.
func (g *onnxGraph) ids(v onnxValue) string {
	if v.ids {
		return v.name
	}
	return g.op("Cast", []string{v.name}, intAttribute("to", int(onnxInt64)))
}

// gather picks along an axis.
func (g *onnxGraph) gather(from, indices string, axis int) string {
	return g.op("Gather", []string{from, indices}, intAttribute("axis", axis))
}

// table is a table of rows, of which a graph reads a few.
type table struct {
	floats        string // or
	int8s, scales string // a scale a row
	dim           int
}

func (g *onnxGraph) table(w onnxWeight) table {
	t := table{dim: w.shape[1]}
	if w.int8s == nil {
		t.floats = g.put(w)
	} else {
		t.int8s, t.scales = g.putInt8(w)
	}
	return t
}

// lookUp gives the rows that ids of a shape name. Of int8 rows only these are dequantised.
func (g *onnxGraph) lookUp(t table, ids string, shape ...int) string {
	if t.floats != "" {
		return g.gather(t.floats, ids, 0)
	}
	ids = g.reshape(ids)
	in := []string{g.gather(t.int8s, ids, 0), g.gather(t.scales, ids, 0)}
	return g.reshape(g.op("DequantizeLinear", in, intAttribute("axis", 0)), append(slices.Clone(shape), t.dim)...)
}

func (e *embedding) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	ids, last := g.ids(in[0]), len(in[0].shape)
	before := in[0].shape[: last-1 : last-1] // appending copies
	if len(e.tables) == 1 {
		picked := g.gather(ids, g.ints(e.columns...), last)
		return onnxValue{name: g.lookUp(g.table(g.own[0]), picked, append(before, len(e.columns))...), shape: e.shape}
	}
	var parts []string
	for j, c := range e.columns {
		picked := g.reshape(g.gather(ids, g.ints(c), last), before...)
		parts = append(parts, g.lookUp(g.table(g.own[j]), picked, before...))
	}
	return onnxValue{name: g.op("Concat", parts, intAttribute("axis", last)), shape: e.shape}
}

// onnx sums the rows of a bag by a product with ones and, for padding, zeros.
func (b *embeddingBag) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	ids := g.reshape(g.ids(in[0]), b.bag)
	rows := g.lookUp(g.table(g.own[0]), ids, b.bag)
	counts := g.op("Cast", []string{g.binary("Greater", ids, g.constant(g.inner("zero"), onnxInt64, nil, make([]byte, 8)))}, intAttribute("to", int(onnxFloat)))
	counts = g.reshape(counts, 1, b.bag)
	sum := g.binary("MatMul", counts, rows)
	if b.mean {
		n := g.op("ReduceSum", []string{counts, g.ints(2)}, intAttribute("keepdims", 1))
		sum = g.binary("Div", sum, g.binary("Max", n, g.scalar(1)))
	}
	return onnxValue{name: g.reshape(sum, b.shape...), shape: b.shape}
}

func (f factorisation) onnx(g *onnxGraph, in []onnxValue) onnxValue {
	p, ofUser := g.split(g.reshape(in[0].name, 1, f.dim), f.dim-1, 1)
	q, ofItem := g.split(g.reshape(in[1].name, f.items, f.dim), f.dim-1, 1)
	score := g.binary("MatMul", q, g.transpose(p, 0, 2, 1))
	score = g.binary("Add", g.binary("Add", score, ofItem), ofUser)
	score = g.binary("Add", score, g.put(g.own[0]))
	return onnxValue{name: g.reshape(score, f.items), shape: f.output()}
}

// split cuts the last axis in two.
func (g *onnxGraph) split(x string, left, right int) (string, string) {
	out := []string{g.inner("left"), g.inner("right")}
	in := []string{x, g.ints(left, right)}
	g.operators = append(g.operators, onnxOperator("Split", "", in, out, []onnxAttribute{intAttribute("axis", -1)}))
	return out[0], out[1]
}
