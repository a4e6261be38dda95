package simulate

import (
	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/simulate/partition"
)

// quickBuiltins are what to begin with: seconds on any machine, on data that are built in.
func quickBuiltins() []Builtin {
	return []Builtin{{
		Experiment: Experiment{
			Name:         "quick",
			Source:       "built-in web-shop sessions; the floor of choir's own demo",
			Partition:    partition.Settings{Kind: "shards", Nodes: 20},
			Architecture: model.Architecture{Name: "mlp", Hidden: []int{32}},
			Local:        fedavg.LocalSettings{Epochs: 2},
			Cohort:       CohortSettings{Nodes: 10},
			Rounds:       20,
			Evaluation:   EvaluationSettings{RoundsTo: []float64{.86, .88}},
		},
		Expected: []Expected{final(.8888, 0, "all data in one place, choir demo")},
	}}
}

// mcmahanSource is where the image experiments are from.
const mcmahanSource = "McMahan et al. 2017, Table 1: 2NN, E = 1, B = 10, C = 0.1"

// mcmahanBuiltins are a row of Table 1 of McMahan et al. 2017, on MNIST and on Fashion-MNIST.
func mcmahanBuiltins() []Builtin {
	image := func(name, data, kind string, rate float64, rounds int, levels []float64, expected ...Expected) Builtin {
		return Builtin{Experiment: Experiment{
			Name: name, Source: mcmahanSource,
			Data:         DataSettings{Name: data},
			Partition:    partition.Settings{Kind: kind, Nodes: 100},
			Architecture: model.Architecture{Name: "mlp"},
			Local:        fedavg.LocalSettings{Epochs: 1, Batch: 10, LearningRate: rate},
			Cohort:       CohortSettings{Share: .1},
			Rounds:       rounds,
			Evaluation:   EvaluationSettings{RoundsTo: levels},
		}, Expected: expected}
	}
	const numpy, paper = "numpy, seed 0", "McMahan 2017"
	fashion, digits := []float64{.75, .80, .85}, []float64{.90, .95, .97}
	return []Builtin{
		image("fmnist-2nn-iid", "fashion-mnist", "iid", .05, 200, fashion,
			reached(.75, 4, numpy), reached(.80, 8, numpy), reached(.85, 44, numpy),
			after(10, .812, numpy), after(50, .852, numpy), after(100, .867, numpy), after(200, .881, numpy)),
		image("fmnist-2nn-shards", "fashion-mnist", "shards", .05, 200, fashion,
			reached(.75, 34, numpy), reached(.80, 56, numpy),
			after(10, .628, numpy), after(50, .783, numpy), after(100, .810, numpy), after(200, .794, numpy)),
		image("mnist-2nn-iid", "mnist", "iid", .1, 150, digits, reached(.97, 87, paper)),
		image("mnist-2nn-shards", "mnist", "shards", .05, 1000, digits, reached(.97, 664, paper)),
	}
}
