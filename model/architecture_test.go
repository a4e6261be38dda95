package model

import (
	"strings"
	"testing"
)

// Hidden layers make no perceptron of a name that is none, and are for no other name.
func TestHiddenIsForMLPAlone(t *testing.T) {
	for want, a := range map[string]Architecture{
		`architecture: architecture "mlpp", want one of`:           {Name: "mlpp", Hidden: []int{32}},
		`architecture: hidden is for mlp, not for "cnn"`:           {Name: "cnn", Hidden: []int{32}},
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
