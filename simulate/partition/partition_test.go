package partition

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// balanced are n examples of so many classes, in turn, with two columns: of seven values, and of one.
func balanced(n, classes int) Examples {
	x := Examples{Labels: make([]int32, n), Classes: classes, Columns: map[string][]int32{"region": make([]int32, n), "all": make([]int32, n)}, Natural: "region"}
	for i := range x.Labels {
		x.Labels[i], x.Columns["region"][i] = int32(i%classes), int32(i*i%7)
	}
	return x
}

// everyKind is one partition of each kind.
var everyKind = []Settings{
	{}, {Kind: "shards"}, {Kind: "labels", Labels: 3}, {Kind: "dirichlet", Alpha: .3}, {Kind: "quantity-dirichlet", Alpha: 2}, {Kind: "quantity-lognormal"},
	{Kind: "quantity-power-law"}, {Kind: "column", Column: "region"}, {Kind: "column", Column: "all"}, {Kind: "natural"}, {Kind: "noise"},
}

func divide(t *testing.T, s Settings, x Examples, seed uint64) [][]int32 {
	t.Helper()
	p, err := s.Partitioner()
	if err != nil {
		t.Fatal(err)
	}
	parts, err := Divide(p, x, s.Nodes, seed)
	if err != nil {
		t.Fatalf("%+v, seed %d: %v", s, seed, err)
	}
	return parts
}

// No kind loses an example or deals one twice, none leaves a node without, and one seed gives one partition.
func TestEveryExampleIsDealtOnce(t *testing.T) {
	if kinds := Kinds(); len(kinds) != 10 {
		t.Fatalf("%d kinds, and this test knows 10", len(kinds))
	}
	for _, s := range everyKind {
		for _, nodes := range []int{1, 7, 24} {
			if s.Kind == "labels" && nodes == 1 {
				continue // which leaves seven labels to nobody
			}
			s.Nodes = nodes
			x := balanced(3000, 10)
			for seed := range uint64(3) {
				parts := divide(t, s, x, seed)
				if all := slices.Sorted(slices.Values(slices.Concat(parts...))); !slices.Equal(all, places(3000)) || len(parts) != nodes {
					t.Errorf("%+v, seed %d: %d examples on %d nodes", s, seed, len(all), len(parts))
				}
				again := divide(t, s, x, seed)
				if !slices.EqualFunc(parts, again, slices.Equal) {
					t.Errorf("%+v, seed %d: the same arguments gave other parts", s, seed)
				}
				other := divide(t, s, x, seed+100)
				if byChance := nodes > 1 && !(nodes == 7 && (s.Kind == "natural" || s.Column == "region")); byChance && slices.EqualFunc(parts, other, slices.Equal) {
					t.Errorf("%+v: two seeds gave the same parts", s)
				}
			}
		}
	}
}

// Parts do not share memory: who appends to one does not write into the next.
func TestPartsAreApart(t *testing.T) {
	for _, s := range everyKind {
		s.Nodes = 6
		parts := divide(t, s, balanced(3000, 10), 1)
		before := slices.Clone(parts[1])
		_ = append(parts[0], -1)
		if !slices.Equal(before, parts[1]) {
			t.Errorf("%+v: appending to the first part changed the second", s)
		}
	}
}

// Two nodes of three shards each: 12 examples sorted by label are cut into 6 shards of 2, each of one label. A node has
// three of them.
func TestShardsByHand(t *testing.T) {
	x := Examples{Labels: []int32{2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1}, Classes: 3}
	shards := [][]int32{{1, 4}, {7, 10}, {2, 5}, {8, 11}, {0, 3}, {6, 9}}
	for seed := range uint64(5) {
		for _, part := range divide(t, Settings{Kind: "shards", Shards: 3, Nodes: 2}, x, seed) {
			for i := 0; i < 6; i += 2 {
				if !slices.ContainsFunc(shards, func(s []int32) bool { return slices.Equal(s, part[i:i+2]) }) {
					t.Errorf("seed %d: %v is no shard", seed, part[i:i+2])
				}
			}
		}
	}
}

