package fedavg

// FedAdagrad is FedOpt that adds up all squares: v ← v + Δ² (Reddi et al. 2021, Algorithm 2).
type FedAdagrad struct{ FedOpt }

// Server implements Strategy.
func (f FedAdagrad) Server(r *Round) error {
	f.step(r, func(v, square float64) float64 { return v + square })
	return nil
}
