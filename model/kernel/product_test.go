package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// order is one of the three products under test: how it reads a and b, and how it is called.
type order struct {
	name string
	a, b func(rows, cols int) (int, int) // as stored, from as multiplied
	run  func(dst, a, b Matrix, m, n, k int)
}

func straight(rows, cols int) (int, int)   { return rows, cols }
func transposed(rows, cols int) (int, int) { return cols, rows }

var scratch = make([]float32, NTScratch)

var orders = []order{
	{"NN", straight, straight, func(dst, a, b Matrix, m, n, k int) { NN(dst, a, b, m, n, k, Epilogue{}) }},
	{"TN", transposed, straight, func(dst, a, b Matrix, m, n, k int) { TN(dst, a, b, m, n, k, 1, 0) }},
	{"NT", straight, transposed, func(dst, a, b Matrix, m, n, k int) { NT(dst, a, b, m, n, k, 0, scratch) }},
}

const (
	edge  = 67 // all shapes up to it
	gap   = 3  // between rows
	guard = 777
)

// stored lays a matrix given by rows out as an order wants it, with gaps between the rows.
func stored(as func(int, int) (int, int), rows, cols int, at func(i, j int) float32) Matrix {
	r, c := as(rows, cols)
	m := Matrix{make([]float32, max(0, r*(c+gap)-gap)), c + gap}
	for i := range rows {
		for j := range cols {
			x, y := as(i, j)
			m.Data[x*m.Stride+y] = at(i, j)
		}
	}
	return m
}

// destination is a matrix full of garbage between guards; expect says what it must be.
type destination struct {
	*guarded[float32]
	m, n int
}

func newDestination(m, n int) destination {
	d := destination{newGuarded(m*(n+gap), m%3, float32(guard)), m, n}
	nan := float32(math.NaN())
	for i := range m {
		row := d.x[i*(n+gap):][:n]
		for j := range row {
			row[j] = nan
		}
	}
	return d
}

func (d destination) matrix() Matrix { return Matrix{d.x, d.n + gap} }

// expect fails unless each element is as wanted within the slack, and the guards stand.
func (d destination) expect(t *testing.T, what string, want func(i, j int) float32, slack float32) {
	t.Helper()
	d.check(t, what)
	for i := range d.m {
		row := d.x[i*(d.n+gap):][:d.n+gap]
		for j, got := range row[:d.n] {
			if w := want(i, j); !(got-w <= slack && w-got <= slack) {
				t.Fatalf("%s: element %d, %d is %v, want %v", what, i, j, got, w)
			}
		}
		if row[d.n] != guard || row[d.n+1] != guard || row[d.n+2] != guard {
			t.Fatalf("%s: wrote behind row %d: %v", what, i, row[d.n:])
		}
	}
}

// TestShapes holds every product of up to 67×67×67 in each order against sums in float64. The sums of one depth are
// those of the last and one more product, for the largest m and n.
func TestShapes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	a, b := random(rng, edge*edge), random(rng, edge*edge)
	onPaths(t, func(t *testing.T) {
		if use.name == "avx512 without VNNI" {
			return // its products of floats are those of avx512
		}
		sums, want := make([]float64, edge*edge), make([]float32, edge*edge)
		for k := range edge + 1 {
			if k > 0 {
				for i := range edge {
					for j := range edge {
						sums[i*edge+j] += float64(a[i*edge+k-1]) * float64(b[(k-1)*edge+j])
						want[i*edge+j] = float32(sums[i*edge+j])
					}
				}
			}
			if sparsely() && k%4 > 1 && k != edge {
				continue
			}
			for _, o := range orders {
				allOfDepth(t, o, a, b, want, k)
			}
		}
	})
}

// sparsely reports whether some shapes are left out, of plain Go, which is slow, unless it is what is to be tested: no code
// there depends on the rows, or on more of the depth than its remainder by 4.
func sparsely() bool { return use == portable && os.Getenv("CHOIR_KERNEL") != "go" }