// With #C = k each node has exactly k labels, among them its number modulo the classes, and the nodes of a label have
// equally many of it, but for one.
func TestLabels(t *testing.T) {
	for _, nodes := range []int{4, 10, 33} {
		for each := range 4 {
			each++
			if each*nodes < 10 {
				continue
			}
			x := balanced(5000, 10)
			p := NewPicture(divide(t, Settings{Kind: "labels", Labels: each, Nodes: nodes}, x, 7), x)
			for node, of := range p.Labels {
				if n := len(of) - zeros(of); n != each || of[node%10] == 0 {
					t.Errorf("#C = %d on %d nodes: node %d has labels %v", each, nodes, node, of)
				}
			}
			for label := range 10 {
				least, most := math.MaxInt, 0
				for _, of := range p.Labels {
					if of[label] > 0 {
						least, most = min(least, of[label]), max(most, of[label])
					}
				}
				if most-least > 1 {
					t.Errorf("#C = %d on %d nodes: label %d in parts of %d to %d", each, nodes, label, least, most)
				}
			}
		}
	}
}

func zeros(list []int) (n int) {
	for _, v := range list {
		if v == 0 {
			n++
		}
	}
	return n
}

// Shares of Dir(a) over n have the mean 1/n and the variance (n-1)/(n²(na+1)). Over 4000 draws the mean of one share is
// off by more than 5 standard errors, and the variance by more than a tenth, only by accident.
func TestDirichletMoments(t *testing.T) {
	const draws, n = 4000, 8
	for _, alpha := range []float64{.001, .1, .5, 1, 7, 100} {
		rng := rand.New(rand.NewPCG(3, 0))
		var sum, squares float64
		for range draws {
			shares, total := dirichlet(alpha, n, rng), 0.0
			for _, s := range shares {
				total += s
			}
			if math.Abs(total-1) > 1e-12 {
				t.Fatalf("alpha %v: shares sum to %v", alpha, total)
			}
			sum, squares = sum+shares[3], squares+shares[3]*shares[3]
		}
		variance := (n - 1) / (n * n * (n*alpha + 1))
		mean := sum / draws
		if off := math.Abs(mean-1./n) / math.Sqrt(variance/draws); off > 5 {
			t.Errorf("alpha %v: mean %v is %.1f standard errors from 1/%d", alpha, mean, off, n)
		}
		if got := squares/draws - mean*mean; math.Abs(got/variance-1) > .1 {
			t.Errorf("alpha %v: variance %v, want %v", alpha, got, variance)
		}
	}
}

// The smaller alpha, the fewer labels make up most of what a node has; every node has at least what it must.
func TestDirichletSkew(t *testing.T) {
	x := balanced(20_000, 10)
	last := 0.0
	for _, alpha := range []float64{.05, .5, 5, 500} {
		s := Settings{Kind: "dirichlet", Alpha: alpha, Nodes: 20, Least: 10}
		p := NewPicture(divide(t, s, x, 4), x)
		spread, top := p.Spread(), 0.0 // share of a node's examples that its most frequent label is not
		for i, of := range p.Labels {
			top += (1 - float64(slices.Max(of))/float64(p.Examples[i])) / 20
		}
		if spread.Least < 10 || top <= last {
			t.Errorf("alpha %v: least %d, other labels make up %v after %v", alpha, spread.Least, top, last)
		}
		last = top
	}
	if last < .85 { // of ten labels, nine tenths are others
		t.Errorf("alpha 500: other labels make up %v, want near .9", last)
	}
}

// Within an IID part every label is as frequent as in the whole: chi-square with 9 degrees of freedom is above 40 once in
// 100,000 times.
func TestIIDLabels(t *testing.T) {
	for _, s := range []Settings{{}, {Kind: "quantity-dirichlet"}, {Kind: "quantity-lognormal"}, {Kind: "quantity-power-law"}, {Kind: "noise"}} {
		s.Nodes = 8
		x := balanced(8000, 10)
		p := NewPicture(divide(t, s, x, 9), x)
		for node, of := range p.Labels {
			chi, want := 0.0, float64(p.Examples[node])/10
			for _, n := range of {
				chi += (float64(n) - want) * (float64(n) - want) / want
			}
			if chi > 40 {
				t.Errorf("%+v: node %d has labels %v, chi-square %.1f", s, node, of, chi)
			}
		}
	}
}

