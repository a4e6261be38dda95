package simulate

import (
	"choir.example/fedavg"
	"choir.example/internal/jobspec"
	"choir.example/model"
	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"
)

// PurchaseJob is the job of the demo: predict whether a web-shop session ends in a purchase, by a perceptron with one
// hidden layer of 32, over rounds of federated averaging. Each round wants all nodes and takes no fewer: an attempt that
// some miss is abandoned and tried again, so that the seed alone decides the model.
func PurchaseJob(schema *data.Schema, nodes int, rounds, seed uint64) *choirv1.JobSpec {
	algorithm, err := jobspec.Encode(&fedavg.Settings{
		Architecture: model.Architecture{Name: "mlp", Hidden: []int{32}}, Local: fedavg.LocalSettings{Epochs: 2},
	})
	if err != nil {
		panic(err) // two numbers and a name encode
	}
	return &choirv1.JobSpec{
		Name: "purchase", Model: "purchase", Schema: schema.Encode(), Algorithm: algorithm, Rounds: rounds, WeightCap: 1 << 20,
		MinimumCohort: uint32(nodes), Goal: 0, DurationMs: 30_000, MaxAttempts: 5, Seed: seed,
		GateInt8Ppm: 2_000, GateStudentPpm: 10_000,
		StudentRows: 20_000, StudentTemperature: 2, StudentEpochs: 15, StudentRate: 0.3, WaitMs: 20_000,
	}
}