// allOfDepth runs all m and n with one k. It is most of what the tests here do, so it looks at each element but once.
func allOfDepth(t *testing.T, o order, a, b, want []float32, k int) {
	am := stored(o.a, edge, k, func(i, l int) float32 { return a[i*edge+l] })
	bm := stored(o.b, k, edge, func(l, j int) float32 { return b[l*edge+j] })
	for n := range edge + 1 {
		garbage, d := newDestination(edge, n).all, newDestination(edge, n)
		for m := range edge + 1 {
			if sparsely() && m%5 != 0 && m != n {
				continue
			}
			// All memory is used again, or this would be a test of the allocator.
			end := copy(d.all, garbage[:len(garbage)-guardWidth-(edge-m)*(n+gap)])
			d.x, d.m = d.x[:m*(n+gap)], m
			copy(d.all[end:], garbage[:guardWidth])
			o.run(d.matrix(), am, bm, m, n, k)
			for i := range m {
				row, w := d.x[i*(n+gap):][:n+gap], want[i*edge:][:n]
				for j, v := range w {
					if off := row[j] - v; !(off <= 2e-5 && off >= -2e-5) {
						t.Fatalf("%s %d×%d×%d: element %d, %d is %v, want %v", o.name, m, n, k, i, j, row[j], v)
					}
				}
				if row[n] != guard || row[n+1] != guard || row[n+2] != guard {
					t.Fatalf("%s %d×%d×%d: wrote behind row %d: %v", o.name, m, n, k, i, row[n:])
				}
			}
			for _, v := range d.all[end:][:guardWidth] {
				if v != guard {
					t.Fatalf("%s %d×%d×%d: wrote %v below the last row", o.name, m, n, k, v)
				}
			}
		}
	}
}

// TestLargeShapes: random ones with sides over the blocks, and those whose rows are few or long.
func TestLargeShapes(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	shapes := [][3]int{{1, 700, 1500}, {2, 300, 1100}, {500, 1, 300}, {1500, 1, 5}, {700, 30, 26}, {25, 32, 3000}, {130, 600, 1030}, {70, 300, 520}, {300, 70, 260}}
	for range 6 {
		shapes = append(shapes, [3]int{1 + rng.IntN(200), 1 + rng.IntN(300), 1 + rng.IntN(600)})
	}
	for _, s := range shapes {
		m, n, k := s[0], s[1], s[2]
		a, b := random(rng, m*k), random(rng, k*n)
		want := naive(m, n, k, func(i, l int) float32 { return a[i*k+l] }, func(l, j int) float32 { return b[l*n+j] })
		for _, o := range orders {
			am := stored(o.a, m, k, func(i, l int) float32 { return a[i*k+l] })
			bm := stored(o.b, k, n, func(l, j int) float32 { return b[l*n+j] })
			onPaths(t, func(t *testing.T) {
				d := newDestination(m, n)
				o.run(d.matrix(), am, bm, m, n, k)
				d.expect(t, fmt.Sprintf("%s %d×%d×%d", o.name, m, n, k), func(i, j int) float32 { return float32(want[i*n+j]) }, float32(k)*2e-7+1e-5)
			})
		}
	}
}

