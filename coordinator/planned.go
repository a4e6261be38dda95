package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/internal/jobspec"
	"choir.example/internal/seeds"
	"choir.example/model"
	choirv1 "choir.example/proto/choir/v1"
)

// planned is a job's specification, parsed: what the coordinator computes with.
type planned struct {
	jobspec.Job
	spec *choirv1.JobSpec
	root int // of the public rows, so many are what a rule trains on that trusts an update made of them; 0: all
}

// plans are the specifications that were parsed lately, by name of the job.
type plans struct {
	mu    sync.Mutex // guards byJob
	byJob map[string]parsed
}

type parsed struct {
	spec []byte
	*planned
}

// planned parses a job's specification.
func (c *Coordinator) planned(j *state.Job) (*planned, error) {
	c.plans.mu.Lock()
	defer c.plans.mu.Unlock()
	if known := c.plans.byJob[j.Name]; known.planned != nil && bytes.Equal(known.spec, j.Spec) {
		return known.planned, nil
	}
	spec, err := j.JobSpec()
	if err != nil {
		return nil, err
	}
	p, err := newPlanned(spec, c.deps)
	if err != nil {
		return nil, err
	}
	c.plans.byJob[j.Name] = parsed{j.Spec, p}
	return p, nil
}

// newPlanned parses a specification.
func newPlanned(spec *choirv1.JobSpec, deps Deps) (p *planned, err error) {
	p = &planned{spec: spec}
	if p.Job, err = jobspec.Parse(spec, deps.Algorithm); err != nil {
		return nil, err
	}
	if err := p.lacks(deps); err != nil {
		return nil, fmt.Errorf("job %s: %w", spec.Name, err)
	}
	if p.Trusts() {
		p.root, err = rootExamples(spec)
	}
	return p, err
}

// lacks refuses an algorithm that needs what coordinators do not have, but in experiments.
func (p *planned) lacks(deps Deps) error {
	_, asynchronous := p.Strategy.(fedavg.Asynchronous)
	switch {
	case asynchronous:
		return errors.New("strategy: it is asynchronous, and coordinators make models in rounds")
	case p.Strategy.Needs().Public && len(p.Public) == 0 && len(p.spec.Public) == 0:
		return errors.New("strategy: it looks at public inputs; name a file of rows as public")
	case p.Trusts() && deps.Trusted == nil && len(p.spec.Public) == 0:
		return errors.New("robust: the rule trusts an update of the coordinators' own, made of public rows; name a file of them as public")
	case len(p.spec.Public) > 0 && !p.Strategy.Needs().Public && !p.Trusts():
		return errors.New("public: neither the strategy nor the rule looks at public rows; want feddf or fltrust, or no public")
	}
	return nil
}

// shape is what an update of the round must look like.
func (c *Coordinator) shape(j *state.Job, r *state.Round) (fedavg.Shape, error) {
	p, err := c.planned(j)
	if err != nil {
		return fedavg.Shape{}, err
	}
	return p.shape(r), nil
}

func (p *planned) shape(r *state.Round) fedavg.Shape {
	switch r.Kind {
	case choirv1.RoundKind_ROUND_KIND_STATISTICS:
		return fedavg.Shape{WeightCap: p.WeightCap, Scalars: p.Schema.StatLen()}
	case choirv1.RoundKind_ROUND_KIND_TRAIN:
		shape := p.Shape()
		shape.Evaluations, shape.Classes = 1, p.Classes()
		return shape
	}
	return fedavg.Shape{WeightCap: p.WeightCap, Evaluations: len(r.Candidates), Classes: p.Classes()}
}

// inRows reports whether the global model is a file with the schema, as releases are. One of several classes, or of
// tensors, is a network alone.
func (p *planned) inRows() bool { return p.Schema != nil && p.Schema.Classes() == 1 }

// each reports whether a round's updates are kept one by one until they are combined.
func (p *planned) each(r *state.Round) bool {
	return r.Kind == choirv1.RoundKind_ROUND_KIND_TRAIN && p.Each()
}

// width is that of the network's first layer with weights.
func (p *planned) width() int {
	for _, t := range p.Network.Tensors() {
		if t.Weight {
			return t.Outputs()
		}
	}
	return 1
}

