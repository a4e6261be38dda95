package model

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func newTrainer(t testing.TB, network *Network, batch int) *Trainer {
	t.Helper()
	trainer, err := NewTrainer(network, batch)
	if err != nil {
		t.Fatal(err)
	}
	return trainer
}

// train is Train that must succeed, on a copy of the parameters.
func train(t *testing.T, trainer *Trainer, params, x, y []float32, cfg TrainConfig) []float32 {
	t.Helper()
	params = slices.Clone(params)
	if _, err := trainer.Train(t.Context(), params, x, y, cfg); err != nil {
		t.Fatal(err)
	}
	return params
}

// TestPerceptronGradient holds one whole step at rate 1, whose change is the gradient, against central differences of the loss
// of a naïve network in float64. The step is float32 with sums of up to 200 terms: a coordinate may be off by 1e-5 and
// by 1e-4 of the largest, many times less than what a wrong term makes.
func TestPerceptronGradient(t *testing.T) {
	const h = 1e-5
	for _, c := range []struct {
		spec       perceptron
		rows, size int
	}{
		{perceptron{1, []int{1}}, 1, 1},
		{perceptron{5, []int{7, 3}}, 4, 4},
		{perceptron{66, []int{32}}, 20, 32},                  // a batch that is not full
		{perceptron{2, []int{200, 5}}, 70, 70},               // wide
		{perceptron{3, []int{4, 4, 4, 4, 4, 4, 4, 4}}, 9, 9}, // the deepest
	} {
		t.Run(fmt.Sprint(c.spec, c.rows), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(2, uint64(c.rows)))
			before := random(rng, c.spec.network(t).Size(), .5) // biases too
			x, y := random(rng, c.rows*c.spec.Inputs, 1), make([]float32, c.rows)
			for i := range y {
				y[i] = float32(rng.IntN(5)) / 4 // soft targets as well
			}
			after := train(t, newTrainer(t, c.spec.network(t), c.size), before, x, y, TrainConfig{Epochs: 1, Rate: 1})
			at, worst, largest := wide(before), 0.0, 0.0
			for i, p := range at {
				at[i] = p + h
				up := naiveLoss(c.spec, at, x, y)
				at[i] = p - h
				down := naiveLoss(c.spec, at, x, y)
				at[i] = p
				want := (up - down) / (2 * h)
				largest = max(largest, math.Abs(want))
				worst = max(worst, math.Abs(float64(before[i])-float64(after[i])-want))
			}
			if largest < 1e-3 || worst > 1e-5+1e-4*largest {
				t.Errorf("a gradient of up to %v is off by up to %v", largest, worst)
			}
		})
	}
}

// TestEpoch: one pass uses each example once, and the last, smaller batch by its own mean. With a tiny rate the change
// is the sum of the gradients at the start: of three examples in batches of two, one counts whole and two count half.
func TestEpoch(t *testing.T) {
	const rate = 1e-3
	network, rng := compile(t, MLP(4, 3)), rand.New(rand.NewPCG(2, 2))
	params, x, y := random(rng, network.Size(), .5), random(rng, 3*4, 1), []float32{1, 0, 1}
	one := newTrainer(t, network, 1)
	var gradients [3][]float32
	for i := range gradients {
		gradients[i] = train(t, one, params, x[4*i:4*i+4], y[i:i+1], TrainConfig{Epochs: 1, Rate: 1})
		for k, p := range params {
			gradients[i][k] -= p
		}
	}
	last := map[int]bool{}
	for seed := range uint64(10) {
		after := train(t, newTrainer(t, network, 2), params, x, y, TrainConfig{Epochs: 1, Rate: rate, Seed: seed})
		for whole := range gradients {
			off := 0.0
			for k, p := range params {
				want := gradients[whole][k] / 2
				for _, g := range gradients {
					want += g[k] / 2
				}
				off = max(off, math.Abs(float64(after[k]-p)/rate-float64(want)))
			}
			if off < 2e-3 {
				last[whole] = true
			}
		}
	}
	if len(last) != 3 {
		t.Errorf("over ten seeds the last batches were the examples %v, want each of the three", last)
	}
}

// Training ends before the next step once its context has, however many are left, and each step can be held up. What was
// stopped changes nothing.
func TestTrainingStopsBetweenSteps(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	paused := 0
	cfg := TrainConfig{Epochs: math.MaxInt, Rate: .1, Pause: func() {
		if paused++; paused == 3 {
			cancel()
		}
	}}
	network := compile(t, MLP(1, 2))
	params := network.Initial(1)
	done, err := newTrainer(t, network, 1).Train(ctx, params, make([]float32, 2), make([]float32, 2), cfg)
	if done.Steps != 3 || paused != 3 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d steps after %d pauses, %v; want 3, 3 and the context's error", done.Steps, paused, err)
	}
	if !slices.Equal(params, network.Initial(1)) {
		t.Error("a training that was stopped leaves its steps in the parameters")
	}
}