// TestEpilogues: beta, bias, activation, alpha, in each combination that an order has, at shapes with and without edges,
// with one and several blocks in depth.
func TestEpilogues(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for _, s := range [][3]int{{1, 1, 3}, {1, 40, 9}, {5, 1, 7}, {3, 200, 5}, {7, 33, 0}, {13, 50, 20}, {33, 21, 1100}, {70, 16, 64}} {
		m, n, k := s[0], s[1], s[2]
		a, b, before, bias := random(rng, m*k), random(rng, k*n), random(rng, m*n), random(rng, n)
		sums := naive(m, n, k, func(i, l int) float32 { return a[i*k+l] }, func(l, j int) float32 { return b[l*n+j] })
		run := func(name string, o order, beta float64, want func(sum float64, j int) float64, run func(dst, a, b Matrix)) {
			am := stored(o.a, m, k, func(i, l int) float32 { return a[i*k+l] })
			bm := stored(o.b, k, n, func(l, j int) float32 { return b[l*n+j] })
			onPaths(t, func(t *testing.T) {
				d := newDestination(m, n)
				if beta != 0 { // else it is NaN, which must not matter
					for i := range m {
						copy(d.x[i*(n+gap):][:n], before[i*n:])
					}
				}
				run(d.matrix(), am, bm)
				d.expect(t, fmt.Sprintf("%s %s %v %d×%d×%d", name, o.name, beta, m, n, k), func(i, j int) float32 {
					return float32(want(sums[i*n+j], j) + beta*float64(before[i*n+j]))
				}, float32(k)*2e-7+2e-5)
			})
		}
		nn, tn, nt := orders[0], orders[1], orders[2]
		for _, beta := range []float64{0, 1, -.5} {
			run("bias", nn, beta, func(sum float64, j int) float64 { return sum + float64(bias[j]) }, func(dst, a, b Matrix) {
				NN(dst, a, b, m, n, k, Epilogue{Beta: float32(beta), Bias: bias})
			})
			run("alpha", tn, beta, func(sum float64, _ int) float64 { return -.3 * sum }, func(dst, a, b Matrix) {
				TN(dst, a, b, m, n, k, -.3, float32(beta))
			})
			run("beta", nt, beta, func(sum float64, _ int) float64 { return sum }, func(dst, a, b Matrix) {
				NT(dst, a, b, m, n, k, float32(beta), scratch)
			})
		}
		for act, f := range map[Activation]func(float64) float64{
			ReLU: func(x float64) float64 { return max(x, 0) }, Tanh: math.Tanh,
			Sigmoid: func(x float64) float64 { return 1 / (1 + math.Exp(-x)) },
		} {
			run(fmt.Sprint("activation ", act), nn, 0, func(sum float64, j int) float64 { return f(sum + float64(bias[j])) }, func(dst, a, b Matrix) {
				NN(dst, a, b, m, n, k, Epilogue{Bias: bias, Activation: act})
			})
		}
	}
}

// TestProductsOfSpecialValues: NaN and infinities reach the rows and columns that they belong to and no other, in each
// order and through each epilogue, at shapes with and without edges, of few rows and of one column.
func TestProductsOfSpecialValues(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		for _, s := range [][3]int{{17, 35, 9}, {2, 35, 300}, {17, 1, 40}, {70, 16, 64}, {30, 200, 5}} {
			for _, o := range orders {
				checkSpecial(t, o, Identity, s[0], s[1], s[2])
			}
			for _, act := range []Activation{ReLU, Sigmoid, Tanh} {
				checkSpecial(t, order{fmt.Sprint("NN, activation ", act), straight, straight, func(dst, a, b Matrix, m, n, k int) {
					NN(dst, a, b, m, n, k, Epilogue{Activation: act})
				}}, act, s[0], s[1], s[2])
			}
		}
	})
}

// checkSpecial multiplies a, zeros but for a NaN in one row and an infinity in another, by b, ones but for a NaN in the last
// column, where there are several.
func checkSpecial(t *testing.T, o order, act Activation, m, n, k int) {
	t.Helper()
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	ofNaN, ofInf := m/3, m-1
	a := stored(o.a, m, k, func(i, l int) float32 {
		switch {
		case i == ofNaN && l == k/2:
			return nan
		case i == ofInf && l == k-1:
			return inf
		}
		return 0
	})
	b := stored(o.b, k, n, func(l, j int) float32 {
		if n > 1 && j == n-1 && l == 2 {
			return nan
		}
		return 1
	})
	d := newDestination(m, n)
	o.run(d.matrix(), a, b, m, n, k)
	d.check(t, o.name)
	for i := range m {
		for j, got := range d.x[i*(n+gap):][:n] {
			want := map[Activation]float64{Sigmoid: .5}[act]
			switch {
			case i == ofNaN || n > 1 && j == n-1:
				want = math.NaN()
			case i == ofInf:
				want = map[Activation]float64{Identity: math.Inf(1), ReLU: math.Inf(1), Sigmoid: 1, Tanh: 1}[act]
			}
			if !near(got, want, 4e-7) {
				t.Fatalf("%s %d×%d×%d: element %d, %d is %v, want %v", o.name, m, n, k, i, j, got, want)
			}
		}
	}
}

