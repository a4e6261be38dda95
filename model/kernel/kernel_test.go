package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// onPaths runs the test on each path of this processor. Tests here are not parallel: they change what is in use.
func onPaths(t *testing.T, test func(t *testing.T)) {
	defer func(p *path) { use = p }(use)
	for _, p := range tested() {
		use = p
		t.Run(p.name, test)
	}
}

// guarded is a slice with other elements around it, which nobody may write, at an address that no vector is aligned to.
type guarded[T comparable] struct {
	x, all []T
	around T
}

const guardWidth = 16

func newGuarded[T comparable](n, offset int, around T) *guarded[T] {
	g := &guarded[T]{all: make([]T, n+offset+2*guardWidth), around: around}
	for i := range g.all {
		g.all[i] = around
	}
	g.x = g.all[guardWidth+offset:][:n:n]
	return g
}

// check fails the test if an element around the slice was written.
func (g *guarded[T]) check(t *testing.T, what string) {
	t.Helper()
	end := len(g.all) - guardWidth
	start := end - len(g.x)
	for i, v := range slices.Concat(g.all[:start], g.all[end:]) {
		if v != g.around {
			t.Fatalf("%s: wrote %v beside %d elements, at %d of what is around them", what, v, len(g.x), i)
		}
	}
}

// near reports whether got is want within the relative tolerance, or both are the same infinity or NaN.
func near(got float32, want, tolerance float64) bool {
	w := float64(float32(want))
	if math.IsInf(w, 0) || w != w {
		return float64(got) == w || got != got && w != w
	}
	return math.Abs(float64(got)-want) <= tolerance*math.Abs(want)+3*math.SmallestNonzeroFloat32
}

// special are values that need care: they pass through.
var special = []float32{0, float32(math.Copysign(0, -1)), 1e-44, -1e-39, 1e38, -1e38, float32(math.Inf(1)), float32(math.Inf(-1)),
	float32(math.NaN()), math.Float32frombits(0xffc00001)}

// lengths are all up to 67, some random ones, and some beyond one block.
func lengths(rng *rand.Rand) (n []int) {
	for i := range 68 {
		n = append(n, i)
	}
	for range 5 {
		n = append(n, rng.IntN(5000))
	}
	return append(n, block, block+1, 2*block+33)
}

func TestChoose(t *testing.T) {
	paths := []*path{{name: "go"}, {name: "avx2"}}
	for _, c := range []struct{ name, want, err string }{
		{"", "avx2", ""},
		{"go", "go", ""},
		{"avx2", "avx2", ""},
		{"avx512", "avx2", `CHOIR_KERNEL is "avx512", and this processor has go, avx2`},
		{"AVX2", "avx2", `CHOIR_KERNEL is "AVX2", and this processor has go, avx2`},
		{strings.Repeat("x", 100), "avx2", `CHOIR_KERNEL is "xxxxxxxxxxxxxxxxxxxx", and`},
	} {
		p, err := choose(c.name, paths)
		if p.name != c.want || (err == nil) != (c.err == "") || err != nil && !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%q chooses %s, %v", c.name, p.name, err)
		}
	}
}

// TestPath: these tests themselves run on what CHOIR_KERNEL names.
func TestPath(t *testing.T) {
	if err := Check(); err != nil {
		t.Fatal(err)
	}
	want := available()[len(available())-1].name
	if name := os.Getenv("CHOIR_KERNEL"); name != "" {
		want = name
	}
	if Path() != want {
		t.Errorf("path %s, want %s", Path(), want)
	}
	t.Log("path", Path())
}

type kernelCase struct {
	name      string
	run       func(dst, x, y []float32)
	want      func(d, x, y float64) float64
	tolerance float64
}