func TestSteps(t *testing.T) {
	network := compile(t, MLP(1, 2))
	trainer := newTrainer(t, network, 4)
	for _, c := range []struct{ rows, epochs, want int }{{1, 1, 1}, {4, 2, 2}, {5, 2, 4}, {9, 0, 0}} {
		params := network.Initial(1)
		done, err := trainer.Train(t.Context(), params, make([]float32, c.rows), make([]float32, c.rows), TrainConfig{Epochs: c.epochs, Rate: .1})
		if err != nil || done.Steps != c.want {
			t.Errorf("%d epochs over %d rows: %d steps, %v; want %d", c.epochs, c.rows, done.Steps, err, c.want)
		}
		if c.want == 0 && !slices.Equal(params, network.Initial(1)) {
			t.Errorf("%d epochs over %d rows change the parameters", c.epochs, c.rows)
		}
	}
}

// rings is a set that no linear model separates: positives within a circle, negatives around it, with a gap.
func rings(n int) (x, y []float32) {
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range n {
		angle, radius := rng.Float64()*2*math.Pi, rng.Float64()
		if i%2 == 0 {
			radius += 2
		}
		x = append(x, float32(radius*math.Cos(angle)), float32(radius*math.Sin(angle)))
		y = append(y, float32(i%2))
	}
	return x, y
}

func TestTrainingLearns(t *testing.T) {
	network := compile(t, MLP(2, 16))
	x, y := rings(200)
	params, trainer := network.Initial(4), newTrainer(t, network, 10)
	start := Evaluate(NewPredictor(network, params), x, y)
	previous := start.MeanLoss()
	for round := range uint64(3) {
		params = train(t, trainer, params, x, y, TrainConfig{Epochs: 20, Rate: .1, Seed: round})
		loss := Evaluate(NewPredictor(network, params), x, y).MeanLoss()
		if loss >= previous {
			t.Errorf("round %d: loss rose from %v to %v", round, previous, loss)
		}
		previous = loss
	}
	e := Evaluate(NewPredictor(network, params), x, y)
	if e.MeanLoss() > .1 || e.Accuracy() != 1 || e.AUC() != 1 {
		t.Errorf("separable rings: loss %v, accuracy %v, AUC %v", e.MeanLoss(), e.Accuracy(), e.AUC())
	}
}

// TestTrainingIsDeterministic: parameters, data and seed decide the bits; what a trainer did before does not.
func TestTrainingIsDeterministic(t *testing.T) {
	network := compile(t, MLP(2, 16, 9))
	x, y := rings(101)
	cfg := TrainConfig{Epochs: 3, Rate: .05, Seed: 7}
	fresh := train(t, newTrainer(t, network, 16), network.Initial(1), x, y, cfg)
	used := newTrainer(t, network, 16)
	train(t, used, network.Initial(9), x[:2*33], y[:33], TrainConfig{Epochs: 2, Rate: 1, Seed: 1})
	if !slices.Equal(fresh, train(t, used, network.Initial(1), x, y, cfg)) {
		t.Error("a trainer that was used before trains to other bits")
	}
	cfg.Seed++
	if slices.Equal(fresh, train(t, used, network.Initial(1), x, y, cfg)) {
		t.Error("another seed trains to the same bits")
	}
}

