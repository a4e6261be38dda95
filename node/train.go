package node

import (
	"context"
	"errors"
	"fmt"

	"choir.example/fedavg"
	"choir.example/internal/seeds"
	"choir.example/model"
	"choir.example/model/codec"
	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"
)

// workshop does a task's work on the node's own data. It keeps features and buffers between rounds.
type workshop struct {
	store     *Store
	fetch     func(ctx context.Context, id []byte) ([]byte, error)
	name      string // of the node: its chance derives from the round's seed and this
	pause     func() // called before each step of training; nil: nothing else wants the processor
	client    *fedavg.Client
	clientKey string            // what client was made for
	stats     string            // statistics that sets were made with
	imports   uint64            // how many imports there were when sets were made
	sets      map[Part]examples // features and labels
}

// examples are feature rows, one after the other, with labels.
type examples struct{ x, y []float32 }

// work computes the update that a task asks for, and refuses to give one that a coordinator would refuse to take.
func (w *workshop) work(ctx context.Context, t *choirv1.Task) (*fedavg.Update, error) {
	if err := w.check(t); err != nil {
		return nil, err
	}
	var u *fedavg.Update
	var err error
	inBackground(func() { u, err = w.compute(ctx, t) })
	if err != nil {
		return nil, err
	}
	shape := fedavg.Shape{Scalars: len(u.Scalars), Evaluations: len(u.Evaluations), WeightCap: t.Job.WeightCap}
	for _, v := range u.Vectors {
		shape.Vectors = append(shape.Vectors, len(v))
	}
	if t.Job.Clip > 0 {
		shape.ClipSquared = codec.Grid{Range: t.Job.Range}.ClipSquared(t.Job.Clip)
	}
	if err := u.Check(shape); err != nil {
		return nil, fmt.Errorf("round %d of job %s: %w", t.Key.GetRound(), t.Job.Name, err)
	}
	return u, nil
}

// checkJob refuses settings with which there is no update that keeps within its bounds.
func checkJob(job *choirv1.JobSpec) error {
	if job == nil {
		return errors.New("the task has no job")
	}
	for _, f := range []struct {
		field           string
		value, low, top float64
	}{
		{"weight_cap", float64(job.WeightCap), 1, fedavg.MaxWeight},
		{"range", job.Range, 1e-6, 1e6},
		{"clip", job.Clip, 0, 1e9},
		{"local_epochs", float64(job.LocalEpochs), 0, 1000},
	} {
		if !(f.value >= f.low && f.value <= f.top) { // so that NaN is refused too
			return fmt.Errorf("job %s: %s is %v, want %v to %v", job.Name, f.field, f.value, f.low, f.top)
		}
	}
	return nil
}

// check refuses a task that this node cannot or will not do, before anything is done for it.
func (w *workshop) check(t *choirv1.Task) error {
	if err := checkJob(t.Job); err != nil {
		return err
	}
	if kindName(t.Kind) == "unknown" {
		return fmt.Errorf("round of kind %v is not known to this version", t.Kind)
	}
	schema, err := data.ParseSchema(t.Job.Schema)
	if err != nil {
		return err
	}
	switch own := w.store.Schema(); {
	case own == nil:
		return &unfitError{fmt.Sprintf("job %s is for schema %s, and this node has no data", t.Job.Name, schema.Name), "it has no data"}
	case own.Digest() != schema.Digest():
		return &unfitError{fmt.Sprintf("job %s is for schema %s, which this node's data do not have", t.Job.Name, schema.Name),
			fmt.Sprintf("its data are not of this schema %s", schema.Name)}
	}
	n, err := w.store.Count(Train)
	if err == nil && int64(n) < t.Job.MinimumExamples {
		err = &unfitError{fmt.Sprintf("job %s wants at least %d training examples, and this node has %d", t.Job.Name, t.Job.MinimumExamples, n),
			fmt.Sprintf("it has fewer than %d training examples", t.Job.MinimumExamples)}
	}
	return err
}

func (w *workshop) compute(ctx context.Context, t *choirv1.Task) (*fedavg.Update, error) {
	switch t.Kind {
	case choirv1.RoundKind_ROUND_KIND_STATISTICS:
		return w.statistics(t.Job)
	case choirv1.RoundKind_ROUND_KIND_EVALUATE:
		return w.evaluate(ctx, t)
	}
	return w.train(ctx, t)
}

// errNoExamples is why a node cannot take part.
var errNoExamples = &unfitError{"the node has no training examples; import some", "it has no training examples"}

