package coordinator

import (
	"context"
	"fmt"

	"choir.example/coordinator/state"
	"choir.example/internal/seeds"
	"choir.example/model"
	"choir.example/model/compress"
	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"
)

// variants are the forms of a release in the order in which they are evaluated and published.
var variants = []string{state.VariantFloat32, state.VariantInt8, state.VariantStudent, state.VariantStudentInt8}

// candidates compresses the job's model into its variants and makes them durable on a quorum. Everything derives from
// the committed model and the job's seed; the student sees synthetic rows drawn from the schema and the federated
// statistics, never a private one.
func (c *Coordinator) candidates(ctx context.Context, job string) ([]*choirv1.Variant, error) {
	j := c.replica.State().Jobs[job]
	p, err := c.planned(j)
	if err != nil {
		return nil, err
	}
	float, err := c.loadModel(ctx, j.Model)
	if err != nil {
		return nil, err
	}
	small, err := compress.Int8(float)
	if err != nil {
		return nil, &errAbandon{err.Error()}
	}
	student, err := compress.Distil(ctx, float, distillation(p))
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err != nil { // it would fail again: the same model and seed give the same student
		return nil, &errAbandon{err.Error()}
	}
	smallStudent, err := compress.Int8(student)
	if err != nil {
		return nil, &errAbandon{err.Error()}
	}
	var out []*choirv1.Variant
	for i, m := range []*model.Model{float, small, student, smallStudent} {
		m.Variant = variants[i]
		body, err := m.Encode()
		if err != nil {
			return nil, &errAbandon{err.Error()}
		}
		id, err := c.put(ctx, body)
		if err != nil {
			return nil, err
		}
		out = append(out, &choirv1.Variant{Name: variants[i], Blob: id[:], Bytes: uint64(len(body))})
	}
	return out, nil
}

// distillation is how a job's student learns.
func distillation(p *planned) compress.DistilConfig {
	spec, hidden := p.spec, int(p.spec.StudentHidden)
	if hidden == 0 {
		hidden = max(1, p.width()/2)
	}
	rate := spec.StudentRate
	if rate == 0 {
		rate = p.Local.Rate
	}
	return compress.DistilConfig{
		Hidden: hidden, Rows: int(spec.StudentRows), Epochs: int(spec.StudentEpochs), Batch: p.Batch,
		Rate: rate, Temperature: spec.StudentTemperature,
		Seed: seeds.Derive("choir/student/v1", spec.Seed, spec.Name, spec.Rounds),
	}
}

// publish commits the release of a job whose rounds are closed. Only digests and sums go into the log; whether a variant
// is within its gate is decided there, by exact integers.
func (c *Coordinator) publish(ctx context.Context, term uint64, job string) error {
	j := c.replica.State().Jobs[job]
	spec, err := j.JobSpec()
	if err != nil {
		return err
	}
	cmd := &choirv1.PublishRelease{Job: job, Round: spec.Rounds, Term: term}
	if len(spec.Validation) > 0 {
		cmd.Validation = spec.Validation
		if cmd.Variants, err = c.evaluatePublic(ctx, job, spec); err != nil {
			return err
		}
	} else {
		r := j.Closed(spec.Rounds + 1)
		cmd.Evaluation = r.Key(job)
		for i, id := range r.Candidates {
			body, err := c.blobs.Get(ctx, id)
			if err != nil {
				return &errAbandon{fmt.Sprintf("variant %s is lost: %v", variants[i], err)}
			}
			cmd.Variants = append(cmd.Variants, &choirv1.Variant{Name: variants[i], Blob: id[:], Bytes: uint64(len(body))})
		}
	}
	return c.decide(ctx, &choirv1.Command{Body: &choirv1.Command_PublishRelease{PublishRelease: cmd}})
}

// evaluatePublic measures the variants on the job's public validation set, a CSV file by the job's schema.
func (c *Coordinator) evaluatePublic(ctx context.Context, job string, spec *choirv1.JobSpec) ([]*choirv1.Variant, error) {
	vs, err := c.candidates(ctx, job)
	if err != nil {
		return nil, err
	}
	schema, err := data.ParseSchema(spec.Schema)
	if err != nil {
		return nil, err
	}
	rows, err := c.publicRows(ctx, "validation", schema, spec.Validation)
	if err != nil {
		return nil, err
	}
	for _, v := range vs {
		m, err := c.loadModel(ctx, state.Digest(v.Blob))
		if err != nil {
			return nil, err
		}
		v.Evaluation = evaluationSum(0, m.Evaluate(rows))
	}
	return vs, nil
}

// loadModel fetches and decodes a model.
func (c *Coordinator) loadModel(ctx context.Context, id state.Digest) (*model.Model, error) {
	body, err := c.blobs.Get(ctx, id)
	if err != nil {
		return nil, &errAbandon{fmt.Sprintf("model %v is lost: %v", id, err)}
	}
	m, err := model.Decode(body)
	if err != nil {
		return nil, &errAbandon{fmt.Sprintf("model %v: %v", id, err)}
	}
	return m, nil
}
