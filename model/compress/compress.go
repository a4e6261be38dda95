// Package compress makes a smaller model from a trained one: int8 quantisation, and distillation into a narrower
// student. Neither sees a private row: quantisation reads the weights, distillation the teacher's answers on synthetic
// rows drawn from the federated statistics.
package compress

import (
	"context"
	"fmt"
	"math"

	"choir.example/model"
)

// Int8 quantises a float model's weights to int8, symmetric, with one scale an output channel (Jacob et al. 2018,
// §2.1; Krishnamoorthi 2018, §3.1). Biases stay float32; activations are quantised row by row when it predicts. The
// result shares the teacher's schema and statistics.
func Int8(m *model.Model) (*model.Model, error) {
	tensors, err := model.Quantise(m.Network, m.Params)
	if err != nil {
		return nil, fmt.Errorf("quantise model %s: %w", m.Name, err)
	}
	q := *m
	q.Params, q.Quantised, q.Variant = nil, tensors, "int8"
	if m.Variant == "student" {
		q.Variant = "student-int8"
	}
	return &q, nil
}

// DistilConfig says how a student learns.
type DistilConfig struct {
	Hidden      int     // width of its one hidden layer
	Rows        int     // synthetic rows
	Epochs      int     // passes over them
	Batch       int     // rows a step
	Rate        float64 // learning rate
	Temperature float64 // softens the teacher's answers; 1 leaves them
	Seed        uint64  // of the rows, the student's start and the order
}

// maxValues bounds the synthetic rows in memory: 1 GiB.
const maxValues = 1 << 28

// check names the setting that is out of range for rows of the given width.
func (cfg DistilConfig) check(width int) error {
	switch {
	case cfg.Rows < 1 || int64(cfg.Rows)*int64(width) > maxValues:
		return fmt.Errorf("%d rows of %d features, want 1 to %d rows", cfg.Rows, width, maxValues/width)
	case cfg.Epochs < 0:
		return fmt.Errorf("%d epochs, want at least 0", cfg.Epochs)
	case !(cfg.Temperature > 0) || math.IsInf(cfg.Temperature, 0):
		return fmt.Errorf("temperature %v, want a finite one above 0", cfg.Temperature)
	}
	return nil
}

// Distil trains a student with one hidden layer on the teacher's softened answers over synthetic rows (Hinton, Vinyals
// and Dean 2015, §2: targets and student logits are both divided by the temperature during training). The student
// shares the teacher's schema and statistics, which is all that it learns from beside the teacher.
func Distil(ctx context.Context, teacher *model.Model, cfg DistilConfig) (*model.Model, error) {
	student, err := distil(ctx, teacher, cfg)
	if err != nil {
		return nil, fmt.Errorf("distil model %s: %w", teacher.Name, err)
	}
	return student, nil
}

func distil(ctx context.Context, teacher *model.Model, cfg DistilConfig) (*model.Model, error) {
	inputs := teacher.Network.Inputs()
	if err := cfg.check(inputs); err != nil {
		return nil, err
	}
	if err := model.CheckMLP(inputs, []int{cfg.Hidden}); err != nil {
		return nil, err
	}
	network, err := model.MLP(inputs, cfg.Hidden).Compile()
	if err != nil {
		return nil, err
	}
	trainer, err := model.NewTrainer(network, cfg.Batch)
	if err != nil {
		return nil, err
	}
	x := teacher.Statistics.Synthetic(cfg.Rows, cfg.Seed)
	y := make([]float32, cfg.Rows)
	teacher.Predictor().Predict(x, y)
	if !model.Finite(y) {
		return nil, fmt.Errorf("the teacher's answers are not finite")
	}
	for i, z := range y {
		y[i] = float32(model.Probability(z / float32(cfg.Temperature)))
	}
	params := network.Initial(cfg.Seed)
	for epoch := range cfg.Epochs {
		rate := cfg.Rate * float64(cfg.Epochs-epoch) / float64(cfg.Epochs) // falls linearly to settle
		if _, err := trainer.Train(ctx, params, x, y, model.TrainConfig{Epochs: 1, Rate: rate, Seed: cfg.Seed + uint64(epoch)}); err != nil {
			return nil, err
		}
	}
	sharpen(network, params, float32(cfg.Temperature))
	if !model.Finite(params) {
		return nil, fmt.Errorf("the student's parameters are not finite at temperature %v", cfg.Temperature)
	}
	student := *teacher
	student.Network, student.Params, student.Quantised, student.Variant = network, params, nil, "student"
	return &student, nil
}

// sharpen undoes the temperature: the student learnt logits divided by it, so its output layer is multiplied by it.
func sharpen(network *model.Network, params []float32, temperature float32) {
	tensors := network.Tensors()
	last := tensors[len(tensors)-2] // weights, then the bias
	for i := range params[last.Offset:] {
		params[last.Offset+i] *= temperature
	}
}
