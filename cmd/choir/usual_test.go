package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"choir.example/simulate"
)

// Who writes 0 where 0 stands for another, usual, value is told, in a file and in an assignment; where 0 is 0 it is taken.
func TestZeroIsNotTakenForTheUsual(t *testing.T) {
	for key, want := range map[string]string{
		"local.learning_rate": "0.1", "strategy.beta1": "the strategy's", "partition.variance": "0.1", "compression.bits": "24", "evaluation.every": "1",
		"fleet.liars.scale": "the attack's", "local.optimiser.momentum": "0.9", "robust.radius": "the median of the round", "rounds": "20",
		"fleet.availability.zones": "24", "fleet.least": "1", "partition.nodes": "10, or one a value", "robust.root": "100, or all public rows of a job",
		"cohort.nodes": "the share's, or the whole fleet", "cohort.share": "the whole fleet (McMahan's C = 0, one node a round, is cohort: {nodes: 1})",
		"data.length": "the data set's", "data.examples": "the data set's", "data.features": "20", "data.classes": "10", "data.users": "200",
		"fleet.dropout": "", "strategy.mu": "", "privacy.clip": "", "data.alpha": "", "target.accuracy": "", "fleet.liars.nodes": "",
	} {
		text := "0"
		for _, name := range slices.Backward(strings.Split(key, ".")) {
			text = "{" + name + ": " + text + "}"
		}
		var x, y simulate.Experiment
		file, set := decodeYAML("x.yaml", []byte(text), &x), setYAML("--set", key+"=0", &y)
		if want == "" {
			if file != nil || set != nil {
				t.Errorf("%s: %v, %v", key, file, set)
			}
			continue
		}
		want = key + ": 0 would stand for the usual value, " + want + ": "
		if file == nil || set == nil || !strings.HasPrefix(file.Error(), "x.yaml:1: "+want) || !strings.HasPrefix(set.Error(), "--set "+want) {
			t.Errorf("%s: %v, %v, want %s", key, file, set, want)
		}
	}
}

// A section of nothing but zeros is refused where that stands for something usual, whether a file has it or all assignments
// together leave it so.
func TestSectionOfZerosIsNotTakenForTheUsual(t *testing.T) {
	const want = "fleet.availability: 0 would stand for the usual value, nodes that are always there: leave it out for that, or want more than 0"
	for text, refused := range map[string]bool{
		"{}": false, "{day: 0, night: 0.8}": false, "{night: 0.8, day: 0}": false, "{day: 0}": true, "{day: 0, night: 0}": true,
	} {
		var x simulate.Experiment
		err := decodeYAML("x.yaml", []byte("fleet: {availability: "+text+"}"), &x)
		if refused && (err == nil || err.Error() != "x.yaml:1: "+want) || !refused && err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	night := []byte("architecture: {name: mlp}\nfleet: {availability: {night: 0.5}}")
	path := filepath.Join(t.TempDir(), "night.yaml")
	if err := os.WriteFile(path, night, 0o600); err != nil {
		t.Fatal(err)
	}
	for set, refused := range map[string]bool{
		"fleet.availability.day=0": false, "fleet.availability.night=0": true, "fleet.availability.night=0 fleet.availability.day=0.1": false,
		"fleet.availability.day=0.1 fleet.availability.night=0": false, "fleet.availability={night: 0, day: 0}": true,
	} {
		f := experimentFlags{Experiment: path, Set: []string{set}}
		if !strings.Contains(set, "{") {
			f.Set = strings.Fields(set)
		}
		if _, err := f.experiment(); refused && (err == nil || err.Error() != "--set "+want) || !refused && err != nil {
			t.Errorf("%s: %v", set, err)
		}
	}
}

// Every built-in experiment is written without a zero that reading would refuse.
func TestBuiltinsAreReadAsTheyAreWritten(t *testing.T) {
	for _, b := range simulate.Builtins() {
		text, err := writeYAML(b.Experiment)
		if err != nil {
			t.Fatal(err)
		}
		var x simulate.Experiment
		if err := decodeYAML(b.Name, text, &x); err != nil || !reflect.DeepEqual(x, b.Experiment) {
			t.Errorf("%s: %v: %+v, want %+v", b.Name, err, x, b.Experiment)
		}
	}
}