// elementwise are kernels whose results depend on one element each of dst, x and y.
var elementwise = []kernelCase{
	{"Axpy", func(d, x, y []float32) { Axpy(d, -.75, x) }, func(d, x, y float64) float64 { return d - .75*x }, 0},
	{"Axpby", func(d, x, y []float32) { Axpby(d, -.75, x, .5) }, func(d, x, y float64) float64 { return .5*d - .75*x }, 0},
	{"Scale", func(d, x, y []float32) { Scale(d, -.75) }, func(d, x, y float64) float64 { return -.75 * d }, 0},
	{"Add", Add, func(d, x, y float64) float64 { return x + y }, 0},
	{"Add in place", func(d, x, y []float32) { Add(d, d, y) }, func(d, x, y float64) float64 { return d + y }, 0},
	{"Multiply", Multiply, func(d, x, y float64) float64 { return x * y }, 0},
	{"AddProduct", AddProduct, func(d, x, y float64) float64 { return d + x*y }, 0},
	{"Fold", func(d, x, y []float32) {
		Fold(d, [][]float32{x, y, y, x, x}, []float32{1, .5, .25, .5, -.125})
	}, func(d, x, y float64) float64 { return d + x + .5*y + .25*y + .5*x - .125*x }, 0},
	{"ReLU", func(d, x, y []float32) { Activate(d, x, ReLU) }, func(d, x, y float64) float64 { return max(x, 0) }, 0},
	{"Identity", func(d, x, y []float32) { Activate(d, x, Identity) }, func(d, x, y float64) float64 { return x }, 0},
	{"Exp", func(d, x, y []float32) { Exp(d, x) }, func(d, x, y float64) float64 { return math.Exp(x) }, 3e-7},
	{"Sigmoid", func(d, x, y []float32) { Activate(d, x, Sigmoid) }, func(d, x, y float64) float64 { return 1 / (1 + math.Exp(-x)) }, 4e-7},
	{"Tanh", func(d, x, y []float32) { Activate(d, x, Tanh) }, func(d, x, y float64) float64 { return math.Tanh(x) }, 4e-7},
	{"ReLU gradient", func(d, x, y []float32) { ActivationGrad(d, x, ReLU) }, func(d, x, y float64) float64 {
		if x <= 0 {
			return 0
		}
		return d
	}, 0},
	{"Sigmoid gradient", func(d, x, y []float32) { ActivationGrad(d, x, Sigmoid) }, func(d, x, y float64) float64 { return d * (x * (1 - x)) }, 0},
	{"Tanh gradient", func(d, x, y []float32) { ActivationGrad(d, x, Tanh) }, func(d, x, y float64) float64 { return d * (1 - x*x) }, 0},
	{"Identity gradient", func(d, x, y []float32) { ActivationGrad(d, x, Identity) }, func(d, x, y float64) float64 { return d }, 0},
	{"Momentum, weights", func(d, x, y []float32) { momentumOf(d, slices.Clone(x), y) }, func(d, x, y float64) float64 {
		g := y + .25*d
		return d - .5*(.75*x+g) - .125*g
	}, 0},
	{"Momentum, velocity", func(d, x, y []float32) { momentumOf(slices.Clone(x), d, y) }, func(d, x, y float64) float64 { return .75*d + y + .25*x }, 0},
}

// compared are others whose results depend on one element each, for which float64 is no measure: what overflows does so
// on every path.
var compared = []kernelCase{
	{name: "Adaptive, weights", run: func(d, x, y []float32) { adaptiveOf(d, slices.Clone(x), slices.Clone(x), y) }},
	{name: "Adaptive, first moment", run: func(d, x, y []float32) { adaptiveOf(slices.Clone(x), d, slices.Clone(x), y) }},
	{name: "Rescale", run: func(d, x, y []float32) { Rescale(d, integersOf(x), x, y, .25, ReLU) }},
	{name: "FromFixed", run: func(d, x, y []float32) { FromFixed(d, integersOf(x), .25) }},
}

// adaptiveOf takes a second moment of which it makes squares.
func adaptiveOf(w, m, v, g []float32) {
	Multiply(v, v, v)
	Adaptive(w, m, v, g, AdaptiveStep{KeepM: .75, AddM: .25, KeepV: .5, AddV: .5, Rate: .25, Root: 2, Epsilon: 1, Shrink: .5})
}

// integersOf are the bits of x, a byte each, so that products with what they scale are no larger than that times 2^8.
func integersOf(x []float32) []int32 {
	q := make([]int32, len(x))
	for i, v := range x {
		q[i] = int32(int8(math.Float32bits(v)))
	}
	return q
}

func momentumOf(w, v, g []float32) {
	Momentum(w, v, g, MomentumStep{Keep: .75, Decay: .25, FromV: .5, FromG: .125})
}