func TestTranspose(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		for rows := range edge + 1 {
			for cols := range edge + 1 {
				checkTranspose(t, rows, cols)
			}
		}
		checkTranspose(t, 515, 1030)
	})
}

func checkTranspose(t *testing.T, rows, cols int) {
	t.Helper()
	at := func(i, j int) uint32 { return uint32(i*2000+j) * 2654435761 } // among the bits are NaN, infinities and subnormals
	src := stored(straight, rows, cols, func(i, j int) float32 { return math.Float32frombits(at(i, j)) })
	d := newDestination(cols, rows)
	Transpose(d.matrix(), src, rows, cols)
	d.check(t, "Transpose")
	for j := range cols {
		row := d.x[j*(rows+gap):][:rows+gap]
		for i, got := range row[:rows] {
			if math.Float32bits(got) != at(i, j) {
				t.Fatalf("transpose of %d×%d: element %d, %d is %x, want %x", rows, cols, j, i, math.Float32bits(got), at(i, j))
			}
		}
		if slices.ContainsFunc(row[rows:], func(v float32) bool { return v != guard }) {
			t.Fatalf("transpose of %d×%d: wrote behind row %d: %v", rows, cols, j, row[rows:])
		}
	}
}

func TestColumnSums(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(4, 4))
		bad, sums := []float32{1, 2, 3, 4, float32(math.NaN()), 6, 7, 8, 9}, make([]float32, 3)
		if AddColumnSums(sums, bad, 3, 3, 1); sums[0] != 12 || sums[1] == sums[1] || sums[2] != 18 {
			t.Errorf("of a column with NaN comes %v, of the others %v and %v", sums[1], sums[0], sums[2])
		}
		for _, s := range [][2]int{{0, 5}, {1, 1}, {3, 0}, {10, 200}, {33, 67}, {5000, 19}} {
			m, n := s[0], s[1]
			x, before := random(rng, m*n), random(rng, n)
			dst := newGuarded(n, 1, float32(3))
			copy(dst.x, before)
			AddColumnSums(dst.x, x, m, n, -.5)
			dst.check(t, "AddColumnSums")
			for j := range n {
				want := float64(before[j])
				for i := range m {
					want -= .5 * float64(x[i*n+j])
				}
				if math.Abs(float64(dst.x[j])-want) > 1e-5+1e-6*math.Sqrt(float64(m)) {
					t.Fatalf("%d×%d: sum %d is %v, want %v", m, n, j, dst.x[j], want)
				}
			}
		}
	})
}

// TestShortMatrices: a matrix that is too small is refused before anything is read or written.
func TestShortMatrices(t *testing.T) {
	ok, small, narrow := Matrix{make([]float32, 12), 4}, Matrix{make([]float32, 10), 4}, Matrix{make([]float32, 100), 3}
	for name, call := range map[string]func(){
		"dst":       func() { NN(small, ok, Matrix{make([]float32, 16), 4}, 3, 4, 4, Epilogue{}) },
		"a":         func() { NN(ok, small, Matrix{make([]float32, 16), 4}, 3, 4, 4, Epilogue{}) },
		"b":         func() { TN(ok, ok, small, 4, 4, 3, 1, 0) },
		"stride":    func() { NN(narrow, ok, Matrix{make([]float32, 16), 4}, 3, 4, 4, Epilogue{}) },
		"bias":      func() { NN(ok, ok, narrow, 3, 3, 4, Epilogue{Bias: make([]float32, 2)}) },
		"scratch":   func() { NT(ok, ok, ok, 3, 3, 4, 0, make([]float32, 10)) },
		"negative":  func() { TN(ok, ok, ok, 3, 3, -1, 1, 0) },
		"transpose": func() { Transpose(ok, ok, 4, 4) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: accepted", name)
				}
			}()
			call()
		}()
	}
}

