package fedavg

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"choir.example/model"
)

// exploding is FedAvg that writes an infinity, or what is no number, where it is told to.
type exploding struct {
	FedAvg
	where string
}

func (exploding) Needs() Needs { return Needs{State: 2, Memory: 1, Vectors: 1, Scalars: 1} }

func (e exploding) Local(l *Local) error {
	err := e.FedAvg.Local(l)
	switch e.where {
	case "delta":
		l.Params[1] = math.MaxFloat32 // and the model is as far from zero, on the other side
	case "vector":
		l.Vectors[0][1] = float32(math.NaN())
	case "memory":
		l.Memory[0][1] = float32(math.Inf(-1))
	case "scalar":
		l.Scalars[0] = math.Inf(1)
	}
	return err
}

func (e exploding) Server(r *Round) error {
	if e.where == "state" {
		r.State[1][0] = float32(math.NaN())
	}
	return e.FedAvg.Server(r)
}

// diverges fails the test unless an error is of numbers that exploded, on the server or on a node, and begins so.
func diverges(t *testing.T, err error, server bool, want string) {
	t.Helper()
	if err == nil || !errors.Is(err, model.ErrDiverged) || errors.Is(err, ErrServerDiverged) != server || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// A node whose update has no finite numbers says that its training diverged, wherever they come from.
func TestNodeDiverges(t *testing.T) {
	for where, want := range map[string]string{
		"delta":  "vector 0 of the update: from parameter 0 on: quantise: coordinate 1 is +Inf: training diverged",
		"vector": "vector 1 of the update: from parameter 0 on: quantise: coordinate 1 is NaN: training diverged",
		"memory": "coordinate 1 of vector 0 of the node's memory is -Inf: training diverged",
		"scalar": "scalar 0 is +Inf: training diverged",
	} {
		a := line(t, Settings{Local: LocalSettings{LearningRate: 1e-30}})
		a.Strategy = exploding{FedAvg{Rate: 1}, where}
		c, err := NewClient(a)
		must(t, err)
		w := work(a)
		w.Global[1] = -math.MaxFloat32 / 2
		w.X, w.Y = []float32{0, 0}, []float32{w.Global[1], w.Global[1]} // a line that fits
		_, err = c.Update(context.Background(), w)
		diverges(t, err, false, want)
	}
}

// A server whose next model or state has no finite numbers says so, and which: nothing is made of it.
func TestServerDiverges(t *testing.T) {
	for where, want := range map[string]string{
		"model": "parameter 0 of dense1.bias would be -Inf: the server's step diverged",
		"state": "coordinate 0 of vector 1 of the server's state would be NaN: the server's step diverged",
	} {
		a := line(t, Settings{})
		a.Strategy = exploding{FedAvg{Rate: 1}, where}
		if where == "model" {
			a.Strategy = exploding{FedAvg{Rate: 1e300}, where}
		}
		sum := NewSum(a.Shape())
		must(t, sum.Add(&Update{Vectors: [][]int32{{0, -5}, {0, 0}}, Scalars: []int64{0, 0}, Weight: 1}))
		next, err := a.Combine([]float32{1, 2}, a.FirstState(), Counted{Sum: sum})
		diverges(t, err, true, want)
		if next != nil {
			t.Errorf("%s: the next model is %v", where, next)
		}
	}
	a, s := buffered(t, FedBuff{Rate: math.MaxFloat64, K: 1}, [][]int32{{2, -4}}, []int{0})
	a.Network = line(t, Settings{}).Network
	_, err := a.Arrived([]float32{1, 2}, nil, Buffered{Sum: s, Begun: []float32{1, 2}})
	diverges(t, err, true, "parameter 0 of dense1.weight would be +Inf: the server's step diverged")
}

// A student of the server's that diverges has a learning rate of its own: it is not the nodes' that is told.
func TestStudentDiverges(t *testing.T) {
	a := line(t, Settings{Strategy: StrategySettings{Name: "feddf", DistilEpochs: 20, DistilRate: 1e38}})
	a.Public = slices.Repeat([]float32{-1, -.5, 0, .25, 2}, 100)
	u := &Update{Vectors: [][]int32{{1000, 2000}}, Weight: 1}
	sum := NewSum(a.Shape())
	must(t, sum.Add(u))
	_, err := a.Combine([]float32{0, 0}, nil, Counted{Sum: sum, Each: []Named{{"a", u}}, Fleet: 1})
	diverges(t, err, true, "train: ")
	if err != nil && strings.Contains(err.Error(), model.ErrDiverged.Error()) {
		t.Errorf("%v, which names the nodes' learning rate", err)
	}
}
