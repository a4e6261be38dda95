package fedavg

import "math"

// QFedAvg gives nodes on whose examples the model does badly more say (Li et al. 2020, "Fair Resource Allocation in
// Federated Learning", Algorithm 2): it lowers Σ F^(q+1)/(q+1) of the nodes' losses F. The paper's step is
// Σ Δ_k / Σ h_k with Δ_k = F^q·L·(w − w_k), h_k = q·F^(q−1)·‖L(w − w_k)‖² + L·F^q and L = 1/η, the local learning rate. With
// F^q as the update's weight that is the weighted mean of the deltas, over that of 1 + q·L·‖w − w_k‖²/F. Nodes count by
// their loss alone, not by their examples.
type QFedAvg struct {
	Q float64 // q, at least 0: the larger, the fairer; 0 is FedAvg, uniform
}

// fairLoss is the loss, in nat, that has the largest weight: a model that guesses among 54 classes. Losses above it count
// as much, and those so far below that the weight would be less than one count one.
const fairLoss = 4

// Needs implements Strategy.
func (q QFedAvg) Needs() Needs { return Needs{Scalars: 1} }

// Local implements Strategy.
func (q QFedAvg) Local(l *Local) error {
	loss, err := l.Loss()
	if err != nil {
		return err
	}
	if _, err := l.Train(); err != nil {
		return err
	}
	l.Weight = int64(math.Round(float64(l.Cap) * math.Min(1, math.Pow(loss/fairLoss, q.Q))))
	l.Scalars[0] = 1
	if square := l.moved(); q.Q > 0 && square > 0 && loss > 0 {
		l.Scalars[0] = math.Min(MaxScalar, 1+q.Q*square/(l.Config.Rate*loss))
	}
	return nil
}

// moved is ‖Params − Global‖².
func (l *Local) moved() (square float64) {
	for _, r := range l.Touched() {
		for i := r.From; i < r.To; i++ {
			d := float64(l.Params[i]) - float64(l.Global[i])
			square += d * d
		}
	}
	return square
}

// Server implements Strategy.
func (QFedAvg) Server(r *Round) error {
	r.Move(1/r.Scalar(0), r.Delta())
	return nil
}
