package fedavg

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"choir.example/model"
)

// lines are three nodes with points of different lines, and of different numbers, of which two take part in a round: all
// but the round's number modulo 3. Everybody trains on all its points at once, so that the order does not matter.
type lines struct {
	x, y   [][]float64
	epochs []int // of each node: some do not manage all
}

var threeNodes = lines{
	x:      [][]float64{{1, 2}, {-1, .5, 1, 1.5}, {0, .5, 1}},
	y:      [][]float64{{.75, 1.25}, {.25, 0, -.25, -.25}, {0, .25, .375}},
	epochs: []int{4, 2, 4},
}

func (f lines) cohort(round int) (out []int) {
	for i := range f.x {
		if i != round%3 {
			out = append(out, i)
		}
	}
	return out
}

const (
	testRounds = 4
	testRate   = .1
)

// train lets the fleet learn the line a·x + b by the strategy, and returns a and b after some rounds.
func (f lines) train(t *testing.T, a *Algorithm, rounds int) []float64 {
	t.Helper()
	c, err := NewClient(a)
	must(t, err)
	global, state, memories := make([]float32, a.Network.Size()), a.FirstState(), make([][][]float32, len(f.x))
	for round := range rounds {
		sum := NewSum(a.Shape())
		var each []Named
		for _, i := range f.cohort(round) {
			w := Work{Global: global, Shared: a.Shared(state), Memory: memories[i], Seed: uint64(round), Epochs: f.epochs[i]}
			for k := range f.x[i] {
				w.X, w.Y = append(w.X, float32(f.x[i][k])), append(w.Y, float32(f.y[i][k]))
			}
			u, err := c.Update(context.Background(), w)
			must(t, err)
			must(t, u.Check(a.Shape()))
			must(t, sum.Add(u))
			each = append(each, Named{fmt.Sprint(i), u.Clone()})
			memories[i] = nil
			for _, m := range c.Memory() {
				memories[i] = append(memories[i], slices.Clone(m))
			}
			if c.Saturated() != 0 {
				t.Fatalf("%T round %d node %d: %d coordinates saturated, delta %v, scalars %v", a.Strategy, round, i, c.Saturated(), c.local.Params, c.local.Scalars)
			}
		}
		global, err = a.Combine(global, state, Counted{Sum: sum, Each: each, Fleet: len(f.x)})
		must(t, err)
	}
	var out []float64
	for _, p := range global {
		out = append(out, float64(p))
	}
	return out
}

// paper is the same fleet in float64, for algorithms written straight from their papers.
type paper struct {
	lines
	w []float64 // the model
}

// loss is the mean of half the squared errors of a node, grad its gradient.
func (n *paper) loss(i int, w []float64) (sum float64) {
	for k, x := range n.x[i] {
		e := w[0]*x + w[1] - n.y[i][k]
		sum += e * e / 2 / float64(len(n.x[i]))
	}
	return sum
}

func (n *paper) grad(i int, w []float64) []float64 {
	g := make([]float64, 2)
	for k, x := range n.x[i] {
		e := (w[0]*x + w[1] - n.y[i][k]) / float64(len(n.x[i]))
		g[0] += e * x
		g[1] += e
	}
	return g
}

// sgd makes a node's steps from the model, with momentum; adjust adds to gradients.
func (n *paper) sgd(i int, momentum float64, adjust func(y []float64, j int) float64) []float64 {
	y, v := slices.Clone(n.w), make([]float64, 2)
	for range n.epochs[i] {
		g := n.grad(i, y)
		step := make([]float64, 2)
		for j := range y {
			if adjust != nil {
				g[j] += adjust(y, j)
			}
			v[j] = momentum*v[j] + g[j]
			step[j] = testRate * v[j]
		}
		for j := range y {
			y[j] -= step[j]
		}
	}
	return y
}

// share is a node's part of the cohort's examples.
func (n *paper) share(i int, cohort []int) float64 {
	all := 0
	for _, k := range cohort {
		all += len(n.x[k])
	}
	return float64(len(n.x[i])) / float64(all)
}

