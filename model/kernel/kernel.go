// Package kernel holds the matrix and vector kernels that training and prediction are made of. Matrices are row-major
// and dense. Products go through gonum's blas32; the fused epilogues and the int8 product are plain Go.
//
// Nothing here allocates or starts a goroutine: parallelism is one training per core. Callers own all slices, and only
// the destination is written.
package kernel

import (
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

// gonum spreads a product over goroutines, which it allocates, once dst has four blocks of 64×64. Tiles of three blocks
// stay below; the elements of a product do not depend on the tiles.
const (
	tileRows = 64
	tileCols = 192
)

// view is the block of rows × cols whose first element is data[0] in a matrix with rows of stride.
func view(data []float32, rows, cols, stride int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: stride, Data: data}
}

// MulNT is dst = a·bᵀ for a of m×k, b of n×k, dst of m×n: the forward pass, with weights of n outputs by k inputs.
func MulNT(dst, a, b []float32, m, n, k int) {
	for i := 0; i < m; i += tileRows {
		for j := 0; j < n; j += tileCols {
			rows, cols := min(tileRows, m-i), min(tileCols, n-j)
			blas32.Gemm(blas.NoTrans, blas.Trans, 1, view(a[i*k:], rows, k, k), view(b[j*k:], cols, k, k),
				0, view(dst[i*n+j:], rows, cols, n))
		}
	}
}

// MulNN is dst = a·b for a of m×k, b of k×n: the gradient with respect to a layer's input.
func MulNN(dst, a, b []float32, m, n, k int) {
	for i := 0; i < m; i += tileRows {
		for j := 0; j < n; j += tileCols {
			rows, cols := min(tileRows, m-i), min(tileCols, n-j)
			blas32.Gemm(blas.NoTrans, blas.NoTrans, 1, view(a[i*k:], rows, k, k), view(b[j:], k, cols, n),
				0, view(dst[i*n+j:], rows, cols, n))
		}
	}
}

// AddMulTN is dst += alpha·aᵀ·b for a of k×m, b of k×n, dst of m×n: the weight step w += -rate·δᵀ·x.
func AddMulTN(dst, a, b []float32, m, n, k int, alpha float32) {
	for i := 0; i < m; i += tileRows {
		for j := 0; j < n; j += tileCols {
			rows, cols := min(tileRows, m-i), min(tileCols, n-j)
			blas32.Gemm(blas.Trans, blas.NoTrans, alpha, view(a[i:], k, rows, m), view(b[j:], k, cols, n),
				1, view(dst[i*n+j:], rows, cols, n))
		}
	}
}

// AddBias adds bias, of length n, to each of the m rows of x, of m×n, in place.
func AddBias(x, bias []float32, m, n int) {
	for i := range m {
		row := x[i*n : (i+1)*n]
		for j, b := range bias {
			row[j] += b
		}
	}
}

// AddBiasReLU adds bias, of length n, to each of the m rows of x, of m×n, and clamps at zero, in place.
func AddBiasReLU(x, bias []float32, m, n int) {
	for i := range m {
		row := x[i*n : (i+1)*n]
		for j, b := range bias {
			row[j] = max(row[j]+b, 0)
		}
	}
}

// MaskReLU zeroes the gradient where the activation was clamped: both have one length and one order.
func MaskReLU(grad, activation []float32) {
	for i, a := range activation {
		if a <= 0 {
			grad[i] = 0
		}
	}
}

// AddColumnSums is dst += alpha·(sum over the m rows of x) for x of m×n, dst of length n: the bias step.
func AddColumnSums(dst, x []float32, m, n int, alpha float32) {
	for i := range m {
		for j, v := range x[i*n : (i+1)*n] {
			dst[j] += alpha * v
		}
	}
}

// QuantiseRow writes x to q, of the same length, as int8 in [-127, 127] with one scale for the row and returns the scale: x is scale·q within half
// a scale. A row of zeros, or of values so small that their scale would not be a normal number, becomes zeros and scale
// 0. A row with a value that is not finite has scale NaN.
func QuantiseRow(q []int8, x []float32) float32 {
	var top float32
	for _, v := range x {
		top = max(top, float32(math.Abs(float64(v)))) // NaN if a value is
	}
	scale := top / 127
	if !(scale >= smallestNormal) || math.IsInf(float64(scale), 0) {
		clear(q)
		return scale - scale // 0, or NaN
	}
	for i, v := range x {
		q[i] = int8(math.RoundToEven(float64(v) / float64(scale)))
	}
	return scale
}

// smallestNormal is the least float32 with all its digits.
const smallestNormal = 0x1p-126

// DotInt8 is the exact dot product of two int8 vectors of one length, at most 2^17, of which one has no -128.
func DotInt8(a, b []int8) int32 {
	var s int32
	b = b[:len(a)]
	for i, v := range a {
		s += int32(v) * int32(b[i])
	}
	return s
}
