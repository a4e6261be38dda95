// Package kernel holds the matrix and vector kernels that training and prediction are made of. Matrices are row-major
// and dense. Products go through gonum's blas32; the fused epilogues and the int8 product are plain Go.
//
// Nothing here allocates; callers own all slices, and only the destination is written.
package kernel

import (
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

// matrix is a view of data as rows × cols.
func matrix(data []float32, rows, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// MulNT is dst = a·bᵀ for a of m×k, b of n×k, dst of m×n: the forward pass, with weights of n outputs by k inputs.
func MulNT(dst, a, b []float32, m, n, k int) {
	blas32.Gemm(blas.NoTrans, blas.Trans, 1, matrix(a, m, k), matrix(b, n, k), 0, matrix(dst, m, n))
}

// MulNN is dst = a·b for a of m×k, b of k×n: the gradient with respect to a layer's input.
func MulNN(dst, a, b []float32, m, n, k int) {
	blas32.Gemm(blas.NoTrans, blas.NoTrans, 1, matrix(a, m, k), matrix(b, k, n), 0, matrix(dst, m, n))
}

// AddMulTN is dst += alpha·aᵀ·b for a of k×m, b of k×n, dst of m×n: the weight step w += -rate·δᵀ·x.
func AddMulTN(dst, a, b []float32, m, n, k int, alpha float32) {
	blas32.Gemm(blas.Trans, blas.NoTrans, alpha, matrix(a, k, m), matrix(b, k, n), 1, matrix(dst, m, n))
}

// AddBias adds a row vector of n to each of the m rows of x.
func AddBias(x, bias []float32, m, n int) {
	for i := range m {
		row := x[i*n : (i+1)*n]
		for j, b := range bias {
			row[j] += b
		}
	}
}

// AddBiasReLU adds a row vector to each row and clamps at zero.
func AddBiasReLU(x, bias []float32, m, n int) {
	for i := range m {
		row := x[i*n : (i+1)*n]
		for j, b := range bias {
			row[j] = max(row[j]+b, 0)
		}
	}
}

// MaskReLU zeroes the gradient where the activation was clamped.
func MaskReLU(grad, activation []float32) {
	for i, a := range activation {
		if a <= 0 {
			grad[i] = 0
		}
	}
}

// AddColumnSums is dst += alpha·(sum over the m rows of x): the bias step.
func AddColumnSums(dst, x []float32, m, n int, alpha float32) {
	for i := range m {
		for j, v := range x[i*n : (i+1)*n] {
			dst[j] += alpha * v
		}
	}
}

// QuantiseRow writes x as int8 with one scale for the row, x ≈ scale·q, and returns the scale; 0 for a zero row.
func QuantiseRow(q []int8, x []float32) float32 {
	var top float32
	for _, v := range x {
		top = max(top, float32(math.Abs(float64(v))))
	}
	if top == 0 {
		clear(q)
		return 0
	}
	scale := top / 127
	for i, v := range x {
		q[i] = int8(math.RoundToEven(float64(v / scale)))
	}
	return scale
}

// DotInt8 is the exact dot product of two int8 vectors of one length, at most 2^17.
func DotInt8(a, b []int8) int32 {
	var s int32
	b = b[:len(a)]
	for i, v := range a {
		s += int32(v) * int32(b[i])
	}
	return s
}
