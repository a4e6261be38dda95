package fedavg

// FedAvg is federated averaging (McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
// Decentralized Data", Algorithm 1): every node trains by SGD from the same model, and the next model is the old one plus
// the weighted mean of the deltas. With Rate other than 1 it is the generalised form with SGD on the server (Reddi et al.
// 2021, Algorithm 1).
type FedAvg struct {
	Rate    float64 // server learning rate; 1 is the plain mean
	Uniform bool    // every node counts the same; otherwise by its examples
}

// Needs implements Strategy.
func (f FedAvg) Needs() Needs { return Needs{Uniform: f.Uniform} }

// Local implements Strategy.
func (FedAvg) Local(l *Local) error {
	_, err := l.Train()
	return err
}

// Server implements Strategy.
func (f FedAvg) Server(r *Round) error {
	r.Move(f.Rate, r.Delta())
	return nil
}
