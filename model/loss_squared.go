package model

// squared is half the squared error, summed over the outputs.
type squared struct{ outputs int }

func newSquared(shape []int) (loss, error) { return squared{values(shape)}, nil }

func (l squared) targets() int           { return l.outputs }
func (l squared) accepts(y float32) bool { return y-y == 0 }
func (l squared) wants() string          { return "a finite number" }

func (l squared) gradient(n int, out, y, dout []float32) float64 {
	sum, scale := 0.0, 1/float32(n)
	for i, z := range out {
		d := z - y[i]
		sum += float64(d) * float64(d)
		dout[i] = d * scale
	}
	return sum / 2 / float64(n)
}
