package fedavg

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"choir.example/model"
	"choir.example/model/codec"
)

// buffered is a buffer of updates on a grid of step 1/2, each with its discount.
func buffered(t *testing.T, strategy Asynchronous, deltas [][]int32, stale []int) (*Algorithm, *Sum) {
	t.Helper()
	a := &Algorithm{Strategy: strategy, Grid: codec.Grid{Range: codec.MaxQ / 2}, WeightCap: MaxWeight}
	s := NewSum(Shape{Vectors: []int{len(deltas[0])}})
	for i, q := range deltas {
		u, err := (&Update{Vectors: [][]int32{q}, Weight: 1}).Discounted(strategy.Discount(stale[i]))
		must(t, err)
		must(t, s.Add(u))
	}
	return a, s
}

// Two updates of deltas (1, -2) and (4, 6), fresh and three steps stale: discounts 1 and 1/2. The paper's step is their
// discounted sum over K = 2, (1 + 2, -2 + 3) / 2 = (1.5, .5); with a rate of 1/4 a quarter of it.
func TestFedBuffByHand(t *testing.T) {
	a, s := buffered(t, FedBuff{Rate: .25, K: 2}, [][]int32{{2, -4}, {8, 12}}, []int{0, 3})
	global := []float32{10, 20}
	next, err := a.Arrived(global, nil, Buffered{Sum: s, Begun: global, Fleet: 5})
	if err != nil || !slices.Equal(next, []float32{10.375, 20.125}) || global[0] != 10 {
		t.Errorf("%v, %v", next, err)
	}
}

// Three updates of deltas (1, -2), (8, 12) and (3, -1), fresh, three and no steps stale: times their discounts (1, -2), (4, 6)
// and (3, -1), whose median is (3, -1); with a rate of 1/4 a quarter of it. A rule's memory is
// the server's state, on the grid.
func TestFedBuffWithARule(t *testing.T) {
	deltas, stale := [][]int32{{2, -4}, {16, 24}, {6, -2}}, []int{0, 3, 0}
	a, s := buffered(t, FedBuff{Rate: .25, K: 3}, deltas, stale)
	var each []Named
	for i, q := range deltas {
		u, err := (&Update{Vectors: [][]int32{q}, Weight: 1}).Discounted(a.Strategy.(Asynchronous).Discount(stale[i]))
		must(t, err)
		each = append(each, Named{string(rune('a' + i)), u})
	}
	global := []float32{10, 20}
	a.Rule = CoordinateMedian{}
	next, err := a.Arrived(global, nil, Buffered{Sum: s, Each: each, Begun: global, Fleet: 5})
	if err != nil || !slices.Equal(next, []float32{10.75, 19.75}) || each[1].Vectors[0][0] != 16 {
		t.Errorf("%v, %v", next, err)
	}
	a.Rule = CoordinateMedian{F: 2}
	if _, err := a.Arrived(global, nil, Buffered{Sum: s, Each: each, Begun: global, Fleet: 5}); err == nil || !strings.Contains(err.Error(), "median with f 2 needs 5 updates and there are 3") {
		t.Errorf("%v", err)
	}
	a.Rule = remember{}
	state := [][]float32{{1, 2}}
	next, err = a.Arrived(global, state, Buffered{Sum: s, Each: each, Begun: global, Fleet: 5})
	if err != nil || !slices.Equal(state[0], []float32{3, 4}) || !slices.Equal(next, []float32{10.375, 20.5}) {
		t.Errorf("%v, %v, %v", next, state, err)
	}
	if _, err := a.Arrived(global, nil, Buffered{Sum: s, Each: each, Begun: global}); err == nil {
		t.Error("a rule that remembers is given no state")
	}
}

// remember makes the last result, and two on top, of whatever comes.
type remember struct{ CoordinateMedian }

func (remember) Needs() RuleNeeds { return RuleNeeds{Memory: true} }

func (remember) Combine(c *Combination) error {
	for k, v := range c.Last {
		c.Out[k] = v + 2
	}
	return nil
}

// A node began with (1, 2) and moved by (3, -1) to (4, 1); the model is (6, 5) by now, three steps on. With α = .5 and a
// discount of 1/2 a quarter of the way is gone: (5.5, 4). A constant discount goes half of it, (5, 3).
func TestFedAsyncByHand(t *testing.T) {
	for staleness, want := range map[Staleness][]float32{Polynomial: {5.5, 4}, "": {5.5, 4}, Constant: {5, 3}, Hinge: {5, 3}} {
		a, s := buffered(t, FedAsync{Mixing: .5, Staleness: staleness}, [][]int32{{6, -2}}, []int{3})
		next, err := a.Arrived([]float32{6, 5}, nil, Buffered{Sum: s, Begun: []float32{1, 2}, Fleet: 5})
		if err != nil || !slices.Equal(next, want) {
			t.Errorf("%s: %v, %v, want %v", staleness, next, err, want)
		}
	}
}