// 100 examples on 4 nodes with at least 10 each leave 60 to be shared as 1 : 1/2 : 1/3 : 1/4, that is 12/25, 6/25, 4/25
// and 3/25: borders at 28.8, 43.2 and 52.8 for this order, and some order of those sizes.
func TestPowerLawByHand(t *testing.T) {
	got := portions([]float64{1, .5, 1. / 3, .25}, 60)
	if want := []int{28, 15, 9, 8}; !slices.Equal(got, want) {
		t.Errorf("portions %v, want %v", got, want)
	}
	x := balanced(100, 2)
	p := NewPicture(divide(t, Settings{Kind: "quantity-power-law", Least: 10, Nodes: 4}, x, 2), x)
	for i, n := range slices.Sorted(slices.Values(p.Examples)) {
		if want := []float64{17.2, 19.6, 24.4, 38.8}[i]; math.Abs(float64(n)-want) > 1 {
			t.Errorf("sizes %v, want about 17.2, 19.6, 24.4 and 38.8 in some order", p.Examples)
		}
	}
}

// The logarithm of what a node has beyond the least is normal with the deviation asked for: over 2000 nodes the sample's
// deviation is within a twentieth of it.
func TestLogNormalSizes(t *testing.T) {
	x := balanced(4_000_000, 2)
	p := NewPicture(divide(t, Settings{Kind: "quantity-lognormal", Sigma: .8, Least: 1, Nodes: 2000}, x, 5), x)
	var sum, squares float64
	for _, n := range p.Examples {
		l := math.Log(float64(n-1) + .5)
		sum, squares = sum+l, squares+l*l
	}
	if got := math.Sqrt(squares/2000 - sum*sum/2000/2000); math.Abs(got-.8) > .04 {
		t.Errorf("deviation of the logarithms %v, want .8", got)
	}
}

func TestPortions(t *testing.T) {
	for _, c := range []struct {
		shares []float64
		n      int
		want   []int
	}{
		{[]float64{1, 1}, 5, []int{2, 3}},
		{[]float64{0, 1, 0}, 4, []int{0, 4, 0}},
		{[]float64{0, 0, 0}, 7, []int{2, 2, 3}},
		{[]float64{3, 1}, 0, []int{0, 0}},
		{[]float64{1e-300, 1}, 3, []int{0, 3}},
	} {
		if got := portions(c.shares, c.n); !slices.Equal(got, c.want) {
			t.Errorf("%v of %d: %v, want %v", c.shares, c.n, got, c.want)
		}
	}
}

// As many nodes as there are values are the values, in order; the number of nodes is theirs where nobody says.
func TestColumn(t *testing.T) {
	x := Examples{Labels: make([]int32, 6), Classes: 1, Columns: map[string][]int32{"shop": {4, 1, 4, 9, 1, 4}}, Natural: "shop"}
	for _, s := range []Settings{{Kind: "natural"}, {Kind: "column", Column: "shop"}, {Kind: "natural", Nodes: 3}} {
		got := divide(t, s, x, 3)
		if want := [][]int32{{1, 4}, {0, 2, 5}, {3}}; !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%+v: %v, want %v", s, got, want)
		}
	}
}

// naiveSplit splits the largest part, and sorts all again before each split.
func naiveSplit(parts [][]int32, nodes int, rng *rand.Rand) [][]int32 {
	for len(parts) < nodes {
		slices.SortStableFunc(parts, larger)
		whole := slices.Clone(parts[0])
		mix(whole, rng)
		parts[0] = whole[:len(whole)/2]
		parts = append(parts, whole[len(whole)/2:])
	}
	return parts
}

func TestSplitIsTheNaiveOne(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 0))
		groups := make([]int32, 120)
		for i := range groups {
			groups[i] = int32(rng.IntN(5) * rng.IntN(3))
		}
		present := Column{"g"}.Nodes(Examples{Labels: groups, Columns: map[string][]int32{"g": groups}})
		whole := Regroup(groups, present, nil)
		for nodes := present + 1; nodes <= 120; nodes += 7 {
			want := naiveSplit(slices.Clone(whole), nodes, rand.New(rand.NewPCG(seed, 1)))
			got := Regroup(groups, nodes, rand.New(rand.NewPCG(seed, 1)))
			if !slices.EqualFunc(got, want, slices.Equal) {
				t.Fatalf("seed %d, %d nodes: %v, want %v", seed, nodes, got, want)
			}
		}
	}
}

