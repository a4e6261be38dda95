package fedavg

import (
	"context"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"choir.example/model"
)

// line is a straight line to be fitted: one input, one weight, one bias.
func line(t *testing.T, s Settings) *Algorithm {
	t.Helper()
	s.Architecture = model.Architecture{Name: "linear"}
	a, err := s.Algorithm([]int{1}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// work is a node with the two points (1, 3) and (2, 5).
func work(a *Algorithm) Work {
	return Work{Global: make([]float32, a.Network.Size()), Memory: a.FirstMemory(), Shared: a.Shared(a.FirstState()), X: []float32{1, 2}, Y: []float32{3, 5}, Seed: 9}
}

func TestFewerBitsMakeACoarserUpdate(t *testing.T) {
	fine := line(t, Settings{Local: LocalSettings{Epochs: 5, LearningRate: .1}})
	c, err := NewClient(fine)
	must(t, err)
	u, err := c.Update(context.Background(), work(fine))
	must(t, err)
	for _, rounding := range []string{"nearest", "stochastic"} {
		coarse := line(t, Settings{Local: LocalSettings{Epochs: 5, LearningRate: .1}, Compression: Compression{Range: 4, Bits: 8, Rounding: rounding}})
		c, err := NewClient(coarse)
		must(t, err)
		got, err := c.Update(context.Background(), work(coarse))
		must(t, err)
		for i, q := range got.Vectors[0] {
			exact, near := float64(u.Vectors[0][i])*fine.Grid.Step(), float64(q)*coarse.Grid.Step()
			if d := math.Abs(exact - near); d > coarse.Grid.Step() || q > 127 || q < -127 {
				t.Errorf("%s: coordinate %d is %v, want within %v of %v", rounding, i, near, coarse.Grid.Step(), exact)
			}
		}
		if slices.Max(got.Vectors[0]) == 0 {
			t.Errorf("%s: nothing was learnt", rounding)
		}
	}
}

func TestSettingsAreRefused(t *testing.T) {
	for _, c := range []struct {
		s    Settings
		want string
	}{
		{Settings{Compression: Compression{Bits: 1}}, "compression: bits is 1, want 2 to 24"},
		{Settings{Compression: Compression{Bits: 25}}, "compression: bits is 25, want 2 to 24"},
		{Settings{Compression: Compression{Range: -1}}, "compression: range is -1, want 1e-06 to 1e+06"},
		{Settings{Compression: Compression{Rounding: "up"}}, `compression: rounding "up", want nearest or stochastic`},
		{Settings{Strategy: StrategySettings{Name: "fedmagic"}}, `strategy: name "fedmagic", want one of`},
		{Settings{Local: LocalSettings{LearningRate: -1}}, "local: learning_rate is -1, want above 0 and finite"},
		{Settings{Local: LocalSettings{LearningRate: math.Inf(1)}}, "local: learning_rate is +Inf, want above 0"},
		{Settings{Local: LocalSettings{Epochs: -1}}, "local: epochs is -1, want at least 1"},
		{Settings{Local: LocalSettings{Clip: -1}}, "local: clip is -1, want a finite norm above 0, or 0 for none"},
		{Settings{Strategy: StrategySettings{Mu: .1}}, "strategy: mu is for fedasync, fednova, fedprox, not for fedavg"},
		{Settings{Strategy: StrategySettings{Name: "feddyn", Uniform: true}}, "strategy: uniform is for"},
		{Settings{Strategy: StrategySettings{Name: "fedavg", Personal: []string{"a"}}}, "strategy: personal is for fedper, not for fedavg"},
		{Settings{Strategy: StrategySettings{Name: "fedadam", PersonalLast: 1}}, "strategy: personal_last is for fedper, not for fedadam"},
		{Settings{Strategy: StrategySettings{Name: "fedprox"}}, "strategy: fedprox wants mu, above 0"},
		{Settings{Strategy: StrategySettings{Name: "q-fedavg"}}, "strategy: q-fedavg wants q, above 0"},
		{Settings{Strategy: StrategySettings{Name: "fedprox", Mu: -1}}, "strategy: mu is -1, want a finite number above 0"},
		{Settings{Strategy: StrategySettings{Name: "fedprox", Mu: math.NaN()}}, "strategy: mu is NaN, want a finite number above 0"},
		{Settings{Strategy: StrategySettings{ServerRate: math.Inf(1)}}, "strategy: server_rate is +Inf, want a finite number above 0"},
		{Settings{Strategy: StrategySettings{Name: "fedavgm", Momentum: 1}}, "strategy: momentum is 1, want above 0 and below 1"},
		{Settings{Strategy: StrategySettings{Name: "fedyogi", Beta2: -.5}}, "strategy: beta2 is -0.5, want above 0 and below 1"},
		{Settings{Strategy: StrategySettings{Name: "feddf", DistilEpochs: -3}}, "strategy: distil_epochs is -3, want a finite number above 0"},
		{Settings{Strategy: StrategySettings{Name: "fedsgd"}, Local: LocalSettings{Epochs: 5}}, "local: 5 epochs"},
		{Settings{Strategy: StrategySettings{Name: "fedsgd"}, Local: LocalSettings{Optimiser: model.Optimiser{Kind: "momentum"}}}, "fedsgd takes one step"},
		{Settings{Strategy: StrategySettings{Name: "scaffold"}, Local: LocalSettings{Optimiser: model.Optimiser{Kind: "adam"}}}, "local: optimiser adam: how far"},
		{Settings{Strategy: StrategySettings{Name: "fednova"}, Local: LocalSettings{Optimiser: model.Optimiser{Kind: "rmsprop"}}}, "local: optimiser rmsprop: how far"},
		{Settings{Strategy: StrategySettings{Name: "scaffold"}, Privacy: Privacy{Clip: 1}}, "privacy: clip is not for scaffold, whose nodes remember"},
		{Settings{Strategy: StrategySettings{Name: "feddyn"}, Privacy: Privacy{Clip: 1}}, "privacy: clip is not for feddyn, whose nodes remember"},
		{Settings{Strategy: StrategySettings{Name: "fednova"}, Privacy: Privacy{Clip: 1}}, "privacy: clip is not for fednova, whose nodes send directions"},
	} {
		c.s.Architecture.Name = "linear"
		if _, err := c.s.Algorithm([]int{1}, 1); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.s, err, c.want)
		}
	}
}

