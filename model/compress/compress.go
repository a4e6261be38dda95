// Package compress makes a smaller model from a trained one: int8 quantisation, and distillation into a narrower
// student. Neither sees a private row: quantisation reads the weights, distillation the teacher's answers on synthetic
// rows drawn from the federated statistics.
package compress

import (
	"context"
	"fmt"
	"math"

	"choir.example/model"
	"choir.example/model/kernel"
)

// Int8 quantises a float model's weights to int8, symmetric, with one scale an output channel (Jacob et al. 2018,
// §2.1; Krishnamoorthi 2018, §3.1). Biases stay float32; activations are quantised row by row when it predicts. The
// result shares the teacher's schema and statistics.
func Int8(m *model.Model) (*model.Model, error) {
	if m.Params == nil || !model.Finite(m.Params) {
		return nil, fmt.Errorf("quantise model %s: it has no finite float parameters", m.Name)
	}
	q := *m
	q.Params, q.Variant = nil, "int8"
	if m.Variant == "student" {
		q.Variant = "student-int8"
	}
	for _, l := range m.Layers() {
		ql := model.Int8Layer{Inputs: l.Inputs, Outputs: l.Outputs, Bias: append([]float32(nil), l.Bias...),
			Weights: make([]int8, len(l.Weights)), Scales: make([]float32, l.Outputs)}
		for o := range l.Outputs {
			channel := ql.Weights[o*l.Inputs : (o+1)*l.Inputs]
			ql.Scales[o] = kernel.QuantiseRow(channel, l.Weights[o*l.Inputs:(o+1)*l.Inputs])
		}
		q.Quantised = append(q.Quantised, ql)
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
	if err := cfg.check(teacher.Spec.Inputs); err != nil {
		return nil, err
	}
	spec := model.Spec{Inputs: teacher.Spec.Inputs, Hidden: []int{cfg.Hidden}}
	trainer, err := model.NewTrainer(spec, cfg.Batch)
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
	params := spec.Init(cfg.Seed)
	for epoch := range cfg.Epochs {
		rate := cfg.Rate * float64(cfg.Epochs-epoch) / float64(cfg.Epochs) // falls linearly to settle
		if _, err := trainer.Train(ctx, params, x, y, model.TrainConfig{Epochs: 1, Rate: rate, Seed: cfg.Seed + uint64(epoch)}); err != nil {
			return nil, err
		}
	}
	sharpen(spec, params, float32(cfg.Temperature))
	if !model.Finite(params) {
		return nil, fmt.Errorf("the student's parameters are not finite at temperature %v", cfg.Temperature)
	}
	student := *teacher
	student.Spec, student.Params, student.Quantised, student.Variant = spec, params, nil, "student"
	return &student, nil
}

// sharpen undoes the temperature: the student learnt logits divided by it, so its output layer is multiplied by it.
func sharpen(spec model.Spec, params []float32, temperature float32) {
	last := spec.Hidden[len(spec.Hidden)-1] + 1
	for i := len(params) - last; i < len(params); i++ {
		params[i] *= temperature
	}
}
