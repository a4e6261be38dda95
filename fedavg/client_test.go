package fedavg

import (
	"context"
	"math"
	"reflect"
	"slices"
	"testing"

	"choir.example/model"
)

// ratings is an algorithm whose model has four rows of two values before a layer that all examples use.
func ratings(t *testing.T, s Strategy) *Algorithm {
	t.Helper()
	n, err := model.Spec{Input: []int{1}, Layers: []model.LayerSpec{
		{Kind: "embedding", Rows: []int{4}, Dim: 2}, {Kind: "flatten"}, {Kind: "dense", Units: 1},
	}, Loss: "squared"}.Compile()
	must(t, err)
	a := line(t, Settings{})
	a.Network, a.Strategy = n, s
	return a
}

// shifting writes to parameters that its node's examples do not read.
type shifting struct{ FedAvg }

func (s shifting) Local(l *Local) error {
	err := s.FedAvg.Local(l)
	l.Params[0] += .5
	return err
}

// A client that trained on other rows before says the same as a new one, and adding what changed is adding all.
func TestWhatChangedIsAll(t *testing.T) {
	for _, s := range []Strategy{FedAvg{Rate: 1}, Scaffold{FedAvg{Rate: 1}}, shifting{}} {
		a := ratings(t, s)
		used, err := NewClient(a)
		must(t, err)
		for _, row := range []float32{3, 1, 2} {
			w := Work{Global: a.Network.Initial(1), Shared: a.Shared(a.FirstState()), X: []float32{row, row}, Y: []float32{1, 3}}
			fresh, err := NewClient(a)
			must(t, err)
			want, err := fresh.Update(context.Background(), w)
			must(t, err)
			got, err := used.Update(context.Background(), w)
			must(t, err)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%T, row %v: %v, a new client says %v", s, row, got.Vectors, want.Vectors)
			}
			all, within := NewSum(a.Shape()), NewSum(a.Shape())
			must(t, all.Add(got))
			must(t, within.AddWithin(got, used.Changed()))
			if !reflect.DeepEqual(all, within) {
				t.Errorf("%T, row %v: %v, all together %v", s, row, within.Vectors, all.Vectors)
			}
			if everything := used.Changed()[0] == (model.Range{From: 0, To: a.Network.Size()}); everything != (s == Strategy(shifting{})) {
				t.Errorf("%T, row %v: changed is %v", s, row, used.Changed())
			}
		}
	}
}

// An update that cannot be sent leaves nothing behind in its client.
func TestFailedUpdateLeavesNothing(t *testing.T) {
	a := ratings(t, FedAvg{Rate: 1})
	c, err := NewClient(a)
	must(t, err)
	w := Work{Global: a.Network.Initial(1), X: []float32{0}, Y: []float32{1}}
	want, err := c.Update(context.Background(), w)
	must(t, err)
	want = want.Clone()
	bad := w
	bad.Global = slices.Clone(w.Global)
	bad.X = []float32{3}
	bad.Global[2] = float32(math.NaN())
	if _, err := c.Update(context.Background(), bad); err == nil {
		t.Error("a model that is not finite was not refused")
	}
	got, err := c.Update(context.Background(), w)
	must(t, err)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v after a failure, %v before", got, want)
	}
}
