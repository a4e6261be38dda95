package model

import (
	"math"
	"testing"
)

// Two steps at rate .1 and one at half of it, by hand. Plain: .1 + .1 + .05 = .25. Pulled back by 2 times the distance:
// .1, then .1·(1 − .2) = .08 more, then .05·(1 − .36) = .032 more: .212. With momentum .5 velocities are 1, 1.5, 1.75:
// .1 + .15 + .0875 = .3375. Nesterov moves by 1 + .5·velocity, 1.5, 1.75, 1.875: .15 + .175 + .09375 = .41875.
func TestTravelByHand(t *testing.T) {
	for _, c := range []struct {
		kind string
		pull float64
		want float64
	}{{"", 0, .25}, {"gd", 0, .25}, {"sgd", 2, .212}, {"momentum", 0, .3375}, {"nesterov", 0, .41875}} {
		cfg := TrainConfig{Epochs: 3, Rate: .1, Optimiser: Optimiser{Kind: c.kind}, Schedule: Schedule{Kind: "step", Every: 2, Factor: .5}}
		if c.kind == "momentum" || c.kind == "nesterov" {
			cfg.Optimiser.Momentum = .5
		}
		if got, err := cfg.Travel(3, c.pull); err != nil || math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s, pulled by %v: %v, %v, want %v", c.kind, c.pull, got, err, c.want)
		}
	}
	for _, kind := range []string{"adam", "adamw", "adagrad", "rmsprop"} {
		if _, err := (&TrainConfig{Optimiser: Optimiser{Kind: kind}}).Travel(1, 0); err == nil {
			t.Errorf("%s: no error", kind)
		}
	}
}

// The closed forms of Wang et al. 2020, Table 1: ‖a‖₁ = (τ − ρ(1−ρ^τ)/(1−ρ))/(1−ρ) with momentum ρ, and
// (1 − (1−α)^τ)/α with α = ημ.
func TestTravelIsThePapers(t *testing.T) {
	const rho, eta, mu = .9, .01, 5.
	for _, steps := range []int{1, 2, 10, 940} {
		tau := float64(steps)
		momentum := (tau - rho*(1-math.Pow(rho, tau))/(1-rho)) / (1 - rho)
		prox := (1 - math.Pow(1-eta*mu, tau)) / (eta * mu)
		for _, c := range []struct {
			o          Optimiser
			pull, want float64
		}{{Optimiser{Kind: "momentum"}, 0, momentum}, {Optimiser{}, mu, prox}, {Optimiser{}, 0, tau}} {
			cfg := TrainConfig{Epochs: 1, Rate: eta, Optimiser: c.o}
			if got, err := cfg.Travel(steps, c.pull); err != nil || math.Abs(got/eta-c.want) > 1e-9*c.want {
				t.Errorf("%+v after %d steps: %v, %v, want %v", c.o, steps, got/eta, err, c.want)
			}
		}
	}
}

// What Travel says is what a training does whose gradient is made to be 1 everywhere, plus the pull.
func TestTravelIsWhatTrainingDoes(t *testing.T) {
	n, err := Spec{Input: []int{1}, Layers: []LayerSpec{{Name: "only", Kind: "dense", Units: 1}}, Loss: "squared"}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	x, y := make([]float32, 7), make([]float32, 7)
	for _, kind := range []string{"gd", "momentum", "nesterov"} {
		for _, pull := range []float64{0, 1.5} {
			cfg := TrainConfig{Epochs: 4, Rate: .05, Optimiser: Optimiser{Kind: kind}, Schedule: Schedule{Kind: "cosine", Warmup: 3}}
			params := make([]float32, 2)
			cfg.Adjust = func(_ int, params, grad []float32) {
				for i := range grad {
					grad[i] = 1 + float32(pull)*params[i]
				}
			}
			trainer, err := NewTrainer(n, 2)
			if err != nil {
				t.Fatal(err)
			}
			done, err := trainer.Train(t.Context(), params, x, y, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := cfg.Travel(done.Steps, pull); err != nil || math.Abs(got+float64(params[0])) > 1e-6 {
				t.Errorf("%s, pulled by %v: %v, %v, training moved by %v", kind, pull, got, err, -params[0])
			}
		}
	}
}