// TestElementwise: the scalars above are powers of two and the like, so that float64 shows what float32 may lose: the
// rounding of sums, relative to the largest of what is added.
func TestElementwise(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 1))
		for _, k := range elementwise {
			for _, n := range lengths(rng) {
				x, y, before := random(rng, n+3)[3:], random(rng, n+1)[1:], random(rng, n)
				for i := range n {
					x[i] *= 4
					if rng.IntN(10) == 0 {
						x[i], y[i] = special[rng.IntN(len(special))], special[rng.IntN(len(special))]
					}
				}
				if k.name == "Exp" || k.name == "Sigmoid" || k.name == "Tanh" {
					Scale(x, 30)
				}
				dst := newGuarded(n, n%5, float32(77))
				copy(dst.x, before)
				k.run(dst.x, x, y)
				dst.check(t, k.name)
				for i, got := range dst.x {
					want := k.want(float64(before[i]), float64(x[i]), float64(y[i]))
					slack := 2 * smallestNormal
					if k.tolerance == 0 {
						slack += 4e-7 * (math.Abs(float64(before[i])) + math.Abs(float64(x[i])) + math.Abs(float64(y[i])))
					}
					if !near(got, want, k.tolerance+4e-7) && !(math.Abs(float64(got)-want) <= slack) {
						t.Fatalf("%s, element %d of %d: from %v, %v, %v comes %v, want %v", k.name, i, n, before[i], x[i], y[i], got, want)
					}
				}
			}
		}
	})
}

// TestAdaptive: Adam's three vectors, and m that is g.
func TestAdaptive(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(2, 2))
		s := AdaptiveStep{KeepM: .9, AddM: .1, KeepV: .99, AddV: .01, Rate: .02, Root: 1.5, Epsilon: 1e-6, Shrink: .999}
		for _, n := range lengths(rng) {
			w, m, v := newGuarded(n, 1, float32(7)), newGuarded(n, 2, float32(7)), newGuarded(n, 3, float32(7))
			g, w0, m0, v0 := random(rng, n), random(rng, n), random(rng, n), random(rng, n)
			for i := range v0 {
				v0[i] *= v0[i]
			}
			copy(w.x, w0)
			copy(m.x, m0)
			copy(v.x, v0)
			Adaptive(w.x, m.x, v.x, g, s)
			w.check(t, "w")
			m.check(t, "m")
			v.check(t, "v")
			for i := range n {
				gm, gv := .9*float64(m0[i])+.1*float64(g[i]), .99*float64(v0[i])+.01*float64(g[i])*float64(g[i])
				gw := .999*float64(w0[i]) - .02*gm/(1.5*math.Sqrt(gv)+1e-6)
				if math.Abs(float64(m.x[i])-gm) > 1e-6 || math.Abs(float64(v.x[i])-gv) > 1e-6 || math.Abs(float64(w.x[i])-gw) > 1e-5 {
					t.Fatalf("n %d: %v %v %v, want %v %v %v", n, w.x[i], m.x[i], v.x[i], gw, gm, gv)
				}
			}
		}
		for n := 1; n < 40; n++ {
			for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
				w, m, v, g := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
				at := rng.IntN(n)
				g[at] = bad
				Adaptive(w, m, v, g, s)
				for i := range n { // m and v become infinite, and their quotient is no number
					if number := w[i] == w[i] && m[i]-m[i] == 0 && v[i]-v[i] == 0; number == (i == at) {
						t.Fatalf("%v at %d of %d: element %d becomes %v, %v, %v", bad, at, n, i, w[i], m[i], v[i])
					}
				}
			}
		}
		w, v, g := []float32{1}, []float32{0}, []float32{2}
		Adaptive(w, g, v, g, AdaptiveStep{AddM: 1, KeepV: 1, AddV: 1, Rate: .5, Root: 1, Shrink: 1})
		if w[0] != .5 || v[0] != 4 || g[0] != 2 {
			t.Errorf("Adagrad: %v %v %v", w, v, g)
		}
	})
}

