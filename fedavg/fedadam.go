package fedavg

// FedAdam is FedOpt that forgets old squares: v ← β₂·v + (1−β₂)·Δ² (Reddi et al. 2021, Algorithm 2).
type FedAdam struct {
	FedOpt
	Beta2 float64 // in [0, 1)
}

// Server implements Strategy.
func (f FedAdam) Server(r *Round) error {
	f.step(r, func(v, square float64) float64 { return float64(f.Beta2*v) + float64((1-f.Beta2)*square) })
	return nil
}
