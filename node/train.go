package node

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"choir.example/fedavg"
	"choir.example/internal/jobspec"
	"choir.example/internal/seeds"
	"choir.example/model"
	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/protobuf/proto"
)

// workshop does a task's work on the node's own data. It keeps features and buffers between rounds.
type workshop struct {
	store     *Store
	fetch     func(ctx context.Context, id []byte) ([]byte, error)
	name      string // of the node: its chance derives from the round's seed and this
	pause     func() // called before each step of training; nil: nothing else wants the processor
	carry     *carry
	lab       Lab             // nil: the store has the examples
	algorithm jobspec.Builder // nil: what the job says
	subject   *subject        // of the last task
	own       Place
	place     *Place            // where the task under way is done
	stats     string            // statistics that sets were made with
	imports   uint64            // how many imports there were when sets were made
	sets      map[Part]examples // features and labels
}

// subject is what a job wants of the node, parsed.
type subject struct {
	jobspec.Job
	key string // the same for the same algorithm
}

// subjectOf parses a job, if it is another than before.
func (w *workshop) subjectOf(job *choirv1.JobSpec) (*subject, error) {
	spec, err := proto.MarshalOptions{Deterministic: true}.Marshal(job)
	if err != nil {
		return nil, err
	}
	if w.subject != nil && w.subject.key == string(spec) {
		return w.subject, nil
	}
	s := &subject{key: string(spec)}
	if s.Job, err = jobspec.Parse(job, w.algorithm); err != nil {
		return nil, err
	}
	w.subject = s
	return s, nil
}

// examples are feature rows, one after the other, with labels.
type examples struct{ x, y []float32 }

// work computes the update that a task asks for, and refuses to give one that a coordinator would refuse to take. The
// update is use's as long as that lasts.
func (w *workshop) work(ctx context.Context, t *choirv1.Task, use func(*fedavg.Update) error) error {
	s, err := w.check(t)
	if err != nil {
		return err
	}
	leave, err := w.enter(ctx)
	if err != nil {
		return err
	}
	defer func() { leave() }()
	var u *fedavg.Update
	do := inBackground
	if w.lab != nil { // where nothing else waits for the processor
		do = func(f func()) { f() }
	}
	do(func() { u, err = w.compute(ctx, t, s) })
	if lie := w.told(t, u, err); lie != nil {
		leave()
		leave = func() {}
		u, err = lie(ctx)
	}
	if err != nil {
		return err
	}
	shape := fedavg.Shape{Scalars: len(u.Scalars), Evaluations: len(u.Evaluations), WeightCap: s.WeightCap}
	if t.Kind == choirv1.RoundKind_ROUND_KIND_TRAIN {
		shape = s.Shape()
		shape.Evaluations, shape.Classes = 1, s.Classes()
	}
	if err := u.Check(shape); err != nil {
		return fmt.Errorf("round %d of job %s: %w", t.Key.GetRound(), t.Job.Name, err)
	}
	return use(u)
}

// check refuses a task that this node cannot or will not do, before anything is done for it.
func (w *workshop) check(t *choirv1.Task) (*subject, error) {
	switch {
	case t.Job == nil:
		return nil, errors.New("the task has no job")
	case t.Job.WeightCap < 1 || t.Job.WeightCap > fedavg.MaxWeight:
		return nil, fmt.Errorf("job %s: weight_cap is %d, want 1 to %d", t.Job.Name, t.Job.WeightCap, fedavg.MaxWeight)
	case kindName(t.Kind) == "unknown":
		return nil, fmt.Errorf("round of kind %v is not known to this version", t.Kind)
	}
	s, err := w.subjectOf(t.Job)
	if err != nil {
		return nil, err
	}
	switch own := w.store.Schema(); {
	case s.Schema == nil && (w.lab == nil || t.Kind != choirv1.RoundKind_ROUND_KIND_TRAIN):
		return nil, &unfitError{fmt.Sprintf("job %s learns from tensors, and this node has rows of a schema alone", t.Job.Name), "it has no tensors"}
	case s.Schema == nil:
		_, absent := w.lab.Part(w.name, t.Job.Name, t.Key.GetRound())
		if absent != "" {
			err = &unfitError{absent, absent}
		}
		return s, err
	case own == nil:
		return nil, &unfitError{fmt.Sprintf("job %s is for schema %s, and this node has no data", t.Job.Name, s.Schema.Name), "it has no data"}
	case own.Digest() != s.Schema.Digest():
		return nil, &unfitError{fmt.Sprintf("job %s is for schema %s, which this node's data do not have", t.Job.Name, s.Schema.Name),
			fmt.Sprintf("its data are not of this schema %s", s.Schema.Name)}
	}
	n, err := w.store.Count(Train)
	if err == nil && int64(n) < t.Job.MinimumExamples {
		err = &unfitError{fmt.Sprintf("job %s wants at least %d training examples, and this node has %d", t.Job.Name, t.Job.MinimumExamples, n),
			fmt.Sprintf("it has fewer than %d training examples", t.Job.MinimumExamples)}
	}
	return s, err
}

