package fedavg

import "choir.example/model"

// FedProx is FedAvg whose nodes are held back to the model they got: each lowers its own loss plus μ/2·‖w − w_global‖²
// (Li et al. 2020, "Federated Optimization in Heterogeneous Networks", Algorithm 2), so that a node that does fewer steps
// than others is welcome, too.
type FedProx struct {
	FedAvg
	Mu float64 // μ, at least 0; 0 is FedAvg
}

// Local implements Strategy.
func (f FedProx) Local(l *Local) error {
	l.Config.Adjust = model.Proximal(l.Global, f.Mu)
	return f.FedAvg.Local(l)
}
