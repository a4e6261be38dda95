package fedavg

import "choir.example/model/kernel"

// FedDyn changes each node's loss round by round so that the optima of all nodes come to lie where that of the federation
// lies (Acar et al. 2021, "Federated Learning Based on Dynamic Regularization", Algorithm 1): a node lowers
// L(θ) − ⟨g, θ⟩ + α/2·‖θ − θ_global‖², where g, its memory, is the gradient of L where it arrived in its last round; the
// server keeps h, the mean of all g, and subtracts h/α. All means are uniform.
type FedDyn struct {
	Alpha float64 // α, above 0: the smaller, the further nodes go from the global model, and the more h corrects
}

// Needs implements Strategy.
func (FedDyn) Needs() Needs { return Needs{Uniform: true, Memory: 1, State: 1} }

// Local implements Strategy.
func (f FedDyn) Local(l *Local) error {
	g, alpha := l.Memory[0], float32(f.Alpha)
	l.Config.Adjust = func(at int, params, grad []float32) { // ∇L − g + α(θ − θ_global)
		kernel.Axpy(grad, -1, g[at:][:len(grad)])
		kernel.Axpy(grad, alpha, params)
		kernel.Axpy(grad, -alpha, l.Global[at:][:len(grad)])
	}
	if _, err := l.Train(); err != nil {
		return err
	}
	for _, r := range l.Touched() {
		for i := r.From; i < r.To; i++ { // g ← g − α(θ − θ_global)
			g[i] -= alpha * (l.Params[i] - l.Global[i])
		}
	}
	return nil
}

// Server implements Strategy.
func (f FedDyn) Server(r *Round) error {
	h, share := r.State[0], r.Share()
	for i, d := range r.Delta() { // h ← h − α·|S|/N·Δ, θ ← θ + Δ − h/α
		now := float64(h[i]) - float64(f.Alpha*share*d)
		h[i] = float32(now)
		r.Next[i] = float32(float64(r.Global[i]) + d - now/f.Alpha)
	}
	return nil
}

// Check refuses clipping, after which h would be the mean of no g.
func (FedDyn) Check(a *Algorithm) error {
	return a.unclipped("feddyn", "whose nodes remember their whole change")
}
