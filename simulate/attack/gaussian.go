package attack

// Gaussian sends noise: each coordinate is normal around zero, each liar's its own (Blanchard et al. 2017, "Machine Learning
// with Adversaries", §5.1, with a deviation of 200). A liar sees nothing.
type Gaussian struct {
	Honest
	Deviation float64 // in units of a parameter; usually 1
}

// Forge implements Attack.
func (a Gaussian) Forge(r *Round) {
	for i := range r.Sent {
		noise := make([]float64, len(r.Own[i]))
		for k := range noise {
			noise[k] = a.Deviation / r.Step * r.Rand.NormFloat64()
		}
		r.Sent[i] = noise
	}
}
