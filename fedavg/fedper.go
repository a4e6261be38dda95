package fedavg

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"choir.example/model"
)

// Personal is a Strategy whose nodes predict with models of their own.
type Personal interface {
	Strategy
	// Personal makes of l.Params, which are equal to Global, the model that the node predicts with.
	Personal(l *Local) error
}

// FedPer is FedAvg of some layers, while the others stay with each node (Arivazhagan et al. 2019, "Federated Learning with
// Personalization Layers", Algorithms 1 and 2): all are trained, but the delta of personal layers is zero, and what they
// have become is the node's memory, as the way from the global model's, which nobody ever changes.
type FedPer struct {
	FedAvg
	Layers []string // names of layers that are personal
	Last   int      // so many of the last layers are, counting those that have parameters
}

// Needs implements Strategy.
func (f FedPer) Needs() Needs { return Needs{Uniform: f.Uniform, Memory: 1} }

// Personal implements Personal.
func (f FedPer) Personal(l *Local) error {
	layers, err := f.layers(l.Network)
	for _, r := range layers {
		for i := r.From; i < r.To; i++ {
			l.Params[i] = l.Global[i] + l.Memory[0][i]
		}
	}
	return err
}

// Local implements Strategy.
func (f FedPer) Local(l *Local) error {
	layers, err := f.layers(l.Network)
	if err := cmp.Or(err, f.Personal(l)); err != nil {
		return err
	}
	if err := f.FedAvg.Local(l); err != nil {
		return err
	}
	for _, r := range layers {
		for i := r.From; i < r.To; i++ {
			l.Memory[0][i], l.Params[i] = l.Params[i]-l.Global[i], l.Global[i]
		}
	}
	return nil
}

// Check refuses layers that are not there, and a model of which nothing is shared or nothing personal.
func (f FedPer) Check(a *Algorithm) error {
	_, err := f.layers(a.Network)
	return err
}

// layers are the parameters of the personal layers.
func (f FedPer) layers(n *model.Network) ([]model.Range, error) {
	all := slices.DeleteFunc(n.Layers(), func(l model.LayerInfo) bool { return l.Parameters == 0 })
	var known []string
	for _, l := range all {
		known = append(known, l.Name)
	}
	for _, name := range f.Layers {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("strategy: personal: layer %.40q, want some of %s", name, strings.Join(known, ", "))
		}
	}
	var personal []model.Range
	at := 0
	for i, l := range all {
		if i >= len(all)-f.Last || slices.Contains(f.Layers, l.Name) {
			personal = append(personal, model.Range{From: at, To: at + l.Parameters})
		}
		at += l.Parameters
	}
	if len(personal) == 0 || len(personal) == len(all) {
		return nil, fmt.Errorf("strategy: %d of %d layers with parameters are personal, want 1 to %d, by personal_last or by personal: some of %s",
			len(personal), len(all), len(all)-1, strings.Join(known, ", "))
	}
	return personal, nil
}
