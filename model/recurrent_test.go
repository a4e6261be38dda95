package model

import (
	"fmt"
	"math"
	"testing"
)

// Every cell, one layer or two, the last step or all, one step or several, on one example and several.
func TestRecurrentGradient(t *testing.T) {
	for _, kind := range []string{"rnn", "gru", "lstm"} {
		for _, shape := range [][]int{{3}, {1, 3}, {5, 3}} {
			for _, depth := range []int{1, 2} {
				for _, examples := range []int{1, 3} {
					for _, sequence := range []bool{false, true} {
						t.Run(fmt.Sprint(kind, shape, depth, examples, sequence), func(t *testing.T) {
							below := LayerSpec{Kind: "dense", Units: 4, Activation: "tanh"}
							cells := LayerSpec{Kind: kind, Units: 5, Depth: depth, Sequence: sequence}
							s := Spec{shape, []LayerSpec{below, cells, {Kind: "dense", Units: 3}}, "softmax"}
							targets := compile(t, s).Targets()
							checkGradient(t, s, reals(values(shape)*examples), indices(targets*examples, 3))
						})
					}
				}
			}
		}
	}
}

// A recurrent layer that shares its input with another adds to the gradient that the other gave.
func TestRecurrentAddsGradient(t *testing.T) {
	for _, shape := range [][]int{{1, 3}, {4, 3}} {
		checkGradient(t, Spec{shape, []LayerSpec{
			{Name: "below", Kind: "dense", Units: 4},
			{Name: "a", Kind: "lstm", Units: 3, From: []string{"below"}},
			{Name: "b", Kind: "gru", Units: 3, From: []string{"below"}},
			{Kind: "concat", From: []string{"a", "b"}},
		}, "squared"}, reals(values(shape)*3), reals(6*3))
	}
}

// Cells of one unit worked out by hand, over two steps from x = 1 and x = 2.
func TestCellsByHand(t *testing.T) {
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	tests := []struct {
		kind   string
		params []float32
		want   float64
	}{
		{"rnn", []float32{.5, -.25, .125}, math.Tanh(1 - .25*math.Tanh(.625) + .125)},
		{"lstm", []float32{.1, .2, .3, .4, .5, .6, .7, .8, .01, .02, .03, .04}, func() float64 {
			c1 := sigmoid(.11) * math.Tanh(.44)
			h1 := sigmoid(.22) * math.Tanh(c1)
			i, o, f, g := sigmoid(.21+.5*h1), sigmoid(.42+.6*h1), sigmoid(.63+.7*h1), math.Tanh(.84+.8*h1)
			return o * math.Tanh(f*c1+i*g)
		}()},
		// weights n, z, r of the input; z, r, q of the step before; bias n, z, r, q
		{"gru", []float32{.1, .2, .3, .4, .5, .6, .01, .02, .03, .04}, func() float64 {
			n1 := math.Tanh(.11 + sigmoid(.33)*.04)
			h1 := (1 - sigmoid(.22)) * n1
			z, r := sigmoid(.42+.4*h1), sigmoid(.63+.5*h1)
			return (1-z)*math.Tanh(.21+r*(.6*h1+.04)) + z*h1
		}()},
	}
	for _, test := range tests {
		n := compile(t, Spec{[]int{2, 1}, []LayerSpec{{Kind: test.kind, Units: 1}}, "squared"})
		var out [1]float32
		NewPredictor(n, test.params).Predict([]float32{1, 2}, out[:])
		if math.Abs(float64(out[0])-test.want) > 1e-6 {
			t.Errorf("%s gives %v, want %v", test.kind, out[0], test.want)
		}
	}
}

// A prediction, which keeps little, gives what training does, whatever the batch.
func TestRecurrentPredictsAsItTrains(t *testing.T) {
	for _, kind := range []string{"rnn", "gru", "lstm"} {
		for _, sequence := range []bool{false, true} {
			const steps, examples = 37, 9
			n := compile(t, Spec{[]int{steps, 3}, []LayerSpec{{Kind: kind, Units: 70, Depth: 3, Sequence: sequence}}, "squared"})
			params, x := n.Initial(1), reals(steps*3*examples)
			trainer := newTrainer(t, n, examples)
			copy(trainer.x, x)
			trainer.lossAt(params, examples)
			want := trainer.passes[0].out
			for _, batch := range []int{1, 4, examples} {
				got := make([]float32, len(want))
				p := NewPredictor(n, params)
				for at := 0; at < examples; at += batch {
					rows := min(batch, examples-at)
					p.Predict(x[at*steps*3:][:rows*steps*3], got[at*n.Outputs():][:rows*n.Outputs()])
				}
				for i, v := range got {
					if math.Abs(float64(v-want[i])) > 1e-5 {
						t.Fatalf("%s, in batches of %d: output %d is %v, want %v", kind, batch, i, v, want[i])
					}
				}
			}
		}
	}
}

func TestRecurrentRefuses(t *testing.T) {
	for _, s := range []Spec{
		{[]int{2, 2, 2}, []LayerSpec{{Kind: "lstm", Units: 2}}, "squared"},
		{[]int{2, 2}, []LayerSpec{{Kind: "lstm"}}, "squared"},
		{[]int{2, 2}, []LayerSpec{{Kind: "gru", Units: 2, Depth: -1}}, "squared"},
		{[]int{2, 2}, []LayerSpec{{Kind: "rnn", Units: 2, Depth: 9}}, "squared"},
		{[]int{2, 1 << 17}, []LayerSpec{{Kind: "lstm", Units: 1 << 14}}, "squared"},
		{[]int{1 << 17, 1}, []LayerSpec{{Kind: "lstm", Units: 128}}, "squared"},
		{[]int{2, 2}, []LayerSpec{{Kind: "lstm", Units: 2, Dim: 3}}, "squared"},
	} {
		if _, err := s.Compile(); err == nil {
			t.Errorf("%v compiles", s)
		} else {
			t.Log(err)
		}
	}
}