// initial makes the model durable from which a job without a statistics round starts.
func (c *Coordinator) initial(ctx context.Context, j *state.Job) (state.Digest, error) {
	p, err := c.planned(j)
	if err != nil {
		return state.Digest{}, &errAbandon{err.Error()}
	}
	body, err := model.EncodeNetwork(p.Network, p.Network.Initial(p.spec.Seed))
	if err != nil {
		return state.Digest{}, &errAbandon{err.Error()}
	}
	return c.put(ctx, body)
}

// global fetches the global model of a job: its parameters, and how the next ones are written in the same form.
func (c *Coordinator) global(ctx context.Context, p *planned, id state.Digest) (params []float32, encode func(next []float32) ([]byte, error), err error) {
	if p.inRows() {
		m, err := c.loadModel(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		return m.Params, func(next []float32) ([]byte, error) { m.Params = next; return m.Encode() }, nil
	}
	body, err := c.blobs.Get(ctx, id)
	if err != nil {
		return nil, nil, &errAbandon{fmt.Sprintf("model %v is lost: %v", id, err)}
	}
	network, params, _, err := model.DecodeNetwork(body)
	if err == nil && params == nil {
		err = errors.New("it has no float parameters")
	}
	if err != nil {
		return nil, nil, &errAbandon{fmt.Sprintf("model %v: %v", id, err)}
	}
	return params, func(next []float32) ([]byte, error) { return model.EncodeNetwork(network, next) }, nil
}

// next makes the next model of a round's updates; kept, what the strategy keeps, is changed.
func (c *Coordinator) next(ctx context.Context, j *state.Job, p *planned, r *state.Round, global []float32, kept [][]float32, all *counted) ([]float32, error) {
	x, y, err := c.publicExamples(ctx, j, p)
	if err != nil {
		return nil, err
	}
	a := *p.Algorithm
	if a.Strategy.Needs().Public && len(a.Public) == 0 {
		a.Public = x
	}
	counted := fedavg.Counted{Sum: all.sum, Each: all.each, Fleet: int(r.Fleet), Seed: r.Seed}
	if a.Trusts() {
		x, y = p.rootOf(x, y)
		counted.Trusted, err = c.trusted(ctx, &a, fedavg.Work{
			Global: global, Shared: a.Shared(kept), X: x, Y: y, Seed: seeds.Derive("choir/trusted/v1", r.Seed, "", r.Number),
		})
		if err != nil {
			return nil, c.stepFailed(ctx, j.Name, r, err)
		}
	}
	next, err := a.Combine(global, kept, counted)
	if err != nil {
		return nil, c.stepFailed(ctx, j.Name, r, err)
	}
	return next, nil
}

// stepFailed ends an attempt of whose updates no model can be made.
func (c *Coordinator) stepFailed(ctx context.Context, job string, r *state.Round, err error) error {
	if f := c.deps.Observe.StepFailed; f != nil && ctx.Err() == nil {
		f(c.cfg.Name, roundEvent(job, r), err)
	}
	return &errAbandon{err.Error()}
}

// trusted is the update of the coordinators' own.
func (c *Coordinator) trusted(ctx context.Context, a *fedavg.Algorithm, w fedavg.Work) (*fedavg.Update, error) {
	if c.deps.Trusted != nil {
		return c.deps.Trusted(ctx, w)
	}
	client, err := fedavg.NewClient(a)
	if err != nil {
		return nil, err
	}
	return client.Update(ctx, w)
}

// kept fetches what the round before left of the strategy.
func (c *Coordinator) kept(ctx context.Context, p *planned, id state.Digest) ([][]float32, error) {
	if id.IsZero() {
		return p.FirstState(), nil
	}
	body, err := c.blobs.Get(ctx, id)
	if err != nil {
		return nil, &errAbandon{fmt.Sprintf("state %v of the strategy is lost: %v", id, err)}
	}
	kept, err := fedavg.DecodeState(body, len(p.FirstState()), p.Network.Size())
	if err != nil {
		return nil, &errAbandon{fmt.Sprintf("state %v of the strategy: %v", id, err)}
	}
	return kept, nil
}
