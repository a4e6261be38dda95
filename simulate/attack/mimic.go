package attack

// Mimic sends what one honest node sends, so that its data counts for more than others': nothing in it is unusual, and where
// nodes have unlike data it does harm (Karimireddy et al. 2022, "Byzantine-Robust Learning on Heterogeneous Datasets via
// Bucketing", §3.2). The adversary sees all honest updates. The paper chooses the node along the direction in which updates
// differ most, over a first phase of the training; this one always takes the first by name.
type Mimic struct{ Honest }

// Forge implements Attack.
func (Mimic) Forge(r *Round) {
	if len(r.Honest) > 0 {
		r.all(scaled(r.Honest[0], 1))
	}
}