func TestReductions(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 3))
		for _, n := range lengths(rng) {
			x, y := random(rng, n+1)[1:], random(rng, n+2)[2:]
			var dot, sum, squares, size, top float64
			top = math.Inf(-1)
			for i, v := range x {
				dot += float64(v) * float64(y[i])
				sum += float64(v)
				squares += float64(v) * float64(v)
				size = max(size, math.Abs(float64(v)))
				top = max(top, float64(v))
			}
			for _, c := range []struct {
				name      string
				got, want float64
				slack     float64
			}{
				{"Dot", float64(Dot(x, y)), dot, 1e-7 * float64(n)},
				{"Sum", float64(Sum(x)), sum, 1e-7 * float64(n)},
				{"SumSquares", SumSquares(x), squares, 1e-7 * float64(n) * math.Sqrt(float64(n))},
				{"MaxAbs", float64(MaxAbs(x)), size, 0},
				{"Max", float64(Max(x)), top, 0},
			} {
				if c.got != c.want && !(math.Abs(c.got-c.want) <= c.slack) {
					t.Fatalf("%s of %d: %v, want %v", c.name, n, c.got, c.want)
				}
			}
		}
	})
}

// TestReductionsOfSpecialValues: at each place of vectors of each length, alone and with others behind.
func TestReductionsOfSpecialValues(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	onPaths(t, func(t *testing.T) {
		for n := 1; n < 100; n++ {
			for at := range n {
				x := slices.Repeat([]float32{-2}, n)
				for _, v := range []float32{nan, math.Float32frombits(0xffc00000)} {
					x[at] = v
					if got := []float32{MaxAbs(x), Max(x), Sum(x), Dot(x, x), float32(SumSquares(x))}; !slices.Equal(
						[]bool{got[0] != got[0], got[1] != got[1], got[2] != got[2], got[3] != got[3], got[4] != got[4]}, []bool{true, true, true, true, true}) {
						t.Fatalf("NaN at %d of %d: %v", at, n, got)
					}
				}
				x[at] = inf
				if MaxAbs(x) != inf || Max(x) != inf || Sum(x) != inf || Dot(x, x) != inf {
					t.Fatalf("Inf at %d of %d: %v %v %v %v", at, n, MaxAbs(x), Max(x), Sum(x), Dot(x, x))
				}
				x[at] = -inf
				if want := float32(-2); MaxAbs(x) != inf || n > 1 && Max(x) != want || Sum(x) != -inf {
					t.Fatalf("-Inf at %d of %d: %v %v %v", at, n, MaxAbs(x), Max(x), Sum(x))
				}
			}
		}
	})
}

func TestSoftmax(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(4, 4))
		for _, n := range append(lengths(rng)[1:], 99) {
			x := random(rng, n)
			Scale(x, 80)
			dst := newGuarded(n, n%3, float32(9))
			logSum := Softmax(dst.x, x)
			dst.check(t, "Softmax")
			var sum float64
			for _, v := range x {
				sum += math.Exp(float64(v))
			}
			if !near(logSum, math.Log(sum), 1e-6) && math.Abs(float64(logSum)-math.Log(sum)) > 1e-5 {
				t.Fatalf("n %d: log of sum %v, want %v", n, logSum, math.Log(sum))
			}
			for i, got := range dst.x {
				if !near(got, math.Exp(float64(x[i]))/sum, 2e-5) && got > smallestNormal {
					t.Fatalf("n %d: %v, want %v", n, got, math.Exp(float64(x[i]))/sum)
				}
			}
			for _, v := range []float32{float32(math.NaN()), float32(math.Inf(1))} {
				row := slices.Clone(x)
				row[rng.IntN(n)] = v
				Softmax(row, row)
				if i := slices.IndexFunc(row, func(v float32) bool { return v == v }); i >= 0 {
					t.Fatalf("n %d: of a row with %v comes %v", n, v, row[i])
				}
			}
			at := rng.IntN(n)
			x[at] = float32(math.Inf(-1))
			if Softmax(x, x); n > 1 && x[at] != 0 || n == 1 && x[at] == x[at] {
				t.Fatalf("n %d: of -Inf comes %v", n, x[at])
			}
		}
	})
}

// TestSoftmaxCrossEntropy by hand: logits 0, ln 3 are probabilities 1/4, 3/4.
func TestSoftmaxCrossEntropy(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		ln3 := float32(math.Log(3))
		x := []float32{0, ln3, 1 + ln3, 1}
		loss := SoftmaxCrossEntropy(x, []float32{0, 0}, 2, 2, .5)
		if want := math.Log(4) + math.Log(4./3); math.Abs(loss-want) > 1e-6 {
			t.Errorf("loss %v, want %v", loss, want)
		}
		for i, want := range []float64{-.375, .375, -.125, .125} {
			if !near(x[i], want, 1e-6) {
				t.Errorf("gradient %v", x)
			}
		}
	})
}

