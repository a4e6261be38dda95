package model

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"choir.example/model/data"
)

// onnxCase is an architecture to export.
type onnxCase struct {
	name string
	spec Spec
}

// Tolerances of exported models, against the largest output. An int8 graph rounds to the same steps as a Predictor, but
// divides by a scale where the Predictor multiplies by its inverse: a value half way between two steps may take the other
// one, and every later layer sees that.
const (
	onnxFloatTolerance = 1e-5
	onnxInt8Tolerance  = 1.0 / 127
)

// int8Tolerance is larger for deep networks, in which one value that takes another step moves many of the next layers,
// and for recurrent layers, whose output a graph does not round on its way to the next step.
func (c onnxCase) int8Tolerance() float64 {
	recurrent := slices.ContainsFunc(c.spec.Layers, func(l LayerSpec) bool { return slices.Contains([]string{"rnn", "gru", "lstm"}, l.Kind) })
	if recurrent || len(c.spec.Layers) > 20 {
		return 4 * onnxInt8Tolerance
	}
	return onnxInt8Tolerance
}

// onnxCases are all kinds of layers and architectures.
func onnxCases(t *testing.T) []onnxCase {
	t.Helper()
	deep := Spec{Input: []int{5, 4, 3}, Loss: "softmax", Layers: []LayerSpec{
		{Kind: "dense", Units: 6, Activation: "tanh"},
		{Kind: "dense", Units: 5, Activation: "sigmoid"},
		{Kind: "flatten", Name: "output"},
		{Kind: "dense", Name: "output.weight", Units: 7},
	}}
	cases := []onnxCase{
		{name: "perceptron", spec: MLP(30, 16, 8)},
		{name: "dense over positions", spec: deep},
	}
	for _, name := range Architectures() {
		spec, err := Named(name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, onnxCase{name: name, spec: spec})
	}
	for _, l := range []LayerSpec{
		{Kind: "conv", Filters: 4, Kernel: 3, Padding: 1, Activation: "tanh"},
		{Kind: "conv", Filters: 9, Kernel: 2, Groups: 3, Stride: 2, Padding: 1},
		{Kind: "conv", Filters: 6, Kernel: 3, Groups: 6, Stride: 2, Padding: 1, Activation: "relu"},
		{Kind: "conv", Filters: 6, Kernel: 1, Groups: 6},
		{Kind: "maxpool", Kernel: 3, Stride: 2},
		{Kind: "avgpool", Kernel: 2},
		{Kind: "globalpool"},
		{Kind: "groupnorm", Groups: 3},
		{Kind: "layernorm"},
		{Kind: "shuffle", Groups: 3},
		{Kind: "activation", Activation: "sigmoid"},
		{Kind: "dropout", Rate: .3},
	} {
		cases = append(cases, onnxCase{name: fmt.Sprintf("%+v", l), spec: over(l)})
	}
	for _, kind := range []string{"rnn", "gru", "lstm"} {
		cases = append(cases,
			onnxCase{name: kind + " of characters", spec: CharLM(kind, 9, 20, 12, 2)},
			onnxCase{name: kind + " of one step", spec: Spec{Input: []int{6}, Loss: "squared", Layers: []LayerSpec{
				{Kind: kind, Units: 5, Sequence: true}, {Kind: kind, Units: 4},
			}}})
	}
	cases = append(cases,
		onnxCase{name: "bags", spec: Spec{Input: []int{3, 5}, Loss: "squared", Layers: []LayerSpec{
			{Kind: "embedding-bag", Rows: []int{9}, Dim: 4, Pool: "sum"}, {Kind: "flatten"}, {Kind: "dense", Units: 2},
		}}},
		onnxCase{name: "recommendations after steps", spec: RecommendLSTM(4, 30, 40, 8, 9, 1)},
		onnxCase{name: "several items", spec: Factorisation(30, 40, 8, 5, "bpr")},
		onnxCase{name: "numbers beside ids", spec: Spec{Input: []int{4}, Loss: "squared", Layers: []LayerSpec{
			{Name: "rows", Kind: "embedding", Rows: []int{30, 40}, Columns: []int{2, 0}, Dim: 3},
			{Kind: "concat", From: []string{"rows", "input"}}, {Kind: "dense", Units: 2},
		}}},
	)
	return append(cases,
		onnxCase{name: "norms of channels last", spec: Spec{Input: []int{7, 6}, Loss: "softmax", Layers: []LayerSpec{
			{Kind: "dense", Units: 8}, {Kind: "groupnorm", Groups: 4}, {Kind: "layernorm"}, {Kind: "shuffle", Groups: 2},
			{Kind: "globalpool"}, {Kind: "dense", Units: 8}, {Kind: "groupnorm", Groups: 2}, {Kind: "layernorm"}, {Kind: "shuffle", Groups: 4},
		}}},
		onnxCase{name: "residuals of both orders", spec: Spec{Input: []int{5, 4, 3}, Loss: "softmax", Layers: []LayerSpec{
			{Name: "a", Kind: "dense", Units: 6}, {Name: "b", Kind: "conv", Filters: 6, Kernel: 3, Padding: 1},
			{Name: "c", Kind: "layernorm"}, {Name: "d", Kind: "shuffle", Groups: 2}, {Name: "sum", Kind: "add", From: []string{"a", "b", "c", "d"}},
			{Name: "wide", Kind: "concat", From: []string{"a", "sum", "input"}}, {Name: "last", Kind: "conv", Filters: 2, Kernel: 3},
		}}},
	)
}

