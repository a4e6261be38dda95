package model

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// reference is an optimiser as its paper has it, in float64.
type reference struct {
	Optimiser
	mean, squares []float64
	steps         int
}

func (r *reference) step(w, g []float64, rate float64) {
	if r.mean == nil {
		r.mean, r.squares = make([]float64, len(w)), make([]float64, len(w))
	}
	r.steps++
	for i := range w {
		gi := g[i]
		if r.Kind != "adamw" {
			gi += r.Decay * w[i]
		}
		switch r.Kind {
		case "momentum":
			r.mean[i] = .8*r.mean[i] + gi
			w[i] -= rate * r.mean[i]
		case "nesterov":
			r.mean[i] = .8*r.mean[i] + gi
			w[i] -= rate * (gi + .8*r.mean[i])
		case "rmsprop":
			r.squares[i] = .99*r.squares[i] + .01*gi*gi
			w[i] -= rate * gi / (math.Sqrt(r.squares[i]) + 1e-8)
		case "adagrad":
			r.squares[i] += gi * gi
			w[i] -= rate * gi / (math.Sqrt(r.squares[i]) + 1e-8)
		case "adam", "adamw":
			r.mean[i] = .9*r.mean[i] + .1*gi
			r.squares[i] = .999*r.squares[i] + .001*gi*gi
			m, v := r.mean[i]/(1-math.Pow(.9, float64(r.steps))), r.squares[i]/(1-math.Pow(.999, float64(r.steps)))
			if r.Kind == "adamw" {
				w[i] -= rate * r.Decay * w[i]
			}
			w[i] -= rate * m / (math.Sqrt(v) + 1e-8)
		default:
			w[i] -= rate * gi
		}
	}
}

// linearGradient is the gradient of half the mean squared error of a linear model, with a bias, in float64.
func linearGradient(w []float64, x, y []float32) []float64 {
	k := len(w) - 1
	g := make([]float64, len(w))
	for i, target := range y {
		e := w[k] - float64(target)
		for j := range k {
			e += w[j] * float64(x[i*k+j])
		}
		for j := range k {
			g[j] += e * float64(x[i*k+j]) / float64(len(y))
		}
		g[k] += e / float64(len(y))
	}
	return g
}

// TestOptimisers: twelve steps on all examples of a linear model go where the papers' formulas go in float64, with weight
// decay and without.
func TestOptimisers(t *testing.T) {
	network := compile(t, Spec{[]int{3}, []LayerSpec{{Kind: "dense", Units: 1}}, "squared"})
	x, y := reals(3*10), reals(10)
	for _, kind := range sortedNames(optimisers) {
		for _, decay := range []float64{0, .1} {
			o := Optimiser{Kind: kind, Decay: decay}
			if kind == "momentum" || kind == "nesterov" {
				o.Momentum = .8
			}
			params := network.Initial(1)
			w, r := wide(params), reference{Optimiser: o}
			for range 12 {
				r.step(w, linearGradient(w, x, y), .05)
			}
			if _, err := newTrainer(t, network, 10).Train(t.Context(), params, x, y, TrainConfig{Epochs: 12, Rate: .05, Optimiser: o}); err != nil {
				t.Fatal(err)
			}
			for i, v := range params {
				if math.Abs(float64(v)-w[i]) > 1e-5 {
					t.Errorf("%s, decay %v: parameter %d is %v, want %v", kind, decay, i, v, w[i])
				}
			}
		}
	}
}

// TestGradientDescent takes one step an epoch whatever the batch, with the mean over all examples.
func TestGradientDescent(t *testing.T) {
	network := compile(t, MLP(4, 5))
	x, y, start := reals(4*10), indices(10, 2), network.Initial(1)
	cfg := TrainConfig{Epochs: 3, Rate: .5, Optimiser: Optimiser{Kind: "gd"}}
	small := train(t, newTrainer(t, network, 3), start, x, y, cfg)
	cfg.Optimiser.Kind = "sgd"
	large := train(t, newTrainer(t, network, 10), start, x, y, cfg)
	for i, v := range small {
		if math.Abs(float64(v-large[i])) > 1e-6 {
			t.Errorf("parameter %d is %v in chunks of 3, %v at once", i, v, large[i])
		}
	}
}

// TestClip: a gradient above the norm is scaled down to it, one below is left.
func TestClip(t *testing.T) {
	network := compile(t, MLP(4, 5))
	x, y, start := reals(4*10), indices(10, 2), network.Initial(1)
	moved := func(clip float64) float64 {
		after := train(t, newTrainer(t, network, 10), start, x, y, TrainConfig{Epochs: 1, Rate: 1, Clip: clip})
		sum := 0.0
		for i, v := range after {
			sum += float64(v-start[i]) * float64(v-start[i])
		}
		return math.Sqrt(sum)
	}
	free := moved(0)
	if got := moved(free / 3); math.Abs(got-free/3) > 1e-5*free {
		t.Errorf("clipped to %v the step is %v long", free/3, got)
	}
	if got := moved(free * 3); math.Abs(got-free) > 1e-5*free {
		t.Errorf("a step of %v is %v long under a clip of %v", free, got, 3*free)
	}
}

