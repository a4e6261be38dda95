package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
)

// general is a matrix for gonum, in float64: a reference that others wrote.
func general(m Matrix, rows, cols int) blas64.General {
	g := blas64.General{Rows: rows, Cols: cols, Stride: max(cols, 1), Data: make([]float64, rows*cols)}
	for i := range rows {
		for j := range cols {
			g.Data[i*cols+j] = float64(m.Data[i*m.Stride+j])
		}
	}
	return g
}

// On every path the three products are those of gonum's float64 BLAS, at random shapes, within what k roundings may do.
func TestProductsAgainstGonum(t *testing.T) {
	trans := map[string][2]blas.Transpose{
		"NN": {blas.NoTrans, blas.NoTrans}, "TN": {blas.Trans, blas.NoTrans}, "NT": {blas.NoTrans, blas.Trans},
	}
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(14, 11))
		uniform := func(int, int) float32 { return rng.Float32()*2 - 1 }
		for range 20 {
			m, n, k := 1+rng.IntN(200), 1+rng.IntN(300), 1+rng.IntN(900)
			for _, o := range orders {
				a, b := stored(o.a, m, k, uniform), stored(o.b, k, n, uniform)
				dst := Matrix{make([]float32, m*n), n}
				o.run(dst, a, b, m, n, k)
				ar, ac := o.a(m, k)
				br, bc := o.b(k, n)
				want := blas64.General{Rows: m, Cols: n, Stride: n, Data: make([]float64, m*n)}
				blas64.Gemm(trans[o.name][0], trans[o.name][1], 1, general(a, ar, ac), general(b, br, bc), 0, want)
				bound := 2 * math.Sqrt(float64(k)) * 0x1p-23 * math.Sqrt(float64(k))
				for i, w := range want.Data {
					if got := float64(dst.Data[i]); math.Abs(got-w) > bound {
						t.Fatalf("%s %dx%dx%d: element %d is %v, want %v within %v", o.name, m, n, k, i, got, w, bound)
					}
				}
			}
		}
	})
}
