package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const toySchema = "name: toy\nunit: row\nlabel: y\ncolumns:\n  - {name: x, kind: numeric, min: 0, max: 1}\n  - {name: y, kind: boolean}\n"

// sections are what experiments and jobs share, none of it usual.
const sections = `architecture: {name: mlp, hidden: [16]}
local: {epochs: 2, batch: 16, learning_rate: 0.05, optimiser: {kind: momentum, momentum: 0.8}, schedule: {kind: cosine, warmup: 3}, clip: 5}
strategy: {name: fedprox, mu: 0.1, server_rate: 0.9, uniform: true}
robust: {rule: trimmed-mean, f: 1, bucket: 2}
compression: {range: 2, bits: 16, rounding: stochastic}
privacy: {mechanism: none, clip: 10}
rounds: 3
`

// written is the path of a file with the text, beside toy.yaml.
func written(t *testing.T, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	for file, body := range map[string]string{name: text, "toy.yaml": toySchema} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, name)
}

// The sections that an experiment and a job share make one algorithm, byte for byte; and the experiment's whole file makes
// the job that the job's own file makes.
func TestExperimentFileIsAJobFile(t *testing.T) {
	job, err := readJob(written(t, "job.yaml", "name: toy\nschema: toy.yaml\ngoal: 5\nminimum_cohort: 4\nover_selection_percent: 20\nseed: 7\n"+sections), jobFiles{}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	experiment := "data: {name: rows, path: rows.csv, schema: toy.yaml}\npartition: {nodes: 9}\ncohort: {nodes: 5, draw: numpy}\n" +
		"fleet: {least: 4, over_selection: 0.2, dropout: 0.1}\nevaluation: {every: 2}\nseeds: [7, 8]\n" + sections
	var talk bytes.Buffer
	same, err := readJob(written(t, "toy.yml", experiment), jobFiles{}, &talk)
	if err != nil || same.String() != job.String() {
		t.Errorf("%v:\n%v\nwant\n%v", err, same, job)
	}
	if !strings.Contains(talk.String(), "left out is what only a simulation has, data, partition, fleet, evaluation, cohort: draw\n") {
		t.Errorf("it says %q", talk.String())
	}

	plain := written(t, "plain.yaml", "source: nobody\n"+sections)
	if _, err = readJob(plain, jobFiles{}, io.Discard); err == nil || !strings.Contains(err.Error(), "plain.yaml: schema is missing") {
		t.Errorf("without a schema: %v", err)
	}
	talk.Reset()
	req, err := readJob(plain, jobFiles{Schema: filepath.Join(filepath.Dir(plain), "toy.yaml")}, &talk)
	if err != nil || req.Spec.Name != "plain" || req.Spec.Goal != 0 || req.Spec.MinimumCohort != 2 || !bytes.Equal(req.Spec.Algorithm, job.Spec.Algorithm) || talk.Len() > 0 {
		t.Errorf("%v: %v, it says %q", err, req, talk.String())
	}
}

// What no job can have is refused with file, line and key.
func TestExperimentFileThatIsNoJob(t *testing.T) {
	for text, want := range map[string]string{
		"data: {}\ncohort:\n  share: 0.1\n":          "x.yaml:3: cohort: share is 0.1, and a file cannot know of how many nodes: want nodes",
		"data: {}\ncohort: {nodes: -1}\n":            "x.yaml:2: cohort: nodes is -1, out of range",
		"data: {}\nfleet: {over_selection: 1e9}\n":   "x.yaml:2: fleet: over_selection is 1e+11, out of range",
		"data: {}\nfleet: {over_selection: 0.004}\n": "x.yaml:2: fleet: over_selection is 0.004, and a job's is in whole percent: want 0 or 0.01",
		"data: {}\nrounds: -1\n":                     "x.yaml:2: rounds is 0, want 1 to 1000000",
		"data: {}\nfleets: {}\n":                     `x.yaml:2: unknown key "fleets"`,
		"data: {}\ngoal: 3\n":                        `x.yaml:1: unknown key "data"`,
		"data: {}\nlocal: {learning_rate: -1}\n":     "x.yaml:2: local: learning_rate is -1, want",
		"seeds: [1]\nrobust: {rule: krum, f: -1}\n":  "x.yaml:2: robust: f is -1",
	} {
		path := written(t, "x.yaml", text)
		if _, err := readJob(path, jobFiles{Schema: filepath.Join(filepath.Dir(path), "toy.yaml")}, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// What is wrong about a key that an experiment has by another name is told with that name.
func TestExperimentFileIsToldItsOwnKeys(t *testing.T) {
	for text, want := range map[string]string{
		"data: {}\ncohort: {nodes: 1}\n":           "goal 1 is below minimum_cohort 2",
		"data: {}\nfleet: {over_selection: 0.3}\n": "over_selection_percent is 30, but goal 0",
	} {
		path := written(t, "x.yaml", text)
		_, err := readJob(path, jobFiles{Schema: filepath.Join(filepath.Dir(path), "toy.yaml")}, io.Discard)
		var told *hinted
		if !errors.As(err, &told) || !strings.Contains(err.Error(), want) || !strings.Contains(told.hint, "goal is cohort.nodes; minimum_cohort is fleet.least") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// An experiment whose strategy looks at public inputs finds them in a file that is given; one over several classes makes no
// release.
func TestExperimentFileWithFilesBesideIt(t *testing.T) {
	path := written(t, "x.yaml", "data: {public: 0.1}\nstrategy: {name: feddf}\n")
	dir := filepath.Dir(path)
	for name, text := range map[string]string{
		"kinds.yaml": "name: kinds\nunit: row\nlabel: y\ncolumns:\n  - {name: x, kind: numeric, min: 0, max: 1}\n  - {name: y, kind: category, categories: [a, b, c]}\n",
		"known.csv":  "x,y\n0.5,a\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var talk bytes.Buffer
	req, err := readJob(path, jobFiles{Schema: filepath.Join(dir, "kinds.yaml"), Public: filepath.Join(dir, "known.csv")}, &talk)
	if err != nil || req.Spec.Publish != "none" || string(req.Public) != "x,y\n0.5,a\n" {
		t.Errorf("%v, %v", req, err)
	}
	if !strings.Contains(talk.String(), "the label has 3 classes: the job makes no release") {
		t.Errorf("it says %q", talk.String())
	}
}
