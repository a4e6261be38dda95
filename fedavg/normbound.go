package fedavg

// NormBound takes the mean of the vectors, each shortened to a norm (Sun et al. 2019, "Can You Really Backdoor Federated
// Learning?", §4). The paper wants the norm set; 0 is the median of the vectors' norms. A liar keeps an influence, but not
// more than others have. Weights do not count.
type NormBound struct {
	F    int     // how many may lie: fewer than half. 0: not said
	Norm float64 // on the grid; 0: the median
}

// Check implements Rule.
func (r NormBound) Check(updates int) error { return atLeast("norm-bound", r.F, updates, majority) }

// Needs implements Rule.
func (NormBound) Needs() RuleNeeds { return RuleNeeds{} }

// Combine implements Rule.
func (r NormBound) Combine(c *Combination) error {
	norms := make([]float64, len(c.Vectors))
	for i, v := range c.Vectors {
		norms[i] = norm(v)
	}
	shares := clipped(norms, r.Norm)
	for i := range shares {
		shares[i] /= float64(len(shares))
	}
	weighted(c.Vectors, shares, c.Out)
	return nil
}