// Node i of n sees noise of variance v·i/n: here .25, .5, .75 and 1. Over 20,000 values a variance is off by more than a
// twentieth only by accident.
func TestNoise(t *testing.T) {
	n := Noise{Variance: 1}
	for node := range 4 {
		values := make([]float32, 20_000)
		n.Distort(node, 4, values, rand.New(rand.NewPCG(uint64(node), 0)))
		var sum, squares float64
		for _, v := range values {
			sum, squares = sum+float64(v), squares+float64(v)*float64(v)
		}
		want := float64(node+1) / 4
		if got := squares / 20_000; math.Abs(got/want-1) > .05 || math.Abs(sum/20_000) > .05 {
			t.Errorf("node %d: variance %v and mean %v, want %v and 0", node, got, sum/20_000, want)
		}
	}
}

// A partition that cannot be is refused, with what would do instead.
func TestRefusals(t *testing.T) {
	x := balanced(300, 10)
	plain := Examples{Labels: make([]int32, 300), Classes: 1}
	for _, c := range []struct {
		s    Settings
		x    Examples
		want string
	}{
		{Settings{Nodes: 301}, x, "301 nodes for 300 examples, want 1 to 300"},
		{Settings{Nodes: -1}, x, "-1 nodes for 300 examples, want 1 to 300"},
		{Settings{Kind: "shard"}, x, `kind "shard": did you mean shards?`},
		{Settings{Kind: "x"}, x, `kind "x": want one of column, dirichlet,`},
		{Settings{Kind: "shards", Shards: 31}, x, "31 shards a node, want 1 to 30"},
		{Settings{Kind: "shards", Shards: -1}, x, "-1 shards a node, want 1 to 30"},
		{Settings{Kind: "shards"}, plain, "no label with several classes; want kind iid, natural"},
		{Settings{Kind: "labels", Labels: 11}, x, "labels is 11, want 1 to 10, the classes there are"},
		{Settings{Kind: "labels", Labels: 1, Nodes: 4}, x, "1 labels a node on 4 nodes leave some of 10 classes to nobody, want at least 3 labels a node"},
		{Settings{Kind: "labels", Labels: 10, Nodes: 60}, x, "label 0 is to be on 60 nodes and has 30 examples; about 30 nodes would do"},
		{Settings{Kind: "labels"}, plain, "no label with several classes"},
		{Settings{Kind: "dirichlet", Alpha: -1}, x, "alpha is -1, want 0.001 to 1000000"},
		{Settings{Kind: "dirichlet", Alpha: math.NaN()}, x, "alpha is NaN, want"},
		{Settings{Kind: "dirichlet", Least: 31}, x, "least is 31, want 1 to 30"},
		{Settings{Kind: "dirichlet", Least: 30}, x, "some node always has fewer than 30 examples; least "},
		{Settings{Kind: "dirichlet", Alpha: .01, Nodes: 200, Least: 1}, x, "some node always has no example; "},
		{Settings{Kind: "dirichlet"}, plain, "no label with several classes"},
		{Settings{Kind: "quantity-dirichlet", Alpha: .01, Nodes: 100, Least: 1}, x, "in 200 draws for 100 nodes"},
		{Settings{Kind: "quantity-dirichlet", Alpha: 1e9}, x, "alpha is 1e+09, want 0.001 to 1000000"},
		{Settings{Kind: "quantity-lognormal", Sigma: 11}, x, "sigma is 11, want above 0 and at most 10"},
		{Settings{Kind: "quantity-lognormal", Least: 31}, x, "least is 31, want 1 to 30"},
		{Settings{Kind: "quantity-power-law", Exponent: -2}, x, "exponent is -2, want above 0 and at most 10"},
		{Settings{Kind: "noise", Variance: -1}, x, "variance is -1, want above 0 and at most 1000000"},
		{Settings{Kind: "column", Column: "regio"}, x, `column "regio": did you mean region? want one of all, region`},
		{Settings{Kind: "column"}, x, "kind column wants column, its name"},
		{Settings{Kind: "natural"}, plain, "the data set has no column to divide by"},
		{Settings{Kind: "natural"}, Examples{Labels: plain.Labels, Classes: 1, Columns: x.Columns}, "does not say who had its examples; want kind column, and column one of all, region"},
		{Settings{Kind: "iid", Alpha: 1}, x, "alpha is not for kind iid, but for dirichlet and quantity-dirichlet"},
		{Settings{Column: "region"}, x, "column is not for kind iid, but for column"},
		{Settings{Nodes: 2}, Examples{Labels: []int32{0, 3, 1}, Classes: 3}, "example 1 has label 3, want 0 to 2"},
	} {
		p, err := c.s.Partitioner()
		if err == nil {
			_, err = Divide(p, c.x, c.s.Nodes, 1)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.s, err, c.want)
		}
	}
}

