package model

import (
	"fmt"
	"slices"

	"choir.example/model/kernel"
)

// Int8Tensor is a tensor of a quantised model. Weights are int8, symmetric, with one scale an output (Jacob et al. 2018,
// §2.1; Krishnamoorthi 2018, §3.1): w ≈ Scales[o]·Weights[o]. A table of rows has one scale a row. Every other tensor
// stays float32.
type Int8Tensor struct {
	Weights []int8    // outputs × inputs: the last axis of the tensor's shape first; of a table as it lies; nil of others
	Scales  []float32 // one an output or row, finite: what a step of a weight means; nil likewise
	Floats  []float32 // the tensor itself, if it has no weights
}

// Quantise rounds a network's finite weights to int8.
func Quantise(n *Network, params []float32) ([]Int8Tensor, error) {
	if len(params) != n.Size() || !Finite(params) {
		return nil, fmt.Errorf("it has no finite float parameters")
	}
	ts := n.Tensors()
	out := make([]Int8Tensor, len(ts))
	for i, t := range ts {
		body := t.toFile(params)
		scales := t.scales()
		if scales == 0 {
			out[i].Floats = body
			continue
		}
		k := t.Len() / scales
		out[i] = Int8Tensor{Weights: make([]int8, t.Len()), Scales: make([]float32, scales)}
		for o := range out[i].Scales {
			out[i].Scales[o] = kernel.QuantiseRow(out[i].Weights[o*k:(o+1)*k], body[o*k:(o+1)*k])
		}
	}
	return out, nil
}

// checkInt8 refuses quantised tensors that are not the network's.
func (n *Network) checkInt8(tensors []Int8Tensor) error {
	ts := n.Tensors()
	if len(tensors) != len(ts) {
		return fmt.Errorf("%d tensors, want %d", len(tensors), len(ts))
	}
	for i, t := range ts {
		q := &tensors[i]
		weights, scales, floats := 0, t.scales(), t.Len()
		if scales > 0 {
			weights, floats = t.Len(), 0
		}
		if len(q.Weights) != weights || len(q.Scales) != scales || len(q.Floats) != floats {
			return fmt.Errorf("%s does not fit the shape %v", t.Name, t.Shape)
		}
		if !Finite(q.Scales) || !Finite(q.Floats) {
			return fmt.Errorf("%s: a value is not finite", t.Name)
		}
		if slices.Contains(q.Weights, -128) {
			return fmt.Errorf("%s: a weight is -128, want -127 to 127", t.Name)
		}
	}
	return nil
}

// quantisable is a layer that computes in int8, given its tensors. Any other, and one that returns nil, computes in
// float32 with what its weights stand for.
type quantisable interface {
	int8(ts []Int8Tensor) int8Layer
}

// int8Layer computes what its layer does with int8 weights. It quantises its input row by row as it comes, and
// multiplies in integers.
type int8Layer interface {
	work(batch int) int                    // float32s that forward needs
	integers(batch int) (bytes, words int) // int8s and int32s that it needs
	forward(p *pass)
}

// dequantise writes what the tensor stands for to its place in the flat parameters.
func (q Int8Tensor) dequantise(t Tensor, params []float32) {
	at := params[t.Offset:][:t.Len()]
	switch {
	case t.Table:
		for i := range at {
			at[i] = float32(q.Weights[i]) * q.Scales[i/t.Outputs()]
		}
		return
	case !t.Weight:
		copy(at, q.Floats)
		return
	}
	outputs := t.Outputs()
	inputs := t.Len() / outputs
	for i := range at {
		o := i % outputs
		at[i] = float32(q.Weights[o*inputs+i/outputs]) * q.Scales[o]
	}
}

// NewInt8Predictor returns a predictor over the quantised tensors of the network, which it keeps and reads only.
func NewInt8Predictor(network *Network, tensors []Int8Tensor) *Predictor {
	params, replaced := make([]float32, network.Size()), make([]int8Layer, len(network.nodes))
	for i := range network.nodes {
		n := &network.nodes[i]
		own := tensors[:len(n.tensors())]
		tensors = tensors[len(own):]
		if q, ok := n.layer.(quantisable); ok {
			replaced[i] = q.int8(own)
		}
		if replaced[i] != nil {
			continue
		}
		for k, t := range n.named() {
			own[k].dequantise(t, params)
		}
	}
	return newPredictor(network, params, replaced)
}
