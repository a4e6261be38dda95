package fedavg

import "math"

// FedBuff is buffered asynchronous aggregation (Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous
// Aggregation", Algorithm 1): when K updates are there, the model goes their mean's way, each at the discount 1/√(1+s) for
// the s steps that it is stale (§5).
type FedBuff struct {
	Rate float64 // of the server; the paper's η_g
	K    int     // updates in the buffer
}

// Needs implements Strategy.
func (FedBuff) Needs() Needs { return Needs{Uniform: true} }

// Local implements Strategy.
func (FedBuff) Local(l *Local) error { return FedAvg{}.Local(l) }

// Server implements Strategy.
func (FedBuff) Server(*Round) error { return ErrAsynchronous }

// Buffer implements Asynchronous.
func (f FedBuff) Buffer() int { return f.K }

// Discount implements Asynchronous.
func (FedBuff) Discount(stale int) float64 { return 1 / math.Sqrt(float64(1+stale)) }

// Arrive implements Asynchronous. The paper divides the discounted sum by K.
func (f FedBuff) Arrive(a *Arrival) error {
	a.Move(f.Rate*a.Discount, a.Delta)
	return nil
}
