package model

import (
	"fmt"

	"choir.example/model/kernel"
)

// Distilling is the network with a loss that takes answers for targets, as Soften makes them of outputs, in place of
// labels: softmax becomes soft-labels, logistic and squared are so already. Parameters and outputs are n's.
func (n *Network) Distilling() (*Network, error) {
	spec := n.spec
	switch spec.Loss {
	case "softmax", "soft-labels":
		spec.Loss = "soft-labels"
	case "logistic", "squared":
	default:
		return nil, fmt.Errorf("distil: loss %s has no soft targets, want softmax, logistic or squared", spec.Loss)
	}
	return spec.Compile()
}

// Soften turns outputs of the network, of any number of examples, into targets of Distilling's in place: logits into
// probabilities, real numbers into themselves.
func (n *Network) Soften(out []float32) {
	switch n.spec.Loss {
	case "softmax", "soft-labels":
		shape := n.OutputShape()
		k := shape[len(shape)-1]
		for at := 0; at < len(out); at += k {
			kernel.Softmax(out[at:at+k], out[at:at+k])
		}
	case "logistic":
		for i, z := range out {
			out[i] = float32(Probability(z))
		}
	}
}