// input draws examples for a case.
func (c onnxCase) input(rng *rand.Rand, n *Network, examples int) ([]float32, onnxFeed) {
	dims := append([]int{examples}, n.spec.Input...)
	x := random(rng, examples*n.Inputs(), 1)
	below := 0 // the rows of the smallest table
	for _, l := range c.spec.Layers {
		for _, rows := range l.Rows {
			below = min(cmp.Or(below, rows), rows)
		}
	}
	if below == 0 {
		return x, floatFeed(x, dims...)
	}
	for i := range x {
		x[i] = float32(rng.IntN(below))
	}
	if !n.readsIDs() {
		return x, floatFeed(x, dims...)
	}
	return x, idFeed(x, dims...)
}

// onnxruntime computes what Predictors do, from the exported files, in float32 and in int8.
func TestONNX(t *testing.T) {
	type check struct {
		name      string
		want      []float32
		dims      []int
		tolerance float64
	}
	rng := rand.New(rand.NewPCG(1, 0))
	var runs []onnxRun
	var checks []check
	for _, c := range onnxCases(t) {
		n := compile(t, c.spec)
		params := n.Initial(3)
		for i := range params {
			params[i] += float32(rng.NormFloat64() * .05) // biases too
		}
		tensors, err := Quantise(n, params)
		if err != nil {
			t.Fatal(err)
		}
		float, errFloat := n.ONNX(params)
		int8, errInt8 := n.ONNXInt8(tensors)
		for _, examples := range []int{1, 3} {
			x, feed := c.input(rng, n, examples)
			dims := append([]int{examples}, n.OutputShape()...)
			want := make([]float32, examples*n.Outputs())
			NewPredictor(n, params).Predict(x, want)
			name := fmt.Sprintf("%s, %d examples", c.name, examples)
			runs = append(runs, newRun(t, float, errFloat, map[string]onnxFeed{"input": feed}))
			checks = append(checks, check{name, slices.Clone(want), dims, onnxFloatTolerance})
			NewInt8Predictor(n, tensors).Predict(x, want)
			runs = append(runs, newRun(t, int8, errInt8, map[string]onnxFeed{"input": feed}))
			checks = append(checks, check{name + ", int8", want, dims, c.int8Tolerance()})
		}
	}
	for i, ran := range runONNX(t, runs) {
		c := checks[i]
		out := ran.Outputs["output"]
		if ran.Error != "" || !slices.Equal(out.Dims, c.dims) {
			t.Errorf("%s: %s, outputs of shape %v, want %v", c.name, ran.Error, out.Dims, c.dims)
			continue
		}
		off := distance(out.Data, c.want)
		t.Logf("%s: off by %.2g", c.name, off)
		if off > c.tolerance {
			t.Errorf("%s: off by %.2g of the largest output, want at most %.2g", c.name, off, c.tolerance)
		}
	}
}

// onnxSchema has columns of all kinds, and names that the graph has other uses for.
const onnxSchema = `{"name":"visits","columns":[{"name":"output","kind":"numeric","min":-10,"max":90},
{"name":"spent","kind":"numeric","min":2,"max":5000,"longTail":true},{"name":"bought","kind":"boolean"},
{"name":"features/mul","kind":"category","categories":["Mon","Tue","Ås"]},{"name":"new","kind":"boolean"},
{"name":"when","kind":"time"},{"name":"user","kind":"id","min":1,"max":9},{"name":"seen","kind":"sequence","max":9,"length":2},
{"name":"said","kind":"text","length":3,"buckets":50,"words":1}],"label":"bought","unit":"visit"}`

