package simulate

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/simulate/partition"
)

// skewed is a fleet of ten whose nodes see mostly one or two of three classes, of which four take part in a round.
func skewed() Experiment {
	x := small()
	x.Partition = partition.Settings{Kind: "shards", Nodes: 10, Shards: 2}
	x.Cohort = CohortSettings{Nodes: 4}
	x.Rounds = 60
	x.Evaluation = EvaluationSettings{Every: 60}
	return x
}

// strategyCase is a strategy with parameters that suit the skewed fleet, and the accuracy that it must reach.
type strategyCase struct {
	fedavg.StrategySettings
	local fedavg.LocalSettings
	floor float64
}

// experiment has the skewed fleet learn by the strategy.
func (c strategyCase) experiment() Experiment {
	x := skewed()
	x.Strategy = c.StrategySettings
	if c.local.LearningRate > 0 {
		x.Local.LearningRate, x.Local.Optimiser = c.local.LearningRate, c.local.Optimiser
		x.Local.Epochs = cmp.Or(c.local.Epochs, x.Local.Epochs)
	}
	if c.Name == "feddf" {
		x.Data.Public = .1
	}
	return x
}

// strategySettings is every strategy of the table. A model that always says the commonest class has an accuracy of .45.
var strategySettings = []strategyCase{
	{fedavg.StrategySettings{Name: "fedavg"}, fedavg.LocalSettings{}, .8},
	{fedavg.StrategySettings{Name: "fedavg", Uniform: true}, fedavg.LocalSettings{}, .8},
	{fedavg.StrategySettings{Name: "fedsgd"}, fedavg.LocalSettings{Epochs: 1, LearningRate: 1}, .75},
	{fedavg.StrategySettings{Name: "fedprox", Mu: .1}, fedavg.LocalSettings{}, .8},
	{fedavg.StrategySettings{Name: "scaffold", Uniform: true}, fedavg.LocalSettings{}, .9},
	{fedavg.StrategySettings{Name: "scaffold"}, fedavg.LocalSettings{LearningRate: .03, Optimiser: model.Optimiser{Kind: "momentum"}}, .85},
	{fedavg.StrategySettings{Name: "fednova", Mu: .01}, fedavg.LocalSettings{}, .8},
	{fedavg.StrategySettings{Name: "fednova"}, fedavg.LocalSettings{LearningRate: .02, Optimiser: model.Optimiser{Kind: "momentum"}}, .7},
	{fedavg.StrategySettings{Name: "fedavgm", Momentum: .5}, fedavg.LocalSettings{}, .8},
	{fedavg.StrategySettings{Name: "fedadagrad", ServerRate: .2}, fedavg.LocalSettings{}, .75},
	{fedavg.StrategySettings{Name: "fedadam", ServerRate: .03}, fedavg.LocalSettings{}, .8},
	{fedavg.StrategySettings{Name: "fedyogi", ServerRate: .03}, fedavg.LocalSettings{}, .8},
	{fedavg.StrategySettings{Name: "feddyn", Alpha: .1}, fedavg.LocalSettings{}, .9},
	{fedavg.StrategySettings{Name: "q-fedavg", Q: .1}, fedavg.LocalSettings{}, .75},
	{fedavg.StrategySettings{Name: "fedper", PersonalLast: 1}, fedavg.LocalSettings{}, 0}, // the shared model is none without a last layer
	{fedavg.StrategySettings{Name: "feddf"}, fedavg.LocalSettings{}, .75},
}

func TestEveryStrategyLearns(t *testing.T) {
	var tested []string
	for _, c := range strategySettings {
		tested = append(tested, c.Name)
		t.Run(c.Name, func(t *testing.T) {
			x := c.experiment()
			x.Evaluation.Personal = PersonalSettings{Holdout: .2}
			digests := map[string]bool{}
			for _, workers := range []int{1, 3} {
				r, err := Run(t.Context(), x, RunConfig{Seed: 1, Workers: workers})
				if err != nil {
					t.Fatal(err)
				}
				what := fmt.Sprintf("accuracy %.3f, loss %.3f, %d coordinates saturated, of nodes %+v", r.Final.Accuracy, r.Final.Loss, r.Saturated, *r.Personal)
				if r.Final.Accuracy < c.floor || math.IsNaN(r.Final.Loss) || r.Personal.Own.Mean < max(c.floor-.1, .6) || r.Saturated > 0 {
					t.Errorf("%s, want at least %v", what, c.floor)
				}
				t.Log(what)
				digests[r.ModelDigest] = true
			}
			if len(digests) != 1 {
				t.Error("another number of cores gave another model")
			}
		})
	}
	for _, name := range fedavg.Strategies() {
		if !slices.Contains(tested, name) && !asynchronous[name] {
			t.Errorf("%s is not tested", name)
		}
	}
}

// asynchronous strategies have no rounds and tests of their own.
var asynchronous = map[string]bool{"fedasync": true, "fedbuff": true}

// With layers of their own nodes that see two classes of three do better than with everybody's.
func TestPersonalLayersHelpSkewedNodes(t *testing.T) {
	x := skewed()
	x.Evaluation.Personal.Holdout = .2
	all, err := Run(t.Context(), x, RunConfig{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	x.Strategy = fedavg.StrategySettings{Name: "fedper", PersonalLast: 1}
	own, err := Run(t.Context(), x, RunConfig{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if own.Personal.Own.Mean < all.Personal.Own.Mean+.05 {
		t.Errorf("%v with layers of their own, %v without, want more by .05", own.Personal.Own.Mean, all.Personal.Own.Mean)
	}
}

// A range that is too small for the deltas is not passed over in silence.
func TestSaturationsAreCounted(t *testing.T) {
	x := small()
	x.Compression.Range = .01
	r, err := Run(t.Context(), x, RunConfig{})
	if err != nil || r.Saturated == 0 {
		t.Errorf("%v, %+v", err, r)
	}
}
