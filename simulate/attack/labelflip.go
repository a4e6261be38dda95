package attack

import "math/rand/v2"

// LabelFlip trains on wrong labels: class l becomes Classes-1-l (Fang et al. 2020, "Local Model Poisoning Attacks to
// Byzantine-Robust Federated Learning", §V-A). A liar sees its own examples alone.
type LabelFlip struct {
	Honest
	Classes int // 1 for a target that is 0 or 1
}

// Poison implements Attack.
func (a LabelFlip) Poison(_, y []float32, _ *rand.Rand) {
	top := float32(max(a.Classes, 2) - 1)
	for i, label := range y {
		y[i] = top - label
	}
}
