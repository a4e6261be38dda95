package model

import (
	"math"
	"strings"
	"testing"
)

// A student that gets its teacher's answers comes to answer the same, with each loss that has soft targets.
func TestDistilling(t *testing.T) {
	for _, c := range []struct {
		loss  string
		units int
	}{{"softmax", 3}, {"logistic", 1}, {"squared", 2}} {
		n, err := Spec{[]int{4}, []LayerSpec{{Kind: "dense", Units: c.units}}, c.loss}.Compile()
		if err != nil {
			t.Fatal(err)
		}
		student, err := n.Distilling()
		if err != nil || student.Size() != n.Size() || student.Outputs() != n.Outputs() {
			t.Fatalf("%s: %v", c.loss, err)
		}
		x := reals(4 * 60)
		answers := func(params []float32) []float32 {
			out := make([]float32, 60*c.units)
			NewPredictor(n, params).Predict(x, out)
			n.Soften(out)
			return out
		}
		want, params := answers(n.Initial(1)), n.Initial(2)
		trainer, err := NewTrainer(student, 10)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trainer.Train(t.Context(), params, x, want, TrainConfig{Epochs: 400, Rate: .3}); err != nil {
			t.Fatal(err)
		}
		for i, p := range answers(params) {
			if math.Abs(float64(p-want[i])) > .02 {
				t.Errorf("%s: answer %d is %v, want %v", c.loss, i, p, want[i])
			}
		}
	}
	n, err := Spec{[]int{4}, []LayerSpec{{Kind: "dense", Units: 3}}, "hinge"}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Distilling(); err == nil || !strings.Contains(err.Error(), "hinge has no soft targets") {
		t.Errorf("hinge: %v", err)
	}
}
