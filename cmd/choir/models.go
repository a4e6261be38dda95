package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// modelCommand is `choir model`.
type modelCommand struct {
	List     modelList     `cmd:"" help:"List releases."`
	Show     modelShow     `cmd:"" help:"Show a release and its variants."`
	Pull     modelPull     `cmd:"" help:"Fetch a variant of a release and check its digest."`
	Export   modelExport   `cmd:"" help:"Write a model as safetensors or ONNX, for other programs."`
	Describe modelDescribe `cmd:"" help:"Show an architecture: layers, parameters, work, bytes."`
}

// modelList is `choir model list`.
type modelList struct {
	contextFlag
	outputFlag
}

// Help is what --help explains.
func (modelList) Help() string { return "Example: choir model list" }

// releaseView is a release for programs.
type releaseView struct {
	Model    string        `json:"model"`
	Version  uint64        `json:"version"`
	Job      string        `json:"job"`
	Round    uint64        `json:"round"`
	Variants []variantView `json:"variants"`
}

type variantView struct {
	Name      string             `json:"name"`
	Digest    string             `json:"digest"`
	Bytes     uint64             `json:"bytes"`
	Published bool               `json:"published"`
	Reason    string             `json:"reason,omitempty"`
	Metrics   map[string]float64 `json:"metrics"`
}

func viewRelease(r *choirv1.Release) releaseView {
	v := releaseView{Model: r.Model, Version: r.Version, Job: r.Job, Round: r.Round, Variants: []variantView{}}
	for _, x := range r.Variants {
		v.Variants = append(v.Variants, variantView{x.Name, hex.EncodeToString(x.Blob), x.Bytes, x.Published, x.Reason, metrics(x.Evaluation)})
	}
	return v
}

// Run lists releases.
func (c *modelList) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	reply, err := f.operators().ListReleases(ctx, &choirv1.ListReleasesRequest{})
	if err != nil {
		return said(err)
	}
	views := []releaseView{}
	tab := newTable("MODEL", "VERSION", "JOB", "ROUND", "VARIANTS")
	for _, r := range reply.Releases {
		v := viewRelease(r)
		views = append(views, v)
		var published []string
		for _, x := range v.Variants {
			if x.Published {
				published = append(published, x.Name)
			}
		}
		tab.add(v.Model, v.Version, v.Job, v.Round, strings.Join(published, " "))
	}
	if c.json() {
		return printJSON(t.out, map[string]any{"releases": views})
	}
	return tab.print(t.out, "no releases")
}

// releaseName names a release; version 0 is the newest.
type releaseName struct {
	contextFlag
	Name    string `arg:"" help:"The model's name."`
	Version uint64 `help:"The release's version; 0 is the newest." default:"0"`
}

func (n releaseName) get(ctx context.Context, t *terminal) (*federation, *choirv1.Release, error) {
	f, err := n.open(t)
	if err != nil {
		return nil, nil, err
	}
	r, err := f.operators().GetRelease(ctx, &choirv1.ReleaseRequest{Model: n.Name, Version: n.Version})
	if status.Code(err) == codes.NotFound {
		return nil, nil, &hinted{said(err), "choir model list shows the releases"}
	}
	return f, r, said(err)
}

// modelShow is `choir model show`.
type modelShow struct {
	releaseName
	outputFlag
}

// Help is what --help explains.
func (modelShow) Help() string { return "Example: choir model show purchase -o json" }

// Run shows a release.
func (c *modelShow) Run(ctx context.Context, t *terminal) error {
	_, r, err := c.get(ctx, t)
	if err != nil {
		return err
	}
	v := viewRelease(r)
	if c.json() {
		return printJSON(t.out, v)
	}
	fmt.Fprintf(t.out, "%s, release %d: round %d of job %s\n", v.Model, v.Version, v.Round, v.Job)
	tab := newTable("VARIANT", "BYTES", "AUC", "PUBLISHED", "DIGEST")
	for _, x := range v.Variants {
		auc, published := "", "yes"
		if a, ok := x.Metrics["auc"]; ok {
			auc = fmt.Sprintf("%.4f", a)
		}
		if !x.Published {
			published = "no: " + x.Reason
		}
		tab.add(x.Name, x.Bytes, auc, published, x.Digest)
	}
	return tab.print(t.out, "no variants")
}

// modelPull is `choir model pull`.
type modelPull struct {
	releaseName
	outputFlag
	Variant string `help:"Which form: ${enum}." enum:"float32,int8,student,student-int8" default:"int8"`
	To      string `help:"File to write. Default: NAME-vVERSION-VARIANT.safetensors here." placeholder:"FILE" type:"path"`
	Force   bool   `help:"Write over a file that exists."`
}

// Help is what --help explains.
func (modelPull) Help() string {
	return `The file is a safetensors file whose metadata holds the schema and the statistics that a prediction needs. Its digest is the
one in the audit log.

Example: choir model pull purchase --variant int8`
}

// Run fetches a variant.
func (c *modelPull) Run(ctx context.Context, t *terminal) error {
	f, r, err := c.get(ctx, t)
	if err != nil {
		return err
	}
	body, v, err := f.variant(ctx, t, r, c.Variant)
	if err != nil {
		return err
	}
	path := c.To
	if path == "" {
		path = fmt.Sprintf("%s-v%d-%s.safetensors", r.Model, r.Version, v.Name)
	}
	if err := writeNew(path, body, c.Force); err != nil {
		return err
	}
	if c.json() {
		return printJSON(t.out, map[string]any{"file": path, "model": r.Model, "version": r.Version, "variant": v.Name, "bytes": len(body), "digest": hex.EncodeToString(v.Blob)})
	}
	_, err = fmt.Fprintf(t.out, "%s: %s, release %d, %s, %d bytes, digest %x\n", path, r.Model, r.Version, v.Name, len(body), v.Blob)
	return err
}

// variant fetches a published variant and checks it against its digest.
func (f *federation) variant(ctx context.Context, t *terminal, r *choirv1.Release, name string) ([]byte, *choirv1.Variant, error) {
	var v *choirv1.Variant
	for _, x := range r.Variants {
		if x.Name == name {
			v = x
		}
	}
	switch {
	case v == nil:
		return nil, nil, &hinted{fmt.Errorf("release %d of %s has no variant %s", r.Version, r.Model, name), "choir model show " + r.Model + " lists the variants"}
	case !v.Published:
		return nil, nil, &hinted{fmt.Errorf("variant %s of release %d of %s was not published: %s", name, r.Version, r.Model, v.Reason), "take another variant, such as --variant float32"}
	}
	body, err := f.blob(ctx, t, v.Blob, "fetching "+r.Model+" "+name)
	return body, v, err
}

// writeNew writes a file, over an existing one only by force.
func writeNew(path string, body []byte, force bool) error {
	if _, err := os.Lstat(path); err == nil && !force {
		return &hinted{fmt.Errorf("%s exists already", path), "add --force to write over it, or name another file"}
	}
	return seal.WriteFile(path, body)
}