// mean is the weighted mean of how the nodes' models differ from the global one.
func (n *paper) mean(cohort []int, uniform bool, local func(i int) []float64) []float64 {
	d := make([]float64, 2)
	for _, i := range cohort {
		p := n.share(i, cohort)
		if uniform {
			p = 1 / float64(len(cohort))
		}
		for j, y := range local(i) {
			d[j] += p * (y - n.w[j])
		}
	}
	return d
}

// papers are the algorithms as their papers have them.
var papers = []struct {
	settings StrategySettings
	momentum float64 // of the nodes
	run      func(n *paper)
}{
	{StrategySettings{Name: "fedavg", ServerRate: .5}, 0, func(n *paper) {
		for r := range testRounds {
			for j, d := range n.mean(n.cohort(r), false, func(i int) []float64 { return n.sgd(i, 0, nil) }) {
				n.w[j] += .5 * d
			}
		}
	}},
	{StrategySettings{Name: "fedavg", Uniform: true}, .5, func(n *paper) {
		for r := range testRounds {
			for j, d := range n.mean(n.cohort(r), true, func(i int) []float64 { return n.sgd(i, .5, nil) }) {
				n.w[j] += d
			}
		}
	}},
	{StrategySettings{Name: "fedsgd", ServerRate: 2}, 0, func(n *paper) {
		for r := range testRounds {
			g := make([]float64, 2)
			for _, i := range n.cohort(r) {
				for j, d := range n.grad(i, n.w) {
					g[j] += n.share(i, n.cohort(r)) * d
				}
			}
			for j := range g {
				n.w[j] -= 2 * testRate * g[j]
			}
		}
	}},
	{StrategySettings{Name: "fedprox", Mu: .7}, 0, func(n *paper) {
		for r := range testRounds {
			local := func(i int) []float64 {
				return n.sgd(i, 0, func(y []float64, j int) float64 { return .7 * (y[j] - n.w[j]) })
			}
			for j, d := range n.mean(n.cohort(r), false, local) {
				n.w[j] += d
			}
		}
	}},
	{StrategySettings{Name: "scaffold", Uniform: true, ServerRate: .8}, 0, func(n *paper) { // Karimireddy et al., Algorithm 1
		c, ci := make([]float64, 2), [3][2]float64{}
		for r := range testRounds {
			dx, dc := make([]float64, 2), make([]float64, 2)
			for _, i := range n.cohort(r) {
				y := n.sgd(i, 0, func(_ []float64, j int) float64 { return c[j] - ci[i][j] })
				for j := range y {
					next := ci[i][j] - c[j] + (n.w[j]-y[j])/(float64(n.epochs[i])*testRate)
					dx[j] += y[j] - n.w[j]
					dc[j] += next - ci[i][j]
					ci[i][j] = next
				}
			}
			for j := range c {
				n.w[j] += .8 / 2 * dx[j]
				c[j] += dc[j] / 3
			}
		}
	}},
	{StrategySettings{Name: "fednova"}, 0, func(n *paper) { // Wang et al., equation 8 with a = (1, …, 1)
		for r := range testRounds {
			d, tau := make([]float64, 2), 0.
			for _, i := range n.cohort(r) {
				p, steps := n.share(i, n.cohort(r)), float64(n.epochs[i])
				for j, y := range n.sgd(i, 0, nil) {
					d[j] += p * (y - n.w[j]) / steps
				}
				tau += p * steps
			}
			for j := range d {
				n.w[j] += tau * d[j]
			}
		}
	}},
	{StrategySettings{Name: "fednova", Mu: .7, ServerRate: .9}, 0, func(n *paper) { // Table 1, FedProx: ‖a‖₁ = (1 − (1−α)^τ)/α, α = ημ
		const alpha = testRate * .7
		for r := range testRounds {
			d, tau := make([]float64, 2), 0.
			for _, i := range n.cohort(r) {
				p, a := n.share(i, n.cohort(r)), (1-math.Pow(1-alpha, float64(n.epochs[i])))/alpha
				for j, y := range n.sgd(i, 0, func(y []float64, j int) float64 { return .7 * (y[j] - n.w[j]) }) {
					d[j] += p * (y - n.w[j]) / a
				}
				tau += p * a
			}
			for j := range d {
				n.w[j] += .9 * tau * d[j]
			}
		}
	}},
	{StrategySettings{Name: "fednova"}, .5, func(n *paper) { // momentum: ‖a‖₁ = (τ − ρ(1−ρ^τ)/(1−ρ))/(1−ρ)
		for r := range testRounds {
			d, tau := make([]float64, 2), 0.
			for _, i := range n.cohort(r) {
				steps := float64(n.epochs[i])
				p, a := n.share(i, n.cohort(r)), (steps-(1-math.Pow(.5, steps)))/.5
				for j, y := range n.sgd(i, .5, nil) {
					d[j] += p * (y - n.w[j]) / a
				}
				tau += p * a
			}
			for j := range d {
				n.w[j] += tau * d[j]
			}
		}
	}},
	{StrategySettings{Name: "fedavgm", Momentum: .6}, 0, func(n *paper) {
		v := make([]float64, 2)
		for r := range testRounds {
			for j, d := range n.mean(n.cohort(r), false, func(i int) []float64 { return n.sgd(i, 0, nil) }) {
				v[j] = .6*v[j] + d
			}
			for j := range v {
				n.w[j] += v[j]
			}
		}
	}},
	{StrategySettings{Name: "fedadagrad", ServerRate: .3, Tau: .1}, 0, adaptively(false, .3, 0, .1, func(v, d2 float64) float64 { return v + d2 })},
	{StrategySettings{Name: "fedadam", ServerRate: .2, Beta1: .7, Beta2: .8, Tau: .05}, 0,
		adaptively(false, .2, .7, .05, func(v, d2 float64) float64 { return .8*v + .2*d2 })},
	{StrategySettings{Name: "fedyogi", ServerRate: .2, Beta1: .7, Beta2: .8, Tau: .05, Uniform: true}, 0,
		adaptively(true, .2, .7, .05, func(v, d2 float64) float64 {
			if v > d2 {
				return v - .2*d2
			}
			return v + .2*d2
		})},
	{StrategySettings{Name: "feddyn", Alpha: .4}, 0, func(n *paper) { // Acar et al., Algorithm 1
		h, g := make([]float64, 2), [3][2]float64{}
		for r := range testRounds {
			var sum, models [2]float64
			for _, i := range n.cohort(r) {
				for j, y := range n.sgd(i, 0, func(y []float64, j int) float64 { return .4*(y[j]-n.w[j]) - g[i][j] }) {
					g[i][j] -= .4 * (y - n.w[j])
					sum[j] += y - n.w[j]
					models[j] += y
				}
			}
			for j := range h {
				h[j] -= .4 / 3 * sum[j]
				n.w[j] = models[j]/2 - h[j]/.4
			}
		}
	}},
	{StrategySettings{Name: "q-fedavg", Q: .5}, 0, func(n *paper) { // Li et al., Algorithm 2, L = 1/η
		const q, l = .5, 1 / testRate
		for r := range testRounds {
			delta, h := make([]float64, 2), 0.
			for _, i := range n.cohort(r) {
				f, square := n.loss(i, n.w), 0.
				for j, y := range n.sgd(i, 0, nil) {
					dw := l * (n.w[j] - y)
					delta[j] += math.Pow(f, q) * dw
					square += dw * dw
				}
				h += q*math.Pow(f, q-1)*square + l*math.Pow(f, q)
			}
			for j := range delta {
				n.w[j] -= delta[j] / h
			}
		}
	}},
}