// An exported model takes rows by the schema's columns, missing values included, and gives the probability that a node's
// prediction gives.
func TestONNXOfModel(t *testing.T) {
	schema, err := data.ParseSchema([]byte(onnxSchema))
	if err != nil {
		t.Fatal(err)
	}
	nan := float32(0)
	nan /= nan
	numbers := [2][]float32{{-10, 90, 31, nan, 2}, {2, 5000, nan, 99, 3}}
	days, indexes := []any{"Tue", "", "Ås", "Mon", "Tue"}, []float32{1, nan, 2, 0, 1}
	fresh, values := []any{0, 1, 0, 1, 0}, []float32{0, 1, nan, 1, 0}
	ids := append([]float32{3, 0, 9, 1, 2}, append([]float32{0, 1, 2, 3, 0, 0, 9, 9, 0, 4}, make([]float32, 15)...)...)
	copy(ids[15:], []float32{50, 2, 0, 7, 7, 7})
	var rows []data.Row
	for i := range days {
		rows = append(rows, data.Row{float64(numbers[0][i]), float64(numbers[1][i]), 1, float64(indexes[i]), float64(values[i]), 1e9,
			float64(ids[i]), float64(ids[5+2*i]), float64(ids[6+2*i]), float64(ids[15+3*i]), float64(ids[16+3*i]), float64(ids[17+3*i])})
	}
	statistics, err := data.NewStatistics(schema, data.Collect(schema, rows))
	if err != nil {
		t.Fatal(err)
	}
	n := compile(t, MLP(schema.Features(), 6))
	m := &Model{Name: "visits", Variant: "float32", Network: n, Schema: schema, Statistics: statistics, Params: n.Initial(2)}
	q := *m
	q.Variant, q.Params = "int8", nil
	if q.Quantised, err = Quantise(n, m.Params); err != nil {
		t.Fatal(err)
	}
	feeds := map[string]onnxFeed{
		"output": floatFeed(numbers[0], 5, 1), "spent": floatFeed(numbers[1], 5, 1),
		"features/mul": {"string", []int{5, 1}, days}, "new": {"bool", []int{5, 1}, fresh},
		"user": idFeed(ids[:5], 5, 1), "seen": idFeed(ids[5:15], 5, 2), "said": idFeed(ids[15:], 5, 3),
	}
	models := []*Model{m, &q}
	var runs []onnxRun
	for _, m := range models {
		file, err := m.ONNX()
		runs = append(runs, newRun(t, file, err, feeds))
	}
	x, _ := statistics.Matrix(rows)
	for i, ran := range runONNX(t, runs) {
		logits := make([]float32, len(rows))
		models[i].Predictor().Predict(x, logits)
		want := make([]float32, len(rows))
		for k, z := range logits {
			want[k] = float32(Probability(z))
		}
		tolerance := []float64{onnxFloatTolerance, onnxInt8Tolerance}[i]
		got, raw := ran.Outputs["probability"], ran.Outputs["output_2"]
		if ran.Error != "" || !slices.Equal(got.Dims, []int{5}) || distance(got.Data, want) > tolerance || distance(raw.Data, logits) > tolerance {
			t.Errorf("%s: %s, probabilities %v of shape %v, want %v", models[i].Variant, ran.Error, got.Data, got.Dims, want)
		}
	}
}

// What a file says of itself: IR version 8, opset 13, no other operators; and with int8 weights every tensor of weights
// is int8, dequantised, and nowhere a float32.
func TestONNXFilesHold(t *testing.T) {
	for _, c := range onnxCases(t) {
		n := compile(t, c.spec)
		params := n.Initial(3)
		quantised, err := Quantise(n, params)
		if err != nil {
			t.Fatal(err)
		}
		float, errFloat := n.ONNX(params)
		int8, errInt8 := n.ONNXInt8(quantised)
		if err := errors.Join(errFloat, errInt8); err != nil {
			t.Fatal(err)
		}
		for _, f := range []onnxSeen{readONNX(t, float), readONNX(t, int8)} {
			if f.ir != 8 || !maps.Equal(f.opsets, map[string]uint64{"": 13}) {
				t.Errorf("%s: IR version %d, operators %v", c.name, f.ir, f.opsets)
			}
		}
		f, q, weights := readONNX(t, float), readONNX(t, int8), 0
		for _, tensor := range n.Tensors() {
			if tensor.scales() == 0 {
				continue
			}
			weights++
			if got := f.sizes[onnxFloat][tensor.Name]; got != tensor.Len() {
				t.Errorf("%s: %s has %d float32s, want %d", c.name, tensor.Name, got, tensor.Len())
			}
			got, scales := q.sizes[onnxInt8][tensor.Name], q.sizes[onnxFloat][tensor.Name+".scale"]
			if got != tensor.Len() || scales != tensor.scales() || q.sizes[onnxFloat][tensor.Name] > 0 {
				t.Errorf("%s, int8: %s has %d int8s with %d scales, want %d with %d", c.name, tensor.Name, got, scales, tensor.Len(), tensor.scales())
			}
		}
		if q.operators["DequantizeLinear"] < weights || f.operators["DequantizeLinear"] > 0 {
			t.Errorf("%s: operators %v", c.name, q.operators)
		}
	}
}