// statistics sums what preprocessing needs over the training rows; no row leaves.
func (w *workshop) statistics(job *choirv1.JobSpec) (*fedavg.Update, error) {
	rows, err := w.store.Rows(Train)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, errNoExamples
	}
	if int64(len(rows)) > job.WeightCap {
		rows = rows[:job.WeightCap]
	}
	return &fedavg.Update{Scalars: data.Collect(w.store.Schema(), rows), Weight: int64(len(rows))}, nil
}

// train measures the model it received on the validation part, trains it on the training part and returns the delta on
// the job's grid.
func (w *workshop) train(ctx context.Context, t *choirv1.Task) (*fedavg.Update, error) {
	m, err := w.model(ctx, t.Model)
	if err != nil {
		return nil, err
	}
	if m.Params == nil {
		return nil, fmt.Errorf("model %x has no float parameters to train", t.Model)
	}
	validation, err := w.examples(Validation, m.Statistics)
	if err != nil {
		return nil, err
	}
	set, err := w.examples(Train, m.Statistics)
	if err != nil {
		return nil, err
	}
	before := model.Evaluate(m.Predictor(), validation.x, validation.y)
	client, err := w.clientFor(m.Network, t.Job)
	if err != nil {
		return nil, err
	}
	u, err := client.Update(ctx, fedavg.Work{
		Global: m.Params, X: set.x, Y: set.y, Seed: seeds.Derive("choir/node/v1", t.Seed, w.name, t.Key.Round), Pause: w.pause,
	})
	if err != nil {
		return nil, err
	}
	u.Evaluations = []model.Evaluation{before}
	return u, nil
}

// evaluate measures each candidate on the validation part.
func (w *workshop) evaluate(ctx context.Context, t *choirv1.Task) (*fedavg.Update, error) {
	if n := len(t.Candidates); n < 1 || n > fedavg.MaxParts {
		return nil, fmt.Errorf("%d candidates to evaluate, want 1 to %d", n, fedavg.MaxParts)
	}
	u := &fedavg.Update{}
	for _, id := range t.Candidates {
		m, err := w.model(ctx, id)
		if err != nil {
			return nil, err
		}
		set, err := w.examples(Validation, m.Statistics)
		if err != nil {
			return nil, err
		}
		u.Evaluations = append(u.Evaluations, model.Evaluate(m.Predictor(), set.x, set.y))
		u.Weight = min(max(int64(len(set.y)), 1), t.Job.WeightCap)
	}
	return u, nil
}

// model fetches and decodes a model, and checks that it is for this node's data.
func (w *workshop) model(ctx context.Context, id []byte) (*model.Model, error) {
	body, err := w.fetch(ctx, id)
	if err != nil {
		return nil, err
	}
	m, err := model.Decode(body)
	if err != nil {
		return nil, fmt.Errorf("model %x: %w", id, err)
	}
	if m.Schema.Digest() != w.store.Schema().Digest() {
		return nil, fmt.Errorf("model %x is for schema %s, which this node's data do not have", id, m.Schema.Name)
	}
	return m, nil
}

// examples returns a part as features. They are kept until the statistics change or rows are imported.
func (w *workshop) examples(part Part, t *data.Statistics) (examples, error) {
	imports := w.store.imports.Load()
	if key := string(t.Encode()); key != w.stats || imports != w.imports {
		w.stats, w.imports, w.sets = key, imports, map[Part]examples{}
	}
	if set, ok := w.sets[part]; ok {
		return set, nil
	}
	rows, err := w.store.Rows(part)
	if err != nil {
		return examples{}, err
	}
	if len(rows) > fedavg.MaxExamples {
		rows = rows[:fedavg.MaxExamples]
	}
	if part == Train && len(rows) == 0 {
		return examples{}, errNoExamples
	}
	x, y := t.Matrix(rows)
	w.sets[part] = examples{x, y}
	return w.sets[part], nil
}

// clientFor returns the client, made anew when the model's shape or what the job says of training changes.
func (w *workshop) clientFor(network *model.Network, job *choirv1.JobSpec) (*fedavg.Client, error) {
	a := &fedavg.Algorithm{
		Network: network, Strategy: fedavg.FedAvg{Rate: 1}, Batch: int(job.Batch), Grid: codec.Grid{Range: job.Range}, Clip: job.Clip,
		WeightCap: job.WeightCap, Local: model.TrainConfig{Epochs: int(job.LocalEpochs), Rate: job.LearningRate},
	}
	key := fmt.Sprint(network.Spec(), a.Batch, a.Grid, a.Clip, a.WeightCap, a.Local.Epochs, a.Local.Rate)
	if w.client == nil || w.clientKey != key {
		c, err := fedavg.NewClient(a)
		if err != nil {
			return nil, err
		}
		w.client, w.clientKey = c, key
	}
	return w.client, nil
}
