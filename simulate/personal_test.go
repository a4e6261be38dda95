package simulate

import (
	"math"
	"slices"
	"strings"
	"testing"

	"choir.example/fedavg"
	"choir.example/simulate/partition"
)

// Of the values 0, .5, 1, .5 the mean is .5 and the mean square distance (.25 + 0 + .25 + 0)/4 = .125.
func TestSpreadByHand(t *testing.T) {
	if s := spread([]float64{0, .5, 1, .5}); s.Mean != .5 || math.Abs(s.Deviation-math.Sqrt(.125)) > 1e-15 || s.Worst != 0 {
		t.Errorf("%+v", s)
	}
}

// Nobody trains on what is set aside, and everything else stays where it was.
func TestSetAside(t *testing.T) {
	x := skewed()
	x.Strategy.Name, x.Data.Public, x.Evaluation.Personal.Holdout = "feddf", .25, .2
	whole, err := newTrial(skewed(), RunConfig{Seed: 5})
	if err != nil {
		t.Fatal(err)
	}
	trial, err := newTrial(x, RunConfig{Seed: 5})
	if err != nil {
		t.Fatal(err)
	}
	seen, held := map[int32]int{}, 0
	for i, part := range trial.parts {
		held += len(trial.held[i])
		if n := len(part) + len(trial.held[i]); len(trial.held[i]) != int(.2*float64(n)+.5) {
			t.Errorf("node %d holds out %d of %d", i, len(trial.held[i]), n)
		}
		for _, e := range slices.Concat(part, trial.held[i]) {
			seen[e]++
			if !slices.Contains(whole.parts[i], e) {
				t.Errorf("example %d came to node %d from another", e, i)
			}
		}
	}
	if len(seen) != 600 || len(trial.algorithm.Public) != 200*2 {
		t.Errorf("%d examples on nodes and %d public values, want 600 of 800 and 400", len(seen), len(trial.algorithm.Public))
	}
	train, k := trial.data.Train, 0
	for e := range int32(800) {
		if seen[e] > 1 {
			t.Errorf("example %d is with %d nodes", e, seen[e])
		}
		if seen[e] == 0 {
			if !slices.Equal(trial.algorithm.Public[2*k:2*k+2], train.X[2*e:2*e+2]) {
				t.Errorf("public example %d is not example %d", k, e)
			}
			k++
		}
	}
}

// Nodes that see few classes do better with models of their own than with everybody's.
func TestFineTuningHelpsSkewedNodes(t *testing.T) {
	x := skewed()
	x.Rounds, x.Evaluation.Personal = 5, PersonalSettings{Holdout: .3, Epochs: 5}
	r, err := Run(t.Context(), x, RunConfig{Seed: 2})
	if err != nil {
		t.Fatal(err)
	}
	p := r.Personal
	if p.Nodes != 10 || p.Own.Mean < p.Global.Mean+.1 || p.Own.Worst < p.Global.Worst {
		t.Errorf("%+v, want ten nodes whose own models are better by .1", p)
	}
	x.Evaluation.Personal.Epochs = 0
	if r, err = Run(t.Context(), x, RunConfig{Seed: 2}); err != nil || r.Personal.Own != r.Personal.Global || r.Personal.Global != p.Global {
		t.Errorf("without fine-tuning: %+v, %v, want twice %+v", r.Personal, err, p.Global)
	}
}

func TestSettingAsideIsRefused(t *testing.T) {
	for _, c := range []struct {
		change func(*Experiment)
		want   string
	}{
		{func(x *Experiment) { x.Data.Public = -.1 }, "data: public is -0.1, want a share"},
		{func(x *Experiment) { x.Data.Public = 1 }, "data: public is 1, want a share"},
		{func(x *Experiment) { x.Data.Public = .1 }, "the strategy does not look at public inputs"},
		{func(x *Experiment) { x.Strategy.Name = "feddf" }, "the strategy needs public inputs"},
		{func(x *Experiment) { x.Strategy.Name, x.Data.Public, x.Partition.Nodes = "feddf", .999, 400 }, "leaves node-"},
		{func(x *Experiment) { x.Evaluation.Personal.Holdout = 1 }, "holdout is 1, want a share"},
		{func(x *Experiment) { x.Evaluation.Personal.Epochs = 1 }, "epochs is 1 with holdout 0"},
		{func(x *Experiment) { x.Evaluation.Personal = PersonalSettings{Holdout: .1, Epochs: -1} }, "epochs is -1"},
		{func(x *Experiment) { x.Partition = partition.Settings{Nodes: 800}; x.Evaluation.Personal.Holdout = .1 }, "no node has two examples"},
		{func(x *Experiment) { x.Strategy = fedavg.StrategySettings{Name: "fedper", PersonalLast: 2} }, "2 of 2 layers"},
	} {
		x := skewed()
		x.Rounds = 1
		c.change(&x)
		if _, err := Run(t.Context(), x, RunConfig{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	x := skewed()
	x.Evaluation.Personal.Holdout = .1
	if _, err := newTrial(x, RunConfig{Fidelity: System}); err == nil || !strings.Contains(err.Error(), "want fidelity math") {
		t.Errorf("%v, want a refusal", err)
	}
}
