package model

import (
	"fmt"
	"slices"
	"testing"
)

// image is an input of examples of 5×6 pixels of 3 channels.
func image(examples int) []float32 { return reals(examples * 5 * 6 * 3) }

// over puts layers between a convolution of single pixels, whose gradient shows whether theirs with respect to their
// input is right, and a dense layer.
func over(layers ...LayerSpec) Spec {
	s := Spec{Input: []int{5, 6, 3}, Loss: "softmax"}
	s.Layers = append(s.Layers, LayerSpec{Name: "below", Kind: "conv", Filters: 6, Kernel: 1, Activation: "tanh"})
	s.Layers = append(s.Layers, layers...)
	s.Layers = append(s.Layers, LayerSpec{Kind: "flatten"}, LayerSpec{Kind: "dense", Units: 3})
	return s
}

func checkOver(t *testing.T, layers ...LayerSpec) {
	t.Helper()
	checkGradient(t, over(layers...), image(4), indices(4, 3))
}

func TestConvGradient(t *testing.T) {
	for _, c := range []LayerSpec{
		{Filters: 4, Kernel: 3},
		{Filters: 4, Kernel: 3, Padding: 1, Activation: "tanh"},
		{Filters: 4, Kernel: 3, Padding: 2, Stride: 2},
		{Filters: 5, Kernel: 1, Activation: "sigmoid"},
		{Filters: 4, Kernel: 1, Stride: 2},
		{Filters: 4, Kernel: 1, Groups: 2},
		{Filters: 4, Kernel: 2, Groups: 2, Padding: 1},
		{Filters: 9, Kernel: 3, Groups: 3, Stride: 2, Padding: 1},
		{Filters: 5, Kernel: 5, Padding: 2},
		{Filters: 6, Kernel: 3, Groups: 6, Padding: 1, Activation: "tanh"},
		{Filters: 6, Kernel: 3, Groups: 6, Stride: 2, Padding: 1},
		{Filters: 6, Kernel: 4, Groups: 6, Stride: 3, Padding: 3},
		{Filters: 6, Kernel: 2, Groups: 6},
		{Filters: 6, Kernel: 1, Groups: 6},
		{Filters: 96, Kernel: 5, Padding: 2, Activation: "tanh"}, // many weights
		{Filters: 1, Kernel: 3, Padding: 1},                      // windows abreast
		{Filters: 2, Kernel: 2, Padding: 1, Activation: "sigmoid"},
		{Filters: 3, Kernel: 4, Stride: 2, Padding: 3},
	} {
		c.Kind = "conv"
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) { checkOver(t, c) })
	}
}

func TestPoolGradient(t *testing.T) {
	for _, c := range []LayerSpec{
		{Kind: "maxpool", Kernel: 2},
		{Kind: "maxpool", Kernel: 3, Stride: 1},
		{Kind: "maxpool", Kernel: 2, Stride: 3},
		{Kind: "avgpool", Kernel: 2},
		{Kind: "avgpool", Kernel: 3, Stride: 2},
		{Kind: "globalpool"},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) { checkOver(t, c) })
	}
}

func TestElementwiseGradient(t *testing.T) {
	for _, c := range []LayerSpec{
		{Kind: "shuffle", Groups: 2},
		{Kind: "shuffle", Groups: 3},
		{Kind: "dropout", Rate: .3},
		{Kind: "activation", Activation: "relu"},
		{Kind: "activation", Activation: "tanh"},
		{Kind: "activation", Activation: "sigmoid"},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) { checkOver(t, c) })
	}
}

func TestNormGradient(t *testing.T) {
	for _, c := range []LayerSpec{
		{Kind: "groupnorm", Groups: 1},
		{Kind: "groupnorm", Groups: 3},
		{Kind: "groupnorm", Groups: 6},
		{Kind: "layernorm"},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) { checkOver(t, c, LayerSpec{Kind: "activation", Activation: "tanh"}) })
		t.Run(fmt.Sprintf("features %+v", c), func(t *testing.T) {
			checkGradient(t, Spec{[]int{5}, []LayerSpec{{Kind: "dense", Units: 6}, c, {Kind: "dense", Units: 3}}, "softmax"}, reals(5*4), indices(4, 3))
		})
	}
}

