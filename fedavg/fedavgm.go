package fedavg

// FedAvgM is FedAvg with momentum on the server (Hsu et al. 2019, "Measuring the Effects of Non-Identical Data
// Distribution for Federated Visual Classification", §3.2): v ← β·v + Δ, and the model moves by v.
type FedAvgM struct {
	FedAvg
	Momentum float64 // β, in [0, 1); 0 is FedAvg
}

// Needs implements Strategy.
func (f FedAvgM) Needs() Needs { return Needs{Uniform: f.Uniform, State: 1} }

// Server implements Strategy.
func (f FedAvgM) Server(r *Round) error {
	v, delta := r.State[0], r.Delta()
	for i, d := range delta {
		delta[i] = float64(f.Momentum*float64(v[i])) + d
		v[i] = float32(delta[i])
	}
	return f.FedAvg.Server(r)
}
