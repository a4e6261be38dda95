package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"

	"choir.example/internal/blob"
	choirv1 "choir.example/proto/choir/v1"
)

// jobModel is `choir job model`.
type jobModel struct {
	contextFlag
	outputFlag
	Name  string `arg:"" help:"The job's name."`
	Round uint64 `help:"The model that this round made. Default: the newest." placeholder:"N"`
	To    string `help:"File to write. Default: NAME-roundN.safetensors here." placeholder:"FILE" type:"path"`
	Force bool   `help:"Write over a file that exists."`
}

// Help is what --help explains.
func (jobModel) Help() string {
	return `The global model of a job as a training round left it: all that there is of a job that makes no release, and of one that
runs a look at what it has. The file is one that choir model describe, export and compress take.

Example: choir job model kinds --to kinds.safetensors`
}

// Run fetches the model.
func (c *jobModel) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	s, err := f.operators().GetJob(ctx, &choirv1.GetJobRequest{Name: c.Name})
	if err != nil {
		return jobError(c.Name, err)
	}
	r, err := roundWithModel(s, c.Round)
	if err != nil {
		return err
	}
	body, err := f.blob(ctx, t, r.Model, "fetching "+c.Name)
	if err != nil {
		return err
	}
	path := c.To
	if path == "" {
		path = fmt.Sprintf("%s-round%d.safetensors", s.Name, r.Round)
	}
	if err := writeNew(path, body, c.Force); err != nil {
		return err
	}
	if c.json() {
		return printJSON(t.out, map[string]any{"file": path, "job": s.Name, "round": r.Round, "bytes": len(body), "digest": hex.EncodeToString(r.Model)})
	}
	_, err = fmt.Fprintf(t.out, "%s: job %s, round %d, %d bytes, digest %x\n", path, s.Name, r.Round, len(body), r.Model)
	return err
}

// roundWithModel is the closed training round of that number, the newest for 0.
func roundWithModel(s *choirv1.JobStatus, number uint64) (*choirv1.RoundStatus, error) {
	for _, r := range slices.Backward(s.Rounds) {
		if r.Kind == choirv1.RoundKind_ROUND_KIND_TRAIN && r.State == "closed" && (number == 0 || r.Round == number) {
			return r, nil
		}
	}
	hint := fmt.Sprintf("choir job show %s lists its rounds", s.Name)
	if number == 0 {
		return nil, &hinted{fmt.Errorf("job %s has closed no training round yet", s.Name), hint}
	}
	return nil, &hinted{fmt.Errorf("job %s has closed no training round %d", s.Name, number), hint}
}

// blob fetches a blob and checks it against its id.
func (f *federation) blob(ctx context.Context, t *terminal, id []byte, doing string) ([]byte, error) {
	stream, err := f.operators().GetBlob(ctx, &choirv1.BlobRequest{Id: id})
	if err != nil {
		return nil, said(err)
	}
	shown := newMeter(t.err, doing)
	body, err := readBlob(stream.Recv, shown.bytes)
	shown.finish()
	if err != nil {
		return nil, err
	}
	if got := blob.ID(body); string(got[:]) != string(id) {
		return nil, fmt.Errorf("what came is not the model: its digest is %x, not %x", got, id)
	}
	return body, nil
}
