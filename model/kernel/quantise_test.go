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

// TestQuantiseRow: values of any size are within half a scale, the largest becomes 127, and none leaves [-127, 127].
func TestQuantiseRow(t *testing.T) {
	onPaths(t, testQuantiseRow)
}

func testQuantiseRow(t *testing.T) {
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

func TestQuantiseRowAtTheEdges(t *testing.T) { onPaths(t, testQuantiseRowAtTheEdges) }

func testQuantiseRowAtTheEdges(t *testing.T) {
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
	onPaths(t, func(t *testing.T) {
		if got := DotInt8(a, b); got != 127*128*n {
			t.Errorf("dot product %d, want %d", got, 127*128*n)
		}
	})
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