// TestTrainingDoesNotAllocate: after the first, a training allocates nothing.
func TestTrainingDoesNotAllocate(t *testing.T) {
	network := compile(t, MLP(66, 300, 32))
	trainer, params := newTrainer(t, network, 96), network.Initial(1)
	x, y := make([]float32, 200*66), make([]float32, 200)
	if n := testing.AllocsPerRun(3, func() {
		if _, err := trainer.Train(t.Context(), params, x, y, TrainConfig{Epochs: 2, Rate: .1}); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a training allocates %v times", n)
	}
}

func TestTrainRefuses(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	network := compile(t, MLP(2, 1)) // two weights, a bias, a weight, a bias
	good, x, y := []float32{.1, .2, .3, .4, .5}, []float32{1, 2, 3, 4}, []float32{0, 1}
	with := func(v []float32, i int, to float32) []float32 {
		v = slices.Clone(v)
		v[i] = to
		return v
	}
	for _, c := range []struct {
		name         string
		params, x, y []float32
		cfg          TrainConfig
		want         string
	}{
		{"short parameters", good[:4], x, y, TrainConfig{Epochs: 1}, "4 parameters, want 5"},
		{"short features", good, x[:3], y, TrainConfig{Epochs: 1}, "3 values and 2 targets, want 2 and 1 an example"},
		{"no examples", good, nil, nil, TrainConfig{Epochs: 1}, "there are no examples"},
		{"parameter NaN", with(good, 4, nan), x, y, TrainConfig{}, "parameter 0 of layers.1.bias is NaN before the first step"},
		{"parameter infinite", with(good, 0, -inf), x, y, TrainConfig{}, "parameter 0 of layers.0.weight is -Inf before the first step"},
		{"feature NaN", good, with(x, 2, nan), y, TrainConfig{Epochs: 1, Rate: 1}, "example 1: value 0 is NaN"},
		{"feature infinite", good, with(x, 1, inf), y, TrainConfig{Epochs: 1, Rate: 1}, "example 0: value 1 is +Inf"},
		{"target NaN", good, x, with(y, 1, nan), TrainConfig{Epochs: 1}, "example 1: target NaN, want 0 to 1"},
		{"target above 1", good, x, with(y, 0, 1.5), TrainConfig{Epochs: 1}, "example 0: target 1.5"},
		{"target below 0", good, x, with(y, 0, -1), TrainConfig{Epochs: 1}, "example 0: target -1"},
		{"rate NaN", good, x, y, TrainConfig{Epochs: 1, Rate: math.NaN()}, "learning rate NaN"},
		{"rate infinite", good, x, y, TrainConfig{Epochs: 1, Rate: math.Inf(1)}, "learning rate +Inf"},
		{"rate negative", good, x, y, TrainConfig{Epochs: 1, Rate: -1}, "learning rate -1"},
		{"epochs negative", good, x, y, TrainConfig{Epochs: -1, Rate: 1}, "-1 epochs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			params := slices.Clone(c.params)
			_, err := newTrainer(t, network, 2).Train(t.Context(), params, c.x, c.y, c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			for i, v := range c.params {
				if math.Float32bits(params[i]) != math.Float32bits(v) {
					t.Errorf("parameter %d was changed", i)
				}
			}
		})
	}
}

// TestDivergedTrainingIsAnError: a learning rate that is far too high ends in an error that says where, not in a model:
// the loss of a later step is none, or the last step leaves parameters that are none.
func TestDivergedTrainingIsAnError(t *testing.T) {
	network := compile(t, MLP(2, 16))
	x, y := rings(50)
	params := network.Initial(1)
	for _, c := range []struct {
		name string
		cfg  TrainConfig
		want string
	}{
		{"fused", TrainConfig{Epochs: 50, Rate: 1e30}, `^train: loss is (NaN|\+Inf) at step %d, in epoch 1: training diverged; lower the learning rate$`},
		{"written", TrainConfig{Epochs: 50, Rate: 1e30, Optimiser: Optimiser{Kind: "momentum"}}, `^train: loss is (NaN|\+Inf) at step %d, in epoch 1: `},
		{"after two epochs", TrainConfig{Epochs: 50, Rate: 1e-3, Adjust: infiniteAt(20)}, `^train: loss is NaN at step %d, in epoch 3: `},
	} {
		done, err := newTrainer(t, network, 5).Train(t.Context(), params, x, y, c.cfg)
		want := regexp.MustCompile(fmt.Sprintf(c.want, done.Steps+1))
		if !errors.Is(err, ErrDiverged) || !want.MatchString(err.Error()) {
			t.Errorf("%s: after %d steps: %v, want %s", c.name, done.Steps, err, want)
		}
		if !slices.Equal(params, network.Initial(1)) {
			t.Errorf("%s: what diverged is left in the parameters", c.name)
		}
	}
	cfg := TrainConfig{Epochs: 1, Rate: 1e-3, Adjust: infiniteAt(1)}
	_, err := newTrainer(t, network, 50).Train(t.Context(), params, x, y, cfg)
	if want := "train: parameter 0 of layers.0.weight is -Inf after 1 steps: training diverged"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("the last step: %v, want %q", err, want)
	}
	if !slices.Equal(params, network.Initial(1)) {
		t.Error("what diverged in the last step is left in the parameters")
	}
}

// infiniteAt lets the first parameter's gradient overflow in a step.
func infiniteAt(step int) func(at int, params, grad []float32) {
	steps := 0
	return func(_ int, _, grad []float32) {
		if steps++; steps == step {
			grad[0] = inf32
		}
	}
}
