package model

import (
	"encoding/json"
	"fmt"
)

// EncodeNetwork writes an architecture and its parameters as a safetensors file, the same bytes for the same network.
// Tensors are a Model's; the metadata key "choir" holds the architecture alone. It is for what learns from images,
// characters or histories, which no schema describes. Parameters that are not finite are refused.
func EncodeNetwork(network *Network, params []float32) ([]byte, error) {
	if len(params) != network.Size() {
		return nil, fmt.Errorf("encode network: %d parameters, want %d", len(params), network.Size())
	}
	if i := notFinite(params); i >= 0 {
		return nil, fmt.Errorf("encode network: %s is %v: %w", network.parameter(i), params[i], ErrNaN)
	}
	meta, err := json.Marshal(network.spec)
	if err != nil {
		return nil, fmt.Errorf("encode network: %w", err)
	}
	var ts []tensor
	for _, t := range network.Tensors() {
		ts = append(ts, tensor{t.Name, "F32", t.fileShape(), packFloats(t.toFile(params))})
	}
	return encodeSafetensors(string(meta), ts)
}

// DecodeNetwork reads what EncodeNetwork wrote. Anything else is an error that wraps ErrFormat.
func DecodeNetwork(b []byte) (*Network, []float32, error) {
	meta, file, err := decodeSafetensors(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	network, params, err := fromTensors(meta, file)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return network, params, nil
}

func fromTensors(meta string, file map[string]tensor) (*Network, []float32, error) {
	var spec Spec
	if err := strictJSON([]byte(meta), &spec); err != nil {
		return nil, nil, fmt.Errorf("metadata: %w", err)
	}
	if again, err := json.Marshal(spec); err != nil || string(again) != meta {
		return nil, nil, fmt.Errorf("metadata is not in canonical form")
	}
	network, err := spec.Compile()
	if err != nil {
		return nil, nil, fmt.Errorf("metadata: %w", err)
	}
	ts := network.Tensors()
	if len(file) != len(ts) {
		return nil, nil, fmt.Errorf("%d tensors, want %d", len(file), len(ts))
	}
	for _, t := range ts { // once all are seen to be there, the file is as long as what is allocated for it
		if _, err := take(file, t.Name, "F32", t.fileShape()...); err != nil {
			return nil, nil, err
		}
	}
	params := make([]float32, network.Size())
	for _, t := range ts {
		if err := t.fromFile(params, file[t.Name].body); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", t.Name, err)
		}
	}
	return network, params, nil
}
