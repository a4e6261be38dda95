package model

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// perceptron is a multilayer perceptron for tests that compute it by hand.
type perceptron struct {
	Inputs int
	Hidden []int
}

func (p perceptron) network(t testing.TB) *Network { return compile(t, MLP(p.Inputs, p.Hidden...)) }

// naive is the logit of one row in float64, read off the flat parameters: for each layer its weights, inputs ×
// outputs, then its bias.
func naive(spec perceptron, params []float64, row []float32) float64 {
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
				out[o] += weights[i*outputs+o] * v
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
func naiveLoss(spec perceptron, params []float64, x, y []float32) float64 {
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

func TestMLPRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		inputs int
		hidden []int
		want   string
	}{
		{"no inputs", 0, []int{1}, "0 inputs, want 1 to 2^17"},
		{"negative inputs", -1, []int{1}, "-1 inputs"},
		{"too many inputs", 1<<17 + 1, []int{1}, "131073 inputs"},
		{"no hidden layer", 1, nil, "0 hidden layers, want 1 to 8"},
		{"nine hidden layers", 1, make([]int, 9), "9 hidden layers"},
		{"no width", 1, []int{3, 0}, "hidden layer 2 of width 0, want 1 to 2^14"},
		{"too wide", 1, []int{1<<14 + 1}, "hidden layer 1 of width 16385"},
		{"too large in all", 1 << 16, []int{1 << 13}, "536887297 parameters, at most 2^28"},
		{"wraps 32 bits", 1 << 17, []int{1 << 14, 1 << 14, 1 << 14, 1 << 14, 1 << 14, 1 << 14, 1 << 14, 1 << 14}, "parameters, at most"},
	} {
		if err := CheckMLP(c.inputs, c.hidden); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
		if _, err := MLP(c.inputs, c.hidden...).Compile(); err == nil && c.name != "no hidden layer" && c.name != "too wide" {
			t.Errorf("%s: it compiles", c.name)
		}
	}
	if err := CheckMLP(1<<17, []int{1 << 10, 1}); err != nil {
		t.Errorf("the widest input: %v", err)
	}
	for _, c := range []struct {
		inputs, width, batch int
		want                 string
	}{
		{1, 1, 0, "batch of 0, want 1 to 2^16"},
		{1, 1, 1<<16 + 1, "batch of 65537"},
		{1 << 16, 1, 1 << 16, "at most 2^26 values"}, // 2^32: an int of 32 bits would wrap to 0
		{1, 1 << 14, 1<<12 + 1, "at most 2^26 values"},
	} {
		if err := CheckMLPBatch(c.inputs, []int{c.width}, c.batch); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v", c, err)
		}
		if _, err := NewTrainer(compile(t, MLP(c.inputs, c.width)), c.batch); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: a trainer is made, error %v", c, err)
		}
	}
}

// Many layers that fit each by itself may be too much together.
func TestBatchOfManyLayers(t *testing.T) {
	s, err := Named("mobile", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := compile(t, s).CheckBatch(2600); err == nil || !strings.Contains(err.Error(), "batch of 2600 rows, of which the layers hold ") {
		t.Error(err)
	}
	if err := compile(t, s).CheckBatch(1000); err != nil {
		t.Error(err)
	}
}

// TestTensorsCoverTheParameters: the tensors are disjoint and together are the flat slice.
func TestTensorsCoverTheParameters(t *testing.T) {
	network := compile(t, MLP(5, 4, 3))
	if want := 4*(5+1) + 3*(4+1) + 1*(3+1); network.Size() != want {
		t.Fatalf("%d parameters, want %d", network.Size(), want)
	}
	at := 0
	for _, tensor := range network.Tensors() {
		if tensor.Offset != at {
			t.Errorf("%s begins at %d, want %d", tensor.Name, tensor.Offset, at)
		}
		at += tensor.Len()
	}
	if at != network.Size() {
		t.Errorf("the tensors hold %d values of %d", at, network.Size())
	}
}

// TestInit: a seed gives the same bits, weights fill ±sqrt(6/(inputs+outputs)), biases are zero.
func TestInit(t *testing.T) {
	network := compile(t, MLP(30, 200))
	params := network.Initial(1)
	if !slices.Equal(params, network.Initial(1)) || slices.Equal(params, network.Initial(2)) {
		t.Error("the seed does not decide the parameters")
	}
	for _, l := range network.Tensors() {
		at := params[l.Offset:][:l.Len()]
		low, high := slices.Min(at), slices.Max(at)
		if !l.Weight {
			if low != 0 || high != 0 {
				t.Errorf("%s: from %v to %v", l.Name, low, high)
			}
			continue
		}
		bound := float32(math.Sqrt(6 / float64(l.Shape[0]+l.Shape[1])))
		if low < -bound || high > bound || low > -.95*bound || high < .95*bound {
			t.Errorf("%s: weights from %v to %v, want ±%v", l.Name, low, high, bound)
		}
	}
}
