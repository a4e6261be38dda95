package fedavg

import (
	"context"
	"math/rand/v2"
	"testing"

	"choir.example/model"
	"choir.example/model/codec"
)

// BenchmarkClient is a node's update and its fold: of a recommender with the users and items of MovieLens-1M, of which a node
// reads few, and of a perceptron, which learns everywhere. 150 examples, an epoch of batches of 10.
func BenchmarkClient(b *testing.B) {
	const users, items, examples = 6040, 3706, 150
	rng := rand.New(rand.NewPCG(1234, 0))
	ratings, images := Work{Seed: 1}, Work{Seed: 1}
	for range examples {
		ratings.X, ratings.Y = append(ratings.X, float32(rng.IntN(users)), float32(rng.IntN(items))), append(ratings.Y, float32(rng.IntN(2)))
		images.Y = append(images.Y, float32(rng.IntN(10)))
		for range 784 {
			images.X = append(images.X, rng.Float32())
		}
	}
	mlp, err := model.Architecture{Name: "mlp"}.Spec([]int{784}, 10)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		spec model.Spec
		work Work
	}{{"rec_mlp", model.RecommendMLP(users, items, 64, 128, 1), ratings}, {"2nn", mlp, images}} {
		for _, s := range []Strategy{FedAvg{Rate: 1}, Scaffold{FedAvg{Rate: 1}}} {
			name := map[bool]string{true: "fedavg", false: "scaffold"}[s.Needs().Vectors == 0]
			b.Run(c.name+"/"+name, func(b *testing.B) {
				network, err := c.spec.Compile()
				if err != nil {
					b.Fatal(err)
				}
				a := &Algorithm{
					Network: network, Strategy: s, Local: model.TrainConfig{Epochs: 1, Rate: .05}, Batch: 10, Grid: codec.Grid{Range: 4}, WeightCap: MaxWeight,
				}
				client, err := NewClient(a)
				if err != nil {
					b.Fatal(err)
				}
				sum, w := NewSum(a.Shape()), c.work
				w.Global, w.Shared = network.Initial(1), a.Shared(a.FirstState())
				for b.Loop() {
					u, err := client.Update(context.Background(), w)
					if err == nil {
						err = sum.AddWithin(u, client.Changed())
					}
					if err != nil {
						b.Fatal(err)
					}
					if sum.Count == 1000 {
						sum = NewSum(a.Shape())
					}
				}
			})
		}
	}
}