// TestProximal: with the global parameters at the start, FedProx's term is nothing in the first step and pulls back after.
func TestProximal(t *testing.T) {
	network := compile(t, Spec{[]int{3}, []LayerSpec{{Kind: "dense", Units: 1}}, "squared"})
	x, y, start := reals(3*10), reals(10), network.Initial(1)
	w, global := wide(start), wide(start)
	for range 5 {
		g := linearGradient(w, x, y)
		for i := range w {
			w[i] -= .1 * (g[i] + .7*(w[i]-global[i]))
		}
	}
	after := train(t, newTrainer(t, network, 10), start, x, y, TrainConfig{Epochs: 5, Rate: .1, Adjust: Proximal(start, .7)})
	for i, v := range after {
		if math.Abs(float64(v)-w[i]) > 1e-5 {
			t.Errorf("parameter %d is %v, want %v", i, v, w[i])
		}
	}
}

// TestOptimisersBeginAnew: what a trainer did before leaves no trace in the next training, and nothing is allocated for it.
func TestOptimisersBeginAnew(t *testing.T) {
	network := compile(t, MLP(4, 5))
	x, y, start := reals(4*10), indices(10, 2), network.Initial(1)
	for _, kind := range sortedNames(optimisers) {
		cfg := TrainConfig{Epochs: 3, Rate: .01, Seed: 1, Clip: 1, Optimiser: Optimiser{Kind: kind, Decay: .01}}
		trainer := newTrainer(t, network, 4)
		first := train(t, trainer, start, x, y, cfg)
		if !slices.Equal(first, train(t, trainer, start, x, y, cfg)) {
			t.Errorf("%s: a second training goes elsewhere", kind)
		}
		if n := testing.AllocsPerRun(2, func() { _, _ = trainer.Train(t.Context(), first, x, y, cfg) }); n != 0 {
			t.Errorf("%s: a training allocates %v times", kind, n)
		}
	}
}

func TestSchedules(t *testing.T) {
	for _, c := range []struct {
		s    Schedule
		want []float64 // of ten steps, two an epoch
	}{
		{Schedule{}, []float64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
		{Schedule{Kind: "constant", Warmup: 4}, []float64{.25, .5, .75, 1, 1, 1, 1, 1, 1, 1}},
		{Schedule{Kind: "step", Every: 2, Factor: .5}, []float64{1, 1, 1, 1, .5, .5, .5, .5, .25, .25}},
		{Schedule{Kind: "cosine"}, []float64{1, .975528, .904508, .793893, .654508, .5, .345492, .206107, .095492, .024472}},
		{Schedule{Kind: "cosine", Warmup: 2}, []float64{.5, 1, 1, .961940, .853553, .691342, .5, .308658, .146447, .038060}},
	} {
		if err := c.s.Validate(); err != nil {
			t.Fatal(err)
		}
		for i, want := range c.want {
			if got := c.s.at(i, 10, 2); math.Abs(got-want) > 1e-6 {
				t.Errorf("%+v: step %d at %v, want %v", c.s, i, got, want)
			}
		}
	}
}

func TestTrainConfigRefuses(t *testing.T) {
	for want, cfg := range map[string]TrainConfig{
		`optimiser "sgdx", want one of adagrad, adam`:                       {Optimiser: Optimiser{Kind: "sgdx"}},
		"optimiser: momentum 1, want":                                       {Optimiser: Optimiser{Kind: "momentum", Momentum: 1}},
		"optimiser: beta1 -1, want above 0 and below 1":                     {Optimiser: Optimiser{Beta1: -1}},
		"optimiser: decay 1, want at least 0 and below 1":                   {Optimiser: Optimiser{Decay: 1}},
		"optimiser: momentum is not for sgd, but for momentum, nesterov":    {Optimiser: Optimiser{Momentum: .9}},
		"optimiser: momentum is not for adam, but for momentum, nesterov":   {Optimiser: Optimiser{Kind: "adam", Momentum: .9}},
		"optimiser: beta1 is not for rmsprop, but for adam, adamw":          {Optimiser: Optimiser{Kind: "rmsprop", Beta1: .9}},
		"optimiser: beta2 is not for momentum, but for adam, adamw, rmspro": {Optimiser: Optimiser{Kind: "momentum", Beta2: .9}},
		"optimiser: epsilon is not for gd, but for adagrad, adam, adamw":    {Optimiser: Optimiser{Kind: "gd", Epsilon: 1e-6}},
		"optimiser: decay NaN, want":                                        {Optimiser: Optimiser{Decay: math.NaN()}},
		`schedule "steps", want`:                                            {Schedule: Schedule{Kind: "steps"}},
		"schedule: every 0, want at least 1":                                {Schedule: Schedule{Kind: "step", Factor: .5}},
		"schedule: factor 2, want":                                          {Schedule: Schedule{Kind: "step", Every: 1, Factor: 2}},
		"schedule: warmup -1":                                               {Schedule: Schedule{Warmup: -1}},
		"schedule: every and factor belong to step":                         {Schedule: Schedule{Kind: "cosine", Every: 1}},
		"clip -1, want a finite norm of at least 0":                         {Clip: -1},
		"clip NaN, want a finite norm of at least 0":                        {Clip: math.NaN()},
		"learning rate +Inf, want a finite one":                             {Rate: math.Inf(1)},
		"-1 epochs, want at least 0":                                        {Epochs: -1},
	} {
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
