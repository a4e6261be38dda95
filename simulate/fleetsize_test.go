package simulate

import (
	"runtime"
	"testing"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/model/data"
	"choir.example/simulate/partition"
)

// manyNodes is an experiment of so many nodes that hold points of so many features, in a cohort of 100.
func manyNodes(t testing.TB, nodes, examples, features int) Experiment {
	t.Helper()
	set, err := data.Blobs(examples+1000, features, 10, .6, 1)
	if err != nil {
		t.Fatal(err)
	}
	train, test := set.Divide(1000/float64(examples+1000), 1)
	return Experiment{
		Name: "many", Partition: partition.Settings{Nodes: nodes}, Cohort: CohortSettings{Nodes: 100}, Architecture: model.Architecture{Name: "mlp"},
		Local: fedavg.LocalSettings{Batch: 10, LearningRate: .05}, Own: Own{Data: &Dataset{Train: train, Test: test}},
		Fleet: FleetSettings{Speed: SpeedSettings{Examples: 100, Spread: .5}, Availability: AvailabilitySettings{Day: .5, Night: .9}, Dropout: .1},
	}
}

// inUse is what is in use, in bytes, after two collections: what lies in a sync.Pool outlives the first.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Ten thousand nodes are lists of places and little else, and rounds leave nothing behind.
func TestMemoryIsFlat(t *testing.T) {
	x := manyNodes(t, 10_000, 20_000, 20)
	x.Architecture.Hidden, x.Rounds, x.Evaluation.Every = []int{16}, 60, 60
	before := inUse()
	tr, err := newTrial(x, RunConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if each := float64(inUse()-before) / 10_000; each > 400 {
		t.Errorf("a node takes %.0f bytes beside its examples, want at most 400", each)
	}
	runtime.KeepAlive(tr)
	var early, late int64
	if _, err := Run(t.Context(), x, RunConfig{Progress: func(p Point) {
		switch p.Round {
		case 10:
			early = inUse()
		case 60:
			late = inUse()
		}
	}}); err != nil {
		t.Fatal(err)
	}
	// One update is 2 kB, and 50 rounds have 4,500 of them.
	if grown := late - early; grown > 200_000 {
		t.Errorf("50 rounds left %d bytes behind, want at most 200,000", grown)
	}
}

// BenchmarkFleet is 100 rounds of ten thousand nodes that hold 60,000 examples of the shape of small images, the 2NN and a
// cohort of 100: s/round, and by how much the heap grew from the tenth round to the last.
func BenchmarkFleet(b *testing.B) {
	b.Run("10000/2nn/cohort100", func(b *testing.B) {
		x := manyNodes(b, 10_000, 60_000, 784)
		x.Rounds, x.Evaluation.Every = 100, 10
		for b.Loop() {
			var early, late int64
			r, err := Run(b.Context(), x, RunConfig{Progress: func(p Point) {
				switch p.Round {
				case 10:
					early = inUse()
				case 100:
					late = inUse()
				}
			}})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(r.SecondsPerRound, "s/round")
			b.ReportMetric(float64(late-early)/1e6, "MB/90rounds")
		}
	})
}