// What a refusal says would do does.
func TestNearestValidValueIsValid(t *testing.T) {
	x := balanced(300, 10)
	refused := func(s Settings, format string) (value int) {
		p, err := s.Partitioner()
		if err == nil {
			_, err = Divide(p, x, s.Nodes, 1)
		}
		if err == nil {
			t.Fatalf("%+v is not refused", s)
		}
		if _, scanned := fmt.Sscanf(err.Error(), format, &value); scanned != nil {
			t.Fatalf("%v does not read as %q", err, format)
		}
		return value
	}
	s := Settings{Kind: "dirichlet", Least: 28}
	s.Least = refused(s, "partition: in 200 draws for 10 nodes some node always has fewer than 28 examples; least %d")
	divide(t, s, x, 1)
	s = Settings{Kind: "dirichlet", Alpha: .01, Nodes: 200, Least: 1}
	s.Nodes = refused(s, "partition: in 200 draws for 200 nodes some node always has no example; %d nodes")
	divide(t, s, x, 1)
	s = Settings{Kind: "dirichlet", Alpha: .01, Nodes: 200} // fewer nodes usually have more each
	s.Nodes = refused(s, "partition: in 200 draws for 200 nodes some node always has no example; %d nodes")
	divide(t, s, x, 1)
}

// broken returns what Divide must not.
type broken [][]int32

func (b broken) Divide(Examples, int, *rand.Rand) ([][]int32, error) { return b, nil }

func TestBrokenPartsAreRefused(t *testing.T) {
	x := balanced(10, 2)
	for want, b := range map[string]broken{
		"1 parts for 2 nodes":                   {{1}},
		"node 2 of 2 has no example":            {{1}, {}},
		"node 1 has example 10, want 0 to 9":    {{10}, {1}},
		"node 2 has example -1, want 0 to 9":    {{1}, {2, -1}},
		"partition: 3 parts for 2 nodes":        {{1}, {2}, {3}},
		"partition: node 1 of 2 has no example": {nil, {3}},
		"partition: node 2 has example 9 twice": {{0, 9}, {9, 3, 9}},
	} {
		if _, err := Divide(b, x, 2, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestPicture(t *testing.T) {
	x := Examples{Labels: []int32{0, 1, 1, 2, 0}, Classes: 3}
	p := NewPicture([][]int32{{0, 1, 2}, {3, 4}, {0}}, x)
	want := [][]int{{1, 2, 0}, {1, 0, 1}, {1, 0, 0}}
	if !slices.Equal(p.Examples, []int{3, 2, 1}) || !slices.EqualFunc(p.Labels, want, slices.Equal) {
		t.Errorf("%+v", p)
	}
	if got, want := p.Spread(), (Spread{1, 2, 3, 5. / 3}); got != want {
		t.Errorf("spread %+v, want %+v", got, want)
	}
	if svg := p.SVG(); strings.Count(svg, "<rect") != 9 || !strings.Contains(svg, "node 1, label 1: 2 examples") {
		t.Errorf("%s", svg)
	}
	x = balanced(3000, 100)
	p = NewPicture(divide(t, Settings{Nodes: 700}, x, 1), x)
	if svg := p.SVG(); strings.Count(svg, "<rect") != 60*34 || !strings.Contains(svg, "60 of 700 nodes") || !strings.Contains(svg, "label 99–99") {
		t.Errorf("%d cells", strings.Count(svg, "<rect"))
	}
	x.Classes = 1
	x.Labels = make([]int32, 3000)
	if p = NewPicture(divide(t, Settings{Nodes: 7}, x, 1), x); p.Labels != nil || strings.Count(p.SVG(), "<rect") != 7 {
		t.Errorf("without labels: %+v", p)
	}
	if (Picture{}).Spread() != (Spread{}) || !strings.Contains((Picture{}).SVG(), "no data") {
		t.Error("an empty picture")
	}
}
