package kernel

// MomentumStep configures Momentum. Nesterov's differs only in FromV and FromG.
type MomentumStep struct {
	Keep  float32 // of the velocity
	Decay float32 // weight decay, added to the gradient
	FromV float32 // rate; Nesterov: rate·Keep
	FromG float32 // 0; Nesterov: rate
}

// Momentum is, element by element, g' = g + Decay·w; v = Keep·v + g'; w -= FromV·v + FromG·g'. Only w and v are
// written.
func Momentum(w, v, g []float32, s MomentumStep) {
	for lo, hi := range blocks(len(w)) {
		use.momentum(w[lo:hi], v[lo:hi], g[lo:hi], s.Keep, s.Decay, s.FromV, s.FromG)
	}
}

// AdaptiveStep configures Adaptive:
//
//	            KeepM  AddM  KeepV  AddV  Rate         Root         Shrink
//	Adam        β1     1-β1  β2     1-β2  η/(1-β1^t)   1/√(1-β2^t)  1
//	AdamW       β1     1-β1  β2     1-β2  η/(1-β1^t)   1/√(1-β2^t)  1-η·decay
//	RMSprop     0      1     ρ      1-ρ   η            1            1
//	Adagrad     0      1     1      1     η            1            1
type AdaptiveStep struct {
	KeepM, AddM float32 // first moment
	KeepV, AddV float32 // second moment
	Rate        float32
	Root        float32 // what √v is multiplied by
	Epsilon     float32
	Shrink      float32 // what w is multiplied by
}

// Adaptive is, element by element, m = KeepM·m + AddM·g; v = KeepV·v + AddV·g²; w = Shrink·w - Rate·m/(Root·√v +
// Epsilon). Only w, m and v are written. With KeepM 0 and AddM 1, m may be g.
func Adaptive(w, m, v, g []float32, s AdaptiveStep) {
	for lo, hi := range blocks(len(w)) {
		use.adaptive(w[lo:hi], m[lo:hi], v[lo:hi], g[lo:hi], s)
	}
}
