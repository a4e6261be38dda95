package model

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestFloatPredictor: every row of every batch size has the logit of a naïve network in float64, whatever was predicted
// before.
func TestFloatPredictor(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, spec := range []perceptron{{1, []int{1}}, {9, []int{30}}, {70, []int{65, 3, 200}}} {
		params := random(rng, spec.network(t).Size(), .3)
		p := NewPredictor(spec.network(t), params)
		for _, n := range []int{130, 64, 65, 63, 1, 0} {
			x, logits := random(rng, n*spec.Inputs, 1), make([]float32, n)
			p.Predict(x, logits)
			for i, got := range logits {
				want := naive(spec, wide(params), x[i*spec.Inputs:(i+1)*spec.Inputs])
				if math.Abs(float64(got)-want) > 1e-4*(1+math.Abs(want)) {
					t.Fatalf("%v: logit %d of %d is %v, want %v", spec, i, n, got, want)
				}
			}
		}
	}
}

// int8Tensors are tensors with random weights, and the float parameters that they stand for.
func int8Tensors(rng *rand.Rand, n *Network) (tensors []Int8Tensor, params []float32) {
	for _, d := range n.Tensors() {
		if !d.Weight {
			tensors = append(tensors, Int8Tensor{Floats: random(rng, d.Len(), 1)})
			params = append(params, tensors[len(tensors)-1].Floats...)
			continue
		}
		var q Int8Tensor
		inputs, weights := d.Len()/d.Outputs(), []float32(nil)
		for range d.Outputs() {
			scale := .02 * (1 + rng.Float32())
			q.Scales = append(q.Scales, scale)
			for range inputs {
				w := int8(rng.IntN(255) - 127)
				q.Weights, weights = append(q.Weights, w), append(weights, float32(w)*scale)
			}
		}
		tensors, params = append(tensors, q), append(params, transposed(weights, d.Outputs(), inputs)...)
	}
	return tensors, params
}

// TestInt8Predictor: with inputs that are whole numbers up to 127 a first layer quantises nothing away, so that one
// layer is exact; with more layers each hidden value is off by half a 127th of the row's largest, and the answers by a
// few hundredths of their size.
func TestInt8Predictor(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for _, c := range []struct {
		spec      perceptron
		tolerance float64
	}{{perceptron{9, nil}, 1e-6}, {perceptron{9, []int{30}}, 5e-2}, {perceptron{5, []int{70, 3, 40, 20}}, 5e-2}} {
		tensors, params := int8Tensors(rng, c.spec.network(t))
		p := NewInt8Predictor(c.spec.network(t), tensors)
		const n = 70
		x, logits := make([]float32, n*c.spec.Inputs), make([]float32, n)
		for i := range x {
			x[i] = float32(rng.IntN(255) - 127)
		}
		for i := range n {
			x[i*c.spec.Inputs] = 127 // so that the scale of each row is 1
		}
		p.Predict(x, logits)
		var square, off float64
		for i, got := range logits {
			want := naive(c.spec, wide(params), x[i*c.spec.Inputs:(i+1)*c.spec.Inputs])
			square += want * want
			off += (float64(got) - want) * (float64(got) - want)
		}
		if size := math.Sqrt(square / n); math.Sqrt(off/n) > c.tolerance*size {
			t.Errorf("%v: logits of size %v are off by %v", c.spec, size, math.Sqrt(off/n))
		}
		before := slices.Clone(logits)
		p.Predict(x, logits)
		if !slices.Equal(before, logits) {
			t.Errorf("%v: the same rows get other answers", c.spec)
		}
	}
}

// TestPredictorsDoNotAllocate: a prediction allocates nothing after the first.
func TestPredictorsDoNotAllocate(t *testing.T) {
	rng, spec := rand.New(rand.NewPCG(3, 3)), perceptron{66, []int{300, 16}}
	network := spec.network(t)
	tensors, params := int8Tensors(rng, network)
	x, logits := random(rng, 100*spec.Inputs, 1), make([]float32, 100)
	for name, p := range map[string]*Predictor{"float32": NewPredictor(network, params), "int8": NewInt8Predictor(network, tensors)} {
		if n := testing.AllocsPerRun(3, func() { p.Predict(x, logits) }); n != 0 {
			t.Errorf("%s: 100 predictions allocate %v times", name, n)
		}
	}
}

// TestPredictorsPassNaN: an input that is not a number never becomes an answer that is one.
func TestPredictorsPassNaN(t *testing.T) {
	rng, spec := rand.New(rand.NewPCG(4, 4)), perceptron{9, []int{30, 5}}
	network := spec.network(t)
	tensors, params := int8Tensors(rng, network)
	for name, p := range map[string]*Predictor{"float32": NewPredictor(network, params), "int8": NewInt8Predictor(network, tensors)} {
		x, logits := random(rng, 3*9, 1), make([]float32, 3)
		x[9+4] = nan32
		p.Predict(x, logits)
		if logits[0] != logits[0] || logits[1] == logits[1] || logits[2] != logits[2] {
			t.Errorf("%s: NaN in the second row gives %v", name, logits)
		}
	}
}

// TestInt8OfEveryArchitecture: with int8 weights each answers nearly as with the floats that they stand for: rounding a
// layer's input to 127 steps moves its output by a hundredth or so.
func TestInt8OfEveryArchitecture(t *testing.T) {
	specs := map[string]Spec{
		"grouped": over(LayerSpec{Kind: "conv", Filters: 8, Kernel: 3, Groups: 2, Stride: 2, Padding: 1, Activation: "tanh"}),
		"odd":     over(LayerSpec{Kind: "conv", Filters: 3, Kernel: 3}),
	}
	for _, name := range Architectures() {
		s, err := Named(name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		specs[name] = s
	}
	for _, name := range sortedNames(specs) {
		network := compile(t, specs[name])
		tensors, err := Quantise(network, network.Initial(1))
		if err != nil {
			t.Fatal(err)
		}
		params := make([]float32, network.Size())
		for i, tensor := range network.Tensors() {
			tensors[i].dequantise(tensor, params)
		}
		x := network.someInputs(3)
		got, want := make([]float32, 3*network.Outputs()), make([]float32, 3*network.Outputs())
		NewInt8Predictor(network, tensors).Predict(x, got)
		NewPredictor(network, params).Predict(x, want)
		var off, size float64
		for i, v := range want {
			off += float64(v-got[i]) * float64(v-got[i])
			size += float64(v) * float64(v)
		}
		if !(off <= .03*.03*size) {
			t.Errorf("%s: answers of size %v are off by %v", name, math.Sqrt(size), math.Sqrt(off))
		}
	}
}
