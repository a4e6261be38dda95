package model

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestCompileRefuses(t *testing.T) {
	dense := LayerSpec{Kind: "dense", Units: 2}
	of := func(layers ...LayerSpec) Spec { return Spec{[]int{6, 6, 4}, layers, "softmax"} }
	then := func(l LayerSpec) Spec { return of(l, LayerSpec{Kind: "flatten"}, dense) }
	many := make([]LayerSpec, 257)
	for want, s := range map[string]Spec{
		"input: 0 axes, want 1 to 3":                              {nil, []LayerSpec{dense}, "softmax"},
		"input: 4 axes, want 1 to 3":                              {[]int{1, 1, 1, 1}, []LayerSpec{dense}, "softmax"},
		"input: shape [0], want axes":                             {[]int{0}, []LayerSpec{dense}, "softmax"},
		"input: shape [131073], want":                             {[]int{131073}, []LayerSpec{dense}, "softmax"},
		"input: shape [131072 131072], want":                      {[]int{131072, 131072}, []LayerSpec{dense}, "softmax"},
		"0 layers, want 1 to 256":                                 of(),
		"257 layers":                                              of(many...),
		`layer tree1: kind "tree", want one of activation, `:      of(LayerSpec{Kind: "tree"}),
		"layer Bad: the name is taken, or is not":                 of(LayerSpec{Name: "Bad", Kind: "flatten"}, dense),
		"layer input: the name is taken":                          of(LayerSpec{Name: "input", Kind: "flatten"}, dense),
		"layer dense2: the name is taken":                         of(LayerSpec{Name: "dense2", Kind: "flatten"}, dense),
		`layer dense1: from "later", which is not`:                of(LayerSpec{Kind: "dense", Units: 2, From: []string{"later"}}),
		"layer dense1: it reads 2 layers; want one":               of(LayerSpec{Kind: "dense", Units: 2, From: []string{"input", "input"}}),
		"layer add1: it reads 1 layers; want two or more":         of(LayerSpec{Kind: "add"}),
		"layer a: no layer reads it, and it is not":               of(LayerSpec{Name: "a", Kind: "dense", Units: 2}, LayerSpec{Kind: "dense", Units: 2, From: []string{"input"}}),
		"layer dense1: units 0, want 1 to 131072":                 of(LayerSpec{Kind: "dense"}),
		`layer dense1: activation "gelu", want relu`:              of(LayerSpec{Kind: "dense", Units: 2, Activation: "gelu"}),
		"layer flatten1: a flatten layer has no units":            of(LayerSpec{Kind: "flatten", Units: 2}),
		"layer dense2: 536813566 parameters up to here, at most":  {[]int{1}, []LayerSpec{{Kind: "dense", Units: 4095}, {Kind: "dense", Units: 131072 - 16}}, "softmax"},
		"no layer has parameters to learn":                        of(LayerSpec{Kind: "flatten"}),
		`loss: "log", want one of bpr, hinge, logistic`:           {[]int{3}, []LayerSpec{dense}, "log"},
		"loss: softmax: 1 output, want at least two classes":      {[]int{3}, []LayerSpec{{Kind: "dense", Units: 1}}, "softmax"},
		"layer conv1: it reads [3], want an image":                {[]int{3}, []LayerSpec{{Kind: "conv", Filters: 1, Kernel: 1}}, "softmax"},
		"layer conv1: filters 0, want 1 to":                       then(LayerSpec{Kind: "conv", Kernel: 3}),
		"layer conv1: kernel 0, want 1 to 64":                     then(LayerSpec{Kind: "conv", Filters: 2}),
		"layer conv1: kernel 7 is larger than the padded":         then(LayerSpec{Kind: "conv", Filters: 2, Kernel: 7}),
		"layer conv1: stride -1, want 0 to 64":                    then(LayerSpec{Kind: "conv", Filters: 2, Kernel: 3, Stride: -1}),
		"layer conv1: padding 3, want 0 to 2":                     then(LayerSpec{Kind: "conv", Filters: 2, Kernel: 3, Padding: 3}),
		"layer conv1: groups 3 do not divide 4 channels":          then(LayerSpec{Kind: "conv", Filters: 3, Kernel: 3, Groups: 3}),
		"layer conv1: groups -1 do not divide":                    then(LayerSpec{Kind: "conv", Filters: 2, Kernel: 3, Groups: -1}),
		"layer conv1: kernel 64 over 2000×2000 pixels":            {[]int{2000, 2000, 1}, []LayerSpec{{Kind: "conv", Filters: 131072, Kernel: 64}}, "softmax"},
		"layer conv1: kernel 2 over 131072 channels: a filter s":  {[]int{2, 2, 131072}, []LayerSpec{{Kind: "conv", Filters: 1, Kernel: 2}}, "squared"},
		"layer flatten2: output: shape [4718592], want":           then(LayerSpec{Kind: "conv", Filters: 131072, Kernel: 1, Groups: 4}),
		"layer maxpool1: kernel 8 is larger than":                 then(LayerSpec{Kind: "maxpool", Kernel: 8}),
		"layer globalpool1: it reads [3], want an image":          {[]int{3}, []LayerSpec{{Kind: "globalpool"}, dense}, "softmax"},
		"layer shuffle1: groups 3, want at least 2 that":          then(LayerSpec{Kind: "shuffle", Groups: 3}),
		"layer groupnorm1: groups 0, want at least 1 that divide": then(LayerSpec{Kind: "groupnorm"}),
		"layer dropout1: rate 1, want one between":                then(LayerSpec{Kind: "dropout", Rate: 1}),
		"layer activation1: activation \"\", want relu":           then(LayerSpec{Kind: "activation"}),
		"layer sum: it adds [6 6 2] to [6 6 4]":                   of(dense, LayerSpec{Name: "sum", Kind: "add", From: []string{"input", "dense1"}}, LayerSpec{Kind: "flatten"}, dense),
		"layer concat2: it puts [6 6 4] beside [144]":             of(LayerSpec{Kind: "flatten"}, LayerSpec{Kind: "concat", From: []string{"flatten1", "input"}}, dense),
	} {
		_, err := s.Compile()
		if err == nil || !strings.HasPrefix(err.Error(), "model: "+want) {
			t.Errorf("error %v, want %q", err, want)
		}
		if wrong := (*SpecError)(nil); !errors.As(err, &wrong) {
			t.Errorf("error %v does not say in which part it is", err)
		}
	}
	var layers []LayerSpec
	for range 8 {
		layers = append(layers, LayerSpec{Kind: "dense", Units: 128})
	}
	if _, err := (Spec{[]int{130000, 1}, layers, "softmax"}).Compile(); err == nil || !strings.Contains(err.Error(), "values an example up to here, at most 2^26") {
		t.Errorf("many wide layers: error %v", err)
	}
}

