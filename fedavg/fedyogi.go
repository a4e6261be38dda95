package fedavg

// FedYogi is FedOpt whose v moves toward the square by a share of the square, not of the distance:
// v ← v − (1−β₂)·Δ²·sign(v − Δ²) (Reddi et al. 2021, Algorithm 2).
type FedYogi struct {
	FedOpt
	Beta2 float64 // in [0, 1)
}

// Server implements Strategy.
func (f FedYogi) Server(r *Round) error {
	f.step(r, func(v, square float64) float64 {
		switch part := float64((1 - f.Beta2) * square); {
		case v > square:
			return v - part
		case v < square:
			return v + part
		}
		return v
	})
	return nil
}
