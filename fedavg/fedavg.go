package fedavg

import "fmt"

// FedAvg is federated averaging (McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
// Decentralized Data", Algorithm 1): the next model is the old one plus the weighted mean of the deltas. With Rate
// other than 1 it is FedOpt's generalised form with SGD on the server (Reddi et al. 2021, Algorithm 1).
type FedAvg struct {
	Step float64 // of the grid, in units of a parameter: a coordinate q means q·Step
	Rate float64 // server learning rate; 1 is the plain mean
}

// Next returns global + Rate·Step·(Σ w·q)/(Σ w) as a new slice; global and the sum are only read. All arithmetic is float64 with explicit rounding
// between operations, so that the result has the same bits on every processor.
func (f FedAvg) Next(global []float32, s *Sum) ([]float32, error) {
	if len(s.Vectors) != 1 || len(s.Vectors[0]) != len(global) {
		return nil, fmt.Errorf("average: the sum does not fit a model of %d parameters", len(global))
	}
	if s.Weight <= 0 {
		return nil, fmt.Errorf("average: the sum is empty")
	}
	next := make([]float32, len(global))
	weight := float64(s.Weight)
	scale := float64(f.Step * f.Rate)
	for i, v := range s.Vectors[0] {
		mean := float64(float64(v) / weight)
		next[i] = float32(float64(global[i]) + float64(mean*scale))
	}
	return next, nil
}
