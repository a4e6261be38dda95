package fedavg

// A Rule combines vectors in place of the weighted mean, so that some that lie do not decide what comes out. It is called
// once a round for each vector of the updates, wherever the round is combined, and keeps nothing between calls: what it
// wants to remember is part of the server's state. It uses + − × ÷ and square roots in float64 with explicit rounding, no
// other function: the same bits on every processor.
type Rule interface {
	// Check refuses a number of updates with which the rule's promise cannot hold, and names the nearest that would do.
	Check(updates int) error
	// Needs says what Combine looks at beside the vectors.
	Needs() RuleNeeds
	// Combine writes what the vectors say together to c.Out. Check has passed for their number.
	Combine(c *Combination) error
}

// RuleNeeds is what a rule wants beside vectors and weights.
type RuleNeeds struct {
	Memory  bool // what it made of the last round
	Trusted bool // an update of the server's own, of examples it trusts
}

// Combination is what a rule combines. Vectors are integers on the grid of the updates, in order of the nodes' names, each
// of the length of Out; all but Out is read only.
type Combination struct {
	Vectors [][]int32
	Weights []int64   // as the nodes claim
	Last    []float64 // what was combined in the last round, on the grid; zeros in the first. nil unless Needs.Memory
	Trusted []int32   // nil unless Needs.Trusted
	Seed    uint64    // of this round, for rules that draw
	Out     []float64 // what comes out, in units of the grid: zeros before
}