// onnxSeen is what a file says.
type onnxSeen struct {
	ir        uint64
	opsets    map[string]uint64
	operators map[string]int
	sizes     map[onnxType]map[string]int // elements of constants by type and name
}

// readONNX reads a file by the numbers of onnx.proto.
func readONNX(t *testing.T, file []byte) onnxSeen {
	t.Helper()
	f := onnxSeen{opsets: map[string]uint64{}, operators: map[string]int{}, sizes: map[onnxType]map[string]int{}}
	whole := fieldsOf(t, file)
	f.ir = whole[1][0].number
	for _, set := range whole[8] {
		own := fieldsOf(t, set.body)
		f.opsets[string(own[1][0].body)] = own[2][0].number
	}
	graph := fieldsOf(t, whole[7][0].body)
	for _, operator := range graph[1] {
		f.operators[string(fieldsOf(t, operator.body)[4][0].body)]++
	}
	for _, constant := range graph[5] {
		own, size := fieldsOf(t, constant.body), 1
		for _, d := range own[1] {
			size *= int(d.number)
		}
		kind := onnxType(own[2][0].number)
		if f.sizes[kind] == nil {
			f.sizes[kind] = map[string]int{}
		}
		f.sizes[kind][string(own[8][0].body)] = size
	}
	return f
}

// wireField is a value of a protocol buffer message: a number, or bytes.
type wireField struct {
	number uint64
	body   []byte
}

// fieldsOf are a message's values by their field's number.
func fieldsOf(t *testing.T, m []byte) map[uint64][]wireField {
	t.Helper()
	all := map[uint64][]wireField{}
	take := func() uint64 {
		v, n := binary.Uvarint(m)
		if n <= 0 {
			t.Fatal("a message is cut")
		}
		m = m[n:]
		return v
	}
	for len(m) > 0 {
		tag, size, f := take(), 0, wireField{}
		switch tag & 7 {
		case wireVarint:
			f.number = take()
		case wireBytes:
			size = int(take())
		case wireFixed:
			size = 4
		default:
			t.Fatalf("wire type %d", tag&7)
		}
		if size > len(m) {
			t.Fatal("a message is cut")
		}
		f.body, m = m[:size], m[size:]
		all[tag>>3] = append(all[tag>>3], f)
	}
	return all
}

// The cases leave no kind of layer out.
func TestONNXCoversLayers(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range onnxCases(t) {
		for _, l := range c.spec.Layers {
			seen[l.Kind] = true
		}
	}
	for kind := range kinds {
		if !seen[kind] {
			t.Errorf("no case exports a %s layer", kind)
		}
	}
}

func TestONNXRefuses(t *testing.T) {
	n := compile(t, MLP(2, 2))
	if _, err := n.ONNX(make([]float32, 3)); err == nil || !strings.Contains(err.Error(), "3 parameters, want 9") {
		t.Errorf("error %v", err)
	}
	if _, err := n.ONNXInt8(nil); err == nil || !strings.Contains(err.Error(), "0 tensors, want 4") {
		t.Errorf("error %v", err)
	}
	m := small(t, "float32")
	m.Params[0] = float32(math.NaN())
	if _, err := m.ONNX(); err == nil || !strings.Contains(err.Error(), "export model small to ONNX: parameter 0 is NaN") {
		t.Errorf("error %v", err)
	}
}

// A model has one file.
func TestONNXIsDeterministic(t *testing.T) {
	for _, variant := range []string{"float32", "int8"} {
		a, err := small(t, variant).ONNX()
		if err != nil {
			t.Fatal(err)
		}
		b, err := small(t, variant).ONNX()
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: two exports differ, or %v", variant, err)
		}
	}
}