// What a strategy takes has the value that is given, and otherwise its usual one.
func TestUsualParameters(t *testing.T) {
	for _, c := range []struct {
		s    StrategySettings
		want Strategy
	}{
		{StrategySettings{}, FedAvg{Rate: 1}},
		{StrategySettings{Name: "fedprox", Mu: .1, ServerRate: .5, Uniform: true}, FedProx{FedAvg{.5, true}, .1}},
		{StrategySettings{Name: "fednova"}, FedNova{FedAvg{Rate: 1}, 0}},
		{StrategySettings{Name: "fedavgm"}, FedAvgM{FedAvg{Rate: 1}, .9}},
		{StrategySettings{Name: "fedadagrad"}, FedAdagrad{FedOpt{Rate: .1, Tau: .001}}},
		{StrategySettings{Name: "fedadam"}, FedAdam{FedOpt{Rate: .01, Beta1: .9, Tau: .001}, .99}},
		{StrategySettings{Name: "fedyogi", Tau: .1, Beta1: .5, Beta2: .6}, FedYogi{FedOpt{Rate: .01, Beta1: .5, Tau: .1}, .6}},
		{StrategySettings{Name: "feddyn"}, FedDyn{.01}},
		{StrategySettings{Name: "feddf", DistilEpochs: 7}, FedDF{FedAvg{Rate: 1}, 7, .001}},
		{StrategySettings{Name: "fedper", PersonalLast: 2}, FedPer{FedAvg{Rate: 1}, nil, 2}},
	} {
		if got, err := c.s.Strategy(); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %+v, %v, want %+v", c.s, got, err, c.want)
		}
	}
}

// Every parameter that a strategy takes is a field of the settings, and every field is somebody's.
func TestParametersAreFields(t *testing.T) {
	fields := map[string]bool{}
	for i := range reflect.TypeFor[StrategySettings]().NumField() {
		fields[reflect.TypeFor[StrategySettings]().Field(i).Tag.Get("yaml")] = false
	}
	for name, of := range strategies {
		for parameter := range of.takes {
			if _, ok := fields[parameter]; !ok {
				t.Errorf("%s takes %s, which no file can say", name, parameter)
			}
			fields[parameter] = true
		}
	}
	delete(fields, "name")
	for parameter, taken := range fields {
		if !taken {
			t.Errorf("nobody takes %s", parameter)
		}
	}
}

// The documentation has a line for each strategy, with its parameters and their usual values.
func TestStrategiesAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../docs/strategies.md")
	must(t, err)
	for name, of := range strategies {
		_, row, found := strings.Cut(string(b), "\n| `"+name+"` |")
		row, _, _ = strings.Cut(row, "\n")
		if !found {
			t.Errorf("%s has no line", name)
		}
		if name == "fedyogi" && strings.Contains(row, "as `fedadam`") {
			continue
		}
		for parameter, usual := range of.takes {
			want := "`" + parameter + "`"
			if usual > 0 {
				want += fmt.Sprintf(" %v", usual)
			} else if usual == wanted {
				want += " (must be given)"
			}
			if !strings.Contains(row, want) {
				t.Errorf("%s: no %s in %s", name, want, row)
			}
		}
	}
}
