package attack

// SignFlip sends the opposite of what the own training gave, Scale times (Li et al. 2019, "RSA: Byzantine-Robust Stochastic
// Aggregation Methods for Distributed Learning from Heterogeneous Datasets", §5, sign-flipping attack). A liar sees its own
// update alone.
type SignFlip struct {
	Honest
	Scale float64 // usually 1
}

// Forge implements Attack.
func (a SignFlip) Forge(r *Round) {
	for i, own := range r.Own {
		r.Sent[i] = scaled(own, -a.Scale)
	}
}

// scaled is a·v.
func scaled(v []int32, a float64) []float64 {
	out := make([]float64, len(v))
	for k, q := range v {
		out[k] = a * float64(q)
	}
	return out
}