func (w *workshop) compute(ctx context.Context, t *choirv1.Task, s *subject) (*fedavg.Update, error) {
	switch t.Kind {
	case choirv1.RoundKind_ROUND_KIND_STATISTICS:
		return w.statistics(t.Job)
	case choirv1.RoundKind_ROUND_KIND_EVALUATE:
		return w.evaluate(ctx, t)
	}
	return w.train(ctx, t, s)
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
// the job's grid, with what else the strategy sends.
func (w *workshop) train(ctx context.Context, t *choirv1.Task, s *subject) (*fedavg.Update, error) {
	work := fedavg.Work{Seed: nodeSeed(t, w.name), Pause: w.pause}
	begin := w.fromRows
	if s.Schema == nil {
		begin = w.fromTensors
	}
	before, err := begin(ctx, t, s, &work)
	if err != nil {
		return nil, err
	}
	if work.Shared, err = w.shared(ctx, t, s); err != nil {
		return nil, err
	}
	needs := s.Strategy.Needs()
	if needs.Memory > 0 {
		if work.Memory, err = w.carry.of(t.Job.Name, needs.Memory, s.Network.Size()); err != nil {
			return nil, err
		}
	}
	client, err := w.place.clientFor(s)
	if err != nil {
		return nil, err
	}
	u, err := client.Update(ctx, work)
	if err != nil {
		return nil, err
	}
	if needs.Memory > 0 {
		if err := w.carry.leave(t.Key, client.Memory()); err != nil {
			return nil, err
		}
	}
	u.Evaluations = []model.Evaluation{before}
	return u, nil
}

// nodeSeed is of all chance that a node has in a round.
func nodeSeed(t *choirv1.Task, node string) uint64 {
	return seeds.Derive("choir/node/v1", t.Seed, node, t.Key.Round)
}

// fromRows lays out work on the node's rows, and measures the model on its validation part.
func (w *workshop) fromRows(ctx context.Context, t *choirv1.Task, s *subject, work *fedavg.Work) (before model.Evaluation, err error) {
	params, statistics, err := w.received(ctx, t, s)
	if err != nil {
		return before, err
	}
	validation, err := w.examples(Validation, statistics)
	if err != nil {
		return before, err
	}
	set, err := w.examples(Train, statistics)
	if err != nil {
		return before, err
	}
	work.Global, work.X, work.Y = params, set.x, set.y
	predictor := model.NewPredictor(s.Network, params)
	if classes := s.Classes(); classes > 1 {
		return model.EvaluateClasses(predictor, classes, validation.x, validation.y), nil
	}
	return model.Evaluate(predictor, validation.x, validation.y), nil
}

// received fetches the parameters of the global model, and the statistics that standardise features: they are in the
// model's file, but for one of several classes.
func (w *workshop) received(ctx context.Context, t *choirv1.Task, s *subject) ([]float32, *data.Statistics, error) {
	if s.Classes() == 1 {
		m, err := w.model(ctx, t.Model)
		if err != nil {
			return nil, nil, err
		}
		if m.Params == nil {
			return nil, nil, fmt.Errorf("model %x has no float parameters to train", t.Model)
		}
		return m.Params, m.Statistics, s.fits(t.Model, m.Network)
	}
	params, err := w.network(ctx, t.Model, s)
	if err != nil {
		return nil, nil, err
	}
	body, err := w.fetch(ctx, t.Statistics)
	if err != nil {
		return nil, nil, err
	}
	statistics, err := data.DecodeStatistics(s.Schema, body)
	if err != nil {
		return nil, nil, fmt.Errorf("statistics %x: %w", t.Statistics, err)
	}
	return params, statistics, nil
}

// network fetches the parameters of a global model that is a network alone.
func (w *workshop) network(ctx context.Context, id []byte, s *subject) ([]float32, error) {
	body, err := w.fetch(ctx, id)
	if err != nil {
		return nil, err
	}
	network, params, _, err := model.DecodeNetwork(body)
	if err == nil && params == nil {
		err = errors.New("it has no float parameters to train")
	}
	if err != nil {
		return nil, fmt.Errorf("model %x: %w", id, err)
	}
	return params, s.fits(id, network)
}

// fromTensors lays out work on the examples of an experiment, which has no validation part.
func (w *workshop) fromTensors(ctx context.Context, t *choirv1.Task, s *subject, work *fedavg.Work) (none model.Evaluation, err error) {
	work.X, work.Y = w.place.X, w.place.Y
	work.Epochs, _ = w.lab.Part(w.name, t.Job.Name, t.Key.Round)
	work.Global, err = w.network(ctx, t.Model, s)
	return none, err
}

// fits refuses a model of another architecture than the job's.
func (s *subject) fits(id []byte, network *model.Network) error {
	if !reflect.DeepEqual(network.Spec(), s.Network.Spec()) {
		return fmt.Errorf("model %x is not of the job's architecture", id)
	}
	return nil
}

// shared fetches what the strategy shares of the server's state.
func (w *workshop) shared(ctx context.Context, t *choirv1.Task, s *subject) ([][]float32, error) {
	needs := s.Strategy.Needs()
	if needs.Shared == 0 {
		return nil, nil
	}
	if len(t.StrategyState) == 0 {
		return s.Shared(s.FirstState()), nil
	}
	body, err := w.fetch(ctx, t.StrategyState)
	if err != nil {
		return nil, err
	}
	state, err := fedavg.DecodeState(body, len(s.FirstState()), s.Network.Size())
	if err != nil {
		return nil, fmt.Errorf("state %x of the strategy: %w", t.StrategyState, err)
	}
	return s.Shared(state), nil
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