// adaptively is Reddi et al., Algorithm 2.
func adaptively(uniform bool, rate, beta1, tau float64, second func(v, d2 float64) float64) func(n *paper) {
	return func(n *paper) {
		m, v := make([]float64, 2), []float64{tau * tau, tau * tau}
		for r := range testRounds {
			for j, d := range n.mean(n.cohort(r), uniform, func(i int) []float64 { return n.sgd(i, 0, nil) }) {
				m[j] = beta1*m[j] + (1-beta1)*d
				v[j] = second(v[j], d*d)
			}
			for j := range m {
				n.w[j] += rate * m[j] / (math.Sqrt(v[j]) + tau)
			}
		}
	}
}

func TestStrategiesAreTheirPapers(t *testing.T) {
	tested := map[string]bool{"fedper": true, "feddf": true} // by tests of their own
	for _, c := range papers {
		tested[c.settings.Name] = true
		local := LocalSettings{LearningRate: testRate}
		if c.momentum > 0 {
			local.Optimiser = model.Optimiser{Kind: "momentum", Momentum: c.momentum}
		}
		if c.settings.Name != "fedsgd" {
			local.Epochs = 4
		}
		n := &paper{lines: threeNodes, w: make([]float64, 2)}
		c.run(n)
		got := threeNodes.train(t, line(t, Settings{Strategy: c.settings, Local: local}), testRounds)
		for j, want := range n.w {
			if math.Abs(got[j]-want) > 5e-6 {
				t.Errorf("%+v: the line %v, want %v", c.settings, got, n.w)
			}
		}
	}
	for _, name := range Strategies() {
		if !tested[name] && name != "fedasync" && name != "fedbuff" {
			t.Errorf("%s has no test", name)
		}
	}
}

