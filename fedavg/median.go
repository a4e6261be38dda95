package fedavg

// CoordinateMedian takes the median of each coordinate; of an even number of values the mean of the two in the middle (Yin
// et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", Algorithm 1, option I). Weights
// do not count.
type CoordinateMedian struct {
	F int // how many may lie: fewer than half. 0: not said
}

// Check implements Rule.
func (r CoordinateMedian) Check(updates int) error {
	return atLeast("median", r.F, updates, majority)
}

// Needs implements Rule.
func (CoordinateMedian) Needs() RuleNeeds { return RuleNeeds{} }

// Combine implements Rule.
func (CoordinateMedian) Combine(c *Combination) error {
	n := len(c.Vectors)
	middle(c.Vectors, (n-1)/2, n/2+1, c.Out)
	return nil
}
