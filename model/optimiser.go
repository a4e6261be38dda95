package model

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"choir.example/model/kernel"
)

// Optimiser says how a gradient becomes a step. The zero value is plain SGD, which takes its steps while it propagates
// backward and never writes a gradient; everything else costs a pass over all parameters.
type Optimiser struct {
	// Kind is sgd, or empty for that too; gd, one step an epoch with the gradient of all examples; momentum (Polyak 1964,
	// as in Sutskever et al. 2013, §2, without dampening); nesterov (the same); rmsprop (Hinton 2012, lecture 6e); adam
	// (Kingma and Ba 2015, Algorithm 1); adamw (Loshchilov and Hutter 2019, Algorithm 2); adagrad (Duchi et al. 2011).
	Kind     string  `json:"kind,omitempty" yaml:"kind"`
	Momentum float64 `json:"momentum,omitempty" yaml:"momentum" usual:"0.9"`                         // of momentum and nesterov, in [0, 1); 0 is .9
	Beta1    float64 `json:"beta1,omitempty" yaml:"beta1" usual:"0.9"`                               // what adam and adamw keep of the mean; 0 is .9
	Beta2    float64 `json:"beta2,omitempty" yaml:"beta2" usual:"0.999 of adam and 0.99 of rmsprop"` // what they keep of the squares; 0 is .999, for rmsprop .99
	Epsilon  float64 `json:"epsilon,omitempty" yaml:"epsilon" usual:"1e-8"`                          // beside the root of the squares; 0 is 1e-8
	Decay    float64 `json:"decay,omitempty" yaml:"decay"`                                           // of weights: added to the gradient, by adamw to the step
}

// optimisers is the table of kinds: how many values of state a parameter has, which settings beside decay there are, and
// what a step does.
var optimisers = map[string]struct {
	state int
	takes string
	step  func(o Optimiser, rate float64, steps int, params, grad, first, second []float32)
}{
	"":         {0, "", Optimiser.sgd},
	"sgd":      {0, "", Optimiser.sgd},
	"gd":       {0, "", Optimiser.sgd},
	"momentum": {1, "momentum", Optimiser.momentum},
	"nesterov": {1, "momentum", Optimiser.nesterov},
	"rmsprop":  {1, "beta2 epsilon", Optimiser.rmsprop},
	"adam":     {2, "beta1 beta2 epsilon", Optimiser.adam},
	"adamw":    {2, "beta1 beta2 epsilon", Optimiser.adam},
	"adagrad":  {1, "epsilon", Optimiser.adagrad},
}

// Validate names the setting that is out of range, or that the kind does not have: a momentum beside plain SGD would change
// nothing, and who gave it would not know.
func (o Optimiser) Validate() error {
	kind, ok := optimisers[o.Kind]
	if !ok {
		return fmt.Errorf("optimiser %.40q, want one of %s", o.Kind, strings.Join(sortedNames(optimisers), ", "))
	}
	for _, f := range []struct {
		name  string
		value float64
		above string // the bound below: where 0 is the usual value, who is refused wants another
	}{{"momentum", o.Momentum, "above 0"}, {"beta1", o.Beta1, "above 0"}, {"beta2", o.Beta2, "above 0"}, {"epsilon", o.Epsilon, "above 0"}, {"decay", o.Decay, "at least 0"}} {
		if !(f.value >= 0 && f.value < 1) {
			return fmt.Errorf("optimiser: %s %v, want %s and below 1", f.name, f.value, f.above)
		}
		if f.value != 0 && f.name != "decay" && !slices.Contains(strings.Fields(kind.takes), f.name) {
			return fmt.Errorf("optimiser: %s is not for %s, but for %s", f.name, cmp.Or(o.Kind, "sgd"), strings.Join(takers(f.name), ", "))
		}
	}
	return nil
}

// takers are the kinds that have a setting.
func takers(setting string) (kinds []string) {
	for _, kind := range sortedNames(optimisers) {
		if slices.Contains(strings.Fields(optimisers[kind].takes), setting) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// plain reports whether steps may be taken while propagating backward.
func (o Optimiser) plain() bool { return (o.Kind == "" || o.Kind == "sgd") && o.Decay == 0 }

func (o Optimiser) sgd(rate float64, _ int, params, grad, _, _ []float32) {
	kernel.Axpby(params, float32(-rate), grad, float32(1-rate*o.Decay))
}

func (o Optimiser) momentum(rate float64, _ int, params, grad, velocity, _ []float32) {
	kernel.Momentum(params, velocity, grad, kernel.MomentumStep{Keep: float32(cmp.Or(o.Momentum, .9)), Decay: float32(o.Decay), FromV: float32(rate)})
}

func (o Optimiser) nesterov(rate float64, _ int, params, grad, velocity, _ []float32) {
	keep := cmp.Or(o.Momentum, .9)
	kernel.Momentum(params, velocity, grad, kernel.MomentumStep{
		Keep: float32(keep), Decay: float32(o.Decay), FromV: float32(rate * keep), FromG: float32(rate)})
}

// decayed adds weight decay to a gradient, in place.
func (o Optimiser) decayed(params, grad []float32) []float32 {
	if o.Decay != 0 {
		kernel.Axpy(grad, float32(o.Decay), params)
	}
	return grad
}

func (o Optimiser) rmsprop(rate float64, _ int, params, grad, squares, _ []float32) {
	keep := cmp.Or(o.Beta2, .99)
	g := o.decayed(params, grad)
	kernel.Adaptive(params, g, squares, g, kernel.AdaptiveStep{AddM: 1, KeepV: float32(keep), AddV: float32(1 - keep),
		Rate: float32(rate), Root: 1, Epsilon: float32(cmp.Or(o.Epsilon, 1e-8)), Shrink: 1})
}

func (o Optimiser) adagrad(rate float64, _ int, params, grad, squares, _ []float32) {
	g := o.decayed(params, grad)
	kernel.Adaptive(params, g, squares, g, kernel.AdaptiveStep{AddM: 1, KeepV: 1, AddV: 1,
		Rate: float32(rate), Root: 1, Epsilon: float32(cmp.Or(o.Epsilon, 1e-8)), Shrink: 1})
}

func (o Optimiser) adam(rate float64, steps int, params, grad, mean, squares []float32) {
	beta1, beta2 := cmp.Or(o.Beta1, .9), cmp.Or(o.Beta2, .999)
	s := kernel.AdaptiveStep{
		KeepM: float32(beta1), AddM: float32(1 - beta1), KeepV: float32(beta2), AddV: float32(1 - beta2),
		Rate:    float32(rate / (1 - math.Pow(beta1, float64(steps)))),
		Root:    float32(1 / math.Sqrt(1-math.Pow(beta2, float64(steps)))),
		Epsilon: float32(cmp.Or(o.Epsilon, 1e-8)), Shrink: 1,
	}
	if o.Kind == "adamw" {
		s.Shrink = float32(1 - rate*o.Decay)
	} else {
		o.decayed(params, grad)
	}
	kernel.Adaptive(params, mean, squares, grad, s)
}

// Proximal is FedProx's term (Li et al. 2020, §3.2) for TrainConfig.Adjust: it pulls parameters back to the global ones,
// which it keeps and reads, by mu times their distance.
func Proximal(global []float32, mu float64) func(at int, params, grad []float32) {
	return func(at int, params, grad []float32) {
		kernel.Axpy(grad, float32(mu), params)
		kernel.Axpy(grad, float32(-mu), global[at:][:len(grad)])
	}
}
