package fedavg

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"strings"
)

// StrategySettings name a strategy and its parameters. A parameter that is absent, or zero, has the strategy's usual value;
// one that the strategy does not take is refused. The table strategies says who takes what.
type StrategySettings struct {
	Name       string  `json:"name,omitempty" yaml:"name"`                                      // one of Strategies; usually fedavg
	ServerRate float64 `json:"server_rate,omitempty" yaml:"server_rate" usual:"the strategy's"` // learning rate of the server, above 0
	Uniform    bool    `json:"uniform,omitempty" yaml:"uniform"`                                // nodes count the same, whatever they have; otherwise by their examples
	Mu         float64 `json:"mu,omitempty" yaml:"mu"`                                          // μ, how hard nodes are held to the global model, above 0
	Momentum   float64 `json:"momentum,omitempty" yaml:"momentum" usual:"the strategy's"`       // β of the server, in (0, 1)
	Beta1      float64 `json:"beta1,omitempty" yaml:"beta1" usual:"the strategy's"`             // what the server keeps of the mean, in (0, 1)
	Beta2      float64 `json:"beta2,omitempty" yaml:"beta2" usual:"the strategy's"`             // what it keeps of the squares, in (0, 1)
	Tau        float64 `json:"tau,omitempty" yaml:"tau" usual:"the strategy's"`                 // τ beside the root of the squares, above 0
	Alpha      float64 `json:"alpha,omitempty" yaml:"alpha" usual:"the strategy's"`             // α of the dynamic regulariser, above 0
	Q          float64 `json:"q,omitempty" yaml:"q"`                                            // how much fairness, above 0

	Buffer    int       `json:"buffer,omitempty" yaml:"buffer" usual:"the strategy's"` // updates that make a step, above 0
	Mixing    float64   `json:"mixing,omitempty" yaml:"mixing" usual:"the strategy's"` // how much is taken of a model that arrives, above 0 and at most 1
	Staleness Staleness `json:"staleness,omitempty" yaml:"staleness"`                  // polynomial, the usual; hinge or constant

	Personal     []string `json:"personal,omitempty" yaml:"personal"`           // names of layers that stay on the nodes
	PersonalLast int      `json:"personal_last,omitempty" yaml:"personal_last"` // so many last layers do, counting those with parameters

	DistilEpochs int     `json:"distil_epochs,omitempty" yaml:"distil_epochs" usual:"the strategy's"` // passes over the public inputs, above 0
	DistilRate   float64 `json:"distil_rate,omitempty" yaml:"distil_rate" usual:"the strategy's"`     // learning rate of the student, above 0
}

// takes are the parameters of a strategy with their usual values.
type takes map[string]float64

// wanted is in the place of a usual value: the parameter must be given. optional has none, and need not.
const (
	optional = 0
	wanted   = -1
)

// strategies is the table of names: which parameters a strategy takes, and what is made of them.
var strategies = map[string]struct {
	takes takes
	build func(s StrategySettings) Strategy
}{
	"fedavg":     {takes{"server_rate": 1, "uniform": optional}, func(s StrategySettings) Strategy { return s.fedavg() }},
	"fedsgd":     {takes{"server_rate": 1, "uniform": optional}, func(s StrategySettings) Strategy { return FedSGD{s.fedavg()} }},
	"fedprox":    {takes{"server_rate": 1, "uniform": optional, "mu": wanted}, func(s StrategySettings) Strategy { return FedProx{s.fedavg(), s.Mu} }},
	"scaffold":   {takes{"server_rate": 1, "uniform": optional}, func(s StrategySettings) Strategy { return Scaffold{s.fedavg()} }},
	"fednova":    {takes{"server_rate": 1, "uniform": optional, "mu": optional}, func(s StrategySettings) Strategy { return FedNova{s.fedavg(), s.Mu} }},
	"fedavgm":    {takes{"server_rate": 1, "uniform": optional, "momentum": .9}, func(s StrategySettings) Strategy { return FedAvgM{s.fedavg(), s.Momentum} }},
	"fedadagrad": {adaptive(.1, optional), func(s StrategySettings) Strategy { return FedAdagrad{s.fedopt()} }},
	"fedadam":    {adaptive(.01, .99), func(s StrategySettings) Strategy { return FedAdam{s.fedopt(), s.Beta2} }},
	"fedyogi":    {adaptive(.01, .99), func(s StrategySettings) Strategy { return FedYogi{s.fedopt(), s.Beta2} }},
	"feddyn":     {takes{"alpha": .01}, func(s StrategySettings) Strategy { return FedDyn{s.Alpha} }},
	"q-fedavg":   {takes{"q": wanted}, func(s StrategySettings) Strategy { return QFedAvg{s.Q} }},
	"fedper": {takes{"server_rate": 1, "uniform": optional, "personal": optional, "personal_last": optional}, func(s StrategySettings) Strategy {
		return FedPer{s.fedavg(), s.Personal, s.PersonalLast}
	}},
	"fedbuff": {takes{"server_rate": 1, "buffer": 10}, func(s StrategySettings) Strategy { return FedBuff{s.ServerRate, s.Buffer} }},
	"fedasync": {takes{"mixing": .6, "mu": optional, "staleness": optional}, func(s StrategySettings) Strategy {
		return FedAsync{s.Mixing, s.Mu, s.Staleness}
	}},
	"feddf": {takes{"uniform": optional, "distil_epochs": 5, "distil_rate": .001}, func(s StrategySettings) Strategy {
		return FedDF{FedAvg{1, s.Uniform}, s.DistilEpochs, s.DistilRate}
	}},
}

