package fedavg

import (
	"cmp"

	"choir.example/model"
)

// FedNova averages directions in place of deltas (Wang et al. 2020, "Tackling the Objective Inconsistency Problem in
// Heterogeneous Federated Optimization", §4, equation 8): nodes divide by the ‖a‖₁ of their local steps, and the server
// goes τ_eff = Σ p_i·‖a_i‖₁ along the mean, so that a node which makes more steps than others does not pull the model to
// its own optimum. ‖a‖₁ is the number of steps for plain SGD; for momentum, FedProx's term and schedules it is what Table 1
// has, model.TrainConfig.Travel over the learning rate. Where all have the same, it is FedAvg.
type FedNova struct {
	FedAvg
	Mu float64 // of FedProx's term; 0: none
}

// novaSteps an epoch are what directions are sent as if after, and ‖a‖₁ is counted in: it must be the same for everybody,
// and what the server makes of them does not depend on it. One step's direction would lie between the grid's lines, many
// steps' beyond its range where a node makes only one.
const novaSteps = 4

// Needs implements Strategy.
func (f FedNova) Needs() Needs { return Needs{Uniform: f.Uniform, Scalars: 1} }

// Local implements Strategy.
func (f FedNova) Local(l *Local) error {
	if f.Mu > 0 {
		l.Config.Adjust = model.Proximal(l.Global, f.Mu)
	}
	done, err := l.Train()
	if err != nil || done.Steps == 0 || l.Config.Rate == 0 {
		return err
	}
	all := l.Config
	all.Epochs = l.Epochs // also where this node does not manage them
	unit, err := all.Travel(novaSteps*l.Epochs, f.Mu)
	if err != nil {
		return err
	}
	travel, err := l.Config.Travel(done.Steps, f.Mu)
	l.Scale, l.Scalars[0] = unit/travel, travel/unit
	return err
}

// Server implements Strategy.
func (f FedNova) Server(r *Round) error {
	r.Move(f.Rate*r.Scalar(0), r.Delta())
	return nil
}

// Check refuses optimisers for which there is no ‖a‖₁, and clipping: a direction's length says nothing of how far a node went.
func (f FedNova) Check(a *Algorithm) error {
	return cmp.Or(a.travels(f.Mu), a.unclipped("fednova", "whose nodes send directions"))
}
