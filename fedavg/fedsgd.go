package fedavg

import "fmt"

// FedSGD is SGD of the whole federation (McMahan et al. 2017, §2): a node takes one step along the gradient of all its
// examples, so that the weighted mean of the deltas is a step along the gradient of everybody's. The learning rate is that
// of the nodes times Rate.
type FedSGD struct{ FedAvg }

// Local implements Strategy.
func (f FedSGD) Local(l *Local) error {
	l.Config.Epochs, l.Config.Optimiser.Kind = 1, "gd"
	return f.FedAvg.Local(l)
}

// Check refuses what one step does not have.
func (FedSGD) Check(a *Algorithm) error {
	if k := a.Local.Optimiser.Kind; a.Local.Epochs > 1 || k != "" && k != "sgd" && k != "gd" {
		return fmt.Errorf("local: %d epochs by optimiser %q, but fedsgd takes one step a round: want 1 by sgd, or fedavg", a.Local.Epochs, k)
	}
	return nil
}