func TestProductsAllocateNothing(t *testing.T) {
	const m, n, k = 130, 140, 150
	a, b, dst := Matrix{make([]float32, m*k), k}, Matrix{make([]float32, k*n), n}, Matrix{make([]float32, m*n), n}
	at, bt, bias := Matrix{a.Data, m}, Matrix{b.Data, k}, make([]float32, n)
	onPaths(t, func(t *testing.T) {
		allocs := testing.AllocsPerRun(5, func() {
			NN(dst, a, b, m, n, k, Epilogue{Beta: .5, Bias: bias, Activation: Tanh})
			TN(dst, at, b, m, n, k, -1, 1)
			NT(dst, a, bt, m, n, k, 1, scratch)
			Products(Repeat{2, 0, 0}, dst, Strided{a.Data, k, 1, 10, 10}, b, m, n, k, -1, Epilogue{Beta: 1})
			Products(Repeat{1, 0, 0}, dst, Strided{a.Data, 0, 1, 300, 1}, Matrix{b.Data, 1}, m, n, 600, -1, Epilogue{Bias: bias})
			AddColumnSums(bias, dst.Data, m, n, 1)
			Move(Grid{dst.Data, n, 9}, Grid{a.Data, k, 8}, m, 10, 8, true)
			pool := Pool{Columns: 9, Channels: 5, Kernel: 2, Step: 10, Width: n}
			MaxPool(bias, a.Data, pool)
			RoutePool(dst.Data, bias, a.Data, bias, pool, false)
			Softmax(bias, bias)
			Fold(bias, orderedPair[:], weightPair[:])
		})
		if allocs != 0 {
			t.Errorf("%v allocations", allocs)
		}
	})
}

var orderedPair, weightPair = [2][]float32{make([]float32, 140), make([]float32, 140)}, [2]float32{1, 2}

// FuzzProduct: any shape, stride, order and epilogue gives what float64 gives, and writes nothing beside it.
func FuzzProduct(f *testing.F) {
	f.Add(uint64(1), uint8(1), uint8(14), uint8(33), uint8(9), uint8(3))
	f.Add(uint64(2), uint8(2), uint8(40), uint8(200), uint8(70), uint8(0))
	f.Add(uint64(3), uint8(30), uint8(3), uint8(1), uint8(255), uint8(7))
	f.Fuzz(func(t *testing.T, seed uint64, which, m8, n8, k8, offset uint8) {
		rng, o, m, n, k := rand.New(rand.NewPCG(seed, 1)), orders[which%3], int(m8), int(n8), int(k8)
		a, b, before, bias := random(rng, m*k), random(rng, k*n), random(rng, m*n), random(rng, n)
		beta, alpha, act := []float32{0, 1, .5}[which/3%3], float32(1), Identity
		am := stored(o.a, m, k, func(i, l int) float32 { return a[i*k+l] })
		bm := stored(o.b, k, n, func(l, j int) float32 { return b[l*n+j] })
		am.Data = append(make([]float32, offset%8), am.Data...)[offset%8:]
		run := map[string]func(dst Matrix){
			"NN": func(dst Matrix) { NN(dst, am, bm, m, n, k, Epilogue{beta, bias, act}) },
			"TN": func(dst Matrix) { TN(dst, am, bm, m, n, k, alpha, beta) },
			"NT": func(dst Matrix) { NT(dst, am, bm, m, n, k, beta, scratch) },
		}[o.name]
		switch o.name {
		case "NN":
			act = Activation(which / 9 % 2) // identity and ReLU, which leave errors as large as they are
		case "TN":
			alpha = -.25
		}
		if o.name != "NN" {
			clear(bias)
		}
		sums := naive(m, n, k, func(i, l int) float32 { return a[i*k+l] }, func(l, j int) float32 { return b[l*n+j] })
		want := func(i, j int) float32 {
			v := float64(alpha)*sums[i*n+j] + float64(beta)*float64(before[i*n+j]) + float64(bias[j])
			if act == ReLU {
				v = max(v, 0)
			}
			return float32(v)
		}
		defer func(p *path) { use = p }(use)
		for _, p := range tested() {
			use = p
			d := newDestination(m, n)
			for i := range m {
				if beta != 0 {
					copy(d.x[i*(n+gap):][:n], before[i*n:])
				}
			}
			run(d.matrix())
			d.expect(t, fmt.Sprintf("%s %d×%d×%d, beta %v, on %s", o.name, m, n, k, beta, p.name), want, 5e-5)
			checkTranspose(t, m, n)
		}
	})
}
