package simulate

import (
	"context"
	"fmt"

	"choir.example/internal/seeds"
	"choir.example/model"
	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"
)

// Score is how well a model does on held-out rows.
type Score struct {
	AUC      float64 `json:"auc"`
	Accuracy float64 `json:"accuracy"`
}

// Measure computes a model's exact AUC and its accuracy on rows.
func Measure(m *model.Model, rows []data.Row) Score {
	x, y := m.Statistics.Matrix(rows)
	logits := make([]float32, len(y))
	m.Predictor().Predict(x, logits)
	correct := 0
	for i, z := range logits {
		if (z > 0) == (y[i] > 0.5) {
			correct++
		}
	}
	return Score{AUC: model.ExactAUC(logits, y), Accuracy: float64(correct) / float64(len(y))}
}

// Baseline trains the job's model on rows in one place: as many epochs as the job's rounds times its local epochs, so
// that every row is visited as often as in the federation, with statistics of these rows alone.
func Baseline(ctx context.Context, spec *choirv1.JobSpec, schema *data.Schema, rows []data.Row, name string) (*model.Model, error) {
	t, err := data.NewStatistics(schema, data.Collect(schema, rows))
	if err != nil {
		return nil, fmt.Errorf("train %s: %w", name, err)
	}
	shape := model.Spec{Inputs: schema.Features()}
	for _, h := range spec.Hidden {
		shape.Hidden = append(shape.Hidden, int(h))
	}
	trainer, err := model.NewTrainer(shape, int(spec.Batch))
	if err != nil {
		return nil, fmt.Errorf("train %s: %w", name, err)
	}
	params := shape.Init(spec.Seed)
	x, y := t.Matrix(rows)
	_, err = trainer.Train(ctx, params, x, y, model.TrainConfig{
		Epochs: int(spec.Rounds) * int(spec.LocalEpochs), Rate: spec.LearningRate,
		Seed: seeds.Derive("choir/baseline/v1", spec.Seed, name, 0),
	})
	if err != nil {
		return nil, fmt.Errorf("train %s: %w", name, err)
	}
	return &model.Model{Name: name, Variant: "float32", Spec: shape, Schema: schema, Statistics: t, Params: params}, nil
}

// Baselines trains each part alone and all of them together, and measures all on the pooled held-out rows: the mean
// over the parts, and the central model's score.
func Baselines(ctx context.Context, spec *choirv1.JobSpec, schema *data.Schema, parts []data.Parts) (local, central Score, err error) {
	held, all := pool(parts)
	for i, p := range parts {
		m, err := Baseline(ctx, spec, schema, p.Train, NodeName(i))
		if err != nil {
			return local, central, err
		}
		s := Measure(m, held)
		local.AUC += s.AUC / float64(len(parts))
		local.Accuracy += s.Accuracy / float64(len(parts))
	}
	m, err := Baseline(ctx, spec, schema, all, "central")
	if err != nil {
		return local, central, err
	}
	return local, Measure(m, held), nil
}

// pool puts the held-out and the training rows of all parts together.
func pool(parts []data.Parts) (held, train []data.Row) {
	for _, p := range parts {
		held = append(held, p.Held...)
		train = append(train, p.Train...)
	}
	return held, train
}
