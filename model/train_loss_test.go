package model

import (
	"errors"
	"math"
	"slices"
	"testing"
)

// A training at rate 0 measures the loss of parameters that do not move; where layers drop values it measures another.
func TestLossIsThatOfParametersThatDoNotMove(t *testing.T) {
	for _, drop := range []bool{false, true} {
		layers := []LayerSpec{{Kind: "dense", Units: 6, Activation: "tanh"}}
		if drop {
			layers = append(layers, LayerSpec{Kind: "dropout", Rate: .5})
		}
		n, err := Spec{[]int{5}, append(layers, LayerSpec{Kind: "dense", Units: 3}), "softmax"}.Compile()
		if err != nil {
			t.Fatal(err)
		}
		params, x, y := n.Initial(1), reals(5*23), indices(23, 3)
		before := slices.Clone(params)
		trainer, err := NewTrainer(n, 7)
		if err != nil {
			t.Fatal(err)
		}
		got, err := trainer.Loss(params, x, y)
		if err != nil || !slices.Equal(params, before) {
			t.Fatalf("%v, parameters moved: %v", err, !slices.Equal(params, before))
		}
		logits := make([]float32, len(y)*3)
		NewPredictor(n, params).Predict(x, logits)
		if want, err := LogLoss(logits, 3, y); err != nil || math.Abs(got-want) > 1e-6 {
			t.Errorf("dropout %v: loss %v, want %v", drop, got, want)
		}
		done, err := trainer.Train(t.Context(), params, x, y, TrainConfig{Epochs: 1})
		if err != nil || drop == (math.Abs(done.Loss-got) < 1e-6) {
			t.Errorf("dropout %v: loss %v before a training that saw %v", drop, got, done.Loss)
		}
		x[0] = float32(math.NaN())
		if _, err := trainer.Loss(params, x, y); !errors.Is(err, ErrNaN) {
			t.Errorf("not a number: %v", err)
		}
		if _, err := trainer.Loss(params, nil, nil); !errors.Is(err, ErrEmpty) {
			t.Errorf("no examples: %v", err)
		}
	}
}
