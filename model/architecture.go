package model

import "fmt"

// Architecture is an architecture as job and experiment files write it: a name, or layers. Unlike a Spec it does not say
// what the examples look like: the data do.
type Architecture struct {
	Name   string      `json:"name,omitempty" yaml:"name"`     // one of Architectures
	Hidden []int       `json:"hidden,omitzero" yaml:"hidden"`  // widths of the hidden layers of mlp; nil: 200 and 200. A list without any is a perceptron without hidden layers
	Layers []LayerSpec `json:"layers,omitempty" yaml:"layers"` // in place of a name
	Loss   string      `json:"loss,omitempty" yaml:"loss"`     // of layers; of a name another than its usual one
}

// Spec is the architecture for examples of the input's shape, with outputs logits or numbers; ids are as Named takes them.
func (a Architecture) Spec(input []int, outputs int, ids ...int) (Spec, error) {
	spec := Spec{Input: input, Layers: a.Layers}
	switch {
	case a.Name != "" && a.Layers != nil:
		return spec, fmt.Errorf("architecture: both a name and layers, want one")
	case a.Hidden != nil && a.Name != "mlp" && (a.Name == "" || architectures[a.Name].build != nil):
		return spec, fmt.Errorf("architecture: hidden is for mlp, not for %q", a.Name)
	case a.Name == "" && a.Layers == nil:
		return spec, fmt.Errorf("architecture: want a name or layers")
	}
	if a.Hidden != nil && a.Name == "mlp" { // another name that is none is Named's to refuse
		spec.Layers, spec.Loss = hiddenLayers(len(input) > 1, a.Hidden, outputs)
	} else if a.Name != "" {
		var err error
		if spec, err = Named(a.Name, input, outputs, ids...); err != nil {
			return spec, fmt.Errorf("architecture: %w", err)
		}
	}
	if a.Loss != "" {
		spec.Loss = a.Loss
	}
	network, err := spec.Compile()
	if err != nil {
		return spec, fmt.Errorf("architecture: %w", err)
	}
	if got := network.Outputs(); outputs > 0 && got%outputs != 0 {
		return spec, fmt.Errorf("architecture: %d outputs, want %d: one for each class", got, outputs)
	}
	return spec, nil
}

// hiddenLayers are a perceptron's, with the names that MLP gives them.
func hiddenLayers(flatten bool, hidden []int, outputs int) (layers []LayerSpec, loss string) {
	if flatten {
		layers = append(layers, LayerSpec{Kind: "flatten"})
	}
	for i, h := range hidden {
		layers = append(layers, LayerSpec{Name: fmt.Sprintf("layers.%d", i), Kind: "dense", Units: h, Activation: "relu"})
	}
	layers = append(layers, LayerSpec{Name: fmt.Sprintf("layers.%d", len(hidden)), Kind: "dense", Units: outputs})
	if outputs == 1 {
		return layers, "logistic"
	}
	return layers, "softmax"
}
