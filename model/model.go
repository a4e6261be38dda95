package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"choir.example/model/data"
)

// ErrFormat is the error class of every malformed model file.
var ErrFormat = errors.New("not a model file")

// Model is a complete model: everything a node needs to answer predictions. Either Params (float32) or Quantised
// (int8) is set.
type Model struct {
	Name       string
	Variant    string // float32, int8, student, student-int8
	Spec       Spec
	Schema     *data.Schema
	Statistics *data.Statistics
	Params     []float32
	Quantised  []Int8Layer
}

// Predictor returns a new predictor that reads the model.
func (m *Model) Predictor() Predictor {
	if m.Quantised != nil {
		return NewInt8(m.Quantised)
	}
	return NewFloat(m.Spec, m.Params)
}

// Evaluate measures the model on rows of its schema.
func (m *Model) Evaluate(rows []data.Row) Evaluation {
	x, y := m.Statistics.Matrix(rows)
	return Evaluate(m.Predictor(), x, y)
}

// metadata is what a model file says beside its tensors.
type metadata struct {
	Name       string       `json:"name"`
	Variant    string       `json:"variant"`
	Spec       Spec         `json:"spec"`
	Schema     *data.Schema `json:"schema"`
	Statistics []byte       `json:"statistics"`
}

// Encode writes the model as a safetensors file, the same bytes for the same model. Layers are tensors named
// "layers.N.weight" of outputs × inputs and "layers.N.bias"; int8 weights come with "layers.N.scale". The metadata key
// "choir" holds name, variant, shape, schema and the federated statistics that standardise features.
func (m *Model) Encode() ([]byte, error) {
	meta, err := json.Marshal(metadata{m.Name, m.Variant, m.Spec, m.Schema, m.Statistics.Encode()})
	if err != nil {
		return nil, fmt.Errorf("encode model %s: %w", m.Name, err)
	}
	var ts []tensor
	if m.Quantised != nil {
		for i, l := range m.Quantised {
			ts = append(ts,
				tensor{fmt.Sprintf("layers.%d.bias", i), "F32", []int{l.Outputs}, packFloats(l.Bias)},
				tensor{fmt.Sprintf("layers.%d.scale", i), "F32", []int{l.Outputs}, packFloats(l.Scales)},
				tensor{fmt.Sprintf("layers.%d.weight", i), "I8", []int{l.Outputs, l.Inputs}, packInt8(l.Weights)})
		}
	} else {
		for i, l := range m.Spec.layers(m.Params) {
			ts = append(ts,
				tensor{fmt.Sprintf("layers.%d.bias", i), "F32", []int{l.outputs}, packFloats(l.bias)},
				tensor{fmt.Sprintf("layers.%d.weight", i), "F32", []int{l.outputs, l.inputs}, packFloats(l.weights)})
		}
	}
	return encodeSafetensors(string(meta), ts)
}

// Decode reads what Encode wrote. Anything else, a shape that does not fit, or a value that is not finite, is an error
// that wraps ErrFormat.
func Decode(b []byte) (*Model, error) {
	meta, ts, err := decodeSafetensors(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	m, err := fromMetadata(meta)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err := m.fill(ts); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return m, nil
}

func fromMetadata(text string) (*Model, error) {
	var meta metadata
	if err := strictJSON([]byte(text), &meta); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	if meta.Schema == nil {
		return nil, fmt.Errorf("metadata: no schema")
	}
	if err := meta.Schema.Validate(); err != nil {
		return nil, err
	}
	if err := meta.Spec.Validate(); err != nil {
		return nil, err
	}
	if meta.Spec.Inputs != meta.Schema.Features() {
		return nil, fmt.Errorf("%d inputs for %d features", meta.Spec.Inputs, meta.Schema.Features())
	}
	t, err := data.DecodeStatistics(meta.Schema, meta.Statistics)
	if err != nil {
		return nil, err
	}
	return &Model{Name: meta.Name, Variant: meta.Variant, Spec: meta.Spec, Schema: meta.Schema, Statistics: t}, nil
}

// fill takes the tensors of each layer; all must be there and no others.
func (m *Model) fill(ts map[string]tensor) error {
	dims := m.Spec.layers(nil)
	quantised := ts["layers.0.weight"].dtype == "I8"
	if !quantised {
		m.Params = make([]float32, m.Spec.Size())
	}
	views := m.Spec.layers(m.Params)
	used := 0
	for i, d := range dims {
		bias, err := take(ts, fmt.Sprintf("layers.%d.bias", i), "F32", d.outputs)
		if err != nil {
			return err
		}
		weight := fmt.Sprintf("layers.%d.weight", i)
		if !quantised {
			body, err := take(ts, weight, "F32", d.outputs, d.inputs)
			if err != nil {
				return err
			}
			if err := errors.Join(unpackFloats(views[i].bias, bias), unpackFloats(views[i].weights, body)); err != nil {
				return fmt.Errorf("layer %d: %w", i, err)
			}
			used += 2
			continue
		}
		body, err := take(ts, weight, "I8", d.outputs, d.inputs)
		if err != nil {
			return err
		}
		scale, err := take(ts, fmt.Sprintf("layers.%d.scale", i), "F32", d.outputs)
		if err != nil {
			return err
		}
		l := Int8Layer{Inputs: d.inputs, Outputs: d.outputs, Weights: unpackInt8(body),
			Scales: make([]float32, d.outputs), Bias: make([]float32, d.outputs)}
		if err := errors.Join(unpackFloats(l.Bias, bias), unpackFloats(l.Scales, scale)); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		m.Quantised = append(m.Quantised, l)
		used += 3
	}
	if used != len(ts) {
		return fmt.Errorf("%d tensors, want %d", len(ts), used)
	}
	return nil
}

// Finite reports whether every value is a finite number.
func Finite(x []float32) bool {
	for _, v := range x {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return false
		}
	}
	return true
}

// Layer is a dense layer of a float model: weights of Outputs × Inputs, row-major. The slices alias the parameters.
type Layer struct {
	Inputs, Outputs int
	Weights, Bias   []float32
}

// Layers are the views over the model's float parameters, input side first.
func (m *Model) Layers() []Layer {
	var out []Layer
	for _, l := range m.Spec.layers(m.Params) {
		out = append(out, Layer{l.inputs, l.outputs, l.weights, l.bias})
	}
	return out
}
