package simulate

import (
	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/simulate/partition"
)

// niidSource is where the settings of the benchmark of non-IID partitions are from.
const niidSource = "Li et al. 2022, NIID-Bench: 10 parties, 50 rounds, E = 10, B = 64, SGD of rate .01 and momentum .9; FedProx with μ = .01 of those that the paper tunes over"

// niidPublished is Fashion-MNIST's part of its Table 3: accuracy and standard deviation in percent.
var niidPublished = []struct {
	short, row string
	partition  partition.Settings
	cells      [4][2]float64 // fedavg, fedprox, scaffold, fednova
}{
	{"iid", "IID", partition.Settings{Kind: "iid"}, [4][2]float64{{89.1, .2}, {89.1, .2}, {89.3, .1}, {89.2, .2}}},
	{"dir", "Dirichlet .5", partition.Settings{Kind: "dirichlet", Alpha: .5}, [4][2]float64{{88.1, .6}, {88.1, .9}, {88.4, .5}, {88.5, .5}}},
	{"c1", "1 label", partition.Settings{Kind: "labels", Labels: 1}, [4][2]float64{{11.2, 2}, {28.9, 3.9}, {12.8, 4.8}, {14.8, 5.9}}},
	{"c2", "2 labels", partition.Settings{Kind: "labels", Labels: 2}, [4][2]float64{{77.3, 4.9}, {74.9, 2.6}, {42.8, 28.7}, {70.4, 5.1}}},
	{"c3", "3 labels", partition.Settings{Kind: "labels", Labels: 3}, [4][2]float64{{80.7, 1.9}, {82.5, 1.9}, {77.7, 3.8}, {78.9, 3}}},
}

// niidCNN is the benchmark's network: two convolutions of 6 and 16 channels, then 120 and 84.
func niidCNN() model.Architecture {
	return model.Architecture{Loss: "softmax", Layers: []model.LayerSpec{
		{Kind: "conv", Filters: 6, Kernel: 5, Activation: "relu"}, {Kind: "maxpool", Kernel: 2},
		{Kind: "conv", Filters: 16, Kernel: 5, Activation: "relu"}, {Kind: "maxpool", Kernel: 2},
		{Kind: "flatten"}, {Kind: "dense", Units: 120, Activation: "relu"}, {Kind: "dense", Units: 84, Activation: "relu"}, {Kind: "dense", Units: 10},
	}}
}

// niidBuiltins are partitions against strategies on Fashion-MNIST.
func niidBuiltins() (all []Builtin) {
	strategies := []fedavg.StrategySettings{{Name: "fedavg"}, {Name: "fedprox", Mu: .01}, {Name: "scaffold"}, {Name: "fednova"}}
	for _, row := range niidPublished {
		for i, s := range strategies {
			p := row.partition
			p.Nodes = 10
			all = append(all, Builtin{
				Experiment: Experiment{
					Name: "niid-fmnist-" + row.short + "-" + s.Name, Source: niidSource,
					Data: DataSettings{Name: "fashion-mnist"}, Partition: p, Architecture: niidCNN(), Strategy: s,
					Local: fedavg.LocalSettings{
						Epochs: 10, Batch: 64, LearningRate: .01, Optimiser: model.Optimiser{Kind: "momentum", Momentum: .9, Decay: 1e-5},
					},
					Rounds: 50, Seeds: []uint64{0, 1, 2},
				},
				Expected: []Expected{final(row.cells[i][0]/100, row.cells[i][1]/100, "Li 2022")},
				Table:    "NIID-Bench, Fashion-MNIST", Row: row.row, Column: s.Name,
			})
		}
	}
	return all
}
