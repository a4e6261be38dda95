package kernel

import (
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
