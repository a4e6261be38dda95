package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is refused is said where it stands: on the command line if that changed the value, otherwise in the file's line. A
// change of another value is not blamed, nor is one whose value is what would be right.
func TestWhatIsRefusedIsSaidWhereItStands(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.yaml")
	if err := os.WriteFile(path, []byte("architecture: {name: mlp}\nlocal:\n  batch: -1\n  optimiser:\n    kind: adma\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const batch, kind = "experiment x: local: batch of -1, want 1 to 65536", `experiment x: local: optimiser "adma", want one of adam, sgd`
	for _, c := range []struct {
		experiment, said string
		changes          []change
		want             string
	}{
		{path, batch, nil, "FILE:3"},
		{path, batch, []change{{"--set", "local.batch=-1"}}, "--set local.batch=-1"},
		{path, batch, []change{{"--set", "local.batch=-2"}, {"--grid", "local.batch=-1"}}, "--grid local.batch=-1"},
		{path, batch, []change{{"--list", "local={batch: -1}"}}, "--list local={batch: -1}"},
		{path, batch, []change{{"--set", "local.epochs=1"}, {"--set", "data.name=-1"}}, "FILE:3"},
		{path, kind, nil, "FILE:4"},
		{path, kind, []change{{"--set", "local.optimiser.kind=adma"}}, "--set local.optimiser.kind=adma"},
		{path, kind, []change{{"--set", "local.optimiser.momentum=0.5"}}, "FILE:4"},
		{path, "experiment x: local: optimiser: beta1 -0.5, want above 0", []change{{"--set", "local.optimiser.beta1=-.50"}}, "--set local.optimiser.beta1=-.50"},
		{path, "experiment x: rounds: -3, want 1 to 10", []change{{"--set", "rounds=-3"}}, "--set rounds=-3"},
		{"quick", batch, []change{{"--set", "local.batch=-1"}}, "--set local.batch=-1"},
		{"quick", batch, nil, ""},
		{path, "experiment x: round 3: the loss is 20000", []change{{"--set", "rounds=3"}}, ""},
	} {
		e := &changedExperiment{c.experiment, c.changes}
		want := c.said
		if c.want != "" {
			want = strings.Replace(c.want, "FILE", path, 1) + ": " + c.said
		}
		if got := e.explain(errors.New(c.said)).Error(); got != want {
			t.Errorf("%v: %s, want %s", c.changes, got, want)
		}
	}
}
