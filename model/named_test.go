package model

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// smallShapes are inputs of architectures that are larger than a test needs.
var smallShapes = map[string]struct {
	input   []int
	outputs int
}{
	"mlp": {[]int{20}, 3}, "cnn": {[]int{4, 5, 1}, 3}, "mobile": {[]int{8, 8, 2}, 3}, "shuffle": {[]int{8, 8, 3}, 3},
	"rnn": {[]int{6}, 11}, "lstm": {[]int{6}, 11}, "recommend-lstm": {[]int{5, 2}, 1},
}

// eachArchitecture runs a test for every architecture with a name, and for layers and losses that none of them has, with
// examples.
func eachArchitecture(t *testing.T, examples int, each func(t *testing.T, n *Network, x, y []float32)) {
	specs := map[string]Spec{
		"gru": CharLM("gru", 6, 11, 20, 2),
		"bpr": Factorisation(10, 12, 8, 3, "bpr"),
		"dropout": {[]int{20}, []LayerSpec{{Kind: "dense", Units: 30, Activation: "tanh"}, {Kind: "layernorm"}, {Kind: "dropout", Rate: .1},
			{Kind: "dense", Units: 4}}, "hinge"},
	}
	for _, name := range Architectures() {
		s, err := Named(name, smallShapes[name].input, smallShapes[name].outputs)
		if err != nil {
			t.Fatal(err)
		}
		specs[name] = s
	}
	for _, name := range sortedNames(specs) {
		t.Run(name, func(t *testing.T) {
			n := compile(t, specs[name])
			each(t, n, n.someInputs(examples), n.someTargets(examples))
		})
	}
}

// someTargets are targets that the network's loss takes.
func (n *Network) someTargets(examples int) []float32 {
	count := examples * n.Targets()
	switch n.Spec().Loss {
	case "squared":
		return reals(count)
	case "logistic":
		return indices(count, 2)
	}
	shape := n.OutputShape()
	return indices(count, max(shape[len(shape)-1], 2))
}

// both are predictors over float32 and int8 weights.
func both(t *testing.T, n *Network, params []float32) map[string]*Predictor {
	tensors, err := Quantise(n, params)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*Predictor{"float32": NewPredictor(n, params), "int8": NewInt8Predictor(n, tensors)}
}

// Every architecture learns twenty examples by heart, and its predictors answer what it learnt: float32 with what the
// forward pass of training gives, int8 nearly.
func TestArchitecturesTrainAndPredict(t *testing.T) {
	const examples = 20
	eachArchitecture(t, examples, func(t *testing.T, n *Network, x, y []float32) {
		trainer, params := newTrainer(t, n, examples), n.Initial(1)
		copy(trainer.x, x)
		copy(trainer.y, y)
		before := trainer.lossAt(params, examples)
		cfg := TrainConfig{Epochs: 30, Rate: .005, Clip: 5, Optimiser: Optimiser{Kind: "adam"}}
		params = train(t, newTrainer(t, n, 5), params, x, y, cfg)
		if after := trainer.lossAt(params, examples); !(after < .8*before) {
			t.Errorf("the loss went from %v to %v", before, after)
		}
		for i := range trainer.passes { // as in a prediction
			trainer.passes[i].train = trainer.passes[i].scratch != nil && n.nodes[i].kind != "dropout"
		}
		trainer.lossAt(params, examples)
		want := trainer.passes[len(n.nodes)-1].out
		size := math.Sqrt(sumSquares(want))
		for name, p := range both(t, n, params) {
			got := make([]float32, examples*n.Outputs())
			p.Predict(x, got)
			for i := range got {
				got[i] -= want[i]
			}
			tolerance := map[string]float64{"float32": 1e-5, "int8": .05}[name]
			if off := math.Sqrt(sumSquares(got)); !(off <= tolerance*size) {
				t.Errorf("%s: answers of size %v are off by %v", name, size, off)
			}
		}
	})
}

func sumSquares(x []float32) (sum float64) {
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return sum
}

// Training allocates nothing after the first, whatever the optimiser, and neither does prediction, also where the garbage
// collector ran meanwhile.
func TestArchitecturesDoNotAllocate(t *testing.T) {
	eachArchitecture(t, 20, func(t *testing.T, n *Network, x, y []float32) {
		trainer, params := newTrainer(t, n, 8), n.Initial(1)
		for _, cfg := range []TrainConfig{{}, {Clip: 1}, {Optimiser: Optimiser{Kind: "adam"}}, {Optimiser: Optimiser{Kind: "gd"}},
			{Adjust: Proximal(n.Initial(1), .1), Schedule: Schedule{Kind: "cosine", Warmup: 2}}} {
			cfg.Epochs, cfg.Rate = 2, .001
			if allocated := testing.AllocsPerRun(2, func() {
				if _, err := trainer.Train(t.Context(), params, x, y, cfg); err != nil {
					t.Fatal(err)
				}
			}); allocated != 0 {
				t.Errorf("%+v: a training allocates %v times", cfg, allocated)
			}
		}
		out := make([]float32, 20*n.Outputs())
		for name, p := range both(t, n, params) {
			p.Predict(x, out)
			runtime.GC()
			runtime.GC()
			if allocated := testing.AllocsPerRun(2, func() { p.Predict(x, out) }); allocated != 0 {
				t.Errorf("%s: a prediction allocates %v times", name, allocated)
			}
		}
	})
}

