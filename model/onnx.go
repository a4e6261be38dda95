package model

import (
	"fmt"
	"slices"
)

// ONNX is the format of onnxruntime and many others: a graph of operators, here those of opset 13, IR version 8. A
// network's layers become a few operators each; how, stands in a file onnx_… a family of layers. What comes out has the
// input "input" and the output "output" with the shapes of the network, images height × width × channels, sequences time ×
// features, and any number of examples. An input of ids, that only embeddings read, is int64, as other exporters have it;
// all else is float32. The output is what Predictor gives: logits, scores or real numbers.
//
// An int8 network keeps its int8 weights: a DequantizeLinear with a scale an output, and where a Predictor rounds a row to
// int8 as it comes, so does the graph (QuantizeLinear and DequantizeLinear with a scale computed from the row). What
// differs is said where it does. A runtime computes the products in float32 between them: such a file is smaller, not
// faster.

// ONNX is the network with params, of its Size, as an ONNX file.
func (n *Network) ONNX(params []float32) ([]byte, error) {
	if len(params) != n.size {
		return nil, fmt.Errorf("export to ONNX: %d parameters, want %d", len(params), n.size)
	}
	return n.onnxFile(n.onnxFloats(params), false)
}

// ONNXInt8 is the network with quantised tensors as an ONNX file.
func (n *Network) ONNXInt8(tensors []Int8Tensor) ([]byte, error) {
	if err := n.checkInt8(tensors); err != nil {
		return nil, fmt.Errorf("export to ONNX: %w", err)
	}
	return n.onnxFile(n.onnxInt8s(tensors), true)
}

func (n *Network) onnxFile(weights []onnxWeight, int8 bool) ([]byte, error) {
	g := &onnxGraph{names: map[string]bool{}, int8: int8, layer: "input"}
	input, kind := onnxValue{name: g.unique("input"), shape: n.spec.Input, ids: n.readsIDs()}, onnxFloat
	if input.ids {
		kind = onnxInt64
	}
	g.inputs = append(g.inputs, onnxInfo(input.name, kind, input.shape))
	output := g.unique("output")
	g.network(n, weights, input, output)
	file, err := g.file("network")
	if err != nil {
		return nil, fmt.Errorf("export to ONNX: %w", err)
	}
	return file, nil
}

// network adds a network's layers, and makes the last one's value an output of the graph.
func (g *onnxGraph) network(n *Network, weights []onnxWeight, input onnxValue, output string) onnxValue {
	values := make([]onnxValue, len(n.nodes))
	for i := range n.nodes {
		at := &n.nodes[i]
		in := make([]onnxValue, len(at.from))
		for k, from := range at.from {
			in[k] = input
			if from >= 0 {
				in[k] = values[from]
			}
		}
		own := len(at.tensors())
		g.layer, g.kind, g.own, weights = at.name, at.kind, weights[:own], weights[own:]
		values[i] = at.layer.onnx(g, in)
	}
	last := values[len(values)-1]
	g.operators = append(g.operators, onnxOperator("Identity", "", []string{g.last(last)}, []string{output}, nil))
	g.outputs = append(g.outputs, onnxInfo(output, onnxFloat, last.shape))
	return onnxValue{name: output, shape: last.shape}
}

// onnxFloats are the network's tensors, of weights the outputs first.
func (n *Network) onnxFloats(params []float32) []onnxWeight {
	var all []onnxWeight
	for _, t := range n.Tensors() {
		all = append(all, onnxWeight{name: t.Name, shape: t.fileShape(), floats: t.toFile(params)})
	}
	return all
}

func (n *Network) onnxInt8s(tensors []Int8Tensor) []onnxWeight {
	var all []onnxWeight
	for i, t := range n.Tensors() {
		q := tensors[i]
		all = append(all, onnxWeight{name: t.Name, shape: t.fileShape(), floats: q.Floats, int8s: q.Weights, scales: q.Scales})
	}
	return all
}

// readsIDs reports whether only layers of ids read the input.
func (n *Network) readsIDs() bool {
	return !slices.ContainsFunc(n.nodes, func(at node) bool {
		return at.table == nil && slices.ContainsFunc(at.from, func(from int) bool { return from < 0 })
	})
}