// Strategies with a parameter at its end are simpler ones.
func TestStrategiesAtTheirEnds(t *testing.T) {
	even := threeNodes
	even.epochs = []int{3, 3, 3}
	local := model.TrainConfig{Epochs: 3, Rate: testRate}
	train := func(f lines, s Strategy, rounds int) []float64 {
		a := line(t, Settings{})
		a.Strategy, a.Local = s, local
		return f.train(t, a, rounds)
	}
	plain := FedAvg{Rate: .7}
	for _, c := range []struct {
		name      string
		lines     lines
		rounds    int
		got, want Strategy
		tolerance float64
	}{
		{"FedProx without its term", threeNodes, 3, FedProx{plain, 0}, plain, 0},
		{"FedAvgM without momentum", threeNodes, 3, FedAvgM{plain, 0}, plain, 0},
		{"FedNova with equal steps", even, 3, FedNova{plain, 0}, plain, 1e-6},
		{"FedNova with equal steps and FedProx's term", even, 3, FedNova{plain, .5}, FedProx{plain, .5}, 1e-6},
		{"SCAFFOLD's first round", threeNodes, 1, Scaffold{plain}, plain, 0},
		{"q-FedAvg without fairness", threeNodes, 3, QFedAvg{0}, FedAvg{1, true}, 1e-7},
	} {
		got, want := train(c.lines, c.got, c.rounds), train(c.lines, c.want, c.rounds)
		for j := range got {
			if !(math.Abs(got[j]-want[j]) <= c.tolerance) {
				t.Errorf("%s: %v, want %v", c.name, got, want)
			}
		}
	}
}

// A rule that is the mean makes of every strategy what the sum makes of it, to the last bit: but of those that send scalars,
// of which any rule takes the median.
func TestStrategiesUnderARule(t *testing.T) {
	for _, name := range Strategies() {
		if name == "feddf" || name == "fedper" || name == "fedasync" || name == "fedbuff" {
			continue // which look at more than means, want more than one layer, or have no rounds
		}
		a := line(t, Settings{Strategy: StrategySettings{Name: name, Mu: given(name, "mu"), Q: given(name, "q")}, Local: LocalSettings{LearningRate: testRate}})
		if a.Strategy.Needs().Scalars > 0 {
			continue
		}
		want := threeNodes.train(t, a, testRounds)
		a.Rule = meanRule{}
		if got := threeNodes.train(t, a, testRounds); !slices.Equal(got, want) {
			t.Errorf("%s: %v under a rule, %v without", name, got, want)
		}
	}
}

// given is a value for a parameter that the strategy wants, and zero for all others.
func given(name, parameter string) float64 {
	if strategies[name].takes[parameter] == wanted {
		return .3
	}
	return 0
}

// meanRule is the weighted mean.
type meanRule struct{}

func (meanRule) Check(int) error  { return nil }
func (meanRule) Needs() RuleNeeds { return RuleNeeds{} }
func (meanRule) Combine(c *Combination) error {
	for k := range c.Out {
		var sum, weight int64
		for i, v := range c.Vectors {
			sum += c.Weights[i] * int64(v[k])
			weight += c.Weights[i]
		}
		c.Out[k] = float64(sum) / float64(weight)
	}
	return nil
}

