package attack

import "math"

// MinMax goes from the honest updates' mean against their deviations as far as it can while it is no further from any of
// them than two of them are from each other (Shejwalkar and Houmansadr 2021, "Manipulating the Byzantine", §IV-C, with
// the perturbation inverse standard deviation). The adversary sees all honest updates, and not which rule there is. The
// paper approaches how far that is by halving; it is the least root of a quadratic for each honest update.
type MinMax struct{ Honest }

// Forge implements Attack.
func (MinMax) Forge(r *Round) {
	n := len(r.Honest)
	if n == 0 {
		return
	}
	mean := meanOf(r.Honest)
	against := make([]float64, len(mean))
	for k, m := range mean {
		var squares float64
		for _, v := range r.Honest {
			d := float64(v[k]) - m
			squares += d * d
		}
		against[k] = -math.Sqrt(squares / float64(n))
	}
	far := math.Inf(1)
	widest := widest(r.Honest)
	for _, v := range r.Honest { // |mean + γ·against − v|² = widest²
		var aa, ad, dd float64
		for k, m := range mean {
			d := m - float64(v[k])
			aa, ad, dd = aa+against[k]*against[k], ad+against[k]*d, dd+d*d
		}
		if aa > 0 {
			far = min(far, (math.Sqrt(max(ad*ad-aa*(dd-widest), 0))-ad)/aa)
		}
	}
	if !math.IsInf(far, 1) {
		for k := range mean {
			mean[k] += far * against[k]
		}
	}
	r.all(mean)
}

// widest is the largest squared distance of two of the vectors.
func widest(vectors [][]int32) (top float64) {
	for i, a := range vectors {
		for _, b := range vectors[:i] {
			var s float64
			for k, q := range a {
				d := float64(q) - float64(b[k])
				s += d * d
			}
			top = max(top, s)
		}
	}
	return top
}
