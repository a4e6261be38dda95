package model

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
)

// Losses are what their formulas give, worked out by hand for two examples. A gradient check alone would let a loss pass
// that means something else.
func TestLossesByHand(t *testing.T) {
	e := math.E
	for _, c := range []struct {
		loss  string
		shape []int
		out   []float32
		y     []float32
		want  float64
	}{
		{"squared", []int{2}, []float32{1, 2, 3, 4}, []float32{0, 4, 3, 1}, (1 + 4 + 0 + 9) / 2. / 2},
		{"logistic", []int{1}, []float32{1, 2}, []float32{1, .25}, (math.Log(1+1/e) + math.Log(1+e*e) - .5) / 2},
		{"softmax", []int{3}, []float32{0, 1, 0, 1, 1, 1}, []float32{1, 0}, (math.Log(2+e) - 1 + math.Log(3)) / 2},
		{"softmax", []int{2, 2}, []float32{0, 1, 0, 0, 1, 0, 0, 0}, []float32{1, 0, 1, 1}, (math.Log(1+1/e) + math.Log(2) + math.Log(1+e) + math.Log(2)) / 4},
		// a positive on the right side by half a margin, a negative on the wrong one by as much
		{"hinge", []int{1}, []float32{.5, .5}, []float32{1, 0}, (.5 + 1.5) / 2},
		{"hinge", []int{1}, []float32{2, -2}, []float32{1, 0}, 0},
		{"squared-hinge", []int{1}, []float32{.5, .5}, []float32{1, 0}, (.25 + 2.25) / 2},
		// one against the rest: class 2 wants the last score above 1 and the others below -1
		{"hinge", []int{3}, []float32{-2, 0, .5, 2, -1, -1}, []float32{2, 0}, (0 + 1 + .5) / 2},
		{"squared-hinge", []int{3}, []float32{-2, 0, .5, 2, -1, -1}, []float32{2, 1}, (0 + 1 + .25 + 9 + 4 + 0) / 2},
		{"bpr", []int{3}, []float32{1, 0, 2, 0, 0, 0}, nil, (math.Log(1+1/e) + math.Log(1+e) + 2*math.Log(2)) / 4},
		{"sampled-softmax", []int{3}, []float32{1, 0, 0, 0, 0, 0}, nil, (math.Log(2+e) - 1 + math.Log(3)) / 2},
	} {
		l, err := newLoss(c.loss, c.shape)
		if err != nil {
			t.Fatal(err)
		}
		got := l.gradient(2, c.out, c.y, make([]float32, len(c.out)))
		if math.Abs(got-c.want) > 1e-6 {
			t.Errorf("%s of %v and %v: %v, want %v", c.loss, c.out, c.y, got, c.want)
		}
	}
}

// What is no target of a loss is refused by its place, before a step is made.
func TestTargetsOutOfRange(t *testing.T) {
	for _, c := range []struct {
		loss  string
		units int
		bad   []float32
		want  string
	}{
		{"softmax", 3, []float32{3, -1, .5, nan32, inf32}, "want a class, 0 to 2"},
		{"hinge", 1, []float32{2, -1, .5, nan32}, "want a class, 0 to 1"},
		{"squared-hinge", 3, []float32{3, -1, nan32}, "want a class, 0 to 2"},
		{"logistic", 1, []float32{1.5, -.5, nan32, -inf32}, "want 0 to 1"},
		{"squared", 1, []float32{nan32, inf32}, "want a finite number"},
	} {
		n := compile(t, Spec{[]int{2}, []LayerSpec{{Kind: "dense", Units: c.units}}, c.loss})
		for _, bad := range c.bad {
			params := n.Initial(1)
			_, err := newTrainer(t, n, 2).Train(t.Context(), params, reals(2*3), []float32{0, 1, bad}, TrainConfig{Epochs: 1, Rate: 1})
			want := fmt.Sprintf("train: example 2: target %v, %s: target out of range", bad, c.want)
			if !errors.Is(err, ErrTarget) || err.Error() != want || !slices.Equal(params, n.Initial(1)) {
				t.Errorf("%s: error %v, want %q", c.loss, err, want)
			}
		}
	}
}