// TestReproducible: the same call gives the same bits, at whatever address.
func TestReproducible(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(5, 5))
		x, y := random(rng, 1000), random(rng, 1000)
		const m, n, k = 20, 25, 40
		bits := func(x, y, dst []float32) string {
			a, at, b, bt, c := Matrix{x, k}, Matrix{x, m}, Matrix{y, n}, Matrix{y, k}, Matrix{dst[:m*n], n}
			NN(c, a, b, m, n, k, Epilogue{Bias: y, Activation: Tanh})
			TN(c, at, b, m, n, k, -.1, 1)
			NT(c, a, bt, m, n, k, 1, scratch)
			Softmax(dst[m*n:], x[:len(dst)-m*n])
			return fmt.Sprint(Dot(x, y), Sum(x), SumSquares(x), MaxAbs(x), Max(x), dst)
		}
		want := bits(x, y, make([]float32, 900))
		for offset := range 17 {
			a, b, dst := make([]float32, 1000+offset)[offset:], make([]float32, 1017)[17-offset:][:1000], make([]float32, 900+offset)[offset:]
			copy(a, x)
			copy(b, y)
			if got := bits(a, b, dst); got != want {
				t.Fatalf("offset %d: %s, want %s", offset, got, want)
			}
		}
	})
}

// The hyperbolic tangent keeps to ±1, where others count on it, and loses no digits of an argument that is all but nothing.
func TestTanhAtTheEnds(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		x := make([]float32, 1<<16)
		for i := range x {
			x[i] = 3 + 7*float32(i)/float32(len(x))
		}
		y := make([]float32, len(x))
		Activate(y, x, Tanh)
		for i, v := range y {
			if !(v > .99 && v <= 1) {
				t.Fatalf("tanh %v is %v", x[i], v)
			}
		}
		small := []float32{4.425e-39, -4.408e-39, 1e-44, -1e-20, 1e-10, 0}
		got := make([]float32, len(small))
		Activate(got, small, Tanh)
		for i, x := range small {
			if !near(got[i], float64(x), 2e-7) {
				t.Errorf("tanh %v is %v", x, got[i])
			}
		}
	})
}

// TestUnitsInTheLastPlace holds what the comments of Exp and Activate promise, at a million places each.
func TestUnitsInTheLastPlace(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		for _, c := range []struct {
			name      string
			run       func(dst, x []float32)
			want      func(float64) float64
			low, high float64
			units     float64
		}{
			{"Exp", Exp, math.Exp, -87, 88.7, 2},
			{"Sigmoid", func(dst, x []float32) { Activate(dst, x, Sigmoid) }, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, -87, 30, 4},
			{"Tanh", func(dst, x []float32) { Activate(dst, x, Tanh) }, math.Tanh, -10, 10, 7},
		} {
			x, y := make([]float32, 1<<20), make([]float32, 1<<20)
			for i := range x {
				x[i] = float32(c.low + (c.high-c.low)*float64(i)/float64(len(x)))
			}
			c.run(y, x)
			for i, got := range y {
				want := c.want(float64(x[i]))
				unit := float64(math.Nextafter32(float32(math.Abs(want)), math.MaxFloat32)) - math.Abs(float64(float32(want)))
				if off := math.Abs(float64(got)-want) / unit; !(off <= c.units) {
					t.Fatalf("%s %v is %v, want %v: %v units off", c.name, x[i], got, want, off)
				}
			}
		}
	})
}

// FuzzPaths: on any bits, every path gives what plain Go gives, but for the last digits.
func FuzzPaths(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz"), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, which uint8) {
		n := len(b) / 12
		v := make([][]float32, 3)
		for s := range v {
			v[s] = make([]float32, n)
			for i := range n {
				for _, c := range b[12*i+4*s:][:4] {
					v[s][i] = math.Float32frombits(math.Float32bits(v[s][i])<<8 | uint32(c))
				}
			}
		}
		all := append(elementwise[:len(elementwise):len(elementwise)], compared...)
		k := all[int(which)%len(all)]
		defer func(p *path) { use = p }(use)
		use = portable
		want := slices.Clone(v[0])
		k.run(want, v[1], slices.Clone(v[2]))
		for _, p := range tested() {
			use = p
			got := newGuarded(n, 1, float32(5))
			copy(got.x, v[0])
			k.run(got.x, v[1], v[2])
			got.check(t, k.name)
			for i, g := range got.x {
				slack := 1e-6 * (math.Abs(float64(v[0][i])) + math.Abs(float64(v[1][i])) + math.Abs(float64(v[2][i])))
				if overflows := math.IsInf(slack, 0) || slack != slack || slack > 1e31; !near(g, float64(want[i]), 1e-6) && !overflows && !(math.Abs(float64(g-want[i])) <= slack) {
					t.Fatalf("%s on %s: from %v, %v, %v comes %v, want %v", k.name, p.name, v[0][i], v[1][i], v[2][i], g, want[i])
				}
			}
		}
	})
}