func TestDiscounts(t *testing.T) {
	for _, c := range []struct {
		s     Asynchronous
		stale int
		want  float64
	}{
		{FedBuff{}, 0, 1}, {FedBuff{}, 8, 1. / 3},
		{FedAsync{}, 0, 1}, {FedAsync{Staleness: Polynomial}, 15, .25},
		{FedAsync{Staleness: Constant}, 99, 1},
		{FedAsync{Staleness: Hinge}, 0, 1}, {FedAsync{Staleness: Hinge}, 4, 1}, {FedAsync{Staleness: Hinge}, 5, 1. / 11}, {FedAsync{Staleness: Hinge}, 14, 1. / 101},
	} {
		if got := c.s.Discount(c.stale); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("%+v, %d steps: %v, want %v", c.s, c.stale, got, c.want)
		}
	}
	for _, bad := range []float64{0, -1, 1.1, math.NaN()} {
		if _, err := (&Update{Weight: 1}).Discounted(bad); err == nil {
			t.Errorf("a discount of %v is taken", bad)
		}
	}
	if u, err := (&Update{Weight: 7}).Discounted(1e-9); err != nil || u.Weight != 1 {
		t.Errorf("%+v, %v: the least weight is 1", u, err)
	}
}

// Whoever combines a round with an asynchronous strategy is told that there are none.
func TestAsynchronousHasNoRounds(t *testing.T) {
	for _, s := range []Asynchronous{FedBuff{Rate: 1, K: 1}, FedAsync{Mixing: 1}} {
		a, sum := buffered(t, s, [][]int32{{2}}, []int{0})
		if _, err := a.Combine([]float32{1}, nil, Counted{Sum: sum, Fleet: 1}); !errors.Is(err, ErrAsynchronous) {
			t.Errorf("%T: %v", s, err)
		}
	}
}

func TestArrivedRefuses(t *testing.T) {
	a, s := buffered(t, FedBuff{Rate: 1, K: 1}, [][]int32{{2}}, []int{0})
	one := []float32{1}
	for want, call := range map[string]func() error{
		"does not fit a model of 2 parameters": func() error { _, err := a.Arrived([]float32{1, 2}, nil, Buffered{Sum: s, Begun: one}); return err },
		"does not fit a model of 1 parameters": func() error { _, err := a.Arrived(one, nil, Buffered{Sum: s}); return err },
		"the sum is empty": func() error {
			_, err := a.Arrived(one, nil, Buffered{Sum: NewSum(Shape{Vectors: []int{1}}), Begun: one})
			return err
		},
		"the strategy is not asynchronous": func() error {
			_, err := (&Algorithm{Strategy: FedAvg{Rate: 1}, Grid: a.Grid}).Arrived(one, nil, Buffered{Sum: s, Begun: one})
			return err
		},
		"0 updates one by one, and 1 in their sum": func() error {
			_, err := (&Algorithm{Strategy: a.Strategy, Grid: a.Grid, Rule: CoordinateMedian{}}).Arrived(one, nil, Buffered{Sum: s, Begun: one})
			return err
		},
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// greedy needs more of a node than asynchronous strategies get.
type greedy struct{ FedBuff }

func (greedy) Needs() Needs { return Needs{Vectors: 1} }

func TestAsynchronousCheck(t *testing.T) {
	settings := Settings{Architecture: model.Architecture{Name: "logistic"}}
	for want, change := range map[string]func(s *StrategySettings){
		"buffer is -1, want a finite number above 0":    func(s *StrategySettings) { s.Name, s.Buffer = "fedbuff", -1 },
		"mixing is 2, want more than 0 and at most 1":   func(s *StrategySettings) { s.Name, s.Mixing = "fedasync", 2 },
		`staleness "linear", want polynomial, hinge or`: func(s *StrategySettings) { s.Name, s.Staleness = "fedasync", "linear" },
	} {
		settings.Strategy = StrategySettings{}
		change(&settings.Strategy)
		if _, err := settings.Algorithm([]int{3}, 2); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", settings.Strategy, err, want)
		}
	}
	for _, name := range []string{"fedbuff", "fedasync"} {
		settings.Strategy = StrategySettings{Name: name}
		a, err := settings.Algorithm([]int{3}, 2)
		if err != nil {
			t.Fatal(err)
		}
		for want, rule := range map[string]Rule{"a buffer of 1 holds one; want fedbuff with": CoordinateMedian{}, "want another rule, or a mean": FLTrust{}} {
			a.Rule = rule
			refused := name == "fedasync" || a.Trusts()
			if name == "fedasync" {
				want = "a buffer of 1 holds one; want fedbuff with"
			}
			if err := a.Check(); refused != (err != nil) || refused && !strings.Contains(err.Error(), want) {
				t.Errorf("%s with %T: %v", name, rule, err)
			}
		}
		a.Rule, a.Strategy = nil, greedy{}
		if err := a.Check(); err == nil || !strings.Contains(err.Error(), "more than a delta") {
			t.Error(err)
		}
	}
}
