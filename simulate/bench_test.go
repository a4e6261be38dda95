package simulate

import (
	"math/rand/v2"
	"testing"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/model/data"
	"choir.example/simulate/partition"
)

// users is a fleet by closed formulas, so that a program in another language has the same: 3,400 users hold 100 to 200
// examples each, slices of one shared pool.
type users struct{}

// Divide implements partition.Partitioner. Slices overlap.
func (users) Divide(x partition.Examples, nodes int, _ *rand.Rand) ([][]int32, error) {
	parts := make([][]int32, nodes)
	for i := range parts {
		for k := range 100 + i*37%101 {
			parts[i] = append(parts[i], int32(i*131%(len(x.Labels)-200)+k))
		}
	}
	return parts, nil
}

// benchExperiment is one of the workloads that simulators are compared by: a cohort of 50, an epoch of SGD at rate .05.
func benchExperiment(a model.Architecture, input []int, batch, rows int) Experiment {
	rng := rand.New(rand.NewPCG(1234, 0))
	set := data.Set{X: make([]float32, rows*784), Y: make([]float32, rows), Input: input, Targets: 1, Classes: 10}
	for i := range set.X {
		set.X[i] = rng.Float32()
	}
	for i := range set.Y {
		set.Y[i] = float32(rng.IntN(10))
	}
	return Experiment{
		Name: "bench", Partition: partition.Settings{Nodes: 3400}, Architecture: a, Cohort: CohortSettings{Nodes: 50},
		Local: fedavg.LocalSettings{Epochs: 1, Batch: batch, LearningRate: .05}, Own: Own{Partition: users{}, Data: &Dataset{Train: set, Test: set}},
	}
}

// BenchmarkSimulate is a round an iteration, in math fidelity, without measuring the model.
func BenchmarkSimulate(b *testing.B) {
	for _, c := range []struct {
		name string
		arch model.Architecture
		in   []int
	}{
		{"2nn", model.Architecture{Name: "mlp"}, []int{784}},
		{"logreg", model.Architecture{Layers: []model.LayerSpec{{Kind: "dense", Units: 10}}, Loss: "softmax"}, []int{784}},
		{"cnn512", model.Architecture{Name: "cnn"}, []int{28, 28, 1}},
	} {
		b.Run(c.name+"/b10/cohort50", func(b *testing.B) {
			t, err := newTrial(benchExperiment(c.arch, c.in, 10, 20_000), RunConfig{})
			if err != nil {
				b.Fatal(err)
			}
			e, err := newEngine(t)
			if err != nil {
				b.Fatal(err)
			}
			round := 0
			for b.Loop() {
				round++
				if _, err := e.round(b.Context(), round); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/round")
		})
	}
}

// BenchmarkFidelity is a round an iteration of 50 nodes, without measuring the model: the arithmetic alone, and real
// coordinators and nodes. BenchmarkFloor of package coordinator moves the bytes of the second alone.
func BenchmarkFidelity(b *testing.B) {
	for _, fidelity := range []Fidelity{Math, System} {
		b.Run(string(fidelity)+"/2nn/b10/cohort50", func(b *testing.B) {
			x := benchExperiment(model.Architecture{Name: "mlp"}, []int{784}, 10, 20_000)
			x.Own.Partition, x.Partition.Nodes = nil, 50
			x.Rounds, x.Evaluation.Every = b.N, b.N+1
			test := &x.Own.Data.Test
			test.X, test.Y = test.X[:100*784], test.Y[:100]
			r, err := Run(b.Context(), x, RunConfig{Fidelity: fidelity})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(r.SecondsPerRound, "s/round")
		})
	}
}
