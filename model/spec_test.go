package model

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// naive is the logit of one row in float64, read off the flat parameters: for each layer its weights, outputs ×
// inputs, then its bias.
func naive(spec Spec, params []float64, row []float32) float64 {
	in := make([]float64, len(row))
	for i, v := range row {
		in[i] = float64(v)
	}
	for k, outputs := range append(slices.Clone(spec.Hidden), 1) {
		weights, bias := params[:outputs*len(in)], params[outputs*len(in):]
		out := make([]float64, outputs)
		for o := range out {
			out[o] = bias[o]
			for i, v := range in {
				out[o] += weights[o*len(in)+i] * v
			}
			if k < len(spec.Hidden) {
				out[o] = math.Max(out[o], 0)
			}
		}
		in, params = out, bias[outputs:]
	}
	return in[0]
}

// naiveLoss is the mean cross entropy over the rows.
func naiveLoss(spec Spec, params []float64, x, y []float32) float64 {
	loss := 0.0
	for i, label := range y {
		p := 1 / (1 + math.Exp(-naive(spec, params, x[i*spec.Inputs:(i+1)*spec.Inputs])))
		loss -= float64(label)*math.Log(p) + (1-float64(label))*math.Log(1-p)
	}
	return loss / float64(len(y))
}

func wide(params []float32) []float64 {
	w := make([]float64, len(params))
	for i, p := range params {
		w[i] = float64(p)
	}
	return w
}

// random is n values, normal with the given deviation.
func random(rng *rand.Rand, n int, deviation float64) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64() * deviation)
	}
	return x
}

func TestSpecRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		spec Spec
		want string
	}{
		{"no inputs", Spec{0, []int{1}}, "0 inputs, want 1 to 2^17"},
		{"negative inputs", Spec{-1, []int{1}}, "-1 inputs"},
		{"too many inputs", Spec{1<<17 + 1, []int{1}}, "131073 inputs"},
		{"no hidden layer", Spec{1, nil}, "0 hidden layers, want 1 to 8"},
		{"nine hidden layers", Spec{1, make([]int, 9)}, "9 hidden layers"},
		{"no width", Spec{1, []int{3, 0}}, "hidden layer 2 of width 0, want 1 to 2^14"},
		{"too wide", Spec{1, []int{1<<14 + 1}}, "hidden layer 1 of width 16385"},
		{"too large in all", Spec{1 << 16, []int{1 << 13}}, "536887297 parameters, at most 2^28"},
		{"wraps 32 bits", Spec{1 << 17, []int{1 << 14, 1 << 14, 1 << 14, 1 << 14, 1 << 14, 1 << 14, 1 << 14, 1 << 14}}, "parameters, at most"},
	} {
		if err := c.spec.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
	if err := (Spec{1 << 17, []int{1 << 10, 1}}).Validate(); err != nil {
		t.Errorf("the widest input: %v", err)
	}
}

// TestLayersCoverTheParameters: the views are disjoint and together are the flat slice.
func TestLayersCoverTheParameters(t *testing.T) {
	spec := Spec{5, []int{4, 3}}
	params := make([]float32, spec.Size())
	if want := 4*(5+1) + 3*(4+1) + 1*(3+1); len(params) != want {
		t.Fatalf("%d parameters, want %d", len(params), want)
	}
	for _, l := range spec.layers(params) {
		for i := range l.weights {
			l.weights[i]++
		}
		for i := range l.bias {
			l.bias[i]++
		}
		if cap(l.weights) != l.inputs*l.outputs || cap(l.bias) != l.outputs {
			t.Errorf("a view of %d×%d can be appended to over its neighbour", l.outputs, l.inputs)
		}
	}
	if i := slices.IndexFunc(params, func(v float32) bool { return v != 1 }); i >= 0 {
		t.Errorf("parameter %d is in %v views", i, params[i])
	}
}

// TestInit: a seed gives the same bits, weights fill ±sqrt(6/(inputs+outputs)), biases are zero.
func TestInit(t *testing.T) {
	spec := Spec{30, []int{200}}
	params := spec.Init(1)
	if !slices.Equal(params, spec.Init(1)) || slices.Equal(params, spec.Init(2)) {
		t.Error("the seed does not decide the parameters")
	}
	for i, l := range spec.layers(params) {
		bound := float32(math.Sqrt(6 / float64(l.inputs+l.outputs)))
		low, high := slices.Min(l.weights), slices.Max(l.weights)
		if low < -bound || high > bound || low > -.95*bound || high < .95*bound {
			t.Errorf("layer %d: weights from %v to %v, want ±%v", i, low, high, bound)
		}
		if slices.Max(l.bias) != 0 || slices.Min(l.bias) != 0 {
			t.Errorf("layer %d: biases %v", i, l.bias)
		}
	}
}
