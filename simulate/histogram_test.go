package simulate

import (
	"testing"

	"choir.example/fedavg"
	"choir.example/internal/jobspec"
	"choir.example/internal/seeds"
	"choir.example/model"
	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"
)

// A score histogram gives nearly the exact AUC for a model that has hardly learnt, one in the middle and one at its end,
// however many nodes there are: the bound that the demo holds.
func TestSummedHistogramsAreNearlyExact(t *testing.T) {
	schema, rows, regions, err := data.Shoppers()
	if err != nil {
		t.Fatal(err)
	}
	worst := 0.0
	for _, nodes := range []int{1, 9, 60, 100} {
		for seed := range uint64(3) {
			var parts []data.Parts
			for _, p := range Partition(rows, regions, nodes, seed) {
				parts = append(parts, data.Split(schema, p, seed))
			}
			rounds := uint64(2)
			if nodes == 9 && seed == 0 || nodes == 60 && seed == 1 {
				rounds = 20
			}
			spec := PurchaseJob(schema, nodes, rounds, seed)
			averaged(t, spec, schema, parts, func(round uint64, m *model.Model) {
				gap := histogramGap(m, parts)
				if worst = max(worst, gap); gap > histogramError {
					t.Errorf("%d nodes, seed %d, after round %d: %.6f off the exact AUC", nodes, seed, round, gap)
				}
			})
		}
	}
	t.Logf("worst: %.6f off", worst)
}

// averaged trains a job without a federation: clients and the algorithm called directly. each gets the model before the
// first round and after each.
func averaged(t *testing.T, spec *choirv1.JobSpec, schema *data.Schema, parts []data.Parts, each func(uint64, *model.Model)) {
	t.Helper()
	statistics, err := data.NewStatistics(schema, data.Collect(schema, pool(parts).Train))
	if err != nil {
		t.Fatal(err)
	}
	a, err := jobspec.Algorithm(spec)
	if err != nil {
		t.Fatal(err)
	}
	client, err := fedavg.NewClient(a)
	if err != nil {
		t.Fatal(err)
	}
	m := &model.Model{Name: spec.Model, Variant: "float32", Network: a.Network, Schema: schema, Statistics: statistics, Params: a.Network.Initial(spec.Seed)}
	each(0, m)
	for round := uint64(1); round <= spec.Rounds; round++ {
		sum := fedavg.NewSum(a.Shape())
		for i, p := range parts {
			x, y := statistics.Matrix(p.Train)
			u, err := client.Update(t.Context(), fedavg.Work{Global: m.Params, X: x, Y: y, Seed: seeds.Derive("choir/node/v1", spec.Seed, NodeName(i), round)})
			if err == nil {
				err = sum.Add(u)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if m.Params, err = a.Combine(m.Params, nil, fedavg.Counted{Sum: sum, Fleet: len(parts)}); err != nil {
			t.Fatal(err)
		}
		each(round, m)
	}
}
