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
	return network.encode(params, nil)
}

// EncodeInt8Network is EncodeNetwork of quantised tensors.
func EncodeInt8Network(network *Network, tensors []Int8Tensor) ([]byte, error) {
	if err := network.checkInt8(tensors); err != nil {
		return nil, fmt.Errorf("encode network: %w", err)
	}
	return network.encode(nil, tensors)
}

func (n *Network) encode(params []float32, quantised []Int8Tensor) ([]byte, error) {
	meta, err := json.Marshal(n.spec)
	if err != nil {
		return nil, fmt.Errorf("encode network: %w", err)
	}
	return encodeSafetensors(string(meta), n.fileTensors(params, quantised))
}

// DecodeNetwork reads what EncodeNetwork wrote, into params, or EncodeInt8Network, into quantised. Anything else is an
// error that wraps ErrFormat.
func DecodeNetwork(b []byte) (network *Network, params []float32, quantised []Int8Tensor, err error) {
	meta, file, err := decodeSafetensors(b)
	if err == nil {
		network, err = networkFromMetadata(meta)
	}
	if err == nil {
		params, quantised, err = network.fromFile(file)
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return network, params, quantised, nil
}

func networkFromMetadata(text string) (*Network, error) {
	var spec Spec
	if err := strictJSON([]byte(text), &spec); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	if again, err := json.Marshal(spec); err != nil || string(again) != text {
		return nil, fmt.Errorf("metadata is not in canonical form")
	}
	network, err := spec.Compile()
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	return network, nil
}