// What an update that did not count would have left on its node is forgotten: the node's next update is as if it had never
// been, and the memory that was handed in is not written to.
func TestMemoryLastsOnlyIfTheUpdateCounts(t *testing.T) {
	for _, s := range []Strategy{Scaffold{FedAvg{Rate: 1}}, FedDyn{.3}} {
		a := line(t, Settings{Local: LocalSettings{Epochs: 3}})
		a.Strategy = s
		c, err := NewClient(a)
		must(t, err)
		w := work(a)
		w.Memory = [][]float32{{.25, -.5}}
		first, err := c.Update(context.Background(), w)
		must(t, err)
		want, kept := first.Clone(), slices.Clone(c.Memory()[0])
		again, err := c.Update(context.Background(), w)
		must(t, err)
		if !slices.Equal(again.Vectors[0], want.Vectors[0]) || !slices.Equal(w.Memory[0], []float32{.25, -.5}) {
			t.Errorf("%T: the second try sends %v, the first %v; memory %v", s, again.Vectors, want.Vectors, w.Memory)
		}
		w.Memory = [][]float32{kept}
		next, err := c.Update(context.Background(), w)
		must(t, err)
		if slices.Equal(next.Vectors[0], want.Vectors[0]) {
			t.Errorf("%T: what the node remembers changes nothing", s)
		}
	}
}

func TestClientRefusesWorkOfAnotherShape(t *testing.T) {
	a := line(t, Settings{Strategy: StrategySettings{Name: "scaffold"}})
	c, err := NewClient(a)
	must(t, err)
	for _, change := range []func(w *Work){
		func(w *Work) { w.Global = w.Global[1:] },
		func(w *Work) { w.Shared = nil },
		func(w *Work) { w.Shared = [][]float32{{1}} },
		func(w *Work) { w.Memory = [][]float32{} },
		func(w *Work) { w.Memory = [][]float32{{1}} },
	} {
		w := work(a)
		change(&w)
		if _, err := c.Update(context.Background(), w); err == nil {
			t.Errorf("%+v was not refused", w)
		}
	}
}

// Coordinates beyond the range are sent as its end, and counted: both of the delta (3, 5)·.1·…, at a range of a thousandth.
func TestSaturatedCoordinatesAreCounted(t *testing.T) {
	a := line(t, Settings{Compression: Compression{Range: .001}})
	c, err := NewClient(a)
	must(t, err)
	u, err := c.Update(context.Background(), work(a))
	must(t, err)
	if c.Saturated() != 2 || u.Vectors[0][0] != MaxQ || u.Vectors[0][1] != MaxQ {
		t.Errorf("%d saturated, sent %v", c.Saturated(), u.Vectors)
	}
}

// Rows of an embedding that a node does not read are as if it had no part in them: c_i and g stay, and nothing is sent, however
// large the server's c is there. Of the model's parameters the four rows come first.
func TestRowsThatNobodyReadsStay(t *testing.T) {
	for _, s := range []Strategy{Scaffold{FedAvg{Rate: 1}}, FedDyn{.3}} {
		a := ratings(t, s)
		n := a.Network
		c, err := NewClient(a)
		must(t, err)
		w := Work{Global: n.Initial(1), X: []float32{2, 2}, Y: []float32{1, 1}, Memory: [][]float32{make([]float32, n.Size())}}
		for i := range w.Memory[0] {
			w.Memory[0][i] = float32(i+1) / 64
		}
		for range a.Shared(a.FirstState()) {
			w.Shared = append(w.Shared, slices.Repeat([]float32{.5}, n.Size()))
		}
		u, err := c.Update(context.Background(), w)
		must(t, err)
		for i := range n.Size() {
			read := i >= 8 || i/2 == 2 // the four rows come first, two values each
			if moved := c.Memory()[0][i] != w.Memory[0][i]; moved != read {
				t.Errorf("%T: parameter %d: memory moved: %v, read: %v", s, i, moved, read)
			}
			for _, v := range u.Vectors {
				if (v[i] != 0) != read {
					t.Errorf("%T: parameter %d: sent %d, read: %v", s, i, v[i], read)
				}
			}
		}
	}
}