// TestNames: each architecture is as large as its paper, or this package, says, and takes other shapes.
func TestNames(t *testing.T) {
	for name, want := range map[string]int{
		"linear": 17, "logistic": 17, "svm": 17, "mlp": 199_210, "cnn": 1_663_370, "mobile": 37_610, "shuffle": 26_890,
	} {
		s, err := Named(name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n := compile(t, s); n.Size() != want {
			t.Errorf("%s has %d parameters, want %d", name, n.Size(), want)
		}
		if s, err = Named(name, []int{32, 32, 3}, 7); err != nil {
			t.Fatal(err)
		}
		if n := compile(t, s); n.Outputs() != 7 || !reflect.DeepEqual(n.Spec().Input, []int{32, 32, 3}) {
			t.Errorf("%s of another shape: %v gives %d outputs", name, n.Spec().Input, n.Outputs())
		}
	}
	for want, s := range map[string]struct {
		name    string
		input   []int
		outputs int
	}{
		`architecture "resnet", want one of cnn, `:              {"resnet", nil, 0},
		"cnn: input of 1 axes, want 3":                          {"cnn", []int{784}, 0},
		"mlp: -1 outputs, want 1 to 2^17":                       {"mlp", nil, -1},
		"cnn: model: layer maxpool4: kernel 2 is larger than":   {"cnn", []int{2, 2, 1}, 0},
		"mlp: model: input: shape [0], want axes of 1 to 2^17 ": {"mlp", []int{0}, 0},
	} {
		if _, err := Named(s.name, s.input, s.outputs); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// FuzzSpec: whatever a file says, an architecture is refused or computes; nothing panics, and no layer leaves a parameter
// or a value that it did not compute.
func FuzzSpec(f *testing.F) {
	for _, seed := range []string{
		`{"input":[5,4,4],"layers":[{"kind":"conv","filters":4,"kernel":3,"stride":2,"padding":2,"groups":2},{"kind":"groupnorm","groups":2},{"kind":"flatten"},{"kind":"dense","units":3}],"loss":"softmax"}`,
		`{"input":[5,4,4],"layers":[{"kind":"conv","filters":4,"kernel":2,"groups":4,"activation":"relu"},{"kind":"maxpool","kernel":2},{"kind":"globalpool"},{"kind":"dense","units":2}],"loss":"hinge"}`,
		`{"input":[3],"layers":[{"name":"a","kind":"dense","units":3},{"kind":"add","from":["a","input"]},{"kind":"dropout","rate":0.5},{"kind":"layernorm"},{"kind":"dense","units":1}],"loss":"logistic"}`,
		`{"input":[6,2],"layers":[{"name":"a","kind":"shuffle","groups":2},{"kind":"concat","from":["a","input"]},{"kind":"activation","activation":"tanh"},{"kind":"avgpool","kernel":2},{"kind":"dense","units":1}],"loss":"squared"}`,
		`{"input":[4,2],"layers":[{"kind":"embedding","rows":[5,3],"dim":2},{"kind":"lstm","units":3,"depth":2,"sequence":true},{"kind":"gru","units":2},{"kind":"dense","units":3}],"loss":"bpr"}`,
		`{"input":[4],"layers":[{"name":"a","kind":"embedding","rows":[5],"dim":3,"columns":[2]},{"name":"b","kind":"embedding","from":["input"],"rows":[5],"dim":3,"columns":[3,0]},{"kind":"factorisation","from":["a","b"]}],"loss":"sampled-softmax"}`,
		`{"input":[4],"layers":[{"kind":"embedding-bag","rows":[5],"dim":3,"pool":"sum"},{"kind":"rnn","units":3},{"kind":"dense","units":2}],"loss":"softmax"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Spec
		if strictJSON(b, &s) != nil {
			return
		}
		n, err := s.Compile()
		if err != nil || n.FLOPs() > 1e6 || n.Size() > 1e5 || n.widest() > 1e5 || n.work(2) > 1e6 {
			return
		}
		const examples = 3
		trainer, err := NewTrainer(n, 2)
		if err != nil {
			t.Fatal(err)
		}
		params, x := n.Initial(1), random(rand.New(rand.NewPCG(1, 1)), examples*n.Inputs(), 1)
		if n.lookups() {
			clear(x) // an id of every table
		}
		_, err = trainer.Train(t.Context(), params, x, make([]float32, examples*n.Targets()), TrainConfig{Epochs: 1, Rate: 1e-3, Clip: 1})
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		out := slices.Repeat([]float32{float32(math.NaN())}, examples*n.Outputs())
		if NewPredictor(n, params).Predict(x, out); !Finite(out) {
			t.Fatalf("%s answers %v", b, out)
		}
		tensors, err := Quantise(n, params)
		if err != nil {
			t.Fatal(err)
		}
		if NewInt8Predictor(n, tensors).Predict(x, out); !Finite(out) {
			t.Fatalf("%s answers %v in int8", b, out)
		}
	})
}
