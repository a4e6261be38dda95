package main

import (
	"cmp"
	"context"
	"fmt"

	"choir.example/model"
)

// modelExport is `choir model export`.
type modelExport struct {
	contextFlag
	outputFlag
	Name    string `arg:"" help:"The name of a released model, or a file of choir train or choir model pull, which ends in .safetensors." placeholder:"NAME|FILE"`
	Version uint64 `help:"The release's version; 0 is the newest." default:"0"`
	Variant string `help:"Which form: float32, int8, student or student-int8. Default: float32, and of a file what it holds; int8 rounds the weights of a file that holds float32." enum:"float32,int8,student,student-int8," default:""`
	Format  string `help:"File format: ${enum}." enum:"safetensors,onnx" default:"safetensors"`
	To      string `help:"File to write." placeholder:"FILE" type:"path" required:""`
	Force   bool   `help:"Write over a file that exists."`
}

// Help is what --help explains.
func (modelExport) Help() string {
	return `safetensors: tensors are named LAYER.weight (outputs × inputs) and LAYER.bias; int8 weights come with LAYER.scale, one for each
output. The metadata key "choir" holds the architecture, and of a model of rows schema and the federated statistics that
standardise features.

onnx: a graph for onnxruntime and others, opset 13. That of a model of rows standardises for itself. Its inputs are the schema's
columns by name, each of shape [rows, 1]: numbers as float32 (NaN is missing), categories as strings ("" is missing), booleans
as bool, ids as int64 (0 is missing); sequences, and texts as the ids that they hash to, are int64 of shape [rows, length]. Its
outputs are "output" and, if it learnt with a logistic loss, "probability". It does not refuse what the schema does: a number out of its range is
used as it is, an unknown category counts as missing. The metadata are those of safetensors. Any other network reads "input" and
gives "output", in the shapes that choir model describe shows, for any number of examples; ids are int64.

A file that choir train wrote is exported in the same way: choir model export cnn.safetensors --format onnx --to cnn.onnx

Example: choir model export purchase --variant int8 --format onnx --to purchase.onnx`
}

// exported says what was written.
type exported struct {
	File    string `json:"file"`
	Model   string `json:"model"`             // the release's, or the file that was read
	Version uint64 `json:"version,omitempty"` // of the release
	Variant string `json:"variant"`
	Bytes   int    `json:"bytes"`
	Format  string `json:"format"`
}

// Run exports a variant of a release or a file.
func (c *modelExport) Run(ctx context.Context, t *terminal) error {
	m, version, err := c.model(ctx, t)
	if err != nil {
		return err
	}
	write := m.safetensors
	if c.Format == "onnx" {
		write = m.onnx
	}
	out, err := write()
	if err != nil {
		return err
	}
	if err := writeNew(c.To, out, c.Force); err != nil {
		return err
	}
	done := exported{c.To, c.Name, version, m.variant(), len(out), c.Format}
	if c.json() {
		return printJSON(t.out, done)
	}
	release := ""
	if version > 0 {
		release = fmt.Sprintf(", release %d", version)
	}
	_, err = fmt.Fprintf(t.out, "%s: %s%s, %s, %d bytes\n", done.File, done.Model, release, done.Variant, done.Bytes)
	return err
}

// model reads the file, or fetches the release, of which it returns the version.
func (c *modelExport) model(ctx context.Context, t *terminal) (*modelFile, uint64, error) {
	if !isModelFile(c.Name) {
		return c.release(ctx, t)
	}
	if c.Version != 0 {
		return nil, 0, &usageError{"--version is of a release; a file has none", ""}
	}
	m, err := readModelFile(c.Name)
	if err == nil {
		m, err = m.as(c.Variant)
	}
	return m, 0, err
}

func (c *modelExport) release(ctx context.Context, t *terminal) (*modelFile, uint64, error) {
	f, r, err := releaseName{c.contextFlag, c.Name, c.Version}.get(ctx, t)
	if err != nil {
		return nil, 0, err
	}
	body, _, err := f.variant(ctx, t, r, cmp.Or(c.Variant, "float32"))
	if err != nil {
		return nil, 0, err
	}
	m, err := model.Decode(body)
	if err != nil {
		return nil, 0, fmt.Errorf("release %d of %s: %w", r.Version, r.Model, err)
	}
	return &modelFile{rows: m}, r.Version, nil
}
