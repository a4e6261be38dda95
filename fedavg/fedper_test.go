package fedavg

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"choir.example/model"
)

// perNodes lets nodes with one point x = 1 each learn its target by two layers, first and last, and returns the
// model and the nodes' own.
func perNodes(t *testing.T, s Strategy, rounds int, targets ...float32) (global []float32, own [][]float32) {
	t.Helper()
	n, err := model.Spec{Input: []int{1}, Layers: []model.LayerSpec{
		{Name: "first", Kind: "dense", Units: 1}, {Name: "last", Kind: "dense", Units: 1},
	}, Loss: "squared"}.Compile()
	must(t, err)
	a := line(t, Settings{})
	a.Network, a.Strategy, a.Local = n, s, model.TrainConfig{Epochs: 1, Rate: .5}
	c, err := NewClient(a)
	must(t, err)
	global, memories := []float32{1, 0, 1, 0}, make([][][]float32, len(targets)) // weight and bias of first and last
	work := func(i int) Work {
		return Work{Global: global, Memory: memories[i], X: []float32{1}, Y: targets[i : i+1]}
	}
	for range rounds {
		sum := NewSum(a.Shape())
		for i := range targets {
			u, err := c.Update(context.Background(), work(i))
			must(t, err)
			must(t, sum.Add(u))
			memories[i] = [][]float32{slices.Clone(c.Memory()[0])}
		}
		global, err = a.Combine(global, nil, Counted{Sum: sum, Fleet: len(targets)})
		must(t, err)
	}
	for i := range targets {
		params, err := c.Personal(context.Background(), work(i), 0)
		must(t, err)
		own = append(own, slices.Clone(params))
	}
	return global, own
}

// Two nodes with the point (1, 2) and (1, 0); all weights are 1, biases 0, so that both say 1. The errors are -1 and 1, and
// so are all gradients: each value of node one rises by .5, each of node two falls by .5. The last layer is personal: node
// one has weight 1.5 and bias .5, node two .5 and -.5, and nobody sends it. The first layer's deltas cancel out.
//
// Second round: node one says 1.5·1 + .5 = 2, which is right: it stays. Node two says .5 − .5 = 0, which is right, too.
func TestFedPerByHand(t *testing.T) {
	for rounds := 1; rounds <= 2; rounds++ {
		global, own := perNodes(t, FedPer{FedAvg{Rate: 1}, nil, 1}, rounds, 2, 0)
		for i, want := range [][]float32{{1, 0, 1, 0}, {1, 0, 1.5, .5}, {1, 0, .5, -.5}} {
			if got := append([][]float32{global}, own...)[i]; !slices.Equal(got, want) {
				t.Errorf("after %d rounds: model %d is %v, want %v", rounds, i, got, want)
			}
		}
	}
	// With the first layer for oneself the last one is everybody's.
	global, own := perNodes(t, FedPer{FedAvg{Rate: 1}, []string{"first"}, 0}, 1, 2, 0)
	if !slices.Equal(global, []float32{1, 0, 1, 0}) || !slices.Equal(own[0], []float32{1.5, .5, 1, 0}) {
		t.Errorf("%v and %v", global, own)
	}
}

// With layers of their own nodes learn what contradicts itself.
func TestFedPerLearnsWhatDiffers(t *testing.T) {
	_, own := perNodes(t, FedPer{FedAvg{Rate: 1}, nil, 1}, 30, 3, -2, .5)
	for i, want := range []float32{3, -2, .5} {
		p := own[i]
		if got := (p[0]+p[1])*p[2] + p[3]; math.Abs(float64(got-want)) > .01 {
			t.Errorf("node %d says %v, want %v", i, got, want)
		}
	}
}

func TestFedPerRefusesLayers(t *testing.T) {
	for _, c := range []struct {
		s    StrategySettings
		want string
	}{
		{StrategySettings{}, "0 of 3 layers with parameters are personal, want 1 to 2"},
		{StrategySettings{PersonalLast: 3}, "3 of 3 layers"},
		{StrategySettings{PersonalLast: math.MaxInt32}, "3 of 3 layers"},
		{StrategySettings{PersonalLast: 1, Personal: []string{"layers.0", "layers.1"}}, "3 of 3 layers"},
		{StrategySettings{Personal: []string{"head"}}, `personal: layer "head", want some of layers.0, layers.1, layers.2`},
		{StrategySettings{PersonalLast: -1}, "personal_last is -1"},
	} {
		c.s.Name = "fedper"
		s := Settings{Architecture: model.Architecture{Name: "mlp", Hidden: []int{3, 4}}, Strategy: c.s}
		if _, err := s.Algorithm([]int{2}, 2); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.s, err, c.want)
		}
	}
}
