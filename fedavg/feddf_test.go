package fedavg

import (
	"math"
	"strings"
	"testing"

	"choir.example/model"
)

// distilled is Lin et al. 2020, Algorithm 1, for the lines a·x + b of two nodes with weights: the student begins at their
// weighted mean and learns the plain mean of their answers on all public inputs at once, by Adam on a cosine schedule.
func distilled(lines [2][2]float64, weights [2]float64, public []float64, epochs int, rate float64) [2]float64 {
	var w, m, v [2]float64
	for j := range w {
		w[j] = (weights[0]*lines[0][j] + weights[1]*lines[1][j]) / (weights[0] + weights[1])
	}
	for step := 1; step <= epochs; step++ {
		var g [2]float64
		for _, x := range public {
			teacher := ((lines[0][0]*x + lines[0][1]) + (lines[1][0]*x + lines[1][1])) / 2
			e := (w[0]*x + w[1] - teacher) / float64(len(public))
			g[0] += e * x
			g[1] += e
		}
		now := rate * (1 + math.Cos(math.Pi*float64(step-1)/float64(epochs))) / 2
		for j := range w {
			m[j] = .9*m[j] + .1*g[j]
			v[j] = .999*v[j] + .001*g[j]*g[j]
			w[j] -= now * m[j] / (1 - math.Pow(.9, float64(step))) / (math.Sqrt(v[j]/(1-math.Pow(.999, float64(step)))) + 1e-8)
		}
	}
	return w
}

func TestFedDFIsItsPaper(t *testing.T) {
	a := line(t, Settings{Strategy: StrategySettings{Name: "feddf", DistilEpochs: 20, DistilRate: .02}})
	a.Public = []float32{-1, -.5, 0, .25, 2}
	sum := NewSum(a.Shape())
	var each []Named
	deltas := [2][2]float64{{.5, -.25}, {-1, .75}}
	weights := [2]float64{1, 3}
	for i, d := range deltas {
		u := &Update{Vectors: [][]int32{{0, 0}}, Weight: int64(weights[i])}
		for j, x := range d {
			u.Vectors[0][j] = int32(x / a.Grid.Step())
		}
		must(t, sum.Add(u))
		each = append(each, Named{string(rune('a' + i)), u})
	}
	got, err := a.Combine([]float32{0, 0}, nil, Counted{Sum: sum, Each: each, Fleet: 2})
	must(t, err)
	want := distilled(deltas, weights, []float64{-1, -.5, 0, .25, 2}, 20, .02)
	for j := range want {
		if math.Abs(float64(got[j])-want[j]) > 1e-5 {
			t.Errorf("the line %v, want %v", got, want)
		}
	}
	a.Public = nil
	if _, err := a.Combine([]float32{0, 0}, nil, Counted{Sum: sum, Each: each, Fleet: 2}); err == nil || !strings.Contains(err.Error(), "no public inputs") {
		t.Errorf("without public inputs: %v", err)
	}
}

// What counts is the mean of the logits, not of the probabilities: of the logits (2, 0) and (-1, 1) it is (.5, .5), a half
// for each class.
func TestTeacherByHand(t *testing.T) {
	n, err := model.Spec{Input: []int{1}, Layers: []model.LayerSpec{{Kind: "dense", Units: 2}}, Loss: "softmax"}.Compile()
	must(t, err)
	r := &Round{Network: n, Global: []float32{1, 0, 0, 0}, Public: []float32{1}, Each: []Single{{Delta: []float32{1, 0, 0, 0}}, {Delta: []float32{-2, 1, 0, 0}}}}
	if got := r.teacher(); math.Abs(float64(got[0])-.5) > 1e-6 || math.Abs(float64(got[1])-.5) > 1e-6 {
		t.Errorf("%v, want a half each", got)
	}
}

func TestFedDFRefusesLossesWithoutSoftTargets(t *testing.T) {
	s := Settings{Architecture: model.Architecture{Name: "mlp", Hidden: []int{3}, Loss: "hinge"}, Strategy: StrategySettings{Name: "feddf"}}
	if _, err := s.Algorithm([]int{2}, 2); err == nil || !strings.Contains(err.Error(), "strategy: feddf: distil: loss hinge") {
		t.Errorf("%v", err)
	}
}
