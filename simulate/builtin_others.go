package simulate

import (
	"cmp"
	"fmt"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/simulate/partition"
)

// regionBuiltins are data that lie apart by themselves: sessions of a web shop, a node for each region.
func regionBuiltins() []Builtin {
	return []Builtin{{
		Experiment: Experiment{
			Name: "shoppers-by-region", Source: "Sakar et al. 2019, built in: web-shop sessions, a node for each of nine regions; the settings of choir demo",
			Data: DataSettings{Name: "shoppers"}, Partition: partition.Settings{Kind: "column", Column: "region"},
			Architecture: model.Architecture{Name: "mlp", Hidden: []int{32}}, Local: fedavg.LocalSettings{Epochs: 2, Batch: 32, LearningRate: .1},
			Rounds: 20, Evaluation: EvaluationSettings{RoundsTo: []float64{.86, .88}},
		},
		Expected: []Expected{final(.8888, 0, "all data in one place, choir demo"), final(.8883, 0, "mean of the regions alone, choir demo")},
	}}
}

// reddiBuiltins are server optimisers where labels are skewed. The published figures are of other tasks; what is to be
// reproduced is their order, and how it depends on the two learning rates.
func reddiBuiltins() (all []Builtin) {
	servers := []fedavg.StrategySettings{
		{Name: "fedavg", ServerRate: 1}, {Name: "fedavgm", Momentum: .9}, {Name: "fedadagrad", ServerRate: .03, Tau: .001},
		{Name: "fedadam", ServerRate: .01, Tau: .001}, {Name: "fedyogi", ServerRate: .01, Tau: .001},
	}
	for _, task := range []struct {
		name, row    string
		data         string
		architecture model.Architecture
		alpha, rate  float64
		momentum     float64 // FedAvgM's server rate: its steps are ten times as long as FedAvg's in the end
	}{
		{"fmnist", "Fashion-MNIST, Dirichlet .1", "fashion-mnist", model.Architecture{Name: "mlp"}, .1, .03, .1},
		{"banking77", "Banking77, Dirichlet .1", "banking77", model.Architecture{Name: "text"}, .1, 1, 1},
	} {
		for _, s := range servers {
			s.ServerRate = cmp.Or(s.ServerRate, task.momentum)
			all = append(all, Builtin{
				Experiment: Experiment{
					Name:   "reddi-" + task.name + "-" + s.Name,
					Source: "Reddi et al. 2021, Adaptive Federated Optimization: client SGD for one epoch, server optimisers, the mean of the last 100 rounds; sweep local.learning_rate against strategy.server_rate for its heat maps",
					Data:   DataSettings{Name: task.data}, Partition: partition.Settings{Kind: "dirichlet", Nodes: 100, Alpha: task.alpha, Least: 1},
					Architecture: task.architecture, Strategy: s, Local: fedavg.LocalSettings{Epochs: 1, Batch: 20, LearningRate: task.rate},
					Cohort: CohortSettings{Nodes: 10}, Rounds: 200, Evaluation: EvaluationSettings{Every: 5, Average: 100}, Seeds: []uint64{0, 1, 2},
				},
				Expected: []Expected{claim("adaptive servers are ahead of FedAvg, most where gradients are sparse, and easier to tune (Reddi 2021, Table 1 and Figure 2)")},
				Table:    "Server optimisers", Row: task.row, Column: s.Name,
			})
		}
	}
	return all
}

// bytesBuiltins are one experiment with coarser and coarser updates.
func bytesBuiltins() (all []Builtin) {
	for _, c := range []struct {
		bits     int
		size     float64
		rounding string
	}{{24, 4, "nearest"}, {16, 1, "nearest"}, {8, .125, "nearest"}, {8, .125, "stochastic"}} {
		name := fmt.Sprintf("%d-bits-%s", c.bits, c.rounding)
		all = append(all, Builtin{
			Experiment: Experiment{
				Name: "bytes-fmnist-" + name, Source: "fmnist-2nn-iid with updates of fewer bits (rounding at random: Alistarh et al. 2017, QSGD, §3)",
				Data: DataSettings{Name: "fashion-mnist"}, Partition: partition.Settings{Kind: "iid", Nodes: 100}, Architecture: model.Architecture{Name: "mlp"},
				Local: fedavg.LocalSettings{Epochs: 1, Batch: 10, LearningRate: .05}, Cohort: CohortSettings{Share: .1},
				Compression: fedavg.Compression{Range: c.size, Bits: c.bits, Rounding: c.rounding}, Rounds: 100, Seeds: []uint64{0, 1, 2},
			},
			Expected: []Expected{after(100, .867, "numpy, seed 0, float32 updates")},
			Table:    "Bytes against accuracy", Row: "Fashion-MNIST", Column: name,
		})
	}
	return all
}
