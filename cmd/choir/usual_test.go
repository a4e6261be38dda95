package main

import (
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
		"data.length": "the data set's", "data.examples": "the data set's", "data.features": "20", "data.classes": "10", "data.users": "200",
		"fleet.dropout": "", "strategy.mu": "", "cohort.nodes": "", "privacy.clip": "", "data.alpha": "", "target.accuracy": "",
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
