package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// random fills n values in [-1, 1).
func random(rng *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(2*rng.Float64() - 1)
	}
	return x
}

// naive is dst[i][j] = Σ_l a(i,l)·b(l,j) in float64.
func naive(m, n, k int, a, b func(i, j int) float32) []float64 {
	dst := make([]float64, m*n)
	for i := range m {
		for j := range n {
			for l := range k {
				dst[i*n+j] += float64(a(i, l)) * float64(b(l, j))
			}
		}
	}
	return dst
}

func close32(t *testing.T, what string, got []float32, want []float64) {
	t.Helper()
	for i := range want {
		if math.Abs(float64(got[i])-want[i]) > 1e-4*(1+math.Abs(want[i])) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

// shapes are m, n, k around the edges of the tiles, the last three far above where gonum alone would start goroutines.
var shapes = [][3]int{{1, 1, 1}, {1, 32, 68}, {7, 5, 3}, {32, 32, 66}, {64, 192, 10}, {65, 193, 9}, {200, 300, 33}, {784, 200, 10}}

func TestProducts(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, s := range shapes {
		m, n, k := s[0], s[1], s[2]
		a, b, bt := random(rng, m*k), random(rng, k*n), random(rng, n*k)
		dst := random(rng, m*n) // what was there must not matter
		MulNN(dst, a, b, m, n, k)
		rowA := func(i, l int) float32 { return a[i*k+l] }
		close32(t, "NN", dst, naive(m, n, k, rowA, func(l, j int) float32 { return b[l*n+j] }))
		MulNT(dst, a, bt, m, n, k)
		close32(t, "NT", dst, naive(m, n, k, rowA, func(l, j int) float32 { return bt[j*k+l] }))

		at, before := random(rng, k*m), random(rng, m*n)
		copy(dst, before)
		AddMulTN(dst, at, b, m, n, k, -0.5)
		want := naive(m, n, k, func(i, l int) float32 { return at[l*m+i] }, func(l, j int) float32 { return b[l*n+j] })
		for i := range want {
			want[i] = float64(before[i]) - 0.5*want[i]
		}
		close32(t, "TN", dst, want)
	}
}

func TestProductsStayOnOneCore(t *testing.T) {
	const m, n, k = 300, 400, 20
	a, b, dst := make([]float32, m*k), make([]float32, n*k), make([]float32, m*n)
	allocs := testing.AllocsPerRun(5, func() { // a goroutine would allocate
		MulNN(dst, a, b, m, n, k)
		MulNT(dst, a, b, m, n, k)
		AddMulTN(dst, a, b, m, n, k, 1)
	})
	if allocs != 0 {
		t.Errorf("three products allocate %v times", allocs)
	}
}

func TestOldEpilogues(t *testing.T) {
	x := []float32{1, -2, 3, -4}
	AddBias(x, []float32{1, 1}, 2, 2)
	equal(t, "AddBias", x, 2, -1, 4, -3)
	AddBiasReLU(x, []float32{-2, 2}, 2, 2)
	equal(t, "AddBiasReLU", x, 0, 1, 2, 0)
	grad := []float32{5, 6, 7, 8}
	MaskReLU(grad, x)
	equal(t, "MaskReLU", grad, 0, 6, 7, 0)
	sums := []float32{1, 1}
	AddColumnSums(sums, grad, 2, 2, -0.5)
	equal(t, "AddColumnSums", sums, 1-3.5, 1-3)
}

func equal(t *testing.T, what string, got []float32, want ...float32) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%s gives %v, want %v", what, got, want)
			return
		}
	}
}

// TestQuantiseRow: values of any size are within half a scale, the largest becomes 127, and none leaves [-127, 127].
func TestQuantiseRow(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for _, size := range []float32{3e38, 1e10, 1, 1e-3, 1e-30, 127 * smallestNormal, 120 * smallestNormal, 190 * 0x1p-149, 0x1p-149} {
		x, q := random(rng, 100), make([]int8, 100)
		for i := range x {
			x[i] *= size
		}
		x[50] = -size
		scale := QuantiseRow(q, x)
		if size < 127*smallestNormal {
			if scale != 0 || slices.Max(q) != 0 || slices.Min(q) != 0 {
				t.Errorf("size %v: scale %v and values %v, want zeros", size, scale, q)
			}
			continue
		}
		if q[50] != -127 {
			t.Errorf("size %v: the largest value is %d", size, q[50])
		}
		for i := range x {
			if d := math.Abs(float64(q[i])*float64(scale) - float64(x[i])); d > float64(scale)/2 || q[i] == -128 {
				t.Errorf("size %v: %v becomes %d of %v", size, x[i], q[i], scale)
			}
		}
	}
}

func TestQuantiseRowAtTheEdges(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		name string
		x    []float32
		nan  bool
	}{
		{"zeros", []float32{0, 0, 0}, false},
		{"nothing", nil, false},
		{"NaN", []float32{1, nan, 2}, true},
		{"infinite", []float32{1, -inf, 2}, true},
	} {
		q := []int8{1, 2, 3}[:len(c.x)]
		scale := QuantiseRow(q, c.x)
		if isNaN := scale != scale; isNaN != c.nan || !isNaN && scale != 0 {
			t.Errorf("%s: scale %v", c.name, scale)
		}
		for _, v := range q {
			if v != 0 {
				t.Errorf("%s: values %v, want zeros", c.name, q)
			}
		}
	}
}

func TestDotInt8AtTheExtreme(t *testing.T) {
	const n = 1 << 17 // the longest: the sum just fits
	a, b := make([]int8, n), make([]int8, n)
	for i := range a {
		a[i], b[i] = -127, -128
	}
	if got := DotInt8(a, b); got != 127*128*n {
		t.Errorf("dot product %d, want %d", got, 127*128*n)
	}
}

func BenchmarkMulNT(b *testing.B) {
	const m, n, k = 32, 200, 784
	rng := rand.New(rand.NewPCG(3, 3))
	x, w, dst := random(rng, m*k), random(rng, n*k), make([]float32, m*n)
	b.ReportAllocs()
	for b.Loop() {
		MulNT(dst, x, w, m, n, k)
	}
	b.ReportMetric(2*m*n*k*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}

func BenchmarkQuantiseRow(b *testing.B) {
	x, q := random(rand.New(rand.NewPCG(4, 4)), 1024), make([]int8, 1024)
	b.SetBytes(4 * 1024)
	for b.Loop() {
		QuantiseRow(q, x)
	}
}

func BenchmarkDotInt8(b *testing.B) {
	x, y := make([]int8, 1024), make([]int8, 1024)
	b.SetBytes(1024)
	for b.Loop() {
		DotInt8(x, y)
	}
}
