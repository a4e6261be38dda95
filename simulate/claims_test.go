package simulate

import (
	"testing"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/simulate/partition"
)

// claimed is an experiment on points that are made up, for what the papers' tables claim in the small.
func claimed() Experiment {
	return Experiment{
		Name: "claim", Data: DataSettings{Name: "blobs"}, Partition: partition.Settings{Kind: "iid", Nodes: 20},
		Architecture: model.Architecture{Name: "logistic"}, Local: fedavg.LocalSettings{Batch: 20, LearningRate: .03}, Rounds: 30,
	}
}

// accuracies are those of seeds 0 to 2 after a change of the experiment, and the bytes that nodes sent in the first.
func accuracies(t *testing.T, x Experiment, change func(x *Experiment)) (found [3]float64, sent int64) {
	t.Helper()
	change(&x)
	for seed := range found {
		r, err := Run(t.Context(), x, RunConfig{Seed: uint64(seed)})
		if err != nil {
			t.Fatalf("%s, seed %d: %v", x.Strategy.Name, seed, err)
		}
		if found[seed] = r.Final.Accuracy; seed == 0 {
			sent = r.BytesUp
		}
	}
	return found, sent
}

// better fails the test unless an accuracy is above the other by so much, under each seed.
func better(t *testing.T, what string, found, other [3]float64, by float64) {
	t.Helper()
	for seed := range found {
		if found[seed] < other[seed]+by {
			t.Errorf("%s comes to %v and the other to %v, want %v more under each seed", what, found, other, by)
			return
		}
	}
}

// Reddi 2021, Table 1: servers that adapt, or have momentum, are ahead of FedAvg where labels are skewed.
func TestAdaptiveServersAreAhead(t *testing.T) {
	t.Parallel()
	x := claimed()
	x.Partition, x.Cohort.Nodes = partition.Settings{Kind: "dirichlet", Alpha: .1, Nodes: 20}, 5
	x.Evaluation.Average = 15
	under := func(s fedavg.StrategySettings) [3]float64 {
		found, _ := accuracies(t, x, func(x *Experiment) { x.Strategy = s })
		return found
	}
	plain := under(fedavg.StrategySettings{Name: "fedavg"})
	for _, s := range []fedavg.StrategySettings{
		{Name: "fedavgm"}, {Name: "fedadagrad", ServerRate: .3}, {Name: "fedadam", ServerRate: .1}, {Name: "fedyogi", ServerRate: .1},
	} {
		better(t, s.Name, under(s), plain, .05)
	}
}

// Li 2022, Table 3: with two labels a node all come near each other, but for SCAFFOLD, which a smooth task lets get ahead.
func TestFewLabelsANode(t *testing.T) {
	t.Parallel()
	x := claimed()
	x.Partition = partition.Settings{Kind: "labels", Labels: 2, Nodes: 10}
	x.Architecture, x.Rounds = model.Architecture{Name: "mlp", Hidden: []int{32}}, 10
	x.Local = fedavg.LocalSettings{Epochs: 10, Batch: 10, LearningRate: .05}
	under := func(s fedavg.StrategySettings) [3]float64 {
		found, _ := accuracies(t, x, func(x *Experiment) { x.Strategy = s })
		return found
	}
	plain := under(fedavg.StrategySettings{Name: "fedavg"})
	for _, s := range []fedavg.StrategySettings{{Name: "fedprox", Mu: .1}, {Name: "fednova"}} {
		found := under(s)
		better(t, s.Name, found, plain, -.08)
		better(t, "fedavg beside "+s.Name, plain, found, -.08)
	}
	better(t, "scaffold", under(fedavg.StrategySettings{Name: "scaffold"}), plain, .02)
}

// A byte a coordinate does what three do, and where steps of the grid are larger than most deltas, rounding at random does
// it still, which to the nearest does not (Alistarh et al. 2017, QSGD, §3).
func TestFewerBits(t *testing.T) {
	t.Parallel()
	with := func(c fedavg.Compression) ([3]float64, int64) {
		return accuracies(t, claimed(), func(x *Experiment) { x.Compression = c })
	}
	whole, most := with(fedavg.Compression{})
	byteEach, sent := with(fedavg.Compression{Bits: 8, Range: .5})
	if 5*sent > 2*most {
		t.Errorf("with 8 bits nodes send %d bytes, with 24 %d", sent, most)
	}
	better(t, "8 bits", byteEach, whole, -.01)
	random, _ := with(fedavg.Compression{Bits: 4, Range: .5, Rounding: "stochastic"})
	better(t, "4 bits at random", random, whole, -.02)
	nearest, _ := with(fedavg.Compression{Bits: 4, Range: .5})
	better(t, "4 bits at random", random, nearest, .2)
}
