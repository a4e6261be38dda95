package fedavg

import (
	"fmt"
	"math"
)

// FedAsync is asynchronous federated optimization (Xie et al. 2019, Algorithm 1): each model that arrives is mixed into the
// global one, x ← (1−α_t)·x + α_t·x_new with α_t = α·s(stale). Nodes hold to the model they began with by μ, the paper's ρ.
type FedAsync struct {
	Mixing    float64 // α, in (0, 1]
	Mu        float64 // μ, at least 0
	Staleness Staleness
}

// Staleness is how the discount falls with the steps that an update is stale (Xie et al. 2019, §5.2).
type Staleness string

// The functions s of the paper, with the parameters of its experiments.
const (
	Polynomial Staleness = "polynomial" // (1+stale)^-½
	Hinge      Staleness = "hinge"      // 1 up to 4 steps, then 1/(10·(stale−4)+1)
	Constant   Staleness = "constant"   // 1
)

// Needs implements Strategy.
func (FedAsync) Needs() Needs { return Needs{Uniform: true} }

// Local implements Strategy.
func (f FedAsync) Local(l *Local) error {
	if f.Mu == 0 {
		return FedAvg{}.Local(l)
	}
	return FedProx{Mu: f.Mu}.Local(l)
}

// Server implements Strategy.
func (FedAsync) Server(*Round) error { return ErrAsynchronous }

// Buffer implements Asynchronous.
func (FedAsync) Buffer() int { return 1 }

// Discount implements Asynchronous.
func (f FedAsync) Discount(stale int) float64 {
	const a, b = 10, 4
	switch {
	case f.Staleness == Constant || f.Staleness == Hinge && stale <= b:
		return 1
	case f.Staleness == Hinge:
		return 1 / float64(a*(stale-b)+1)
	}
	return 1 / math.Sqrt(float64(1+stale))
}

// Arrive implements Asynchronous.
func (f FedAsync) Arrive(a *Arrival) error {
	alpha := f.Mixing * a.Discount
	for i, d := range a.Delta {
		arrived := float64(a.Begun[i]) + d
		a.Next[i] = float32(float64(a.Global[i]) + float64(alpha*(arrived-float64(a.Global[i]))))
	}
	return nil
}

// Check names the setting that is none of the paper's. Algorithm.Check asks it.
func (f FedAsync) Check(*Algorithm) error {
	switch f.Staleness {
	case "", Polynomial, Hinge, Constant:
	default:
		return fmt.Errorf("strategy: staleness %.40q, want polynomial, hinge or constant", f.Staleness)
	}
	if !(f.Mixing > 0 && f.Mixing <= 1) {
		return fmt.Errorf("strategy: mixing is %v, want more than 0 and at most 1", f.Mixing)
	}
	if !(f.Mu >= 0) || math.IsInf(f.Mu, 0) {
		return fmt.Errorf("strategy: mu is %v, want a finite one of at least 0", f.Mu)
	}
	return nil
}
