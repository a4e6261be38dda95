package attack

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// forged is what liars send, by an attack that sees these.
func forged(a Attack, honest, own [][]int32) [][]float64 {
	r := &Round{Honest: honest, Own: own, Step: .5, Rand: rand.New(rand.NewPCG(1, 1)), Sent: make([][]float64, len(own))}
	a.Forge(r)
	return r.Sent
}

// Honest updates are (0,4), (4,4) and (8,4), whose mean is (4,4) and whose deviations are √(32/3) and 0; liars' own (2,0) and
// (6,0), with mean (4,0) and deviations 2 and 0.
func TestForgedByHand(t *testing.T) {
	honest, own := [][]int32{{0, 4}, {4, 4}, {8, 4}}, [][]int32{{2, 0}, {6, 0}}
	for _, c := range []struct {
		name   string
		attack Attack
		want   [][]float64
	}{
		{"honest", Honest{}, [][]float64{nil, nil}},
		{"labels alone", LabelFlip{Classes: 10}, [][]float64{nil, nil}},
		{"sign flip", SignFlip{Scale: 3}, [][]float64{{-6, 0}, {-18, 0}}},
		{"a little", ALIE{Deviations: 1.5}, [][]float64{{1, 0}, {1, 0}}},
		{"inner product", InnerProduct{Scale: .5}, [][]float64{{-2, -2}, {-2, -2}}},
		{"mimic", Mimic{}, [][]float64{{0, 4}, {0, 4}}},
		{"backdoor", Backdoor{Scale: 1}, [][]float64{nil, nil}},
		{"backdoor, boosted", Backdoor{Scale: 5}, [][]float64{{10, 0}, {30, 0}}},
		// On the line through all three the mean less g: no further from (8,4) than (0,4) is, 8: (0,4).
		{"min-max", MinMax{}, [][]float64{{0, 4}, {0, 4}}},
	} {
		got := forged(c.attack, honest, own)
		for i := range got {
			for k := range got[i] {
				got[i][k] = math.Round(got[i][k]*1e9)/1e9 + 0 // no -0
			}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Baruch et al. 2019 have 51 workers of which 24 lie: two honest ones are needed, and φ(z) = 25/27 gives 1.446. Of 20 with 4
// seven are, 9/16, 0.157. Where liars are a majority they need nobody.
func TestMostDeviations(t *testing.T) {
	for _, c := range []struct {
		n, m int
		want float64
	}{{51, 24, 1.4461}, {20, 4, .1573}, {20, 11, 0}, {10, 9, 0}, {3, 1, 0}} {
		if got := mostDeviations(c.n, c.m); math.Abs(got-c.want) > 2e-4 {
			t.Errorf("%d of %d: %v, want %v", c.m, c.n, got, c.want)
		}
	}
	if got := forged(ALIE{}, nil, [][]int32{{5}}); got[0][0] != 5 {
		t.Errorf("a single liar sends %v, want its own 5", got)
	}
}

// MinMax is as far as it may be: no further from any honest update than two are from each other, and a little further is too
// far.
func TestMinMaxIsAtItsBound(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	honest := make([][]int32, 7)
	for i := range honest {
		for range 40 {
			honest[i] = append(honest[i], int32(rng.NormFloat64()*1e4))
		}
	}
	mean, sent := meanOf(honest), forged(MinMax{}, honest, [][]int32{honest[0]})[0]
	furthest := func(stretch float64) (top float64) {
		for _, v := range honest {
			var s float64
			for k, m := range mean {
				d := m + stretch*(sent[k]-m) - float64(v[k])
				s += d * d
			}
			top = max(top, s)
		}
		return top
	}
	if at, bound := furthest(1), widest(honest); math.Abs(at-bound) > 1e-6*bound || furthest(1.01) <= bound {
		t.Errorf("the square of the distance is %v, then %v, want %v and more", at, furthest(1.01), bound)
	}
	if got := forged(MinMax{}, [][]int32{{3, 3}, {3, 3}}, [][]int32{{9, 9}}); !slices.Equal(got[0], []float64{3, 3}) {
		t.Errorf("honest updates that are all the same: %v, want theirs", got)
	}
}

// Noise with a deviation of 2 on a grid of step 1/2 is of deviation 4 on it; of 2·10000 draws the mean is within .14 and the
// deviation within 2 %.
func TestGaussian(t *testing.T) {
	sent := forged(Gaussian{Deviation: 2}, nil, [][]int32{make([]int32, 10000), make([]int32, 10000)})
	var sum, squares float64
	for _, v := range sent {
		for _, x := range v {
			sum, squares = sum+x, squares+x*x
		}
	}
	if mean, deviation := sum/2e4, math.Sqrt(squares/2e4); math.Abs(mean) > .14 || math.Abs(deviation-4) > .08 {
		t.Errorf("mean %v and deviation %v, want 0 and 4", mean, deviation)
	}
	if slices.Equal(sent[0], sent[1]) {
		t.Error("both liars send the same noise")
	}
}

// With nobody honest in a round, who sees the honest alone sends its own.
func TestNobodyHonest(t *testing.T) {
	for _, a := range []Attack{InnerProduct{Scale: 1}, MinMax{}, Mimic{}} {
		if got := forged(a, nil, [][]int32{{1}})[0]; got != nil {
			t.Errorf("%T sends %v", a, got)
		}
	}
}

// Attacks that are of liars alone send the same whatever others do; the others go by what these do, and send their own where
// there is nobody else.
func TestAlone(t *testing.T) {
	images := Data{Input: []int{28, 28, 1}, Classes: 10, Targets: 1}
	near, far, own := [][]int32{{1, 2}, {3, 1}}, [][]int32{{100, -7}, {-3, 90}}, []int32{5, 6}
	for _, name := range Attacks() {
		a, err := Settings{Attack: name}.Build(images)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(Alone(), name) {
			if x, y := forged(a, near, [][]int32{own}), forged(a, far, [][]int32{own, near[0]}); !slices.Equal(x[0], y[0]) {
				t.Errorf("%s sends %v, and %v among others", name, x[0], y[0])
			}
			continue
		}
		if sent := forged(a, nil, [][]int32{own})[0]; sent != nil && !slices.Equal(sent, []float64{5, 6}) {
			t.Errorf("%s sends %v where nobody else is", name, sent)
		}
		if x, y := forged(a, near, [][]int32{own, near[0]}), forged(a, far, [][]int32{own, far[0]}); slices.Equal(x[0], y[0]) {
			t.Errorf("%s sends %v whatever others do", name, x[0])
		}
	}
}

func TestLabelFlip(t *testing.T) {
	y := []float32{0, 3, 9}
	LabelFlip{Classes: 10}.Poison(nil, y, nil)
	binary := []float32{0, 1}
	LabelFlip{Classes: 1}.Poison(nil, binary, nil)
	if !slices.Equal(y, []float32{9, 6, 0}) || !slices.Equal(binary, []float32{1, 0}) {
		t.Errorf("labels %v and %v", y, binary)
	}
}

// Half of five examples of 4×4 pixels in two channels, three, bear a square of 3×3 pixels and the class; the others are as
// they were. The same rng marks the same.
func TestBackdoorMarksHalf(t *testing.T) {
	a := Backdoor{Input: []int{4, 4, 2}, Class: 7, Scale: 1}
	poisoned := func() (x, y []float32) {
		x, y = make([]float32, 5*32), []float32{1, 2, 3, 4, 5}
		a.Poison(x, y, rand.New(rand.NewPCG(2, 2)))
		return x, y
	}
	x, y := poisoned()
	marked := 0
	for i, label := range y {
		image, sum := x[i*32:(i+1)*32], float32(0)
		for _, v := range image {
			sum += v
		}
		switch {
		case label == 7 && sum == 18 && image[31] == 1 && image[10] == 1 && image[8] == 0 && image[2] == 0:
			marked++
		case label != float32(i+1) || sum != 0:
			t.Errorf("example %d: label %v and mark %v", i, label, image)
		}
	}
	if marked != 3 {
		t.Errorf("%d of 5 are marked, want 3", marked)
	}
	if again, _ := poisoned(); !slices.Equal(again, x) {
		t.Error("the same chance marks others")
	}
	row := []float32{5, 5, 5, 5}
	if (Backdoor{Input: []int{4}}).Mark(row); !slices.Equal(row, []float32{5, 1, 1, 1}) {
		t.Errorf("a row is marked as %v", row)
	}
	a.Poison(nil, nil, rand.New(rand.NewPCG(2, 2)))
}

func TestSettings(t *testing.T) {
	images := Data{Input: []int{28, 28, 1}, Classes: 10, Targets: 1}
	for _, c := range []struct {
		s    Settings
		want Attack
	}{
		{Settings{}, nil},
		{Settings{Attack: "label-flip", Nodes: 1}, LabelFlip{Classes: 10}},
		{Settings{Attack: "sign-flip"}, SignFlip{Scale: 1}},
		{Settings{Attack: "alie"}, ALIE{}},
		{Settings{Attack: "alie", Scale: 1.5}, ALIE{Deviations: 1.5}},
		{Settings{Attack: "inner-product"}, InnerProduct{Scale: .1}},
		{Settings{Attack: "min-max"}, MinMax{}},
		{Settings{Attack: "gaussian", Scale: 200}, Gaussian{Deviation: 200}},
		{Settings{Attack: "mimic"}, Mimic{}},
		{Settings{Attack: "backdoor", Target: 3, Scale: 5}, Backdoor{Input: images.Input, Class: 3, Scale: 5}},
	} {
		if got, err := c.s.Build(images); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %#v, %v, want %#v", c.s, got, err, c.want)
		}
	}
	for _, c := range []struct {
		s    Settings
		d    Data
		want string
	}{
		{Settings{Attack: "shout"}, images, `attack "shout", want one of alie, backdoor, gaussian, inner-product, label-flip, mimic, min-max, sign-flip`},
		{Settings{Nodes: 3}, images, `attack "", want one of`},
		{Settings{Attack: "mimic", Scale: 2}, images, "scale is not for mimic"},
		{Settings{Attack: "sign-flip", Scale: -1}, images, "scale is -1, want above 0 and at most 1e+06"},
		{Settings{Attack: "sign-flip", Scale: math.NaN()}, images, "scale is NaN"},
		{Settings{Attack: "alie", Target: 2}, images, "target is for backdoor, not for alie"},
		{Settings{Attack: "backdoor", Target: 10}, images, "target is 10, want a class, 0 to 9"},
		{Settings{Attack: "label-flip"}, Data{Input: []int{80}, Classes: 90, Targets: 80}, "label-flip needs examples with one label each"},
		{Settings{Attack: "backdoor"}, Data{Input: []int{20}, Classes: 77, Targets: 1, IDs: true}, "backdoor needs inputs that are quantities"},
	} {
		if _, err := c.s.Build(c.d); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.s, err, c.want)
		}
	}
}

func TestLiars(t *testing.T) {
	count := func(s Settings, seed uint64) (n int, liars []bool) {
		liars, err := s.Liars(20, seed)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range liars {
			if l {
				n++
			}
		}
		return n, liars
	}
	n, a := count(Settings{Nodes: 4}, 1)
	share, b := count(Settings{Share: .2}, 1)
	_, other := count(Settings{Nodes: 4}, 2)
	if n != 4 || share != 4 || !slices.Equal(a, b) || slices.Equal(a, other) {
		t.Errorf("%d %v, %d %v, another seed %v", n, a, share, b, other)
	}
	for _, c := range []struct {
		s    Settings
		want string
	}{
		{Settings{}, "0 of 20 nodes lie, want 1 to 19: give nodes or share"},
		{Settings{Nodes: 20}, "20 of 20 nodes lie, want 1 to 19"},
		{Settings{Nodes: -1}, "-1 of 20 nodes lie"},
		{Settings{Share: 1}, "share is 1, want 0 to below 1"},
		{Settings{Share: .01}, "0 of 20 nodes lie"},
		{Settings{Share: .1, Nodes: 3}, "both nodes and share, want one"},
	} {
		if _, err := c.s.Liars(20, 1); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.s, err, c.want)
		}
	}
}