// TestBranchGradient: what several layers read gets the sum of their gradients, in whatever way each gives it.
func TestBranchGradient(t *testing.T) {
	for _, c := range []LayerSpec{
		{Kind: "conv", Filters: 6, Kernel: 3, Padding: 1},
		{Kind: "conv", Filters: 6, Kernel: 3, Padding: 1, Groups: 6},
		{Kind: "conv", Filters: 6, Kernel: 1},
		{Kind: "maxpool", Kernel: 1},
		{Kind: "avgpool", Kernel: 1},
		{Kind: "shuffle", Groups: 2},
		{Kind: "groupnorm", Groups: 2},
		{Kind: "layernorm"},
		{Kind: "activation", Activation: "tanh"},
		{Kind: "dropout", Rate: .5},
		{Kind: "dense", Units: 6},
	} {
		c.From = []string{"below"}
		c.Name = "a"
		d := c
		d.Name = "b"
		for _, join := range []string{"add", "concat"} {
			t.Run(fmt.Sprintf("%s %+v", join, c), func(t *testing.T) {
				checkOver(t, c, d, LayerSpec{Kind: join, From: []string{"a", "b", "below", "a"}})
			})
		}
	}
	t.Run("pooled twice", func(t *testing.T) {
		checkGradient(t, Spec{[]int{5, 6, 3}, []LayerSpec{
			{Name: "below", Kind: "conv", Filters: 6, Kernel: 1, Activation: "tanh"},
			{Name: "a", Kind: "globalpool"},
			{Name: "b", Kind: "globalpool", From: []string{"below"}},
			{Name: "c", Kind: "flatten", From: []string{"below"}},
			{Kind: "concat", From: []string{"a", "b", "c", "c"}},
			{Kind: "dense", Units: 3},
		}, "softmax"}, image(4), indices(4, 3))
	})
	t.Run("strided twice", func(t *testing.T) {
		a := LayerSpec{Name: "a", Kind: "conv", Filters: 6, Kernel: 3, Stride: 2, From: []string{"below"}}
		b := LayerSpec{Name: "b", Kind: "conv", Filters: 6, Kernel: 3, Stride: 2, Groups: 6, From: []string{"below"}}
		checkOver(t, a, b, LayerSpec{Kind: "add", From: []string{"a", "b"}})
	})
	t.Run("input read twice", func(t *testing.T) {
		checkGradient(t, Spec{[]int{5}, []LayerSpec{
			{Name: "a", Kind: "dense", Units: 4, Activation: "tanh"},
			{Kind: "concat", From: []string{"a", "input"}},
			{Kind: "dense", Units: 3},
		}, "softmax"}, reals(5*4), indices(4, 3))
	})
}

func TestLossGradient(t *testing.T) {
	for _, c := range []struct {
		loss  string
		shape []int
		units int
		y     []float32
	}{
		{"softmax", []int{5}, 4, indices(6, 4)},
		{"softmax", []int{3, 5}, 4, indices(18, 4)},
		{"logistic", []int{5}, 1, []float32{0, 1, .25, 1, 0, .5}},
		{"logistic", []int{5}, 3, indices(18, 2)},
		{"squared", []int{5}, 1, reals(6)},
		{"squared", []int{5}, 3, reals(18)},
		{"hinge", []int{5}, 1, indices(6, 2)},
		{"hinge", []int{5}, 4, indices(6, 4)},
		{"squared-hinge", []int{5}, 1, indices(6, 2)},
		{"squared-hinge", []int{5}, 4, indices(6, 4)},
		{"soft-labels", []int{5}, 2, []float32{0, 1, .25, .75, .5, .5, 1, 0, .1, .9, .3, .7}},
		{"soft-labels", []int{2, 5}, 2, slices.Repeat([]float32{.25, .75, .5, .5, 1, 0}, 4)},
	} {
		t.Run(fmt.Sprint(c.loss, c.shape, c.units), func(t *testing.T) {
			checkGradient(t, Spec{c.shape, []LayerSpec{{Kind: "dense", Units: 7, Activation: "tanh"}, {Kind: "dense", Units: c.units}}, c.loss},
				reals(6*values(c.shape)), c.y)
		})
	}
}
