package model

// hinge is the loss of a support vector machine: how far each score is from being on the right side by a margin of 1. One
// output is binary, with targets 0 and 1; more are one class each against the rest, with the class's index as target
// (Rifkin and Klautau 2004, §2.1). Squared, it is the L2-loss of linear support vector machines (Fan et al. 2008, §2.1):
// without a kink at the margin, where steps of one size go to and fro.
type hinge struct {
	classes
	outputs int
	squared bool
}

func newHinge(shape []int) (loss, error) {
	n := values(shape)
	return hinge{classes(max(n, 2)), n, false}, nil
}

func newSquaredHinge(shape []int) (loss, error) {
	n := values(shape)
	return hinge{classes(max(n, 2)), n, true}, nil
}

func (l hinge) targets() int { return 1 }

func (l hinge) gradient(n int, out, y, dout []float32) float64 {
	sum, scale := 0.0, 1/float32(n)
	for i, z := range out {
		side := float32(-1)
		if class := int(y[i/l.outputs]); class == i%l.outputs && l.outputs > 1 || class == 1 && l.outputs == 1 {
			side = 1
		}
		dout[i] = 0
		if short := 1 - side*z; !(short <= 0) { // NaN counts
			cost, slope := short, float32(1)
			if l.squared {
				cost, slope = short*short, 2*short
			}
			sum += float64(cost)
			dout[i] = -side * slope * scale
		}
	}
	return sum / float64(n)
}
