package coordinator

import (
	"bytes"
	"context"
	"fmt"

	"choir.example/coordinator/state"
	"choir.example/internal/blob"
	"choir.example/internal/jobspec"
	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"
)

// A public set is a CSV file by a job's schema whose rows its coordinators may see: one measures what is released, one is
// what FedDF distils on and FLTrust trains on.
type publicSet struct {
	field string // of the specification
	csv   []byte
}

// takeSets takes the sets that come with a job, and names them in its specification.
func takeSets(req *choirv1.SubmitJobRequest) (sets []publicSet, err error) {
	if req.Spec == nil {
		return nil, nil // state.CheckSpec says so
	}
	for _, s := range []struct {
		publicSet
		id *[]byte
	}{{publicSet{"validation", req.Validation}, &req.Spec.Validation}, {publicSet{"public", req.Public}, &req.Spec.Public}} {
		if len(*s.id) > 0 {
			return nil, fmt.Errorf("the specification names a %s set; send the set itself with it", s.field)
		}
		if len(s.csv) > 0 {
			id := blob.ID(s.csv)
			*s.id = id[:]
			sets = append(sets, s.publicSet)
		}
	}
	return sets, nil
}

// checkSets parses the job and reads its sets once, so that a bad row is named now and not after the last round.
func (c *Coordinator) checkSets(spec *choirv1.JobSpec, sets []publicSet) error {
	p, err := newPlanned(spec, c.deps)
	if err != nil {
		return err
	}
	for _, s := range sets {
		if p.Schema == nil {
			return fmt.Errorf("%s: rows are of a schema, and the job has none", s.field)
		}
		rows, err := s.rows(p.Schema)
		switch {
		case err != nil:
			return err
		case len(rows) == 0:
			return fmt.Errorf("%s: no rows", s.field)
		case s.field == "public" && p.root > len(rows):
			return fmt.Errorf("robust: root is %d, and public has %d rows; want at most so many, or none for all of them", p.root, len(rows))
		}
	}
	return nil
}

// rows reads the set.
func (s publicSet) rows(schema *data.Schema) (rows []data.Row, err error) {
	err = data.ReadCSV(bytes.NewReader(s.csv), s.field, schema, func(_ int, row data.Row) error {
		rows = append(rows, row)
		return nil
	})
	return rows, err
}

// publicRows fetches and reads a set.
func (c *Coordinator) publicRows(ctx context.Context, field string, schema *data.Schema, id []byte) ([]data.Row, error) {
	csv, err := c.blobs.Get(ctx, state.Digest(id))
	if err != nil {
		return nil, &errAbandon{fmt.Sprintf("the %s set is lost: %v", field, err)}
	}
	rows, err := publicSet{field, csv}.rows(schema)
	if err != nil {
		return nil, &errAbandon{err.Error()}
	}
	return rows, nil
}

// publicExamples are the rows that the strategy or the rule looks at, as the model sees them; none if neither does.
func (c *Coordinator) publicExamples(ctx context.Context, j *state.Job, p *planned) (x, y []float32, err error) {
	if len(p.spec.Public) == 0 {
		return nil, nil, nil
	}
	rows, err := c.publicRows(ctx, "public", p.Schema, p.spec.Public)
	if err != nil {
		return nil, nil, err
	}
	body, err := c.blobs.Get(ctx, j.Statistics)
	if err != nil {
		return nil, nil, &errAbandon{fmt.Sprintf("statistics %v are lost: %v", j.Statistics, err)}
	}
	t, err := data.DecodeStatistics(p.Schema, body)
	if err != nil {
		return nil, nil, &errAbandon{err.Error()}
	}
	x, y = t.Matrix(rows)
	return x, y, nil
}

// rootOf are the first of the public examples, as many as a rule trains on.
func (p *planned) rootOf(x, y []float32) ([]float32, []float32) {
	if p.root == 0 || p.root >= len(y) {
		return x, y
	}
	return x[:p.root*p.Schema.Features()], y[:p.root]
}

// rootExamples are so many of the public rows that a rule trains on; 0: all of them.
func rootExamples(spec *choirv1.JobSpec) (int, error) {
	s, err := jobspec.Settings(spec)
	if err != nil {
		return 0, err
	}
	return s.Robust.Root, nil
}
