package attack

// InnerProduct sends the opposite of the honest updates' mean, Scale times, so that what comes out points away from where
// they go (Xie et al. 2020, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", §4). The
// adversary sees all honest updates. A small scale is for rules that choose those close together, one above (n-f)/f
// turns the mean.
type InnerProduct struct {
	Honest
	Scale float64 // ε; usually 0.1
}

// Forge implements Attack.
func (a InnerProduct) Forge(r *Round) {
	if len(r.Honest) == 0 {
		return
	}
	mean := meanOf(r.Honest)
	for k := range mean {
		mean[k] *= -a.Scale
	}
	r.all(mean)
}
