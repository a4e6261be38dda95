package fedavg

// TrimmedMean takes, of each coordinate, the mean of what is left without the f least and the f greatest values (Yin et al.
// 2018, Algorithm 1, option II, with β = f/n). Weights do not count.
type TrimmedMean struct {
	F int // how many may lie: fewer than half
}

// Check implements Rule.
func (r TrimmedMean) Check(updates int) error {
	return atLeast("trimmed-mean", r.F, updates, majority)
}

// Needs implements Rule.
func (TrimmedMean) Needs() RuleNeeds { return RuleNeeds{} }

// Combine implements Rule.
func (r TrimmedMean) Combine(c *Combination) error {
	middle(c.Vectors, r.F, len(c.Vectors)-r.F, c.Out)
	return nil
}
