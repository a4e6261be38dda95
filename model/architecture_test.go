package model

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// Hidden layers make no perceptron of a name that is none, and are for no other name.
func TestHiddenIsForMLPAlone(t *testing.T) {
	for want, a := range map[string]Architecture{
		`architecture: architecture "mlpp", want one of`:           {Name: "mlpp", Hidden: []int{32}},
		`architecture: hidden is for mlp, not for "cnn"`:           {Name: "cnn", Hidden: []int{32}},
		`architecture: hidden is for mlp, not for "logistic"`:      {Name: "logistic", Hidden: []int{}},
		`architecture: hidden is for mlp, not for ""`:              {Hidden: []int{32}},
		"architecture: want a name or layers":                      {},
		"architecture: both a name and layers, want one":           {Name: "mlp", Layers: []LayerSpec{{Kind: "dense", Units: 2}}},
		"architecture: model: layer layers.0: units -1, want 1 to": {Name: "mlp", Hidden: []int{-1}},
	} {
		if _, err := a.Spec([]int{4}, 2); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", a, err, want)
		}
	}
	if s, err := (Architecture{Name: "mlp", Hidden: []int{7}}).Spec([]int{4}, 2); err != nil || s.Layers[0].Units != 7 {
		t.Errorf("%+v, %v", s, err)
	}
}

// A list of hidden layers that has none is not a list that is not there: it is a perceptron without them, in JSON, as jobs
// carry it, and in a model's file.
func TestNoHiddenLayers(t *testing.T) {
	for text, layers := range map[string]int{`{"name":"mlp"}`: 3, `{"name":"mlp","hidden":[]}`: 1, `{"name":"mlp","hidden":[5]}`: 2} {
		var a Architecture
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			t.Fatal(err)
		}
		if again, err := json.Marshal(a); err != nil || string(again) != text {
			t.Errorf("%s, %v, want %s", again, err, text)
		}
		s, err := a.Spec([]int{3}, 1)
		if err != nil || len(s.Layers) != layers {
			t.Fatalf("%s: %+v, %v", text, s, err)
		}
		m := small(t, "float32")
		m.Network = compile(t, s)
		m.Params = m.Network.Initial(1)
		if again, err := Decode(encode(t, m)); err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%s: %+v, %v", text, again, err)
		}
	}
}