// FuzzReductions: of any bits, every path makes the sums that float64 makes, within what rounding may do, and the same
// maxima; a NaN is in all of them.
func FuzzReductions(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz"))
	f.Add([]byte("\x7f\x80\x00\x00\x7f\xc0\x00\x00\xff\xc0\x00\x00\xff\x80\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := len(b) / 8
		x, y := floatsOf(b[:4*n]), floatsOf(b[4*n:][:4*n])
		var dot, sum, size, sizes float64
		top, magnitude := float32(math.Inf(-1)), float32(0)
		for i, v := range x {
			product := float64(v) * float64(y[i])
			dot, sizes = dot+product, sizes+math.Abs(product)
			sum, size = sum+float64(v), size+math.Abs(float64(v))
			top, magnitude = max(top, v), max(magnitude, float32(math.Abs(float64(v))))
		}
		defer func(p *path) { use = p }(use)
		for _, p := range tested() {
			use = p
			for _, c := range []struct {
				name             string
				got, want, slack float64
			}{
				{"Max", float64(Max(x)), float64(top), 0},
				{"MaxAbs", float64(MaxAbs(x)), float64(magnitude), 0},
				{"Sum", float64(Sum(x)), sum, 1e-7 * float64(n) * size},
				{"Dot", float64(Dot(x, y)), dot, 1e-7*float64(n)*sizes + float64(n)*math.SmallestNonzeroFloat32},
			} {
				if c.slack > 1e30 || c.slack != c.slack { // partial sums may be infinite where the whole is not
					continue
				}
				if c.got != c.want && !(c.got != c.got && c.want != c.want) && !(math.Abs(c.got-c.want) <= c.slack) {
					t.Fatalf("%s on %s of %v and %v: %v, want %v", c.name, p.name, x, y, c.got, c.want)
				}
			}
		}
	})
}

// floatsOf reads float32s in big-endian order.
func floatsOf(b []byte) []float32 {
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.BigEndian.Uint32(b[4*i:]))
	}
	return x
}

// Beside one likely class a hundred thousand unlikely ones count, each below the last digit of their sum.
func TestSoftmaxOfManyClasses(t *testing.T) {
	defer func(p *path) { use = p }(use)
	for _, p := range tested() {
		use = p
		for _, n := range []int{1_000, 100_000} {
			for low := -14.0; low > -17; low -= .37 {
				x := slices.Repeat([]float32{float32(low)}, n)
				x[0] = 0
				want := 1 / (1 + float64(n-1)*math.Exp(float64(float32(low))))
				if Softmax(x, x); math.Abs(float64(x[0])/want-1) > 1e-6 {
					t.Errorf("%s: 0 beside %d of %v comes to %v, want %v", p.name, n-1, low, x[0], want)
				}
			}
		}
	}
}

// FuzzSoftmax: of any bits, probabilities are those of float64, or NaN all of them.
func FuzzSoftmax(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x := floatsOf(b)
		top := slices.Max(append([]float32{float32(math.Inf(-1))}, x...))
		var sum float64
		for _, v := range x {
			sum += math.Exp(float64(v - top))
		}
		defer func(p *path) { use = p }(use)
		for _, p := range tested() {
			use = p
			dst := newGuarded(len(x), 1, float32(9))
			Softmax(dst.x, x)
			dst.check(t, p.name)
			for i, got := range dst.x {
				want := math.Exp(float64(x[i]-top)) / sum
				if off := math.Abs(float64(got) - want); !(off <= 2e-6*want+2*smallestNormal) && (got == got || want == want) {
					t.Fatalf("%s: of %v in %v comes %v, want %v", p.name, x[i], x, got, want)
				}
			}
		}
	})
}
