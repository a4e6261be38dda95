package model

import "math"

// logistic is the cross entropy of independent binary answers whose logits are the outputs; a target is a probability,
// a soft one for distillation.
type logistic struct{ outputs int }

func newLogistic(shape []int) (loss, error) { return logistic{values(shape)}, nil }

func (l logistic) targets() int           { return l.outputs }
func (l logistic) accepts(y float32) bool { return y >= 0 && y <= 1 }
func (l logistic) wants() string          { return "0 to 1" }

func (l logistic) gradient(n int, out, y, dout []float32) float64 {
	sum, scale := 0.0, 1/float32(len(out))
	for i, z := range out {
		// log(1+e^z) - y·z, without overflow: e = e^-|z| is at most 1.
		e := math.Exp(-math.Abs(float64(z)))
		sum += max(float64(z), 0) + math.Log1p(e) - float64(y[i])*float64(z)
		p := 1 / (1 + e)
		if z < 0 {
			p = e / (1 + e)
		}
		dout[i] = (float32(p) - y[i]) * scale
	}
	return sum * float64(scale)
}
