package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"choir.example/model/data"
)

// ErrFormat is the error class of every malformed model file.
var ErrFormat = errors.New("not a model file")

// Model is a complete model: everything a node needs to answer predictions. Either Params (float32) or Quantised
// (int8) is set.
type Model struct {
	Name       string           // under which it is released, UTF-8
	Variant    string           // float32, student: with Params; int8, student-int8: with Quantised
	Spec       Spec             // its shape; Inputs is the number of the schema's features
	Schema     *data.Schema     // of the rows that it answers
	Statistics *data.Statistics // of the same schema: they standardise features
	Params     []float32        // Spec.Size values, finite: layer by layer from the input, the weights, then the biases
	Quantised  []Int8Layer      // one a layer, input side first
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
	Name       string          `json:"name"`
	Variant    string          `json:"variant"`
	Spec       Spec            `json:"spec"`
	Schema     json.RawMessage `json:"schema"`
	Statistics []byte          `json:"statistics"`
}

// Encode writes the model as a safetensors file, the same bytes for the same model. Layers are tensors named
// "layers.N.weight" of outputs × inputs and "layers.N.bias"; int8 weights come with "layers.N.scale". The metadata key
// "choir" holds name, variant, shape, schema and the federated statistics that standardise features.
func (m *Model) Encode() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("encode model %s: %w", m.Name, err)
	}
	meta, err := m.metadata()
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
	return encodeSafetensors(meta, ts)
}

// check refuses a model that Decode would not give back.
func (m *Model) check() error {
	if !utf8.ValidString(m.Name) {
		return fmt.Errorf("its name is not UTF-8")
	}
	if m.Schema == nil || m.Statistics == nil {
		return fmt.Errorf("it has no schema or no statistics")
	}
	if m.Statistics.Schema().Digest() != m.Schema.Digest() {
		return fmt.Errorf("its statistics belong to another schema")
	}
	if err := m.checkShape(); err != nil {
		return err
	}
	if (m.Params == nil) == (m.Quantised == nil) {
		return fmt.Errorf("it wants either float or quantised parameters")
	}
	if err := checkVariant(m.Variant, m.Quantised != nil); err != nil {
		return err
	}
	if m.Quantised == nil {
		if len(m.Params) != m.Spec.Size() {
			return fmt.Errorf("%d parameters, want %d", len(m.Params), m.Spec.Size())
		}
		if i := notFinite(m.Params); i >= 0 {
			return fmt.Errorf("parameter %d is %v", i, m.Params[i])
		}
		return nil
	}
	return m.checkQuantised()
}

// checkVariant refuses a name that says something else about the parameters than they do.
func checkVariant(name string, quantised bool) error {
	want := []string{"float32", "student"}
	if quantised {
		want = []string{"int8", "student-int8"}
	}
	if !slices.Contains(want, name) {
		return fmt.Errorf("variant %.20q, want one of %v", name, want)
	}
	return nil
}

// checkShape holds the shape against the schema.
func (m *Model) checkShape() error {
	if err := m.Spec.Validate(); err != nil {
		return err
	}
	if n := m.Schema.Features(); m.Spec.Inputs != n {
		return fmt.Errorf("%d inputs for %d features", m.Spec.Inputs, n)
	}
	return nil
}

func (m *Model) checkQuantised() error {
	dims := m.Spec.layers(nil)
	if len(m.Quantised) != len(dims) {
		return fmt.Errorf("%d layers, want %d", len(m.Quantised), len(dims))
	}
	for i, d := range dims {
		l := &m.Quantised[i]
		if l.Inputs != d.inputs || l.Outputs != d.outputs || len(l.Weights) != d.inputs*d.outputs ||
			len(l.Scales) != d.outputs || len(l.Bias) != d.outputs {
			return fmt.Errorf("layer %d does not fit the shape %v", i, m.Spec)
		}
		if !Finite(l.Scales) || !Finite(l.Bias) {
			return fmt.Errorf("layer %d: a value is not finite", i)
		}
	}
	return nil
}

