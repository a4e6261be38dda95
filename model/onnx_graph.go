package model

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"choir.example/model/kernel"
)

// onnxGraph is an ONNX graph that grows operator by operator. Values have names, each once.
type onnxGraph struct {
	operators, initializers, inputs, outputs []message
	types                                    []message // of values between, that readers do not infer

	names map[string]bool
	ml    bool   // an operator of ai.onnx.ml is among them
	int8  bool   // weights are int8 and what they meet is rounded
	layer string // whose operators come: their names begin with it
	kind  string // of that layer
	own   []onnxWeight
}

// onnxValue is a value of a graph that comes out of a layer.
type onnxValue struct {
	name  string
	shape []int // of an example: as the layer has it
	// channelsFirst says that in the graph the last axis comes right after the batch, as ONNX's image operators have it.
	channelsFirst bool
	ids           bool // int64s, not float32s
}

// unique is the name, or if it is taken the name with a number.
func (g *onnxGraph) unique(name string) string {
	free := name
	for i := 2; g.names[free]; i++ {
		free = fmt.Sprintf("%s_%d", name, i)
	}
	g.names[free] = true
	return free
}

// inner is a name for a value inside of the layer.
func (g *onnxGraph) inner(what string) string { return g.unique(g.layer + "/" + strings.ToLower(what)) }

// op adds an operator with one output, and returns its name.
func (g *onnxGraph) op(kind string, in []string, attributes ...onnxAttribute) string {
	out := g.inner(kind)
	g.operators = append(g.operators, onnxOperator(kind, "", in, []string{out}, attributes))
	return out
}

// unary, binary: operators of one and two inputs without settings.
func (g *onnxGraph) unary(kind, x string) string     { return g.op(kind, []string{x}) }
func (g *onnxGraph) binary(kind, x, y string) string { return g.op(kind, []string{x, y}) }

// constant adds a constant.
func (g *onnxGraph) constant(name string, kind onnxType, shape []int, raw []byte) string {
	g.initializers = append(g.initializers, onnxTensor(name, kind, shape, raw))
	return name
}

// ints is a constant vector, such as a shape or axes.
func (g *onnxGraph) ints(v ...int) string {
	var raw []byte
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(x))
	}
	return g.constant(g.inner("ints"), onnxInt64, []int{len(v)}, raw)
}

// scalar is a constant without axes.
func (g *onnxGraph) scalar(v float32) string {
	return g.constant(g.inner("scalar"), onnxFloat, nil, packFloats([]float32{v}))
}

// floats is a constant of the shape.
func (g *onnxGraph) floats(what string, shape []int, v []float32) string {
	return g.constant(g.inner(what), onnxFloat, shape, packFloats(v))
}

// reshape gives a value's examples another shape; the batch stays what it is.
func (g *onnxGraph) reshape(x string, shape ...int) string {
	return g.binary("Reshape", x, g.ints(append([]int{-1}, shape...)...))
}

func (g *onnxGraph) transpose(x string, axes ...int) string {
	return g.op("Transpose", []string{x}, intsAttribute("perm", axes...))
}

// first is the value with channels before height and width.
func (g *onnxGraph) first(v onnxValue) string {
	switch {
	case v.channelsFirst:
		return v.name
	case v.shape[2] == 1: // the same order in memory
		return g.reshape(v.name, 1, v.shape[0], v.shape[1])
	}
	return g.transpose(v.name, 0, 3, 1, 2)
}

// last is the value with channels last, as it lies in our memory.
func (g *onnxGraph) last(v onnxValue) string {
	switch {
	case !v.channelsFirst:
		return v.name
	case v.shape[0] == 1 && v.shape[1] == 1:
		return g.reshape(v.name, v.shape...)
	}
	return g.transpose(v.name, 0, 2, 3, 1)
}

// onnxActivations are the operators.
var onnxActivations = map[kernel.Activation]string{kernel.ReLU: "Relu", kernel.Sigmoid: "Sigmoid", kernel.Tanh: "Tanh"}

func (g *onnxGraph) activate(x string, act kernel.Activation) string {
	if act == kernel.Identity {
		return x
	}
	return g.unary(onnxActivations[act], x)
}

// rows is a value as rows of width values, rounded as int8 layers round what their weights meet: to int8, with a scale a
// row that follows from it.
func (g *onnxGraph) rows(x string, width int) string {
	rows := g.reshape(x, width)
	top := g.op("ReduceMax", []string{g.unary("Abs", rows)}, intsAttribute("axes", 1), intAttribute("keepdims", 0))
	scale := g.binary("Max", g.binary("Div", top, g.scalar(127)), g.scalar(0x1p-126)) // a row of zeros divides by something
	zero := g.op("ConstantOfShape", []string{g.unary("Shape", scale)}, tensorAttribute("value", onnxTensor("", onnxInt8, []int{1}, []byte{0})))
	axis := intAttribute("axis", 0)
	q := g.op("QuantizeLinear", []string{rows, scale, zero}, axis)
	return g.op("DequantizeLinear", []string{q, scale, zero}, axis)
}

