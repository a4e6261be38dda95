package fedavg

import (
	"cmp"

	"choir.example/model/kernel"
)

// Scaffold corrects each step of a node by how its gradients differ from everybody's (Karimireddy et al. 2020, "SCAFFOLD:
// Stochastic Controlled Averaging for Federated Learning", Algorithm 1 with option II), so that nodes with different data
// do not drift apart. c_i, the node's control variate, is its memory; c, the server's, goes to the nodes with the model;
// c_i⁺ − c_i is the update's second vector. The paper's means are Uniform ones; others weigh model and c alike, so that c
// stays the weighted mean of all c_i.
//
// K·η is how far the node's steps go, model.TrainConfig.Travel: with momentum or a schedule, too, c_i is the mean of its
// gradients. c_i⁺ − c_i is no larger than these are, coordinate by coordinate, together with c: what exceeds the grid's
// range is cut there and counted as saturated. Rows of embeddings that a node does not read keep their c_i, and steps that
// do not read a row do not correct it.
type Scaffold struct{ FedAvg }

// Needs implements Strategy.
func (s Scaffold) Needs() Needs {
	return Needs{Uniform: s.Uniform, Vectors: 1, Memory: 1, State: 1, Shared: 1}
}

// Local implements Strategy.
func (s Scaffold) Local(l *Local) error {
	ci, c, change := l.Memory[0], l.Shared[0], l.Vectors[0]
	l.Config.Adjust = func(at int, _, grad []float32) { // y ← y − η(g(y) − c_i + c)
		kernel.Axpy(grad, -1, ci[at:][:len(grad)])
		kernel.Axpy(grad, 1, c[at:][:len(grad)])
	}
	done, err := l.Train()
	if err != nil {
		return err
	}
	travel, err := l.Config.Travel(done.Steps, 0) // K·η
	if err != nil || travel == 0 {
		return err
	}
	for _, r := range l.Touched() { // c_i⁺ − c_i = (x − y)/(K·η) − c
		d := change[r.From:r.To]
		copy(d, l.Global[r.From:r.To])
		kernel.Axpy(d, -1, l.Params[r.From:r.To])
		kernel.Axpby(d, -1, c[r.From:r.To], float32(1/travel))
		kernel.Axpy(ci[r.From:r.To], 1, d)
	}
	return nil
}

// Server implements Strategy.
func (s Scaffold) Server(r *Round) error {
	c, share := r.State[0], r.Share()
	for i, change := range r.Vector(0) { // c ← c + |S|/N · mean of c_i⁺ − c_i
		c[i] = float32(float64(c[i]) + float64(share*change))
	}
	return s.FedAvg.Server(r)
}

// Check refuses optimisers whose steps are no sum of gradients, and clipping, after which c would be the mean of no c_i.
func (Scaffold) Check(a *Algorithm) error {
	return cmp.Or(a.travels(0), a.unclipped("scaffold", "whose nodes remember their whole change"))
}
