package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	Network    *Network         // its architecture; the input is the schema's features
	Schema     *data.Schema     // of the rows that it answers
	Statistics *data.Statistics // of the same schema: they standardise features
	Params     []float32        // of the network's Size, finite
	Quantised  []Int8Tensor     // one for each of the network's Tensors
}

// Predictor returns a new predictor that reads the model.
func (m *Model) Predictor() *Predictor {
	if m.Quantised != nil {
		return NewInt8Predictor(m.Network, m.Quantised)
	}
	return NewPredictor(m.Network, m.Params)
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
	Spec       fileSpec        `json:"spec"`
	Schema     json.RawMessage `json:"schema"`
	Statistics []byte          `json:"statistics"`
}

// fileSpec is an architecture as files hold it: a multilayer perceptron is its widths, as it was before there were
// others; anything else is written out. Exactly one of the two.
type fileSpec struct {
	Inputs int   `json:"inputs,omitempty"`
	Hidden []int `json:"hidden,omitempty"`

	Input  []int       `json:"input,omitempty"`
	Layers []LayerSpec `json:"layers,omitempty"`
	Loss   string      `json:"loss,omitempty"`
}

func toFile(s Spec) fileSpec {
	if hidden, ok := s.hidden(); ok && len(hidden) > 0 { // widths of none would be read as missing ones
		return fileSpec{Inputs: s.Input[0], Hidden: hidden}
	}
	return fileSpec{Input: s.Input, Layers: s.Layers, Loss: s.Loss}
}

func (f fileSpec) compile() (*Network, error) {
	if f.Input != nil || f.Layers != nil {
		return Spec{f.Input, f.Layers, f.Loss}.Compile()
	}
	if err := CheckMLP(f.Inputs, f.Hidden); err != nil {
		return nil, err
	}
	return MLP(f.Inputs, f.Hidden...).Compile()
}

// Encode writes the model as a safetensors file, the same bytes for the same model. A tensor has its layer's name, a
// dot, and weight or bias; weights are outputs × inputs, and int8 ones come with a scale for each output. The metadata
// key "choir" holds name, variant, architecture, schema and the federated statistics that standardise features.
func (m *Model) Encode() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("encode model %s: %w", m.Name, err)
	}
	meta, err := m.metadata()
	if err != nil {
		return nil, fmt.Errorf("encode model %s: %w", m.Name, err)
	}
	return encodeSafetensors(meta, m.Network.fileTensors(m.Params, m.Quantised))
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
		if len(m.Params) != m.Network.Size() {
			return fmt.Errorf("%d parameters, want %d", len(m.Params), m.Network.Size())
		}
		if i := notFinite(m.Params); i >= 0 {
			return fmt.Errorf("parameter %d is %v", i, m.Params[i])
		}
		return nil
	}
	return m.Network.checkInt8(m.Quantised)
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

// checkShape holds the architecture against the schema.
func (m *Model) checkShape() error {
	if m.Network == nil {
		return fmt.Errorf("it has no architecture")
	}
	if n, shape := m.Schema.Features(), m.Network.spec.Input; len(shape) != 1 || shape[0] != n {
		return fmt.Errorf("%s inputs for %d features", strings.Trim(fmt.Sprint(shape), "[]"), n)
	}
	if n := m.Network.Outputs(); n != 1 {
		return fmt.Errorf("%d outputs for one label", n)
	}
	return m.Network.checkTables(m.Schema)
}

// metadata is the text beside the tensors.
func (m *Model) metadata() (string, error) {
	b, err := json.Marshal(metadata{m.Name, m.Variant, toFile(m.Network.spec), m.Schema.Encode(), m.Statistics.Encode()})
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
	if m.Params, m.Quantised, err = m.Network.fromFile(ts); err == nil {
		err = checkVariant(m.Variant, m.Quantised != nil)
	}
	if err != nil {
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
	network, err := meta.Spec.compile()
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	m := &Model{Name: meta.Name, Variant: meta.Variant, Network: network, Schema: schema, Statistics: t}
	if err := m.checkShape(); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	if again, err := m.metadata(); err != nil || again != text {
		return nil, fmt.Errorf("metadata is not in canonical form")
	}
	return m, nil
}