// rounded is a value, if the model is int8, with its rows rounded.
func (g *onnxGraph) rounded(x string, width int) string {
	if !g.int8 {
		return x
	}
	return g.binary("Reshape", g.rows(x, width), g.unary("Shape", x))
}

// onnxWeight is a tensor of a layer on its way into a graph: floats or int8s. Weights come outputs first.
type onnxWeight struct {
	name   string
	shape  []int
	floats []float32
	int8s  []int8
	scales []float32 // of int8s, along axis
	axis   int
}

// moved is the weight with its axes in another order.
func (w onnxWeight) moved(axes ...int) onnxWeight {
	shape := make([]int, len(axes))
	for i, a := range axes {
		shape[i] = w.shape[a]
	}
	if w.int8s != nil {
		w.int8s = permuted(w.int8s, w.shape, axes)
	} else {
		w.floats = permuted(w.floats, w.shape, axes)
	}
	w.shape, w.axis = shape, slices.Index(axes, w.axis)
	return w
}

// permuted copies an array of the shape with its axes in another order.
func permuted[T any](x []T, shape, axes []int) []T {
	strides := make([]int, len(shape))
	for i, n := len(shape)-1, 1; i >= 0; i-- {
		strides[i] = n
		n *= shape[i]
	}
	out := make([]T, 0, len(x))
	var walk func(depth, at int)
	walk = func(depth, at int) {
		if depth == len(axes) {
			out = append(out, x[at])
			return
		}
		for range shape[axes[depth]] {
			walk(depth+1, at)
			at += strides[axes[depth]]
		}
	}
	walk(0, 0)
	return out
}

// blocks is the weight with equal blocks along its first axis in another order.
func (w onnxWeight) blocks(order ...int) onnxWeight {
	w.floats, w.int8s, w.scales = reordered(w.floats, order), reordered(w.int8s, order), reordered(w.scales, order)
	return w
}

func reordered[T any](x []T, order []int) []T {
	if x == nil {
		return nil
	}
	n := len(x) / len(order)
	out := make([]T, 0, len(x))
	for _, b := range order {
		out = append(out, x[b*n:][:n]...)
	}
	return out
}

// stacked is the weight with one more axis of length 1 before the others.
func (w onnxWeight) stacked() onnxWeight {
	w.shape, w.axis = append([]int{1}, w.shape...), w.axis+1
	return w
}

// put adds a weight; int8 ones come out of a DequantizeLinear.
func (g *onnxGraph) put(w onnxWeight) string {
	if w.int8s == nil {
		return g.constant(g.unique(w.name), onnxFloat, w.shape, packFloats(w.floats))
	}
	q, scales := g.putInt8(w)
	return g.op("DequantizeLinear", []string{q, scales}, intAttribute("axis", w.axis))
}

// putInt8 adds int8 weights and their scales.
func (g *onnxGraph) putInt8(w onnxWeight) (q, scales string) {
	q = g.constant(g.unique(w.name), onnxInt8, w.shape, packInt8(w.int8s))
	return q, g.constant(g.unique(w.name+".scale"), onnxFloat, []int{len(w.scales)}, packFloats(w.scales))
}

// file is the whole as a ModelProto.
func (g *onnxGraph) file(name string, properties ...message) ([]byte, error) {
	var graph, m message
	size := 0
	for _, t := range g.initializers {
		size += len(t)
	}
	if size > maxONNX {
		return nil, fmt.Errorf("its %d bytes of parameters are more than one ONNX file holds, 2^31", size)
	}
	graph = make(message, 0, size+1<<16)
	graph.all(1, g.operators)
	graph.text(2, name)
	graph.all(5, g.initializers)
	graph.all(11, g.inputs)
	graph.all(12, g.outputs)
	graph.all(13, g.types)
	m = make(message, 0, len(graph)+1<<12)
	m.integer(1, 8) // IR version
	m.text(2, "choir")
	m.bytes(7, graph)
	m.bytes(8, onnxVersion("", 13))
	if g.ml {
		m.bytes(8, onnxVersion("ai.onnx.ml", 2))
	}
	m.all(14, properties)
	return m, nil
}

// maxONNX keeps a file below 2^31 bytes, which is all that readers of protocol buffers take.
const maxONNX = 1<<31 - 1<<24

// all adds a repeated message.
func (m *message) all(field uint64, list []message) {
	for _, x := range list {
		m.bytes(field, x)
	}
}
