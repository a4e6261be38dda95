package main

import (
	"fmt"
	"os"
	"strings"

	"choir.example/model"
	"choir.example/model/compress"
)

// modelFileSuffix ends the names of model files; what ends in something else is the name of a release.
const modelFileSuffix = ".safetensors"

// modelFile is a model as a file holds it: one of rows, with its schema, or a network alone.
type modelFile struct {
	rows *model.Model // or

	network   *model.Network
	params    []float32          // or
	quantised []model.Int8Tensor // int8
}

// readModelFile reads what choir train or choir model pull wrote.
func readModelFile(path string) (*modelFile, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, missing("model", err)
	}
	m, err := decodeModelFile(body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

func decodeModelFile(body []byte) (*modelFile, error) {
	rows, err := model.Decode(body)
	if err == nil {
		return &modelFile{rows: rows}, nil
	}
	network, params, quantised, other := model.DecodeNetwork(body)
	switch {
	case other == nil:
		return &modelFile{network: network, params: params, quantised: quantised}, nil
	case other.Error() == err.Error():
		return nil, err
	}
	return nil, fmt.Errorf("%w; nor is it a network without a schema: %w", err, other)
}

// architecture is the network's.
func (m *modelFile) architecture() *model.Network {
	if m.rows != nil {
		return m.rows.Network
	}
	return m.network
}

// variant is the form of the parameters.
func (m *modelFile) variant() string {
	switch {
	case m.rows != nil:
		return m.rows.Variant
	case m.quantised != nil:
		return "int8"
	}
	return "float32"
}

// as is the model in another form: the same, or what its float32 weights are rounded to.
func (m *modelFile) as(variant string) (*modelFile, error) {
	has := m.variant()
	rounded := map[string]string{"float32": "int8", "student": "student-int8"}[has]
	switch {
	case variant == "" || variant == has:
		return m, nil
	case variant != rounded:
		hint := "take it as it is, without --variant"
		if rounded != "" {
			hint += ", or --variant " + rounded
		}
		return nil, &hinted{fmt.Errorf("a file that holds %s cannot be made %s", has, variant), hint}
	}
	var err error
	out := &modelFile{network: m.network}
	if m.rows != nil {
		out.rows, err = compress.Int8(m.rows)
	} else {
		out.quantised, err = model.Quantise(m.network, m.params)
	}
	return out, err
}

// safetensors is the model as a file that choir reads.
func (m *modelFile) safetensors() ([]byte, error) {
	switch {
	case m.rows != nil:
		return m.rows.Encode()
	case m.quantised != nil:
		return model.EncodeInt8Network(m.network, m.quantised)
	}
	return model.EncodeNetwork(m.network, m.params)
}

// onnx is the model as a file for others.
func (m *modelFile) onnx() ([]byte, error) {
	switch {
	case m.rows != nil:
		return m.rows.ONNX()
	case m.quantised != nil:
		return m.network.ONNXInt8(m.quantised)
	}
	return m.network.ONNX(m.params)
}

// isModelFile reports whether an argument names a file and no release or architecture.
func isModelFile(name string) bool { return strings.HasSuffix(name, modelFileSuffix) }