// adaptive is what the adaptive servers take. Adagrad forgets nothing, neither of the mean nor of the squares.
func adaptive(rate, beta2 float64) takes {
	t := takes{"server_rate": rate, "uniform": optional, "tau": .001}
	if beta2 != optional {
		t["beta1"], t["beta2"] = .9, beta2
	}
	return t
}

// fedavg is what most strategies begin with.
func (s StrategySettings) fedavg() FedAvg { return FedAvg{s.ServerRate, s.Uniform} }

func (s StrategySettings) fedopt() FedOpt { return FedOpt{s.ServerRate, s.Uniform, s.Beta1, s.Tau} }

// below1 are the parameters that are shares. All others have no upper bound.
var below1 = map[string]bool{"momentum": true, "beta1": true, "beta2": true}

// Strategies are the names of all strategies, in order.
func Strategies() []string { return sorted(strategies) }

// Strategy is the strategy that the settings name.
func (s StrategySettings) Strategy() (Strategy, error) {
	name := cmp.Or(s.Name, "fedavg")
	of, ok := strategies[name]
	if !ok {
		return nil, fmt.Errorf("strategy: name %.40q, want one of %s", s.Name, strings.Join(Strategies(), ", "))
	}
	fields := reflect.ValueOf(&s).Elem()
	for i := range fields.NumField() {
		parameter := fields.Type().Field(i).Tag.Get("yaml")
		if parameter == "name" {
			continue
		}
		if err := of.takes.settle(name, parameter, fields.Field(i)); err != nil {
			return nil, fmt.Errorf("strategy: %w", err)
		}
	}
	return of.build(s), nil
}

// settle checks one parameter, and gives it its usual value if it has none.
func (t takes) settle(strategy, parameter string, v reflect.Value) error {
	usual, taken := t[parameter]
	switch {
	case v.IsZero() && usual == wanted:
		return fmt.Errorf("%s wants %s, above 0", strategy, parameter)
	case !taken && !v.IsZero():
		return fmt.Errorf("%s is for %s, not for %s", parameter, strings.Join(takers(parameter), ", "), strategy)
	case v.CanFloat():
		if v.IsZero() {
			v.SetFloat(usual)
		}
		return inside(parameter, v.Float(), v.IsZero())
	case v.CanInt():
		if v.IsZero() {
			v.SetInt(int64(usual))
		}
		return inside(parameter, float64(v.Int()), v.IsZero())
	}
	return nil
}

// inside refuses a number that is given and out of its range.
func inside(parameter string, x float64, absent bool) error {
	switch {
	case absent || x > 0 && x < 1:
		return nil
	case below1[parameter]:
		return fmt.Errorf("%s is %v, want above 0 and below 1", parameter, x)
	case !(x > 0) || math.IsInf(x, 1):
		return fmt.Errorf("%s is %v, want a finite number above 0", parameter, x)
	}
	return nil
}

// takers are the strategies that take a parameter.
func takers(parameter string) []string {
	var names []string
	for _, name := range Strategies() {
		if _, ok := strategies[name].takes[parameter]; ok {
			names = append(names, name)
		}
	}
	return names
}