// Callers at the same time each get their own answer.
func TestArchitecturesAreShared(t *testing.T) {
	eachArchitecture(t, 6, func(t *testing.T, n *Network, x, _ []float32) {
		for name, p := range both(t, n, n.Initial(1)) {
			width, outputs := n.Inputs(), n.Outputs()
			want := make([]float32, 6*outputs)
			for i := range 6 {
				p.Predict(x[i*width:][:width], want[i*outputs:][:outputs])
			}
			var callers sync.WaitGroup
			for i := range 6 {
				callers.Go(func() {
					got := make([]float32, outputs)
					for range 10 {
						if p.Predict(x[i*width:][:width], got); !slices.Equal(got, want[i*outputs:][:outputs]) {
							t.Errorf("%s: caller %d gets another answer than alone", name, i)
						}
					}
				})
			}
			callers.Wait()
		}
	})
}

// Parameters, data and seed decide the bits, whatever a trainer did before on other rows; and an optimiser's steps on
// seen rows alone are its steps on all, where the others have no gradient, no decay and no memory.
func TestArchitecturesAreDeterministic(t *testing.T) {
	eachArchitecture(t, 20, func(t *testing.T, n *Network, x, y []float32) {
		for _, kind := range []string{"sgd", "momentum", "adam"} {
			cfg := TrainConfig{Epochs: 2, Rate: .005, Seed: 7, Optimiser: Optimiser{Kind: kind}}
			fresh := train(t, newTrainer(t, n, 8), n.Initial(1), x, y, cfg)
			used := newTrainer(t, n, 8)
			train(t, used, n.Initial(2), x[:n.Inputs()*3], y[:n.Targets()*3], TrainConfig{Epochs: 1, Rate: .01, Optimiser: Optimiser{Kind: kind}})
			if !slices.Equal(fresh, train(t, used, n.Initial(1), x, y, cfg)) {
				t.Errorf("%s: a trainer that was used before trains to other bits", kind)
			}
			cfg.Seed++
			if slices.Equal(fresh, train(t, used, n.Initial(1), x, y, cfg)) {
				t.Errorf("%s: another seed trains to the same bits", kind)
			}
		}
	})
}

// The fused steps of plain SGD and those of a written gradient agree, with rows that come twice in a batch.
func TestFusedStepsAsWritten(t *testing.T) {
	eachArchitecture(t, 20, func(t *testing.T, n *Network, x, y []float32) {
		cfg := TrainConfig{Epochs: 2, Rate: .01, Seed: 3}
		fused := train(t, newTrainer(t, n, 8), n.Initial(1), x, y, cfg)
		cfg.Clip = 1e9
		for i, v := range train(t, newTrainer(t, n, 8), n.Initial(1), x, y, cfg) {
			if math.Abs(float64(v-fused[i])) > 1e-5 {
				t.Fatalf("%s: %v in one step, %v in two", n.parameter(i), fused[i], v)
			}
		}
	})
}

// A dot product of int8 that is longer than the kernel takes is made of parts, which allocate nothing either.
func TestDeepInt8(t *testing.T) {
	const wide = 70_000
	for name, s := range map[string]Spec{
		"dense": {[]int{wide}, []LayerSpec{{Kind: "dense", Units: 3}}, "squared"},
		"conv":  {[]int{1, 2, wide}, []LayerSpec{{Kind: "conv", Filters: 3, Kernel: 1}}, "squared"},
		"rnn":   {[]int{2, wide}, []LayerSpec{{Kind: "rnn", Units: 3}}, "squared"},
		"gru":   {[]int{wide}, []LayerSpec{{Kind: "gru", Units: 2}}, "squared"},
	} {
		n := compile(t, s)
		params, x := random(rand.New(rand.NewPCG(1, 1)), n.Size(), .004), n.someInputs(2)
		p := both(t, n, params)
		want, got := make([]float32, 2*n.Outputs()), make([]float32, 2*n.Outputs())
		p["float32"].Predict(x, want)
		p["int8"].Predict(x, got)
		for i, v := range want {
			if math.Abs(float64(v-got[i])) > .03 {
				t.Errorf("%s: output %d is %v, want %v", name, i, got[i], v)
			}
		}
		if allocated := testing.AllocsPerRun(2, func() { p["int8"].Predict(x, got) }); allocated != 0 {
			t.Errorf("%s: a prediction allocates %v times", name, allocated)
		}
	}
}

// A value that is not finite is named by its place, wherever it is and whichever layers it goes through, and none of what
// it spoils is kept. Ids are held against tables before.
func TestArchitecturesRefuseWhatIsNotFinite(t *testing.T) {
	const examples = 6
	eachArchitecture(t, examples, func(t *testing.T, n *Network, x, y []float32) {
		trainer, start := newTrainer(t, n, 4), n.Initial(1)
		for _, cfg := range []TrainConfig{{}, {Optimiser: Optimiser{Kind: "adam"}}, {Clip: 1}} {
			cfg.Epochs, cfg.Rate = 1, .001
			for _, bad := range []float32{nan32, inf32, -inf32} {
				for at := 0; at < len(x); at += 1 + len(x)/5 {
					x, params := slices.Clone(x), slices.Clone(start)
					x[at] = bad
					_, err := trainer.Train(t.Context(), params, x, y, cfg)
					place := fmt.Sprintf("example %d: value %d is %v", at/n.Inputs(), at%n.Inputs(), bad)
					if !errors.Is(err, ErrNaN) && !errors.Is(err, ErrID) || !strings.Contains(err.Error(), place) {
						t.Fatalf("%+v: %v, want %q", cfg, err, place)
					}
					if !slices.Equal(params, start) {
						t.Fatalf("%+v: %s: parameters have changed", cfg, place)
					}
				}
			}
		}
	})
}
