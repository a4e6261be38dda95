package model

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// graph draws layers that read any layers before them, all of 4×5 positions and 4 channels; what nothing reads is pooled
// or flattened, put side by side, and read by the last layer.
func graph(rng *rand.Rand) Spec {
	below := LayerSpec{Name: "n0", Kind: "conv", Filters: 4, Kernel: 1, Activation: "tanh"}
	s := Spec{Input: []int{4, 5, 4}, Layers: []LayerSpec{below}, Loss: "softmax"}
	kinds := []LayerSpec{
		{Kind: "conv", Filters: 4, Kernel: 3, Padding: 1}, {Kind: "conv", Filters: 4, Kernel: 3, Padding: 1, Groups: 4},
		{Kind: "conv", Filters: 4, Kernel: 1, Groups: 2}, {Kind: "dense", Units: 4, Activation: "tanh"},
		{Kind: "groupnorm", Groups: 2}, {Kind: "layernorm"}, {Kind: "activation", Activation: "tanh"},
		{Kind: "shuffle", Groups: 2}, {Kind: "dropout", Rate: .3}, {Kind: "add"}, {Kind: "add"},
	}
	unread := map[string]bool{"n0": true}
	for i := range 2 + rng.IntN(6) {
		l := kinds[rng.IntN(len(kinds))]
		l.Name = fmt.Sprint("n", i+1)
		l.From = []string{fmt.Sprint("n", rng.IntN(i+1)), fmt.Sprint("n", rng.IntN(i+1))}
		if l.Kind != "add" {
			l.From = l.From[:1]
		}
		for _, from := range l.From {
			delete(unread, from)
		}
		s.Layers, unread[l.Name] = append(s.Layers, l), true
	}
	var ends []string
	for i, l := range s.Layers {
		if unread[l.Name] || rng.IntN(3) == 0 { // a view beside other readers, too
			end := LayerSpec{Name: fmt.Sprint("end", i), Kind: []string{"globalpool", "flatten"}[rng.IntN(2)], From: []string{l.Name}}
			s.Layers, ends = append(s.Layers, end), append(ends, end.Name)
		}
	}
	last := LayerSpec{Name: "out", Kind: "dense", Units: 3, From: ends}
	if len(ends) > 1 {
		s.Layers = append(s.Layers, LayerSpec{Name: "ends", Kind: "concat", From: ends})
		last.From = []string{"ends"}
	}
	s.Layers = append(s.Layers, last)
	return s
}

// TestGraphGradient: however layers branch and join, each gets the gradient of all that read it, once.
func TestGraphGradient(t *testing.T) {
	for seed := range uint64(40) {
		s := graph(rand.New(rand.NewPCG(seed, 9)))
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Logf("%+v", s)
			checkGradient(t, s, reals(3*values(s.Input)), indices(3, 3))
		})
	}
}