// metadata is the text beside the tensors.
func (m *Model) metadata() (string, error) {
	b, err := json.Marshal(metadata{m.Name, m.Variant, m.Spec, m.Schema.Encode(), m.Statistics.Encode()})
	return string(b), err
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
	schema, err := data.ParseSchema(meta.Schema)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	t, err := data.DecodeStatistics(schema, meta.Statistics)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	m := &Model{Name: meta.Name, Variant: meta.Variant, Spec: meta.Spec, Schema: schema, Statistics: t}
	if err := m.checkShape(); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	if again, err := m.metadata(); err != nil || again != text {
		return nil, fmt.Errorf("metadata is not in canonical form")
	}
	return m, nil
}

// fill takes the tensors of each layer; all must be there and no others.
func (m *Model) fill(ts map[string]tensor) error {
	dims := m.Spec.layers(nil)
	dtype, each := "F32", 2
	if ts["layers.0.weight"].dtype == "I8" {
		dtype, each = "I8", 3
	}
	if err := checkVariant(m.Variant, dtype == "I8"); err != nil {
		return err
	}
	if len(ts) != each*len(dims) {
		return fmt.Errorf("%d tensors, want %d", len(ts), each*len(dims))
	}
	// Once all weights are seen to be there, the file is as long as what is allocated for it.
	for i, d := range dims {
		if _, err := take(ts, fmt.Sprintf("layers.%d.weight", i), dtype, d.outputs, d.inputs); err != nil {
			return err
		}
	}
	if dtype == "I8" {
		return m.fillInt8(ts, dims)
	}
	m.Params = make([]float32, m.Spec.Size())
	for i, l := range m.Spec.layers(m.Params) {
		bias, err := take(ts, fmt.Sprintf("layers.%d.bias", i), "F32", l.outputs)
		if err != nil {
			return err
		}
		weights := ts[fmt.Sprintf("layers.%d.weight", i)].body
		if err := errors.Join(unpackFloats(l.bias, bias), unpackFloats(l.weights, weights)); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return nil
}

func (m *Model) fillInt8(ts map[string]tensor, dims []layer) error {
	for i, d := range dims {
		bias, err := take(ts, fmt.Sprintf("layers.%d.bias", i), "F32", d.outputs)
		if err != nil {
			return err
		}
		scale, err := take(ts, fmt.Sprintf("layers.%d.scale", i), "F32", d.outputs)
		if err != nil {
			return err
		}
		l := Int8Layer{Inputs: d.inputs, Outputs: d.outputs,
			Weights: unpackInt8(ts[fmt.Sprintf("layers.%d.weight", i)].body),
			Scales:  make([]float32, d.outputs), Bias: make([]float32, d.outputs)}
		if err := errors.Join(unpackFloats(l.Bias, bias), unpackFloats(l.Scales, scale)); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		m.Quantised = append(m.Quantised, l)
	}
	return nil
}

// Finite reports whether every value is a finite number.
func Finite(x []float32) bool { return notFinite(x) < 0 }

// notFinite is the index of the first value that is NaN or infinite, -1 if there is none.
func notFinite(x []float32) int {
	return slices.IndexFunc(x, func(v float32) bool { return v-v != 0 })
}

// Layer is a dense layer of a float model: weights of Outputs × Inputs, row-major. The slices alias the parameters.
type Layer struct {
	Inputs, Outputs int       // widths
	Weights         []float32 // Outputs × Inputs
	Bias            []float32 // of length Outputs
}

// Layers are the views over the model's float parameters, input side first: writing to one changes Params.
func (m *Model) Layers() []Layer {
	var out []Layer
	for _, l := range m.Spec.layers(m.Params) {
		out = append(out, Layer{l.inputs, l.outputs, l.weights, l.bias})
	}
	return out
}
