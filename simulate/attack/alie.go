package attack

import "math"

// ALIE, a little is enough, sends the mean less a few standard deviations, coordinate by coordinate: so few that liars are not
// further from the mean than some of the honest are, and with these form a majority (Baruch et al. 2019, "A Little Is
// Enough: Circumventing Defenses For Distributed Learning", Algorithm 3). Mean and deviation are those of the liars' own
// honest updates: the adversary of the paper sees no other. A single liar knows no deviation and sends its own.
type ALIE struct {
	Honest
	Deviations float64 // z; 0: the paper's z_max, from how many lie
}

// Forge implements Attack.
func (a ALIE) Forge(r *Round) {
	z := a.Deviations
	if z == 0 {
		z = mostDeviations(len(r.Honest)+len(r.Own), len(r.Own))
	}
	mean := meanOf(r.Own)
	for k, m := range mean {
		var squares float64
		for _, v := range r.Own {
			d := float64(v[k]) - m
			squares += d * d
		}
		mean[k] = m - z*math.Sqrt(squares/float64(len(r.Own)))
	}
	r.all(mean)
}

// mostDeviations is z_max of n updates of which m lie: with s = ⌊n/2+1⌋-m honest ones they are a majority, and as many
// are, of a normal distribution, at least so far from the mean: φ(z) = (n-m-s)/(n-m). It is 0 where liars need nobody.
func mostDeviations(n, m int) float64 {
	honest := float64(n - m)
	share := (honest - float64(n/2+1-m)) / honest
	if !(share > 0 && share < 1) {
		return 0
	}
	return max(math.Sqrt2*math.Erfinv(2*share-1), 0)
}
