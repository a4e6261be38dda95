package fedavg

import (
	"context"
	"fmt"

	"choir.example/model"
)

// FedDF distils what the nodes' models say together into their mean (Lin et al. 2020, "Ensemble Distillation for Robust
// Model Fusion in Federated Learning", Algorithm 1): the teacher is the mean of all their logits on public inputs without
// labels, and the student, which begins as FedAvg's model, learns its answers by Adam on a cosine schedule. The paper looks
// for the best number of steps on a validation set; here Epochs says it.
//
// Server trains, so that the bits of its model depend on the kernels in use: two coordinators with different processors
// would not make the same of the same updates. A coordinator's model is therefore one that it made alone.
type FedDF struct {
	FedAvg
	Epochs       int     // passes over the public inputs
	LearningRate float64 // of Adam
}

// distilBatch is how many public inputs a step of the student sees, as in the paper's §4.
const distilBatch = 128

// Needs implements Strategy.
func (f FedDF) Needs() Needs { return Needs{Uniform: f.Uniform, Each: true, Public: true} }

// Server implements Strategy.
func (f FedDF) Server(r *Round) error {
	if err := f.FedAvg.Server(r); err != nil {
		return err
	}
	network, err := r.Network.Distilling()
	if err != nil {
		return err
	}
	student, err := model.NewTrainer(network, distilBatch)
	if err != nil {
		return err
	}
	_, err = student.Train(context.Background(), r.Next, r.Public, r.teacher(), model.TrainConfig{
		Epochs: f.Epochs, Rate: f.LearningRate, Optimiser: model.Optimiser{Kind: "adam"}, Schedule: model.Schedule{Kind: "cosine"},
	})
	return err
}

// teacher is what the updates' models say of the public inputs: the answers to the mean of their logits.
func (r *Round) teacher() []float32 {
	n := r.Network
	sum := make([]float64, len(r.Public)/n.Inputs()*n.Outputs())
	params, out := make([]float32, n.Size()), make([]float32, len(sum))
	predictor := model.NewPredictor(n, params)
	for _, u := range r.Each {
		for i, d := range u.Delta {
			params[i] = r.Global[i] + d
		}
		predictor.Predict(r.Public, out)
		for i, z := range out {
			sum[i] += float64(z)
		}
	}
	for i, z := range sum {
		out[i] = float32(z / float64(len(r.Each)))
	}
	n.Soften(out)
	return out
}

// Check refuses a model whose loss has no soft targets.
func (FedDF) Check(a *Algorithm) error {
	if _, err := a.Network.Distilling(); err != nil {
		return fmt.Errorf("strategy: feddf: %w", err)
	}
	return a.Network.CheckBatch(distilBatch)
}
