package fedavg

import "math"

// FedOpt is what FedAdagrad, FedAdam and FedYogi have in common (Reddi et al. 2021, "Adaptive Federated Optimization",
// Algorithm 2): the mean delta is to the server what a gradient is to an adaptive optimiser, and every coordinate moves by
// Rate·m/(√v + τ) at a rate of its own. They differ in v. As in the paper v begins at τ² and nothing corrects the bias of
// the first rounds.
type FedOpt struct {
	Rate    float64 // server learning rate
	Uniform bool    // every node counts the same; otherwise by its examples
	Beta1   float64 // of m, in [0, 1)
	Tau     float64 // τ, above 0: how adaptive it is. The larger, the closer to FedAvgM
}

// Needs implements Strategy.
func (f FedOpt) Needs() Needs { return Needs{Uniform: f.Uniform, State: 2} }

// Local implements Strategy.
func (FedOpt) Local(l *Local) error { return FedAvg{}.Local(l) }

// step moves the model; second is v of the old v and the square of a delta.
func (f FedOpt) step(r *Round, second func(v, square float64) float64) {
	m, v := r.State[0], r.State[1]
	for i, d := range r.Delta() {
		was := float64(v[i])
		if was == 0 { // the first round: later ones leave some of the τ²
			was = f.Tau * f.Tau
		}
		mean := float64(f.Beta1*float64(m[i])) + float64((1-f.Beta1)*d)
		squares := second(was, d*d)
		m[i], v[i] = float32(mean), float32(squares)
		r.Next[i] = float32(float64(r.Global[i]) + float64(f.Rate*mean)/(math.Sqrt(squares)+f.Tau))
	}
}
