package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// random is n values, normal with the given deviation.
func random(rng *rand.Rand, n int, deviation float64) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64() * deviation)
	}
	return x
}

func compile(t testing.TB, s Spec) *Network {
	t.Helper()
	n, err := s.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// seedOf makes every loss of a test see the same dropout.
const seedOf = 5

// lossAt is the mean loss of the examples loaded, at the parameters.
func (t *Trainer) lossAt(params []float32, examples int) float64 {
	t.pcg.Seed(seedOf, 0)
	for i := range t.passes {
		t.passes[i].params, t.passes[i].n = t.network.nodes[i].of(params), examples
		t.network.nodes[i].forward(&t.passes[i])
	}
	top := &t.passes[len(t.passes)-1]
	k := examples * t.network.Outputs()
	return t.network.loss.gradient(examples, top.out[:k], t.y[:examples*t.network.Targets()], make([]float32, k))
}

// The tolerance of a gradient, against the largest of its network. Both sides are float32: a central difference over
// 2·step has an error of a loss's last bits, about 1e-7, over step, and one of step² times the third derivative. A wrong
// term, a wrong sign or a missed example is off by far more.
const (
	gradientStep      = 1.0 / 64
	gradientTolerance = 4e-3
)

// checkGradient holds backward against central differences of the loss, parameter by parameter, both into a gradient
// buffer and as a step on the parameters themselves. A layer's gradient with respect to its input is checked by the
// parameters of a layer below it. Where ReLU or a maximum has a kink within the step, a shorter one is tried.
func checkGradient(t *testing.T, s Spec, x, y []float32) {
	t.Helper()
	n := compile(t, s)
	examples := len(x) / n.Inputs()
	trainer, err := NewTrainer(n, examples)
	if err != nil {
		t.Fatal(err)
	}
	params := make([]float32, n.Size())
	n.Init(params, 3)
	rng := rand.New(rand.NewPCG(4, 4))
	for i, v := range random(rng, len(params), .1) {
		params[i] += v // biases too
	}
	copy(trainer.x, x)
	copy(trainer.y, y)
	grad := trainer.gradientAt(params, examples)
	largest := 0.0
	for _, g := range grad {
		largest = max(largest, math.Abs(float64(g)))
	}
	if largest < 1e-3 {
		t.Fatalf("the gradient is at most %v: nothing is checked", largest)
	}
	checked, kinks := 0, 0
	for i := 0; i < len(grad); i += 1 + rng.IntN(1+len(grad)/200) { // some of many
		checked++
		want, ok := trainer.difference(params, i, examples, gradientTolerance*largest)
		if !ok {
			kinks++
		} else if off := math.Abs(float64(grad[i]) - want); !(off <= gradientTolerance*largest) {
			t.Fatalf("%s: gradient %v, want %v; the largest is %v", n.parameter(i), grad[i], want, largest)
		}
	}
	if kinks*5 > checked {
		t.Errorf("%d of %d parameters lie at kinks", kinks, checked)
	}
	stepped := trainer.stepAt(params, examples)
	for i, v := range stepped {
		if want := params[i] - grad[i]/64; math.Abs(float64(v-want)) > 1e-5*max(1, largest) {
			t.Fatalf("%s: a step goes to %v, want %v", n.parameter(i), v, want)
		}
	}
}

// difference is the central difference of the loss in one parameter. It is not ok where no step has none of the signs
// of a kink: a second difference, or another slope at half the step.
func (t *Trainer) difference(params []float32, i, examples int, tolerance float64) (slope float64, ok bool) {
	p := params[i]
	defer func() { params[i] = p }()
	at := func(v float32) float64 { params[i] = v; return t.lossAt(params, examples) }
	middle, previous := at(p), math.Inf(1)
	for h := float32(gradientStep); h > gradientStep/100; h /= 2 {
		up, down := p+h, p-h
		fu, fd := at(up), at(down)
		slope = (fu - fd) / (float64(up) - float64(down))
		if math.Abs(fu-2*middle+fd)/float64(h) < tolerance && math.Abs(slope-previous) < tolerance/2 {
			return slope, true
		}
		previous = slope
	}
	return 0, false
}

// gradientAt is what backward writes.
func (t *Trainer) gradientAt(params []float32, examples int) []float32 {
	grad := slices.Repeat([]float32{float32(math.NaN())}, len(params)) // each must be written
	for i := range t.passes {
		t.passes[i].params, t.passes[i].grad = t.network.nodes[i].of(params), t.network.nodes[i].of(grad)
	}
	t.pcg.Seed(seedOf, 0)
	t.propagate(examples)
	all := make([]float32, len(params)) // rows that no example reads have no gradient
	for _, r := range t.ranges(nil, batchRows) {
		copy(all[r.From:r.To], grad[r.From:r.To])
	}
	return all
}

// stepAt is where a step of SGD goes at rate 1/64.
func (t *Trainer) stepAt(params []float32, examples int) []float32 {
	params = slices.Clone(params)
	for i := range t.passes {
		t.passes[i].params, t.passes[i].grad = t.network.nodes[i].of(params), nil
	}
	t.pcg.Seed(seedOf, 0)
	for i := range t.passes {
		t.passes[i].rate = 1.0 / 64
	}
	t.propagate(examples)
	return params
}

// someInputs are examples: ids where the network reads ids.
func (n *Network) someInputs(examples int) []float32 {
	if l, ok := n.nodes[0].layer.(lookup); ok {
		x := indices(examples*n.Inputs(), 1000)
		for _, rows := l.badID(x); rows > 0; _, rows = l.badID(x) {
			x = indices(examples*n.Inputs(), rows)
		}
		return x
	}
	return reals(examples * n.Inputs())
}

// reals, bits and indices are inputs and targets.
func reals(n int) []float32 { return random(rand.New(rand.NewPCG(1, uint64(n))), n, 1) }

func indices(n, below int) []float32 {
	rng, x := rand.New(rand.NewPCG(2, uint64(n))), make([]float32, n)
	for i := range x {
		x[i] = float32(rng.IntN(below))
	}
	return x
}

func TestDenseGradient(t *testing.T) {
	for _, act := range []string{"", "relu", "sigmoid", "tanh"} {
		for _, examples := range []int{1, 7} {
			t.Run(fmt.Sprint(act, examples), func(t *testing.T) {
				checkGradient(t, Spec{[]int{5}, []LayerSpec{
					{Kind: "dense", Units: 7, Activation: act}, {Kind: "dense", Units: 9, Activation: act}, {Kind: "dense", Units: 3},
				}, "softmax"}, reals(5*examples), indices(examples, 3))
			})
		}
	}
}
