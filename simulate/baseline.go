package simulate

import (
	"context"
	"fmt"

	"choir.example/internal/jobspec"
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
	a, err := jobspec.Algorithm(spec)
	if err != nil {
		return nil, fmt.Errorf("train %s: %w", name, err)
	}
	trainer, err := model.NewTrainer(a.Network, a.Batch)
	if err != nil {
		return nil, fmt.Errorf("train %s: %w", name, err)
	}
	params, cfg := a.Network.Initial(spec.Seed), a.Local
	cfg.Epochs *= int(spec.Rounds)
	cfg.Seed = seeds.Derive("choir/baseline/v1", spec.Seed, name, 0)
	x, y := t.Matrix(rows)
	if _, err = trainer.Train(ctx, params, x, y, cfg); err != nil {
		return nil, fmt.Errorf("train %s: %w", name, err)
	}
	return &model.Model{Name: name, Variant: "float32", Network: a.Network, Schema: schema, Statistics: t, Params: params}, nil
}

// Compared is how well a model does on all nodes' rows together: on the held-out parts, as the final table shows, and on
// the validation parts, as rounds measure.
type Compared struct {
	Held       Score
	Validation Validated
}

// Baselines trains each part alone and all of them together, and measures all on the pooled rows: the mean over the
// parts, and the central model.
func Baselines(ctx context.Context, spec *choirv1.JobSpec, schema *data.Schema, parts []data.Parts) (local, central Compared, err error) {
	all, n := pool(parts), float64(len(parts))
	for i, p := range parts {
		m, err := Baseline(ctx, spec, schema, p.Train, NodeName(i))
		if err != nil {
			return local, central, err
		}
		c := compare(m, all)
		local.Held.AUC += c.Held.AUC / n
		local.Held.Accuracy += c.Held.Accuracy / n
		local.Validation.AUC += c.Validation.AUC / n
		local.Validation.Loss += c.Validation.Loss / n
	}
	m, err := Baseline(ctx, spec, schema, all.Train, "central")
	if err != nil {
		return local, central, err
	}
	return local, compare(m, all), nil
}

func compare(m *model.Model, all data.Parts) Compared {
	e := m.Evaluate(all.Validation)
	return Compared{Measure(m, all.Held), Validated{e.AUC(), e.MeanLoss()}}
}

// pool puts the rows of all parts together.
func pool(parts []data.Parts) (all data.Parts) {
	for _, p := range parts {
		all.Train = append(all.Train, p.Train...)
		all.Validation = append(all.Validation, p.Validation...)
		all.Held = append(all.Held, p.Held...)
	}
	return all
}
