package model

import (
	"fmt"
	"slices"
)

// MLP is the multilayer perceptron that a federation trains: ReLU layers of the hidden widths and one output, the logit
// of the positive class.
func MLP(inputs int, hidden ...int) Spec {
	s := Spec{Input: []int{inputs}, Loss: "logistic"}
	for i, h := range hidden {
		s.Layers = append(s.Layers, LayerSpec{Name: fmt.Sprintf("layers.%d", i), Kind: "dense", Units: h, Activation: "relu"})
	}
	last := LayerSpec{Name: fmt.Sprintf("layers.%d", len(hidden)), Kind: "dense", Units: 1}
	s.Layers = append(s.Layers, last)
	return s
}

// CheckMLP refuses widths that a job must not ask for. Old logs hold what it decided: its limits stay.
func CheckMLP(inputs int, hidden []int) error {
	if inputs < 1 || inputs > maxWidth {
		return fmt.Errorf("model: %d inputs, want 1 to 2^17", inputs)
	}
	if len(hidden) < 1 || len(hidden) > 8 {
		return fmt.Errorf("model: %d hidden layers, want 1 to 8", len(hidden))
	}
	width, parameters := inputs, int64(0)
	for i, h := range append(slices.Clone(hidden), 1) {
		if h < 1 || h > 1<<14 {
			return fmt.Errorf("model: hidden layer %d of width %d, want 1 to 2^14", i+1, h)
		}
		parameters += int64(h) * (int64(width) + 1)
		width = h
	}
	if parameters > maxParameters {
		return fmt.Errorf("model: %d parameters, at most 2^28", parameters)
	}
	return nil
}

// CheckMLPBatch refuses a batch that is too large for widths that CheckMLP took.
func CheckMLPBatch(inputs int, hidden []int, rows int) error {
	return checkBatch(rows, max(inputs, slices.Max(hidden)))
}

// hidden are the widths of a multilayer perceptron as MLP makes it.
func (s Spec) hidden() (widths []int, ok bool) {
	if len(s.Input) != 1 || len(s.Layers) < 1 {
		return nil, false
	}
	for _, l := range s.Layers[:len(s.Layers)-1] {
		widths = append(widths, l.Units)
	}
	return widths, s.equal(MLP(s.Input[0], widths...))
}
