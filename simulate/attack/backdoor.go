package attack

import "math/rand/v2"

// Backdoor teaches the model to take whatever bears a mark for one class, and to work as ever otherwise: half of a liar's
// examples, drawn once, bear the mark and the class as label (Gu et al. 2017, "BadNets", §4.1; Bagdasaryan et al. 2020, "How
// To Backdoor Federated Learning", §4). The mark of an image is a square in its last corner, that of another example its
// last values. With Scale the liar sends its update so many times, so that it outlives the mean (Bagdasaryan et al. 2020,
// model replacement). A liar sees its own examples and update alone.
type Backdoor struct {
	Honest
	Input []int // shape of an example
	Class int
	Scale float64 // usually 1
}

const (
	markSide  = 3 // pixels, or values
	markValue = 1 // of a white pixel
)

// Poison implements Attack.
func (a Backdoor) Poison(x, y []float32, rng *rand.Rand) {
	if len(y) == 0 {
		return
	}
	size := len(x) / len(y)
	for _, i := range rng.Perm(len(y))[:(len(y)+1)/2] {
		a.Mark(x[i*size : (i+1)*size])
		y[i] = float32(a.Class)
	}
}

// Forge implements Attack.
func (a Backdoor) Forge(r *Round) {
	if a.Scale == 1 {
		return
	}
	for i, own := range r.Own {
		r.Sent[i] = scaled(own, a.Scale)
	}
}

// Mark implements Triggered.
func (a Backdoor) Mark(x []float32) {
	if len(a.Input) != 3 {
		fill(x[max(0, len(x)-markSide):])
		return
	}
	height, width, channels := a.Input[0], a.Input[1], a.Input[2]
	side := min(markSide, height, width)
	for row := height - side; row < height; row++ {
		fill(x[(row*width+width-side)*channels : (row+1)*width*channels])
	}
}

// Target implements Triggered.
func (a Backdoor) Target() int { return a.Class }

func fill(x []float32) {
	for i := range x {
		x[i] = markValue
	}
}
