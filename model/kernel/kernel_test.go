package kernel

import (
	"math"
	"math/rand/v2"
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

func TestEpilogues(t *testing.T) {
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

func TestQuantiseRow(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	x, q := random(rng, 100), make([]int8, 100)
	scale := QuantiseRow(q, x)
	for i := range x {
		if d := math.Abs(float64(q[i])*float64(scale) - float64(x[i])); d > 0.51*float64(scale) {
			t.Errorf("%v becomes %d of %v", x[i], q[i], scale)
		}
	}
	q[3] = 9
	if scale := QuantiseRow(q, make([]float32, 100)); scale != 0 || q[3] != 0 {
		t.Errorf("a zero row has scale %v and keeps %d", scale, q[3])
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
	for b.Loop() {
		MulNT(dst, x, w, m, n, k)
	}
	b.ReportMetric(2*m*n*k*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}

func BenchmarkDotInt8(b *testing.B) {
	x, y := make([]int8, 1024), make([]int8, 1024)
	b.SetBytes(1024)
	for b.Loop() {
		DotInt8(x, y)
	}
}
