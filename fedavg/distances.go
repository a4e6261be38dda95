package fedavg

import (
	"math"

	"choir.example/model/kernel"
)

// exactBlocks is how many blocks of kernel.DotColumns coordinates are summed in int64: a squared distance is at most 2^48 a
// coordinate, and 2^14 of them stay below 2^62. From there on sums are float64, in order of the coordinates: the same bits
// on every processor.
const exactBlocks = 32

// squaredDistances are the squared Euclidean distances of every two vectors, n×n of them, on the grid.
func squaredDistances(vectors [][]int32) []float64 {
	n := len(vectors)
	out, dots, scratch := make([]float64, n*n), make([]int64, n*n), make([]float64, kernel.DotScratch(n))
	block, length := make([][]int32, n), len(vectors[0])
	for from := 0; from < length; from += exactBlocks * kernel.DotColumns {
		clear(dots)
		end := min(from+exactBlocks*kernel.DotColumns, length)
		for at := from; at < end; at += kernel.DotColumns {
			for i, v := range vectors {
				block[i] = v[at:min(at+kernel.DotColumns, end)]
			}
			kernel.AddDots(dots, block, scratch)
		}
		for i := range n {
			for j := range i {
				d := float64(dots[i*n+i] + dots[j*n+j] - 2*dots[i*n+j])
				out[i*n+j] += d
				out[j*n+i] += d
			}
		}
	}
	return out
}

// dot is Σ a·b on the grid, exact in blocks of 2^14 coordinates that are summed in order.
func dot(a, b []int32) float64 {
	var total float64
	for len(a) > 0 {
		n := min(len(a), exactBlocks*kernel.DotColumns)
		var s int64
		for i, v := range a[:n] {
			s += int64(v) * int64(b[i])
		}
		total += float64(s)
		a, b = a[n:], b[n:]
	}
	return total
}

// norm is the Euclidean norm of an integer vector.
func norm(v []int32) float64 { return math.Sqrt(dot(v, v)) }

// distance is the Euclidean distance of an integer vector to another, in four sums whose order is settled.
func distance(v []float64, q []int32) float64 {
	var s [4]float64
	for i, x := range q {
		d := float64(x) - v[i]
		s[i%4] += float64(d * d)
	}
	return math.Sqrt((s[0] + s[1]) + (s[2] + s[3]))
}

// mean writes the mean of whole vectors, each the same, to out: exact sums, divided once.
func mean(vectors [][]int32, out []float64) {
	sum := make([]int64, min(len(out), meanBlock))
	count := float64(len(vectors))
	for from := 0; from < len(out); from += meanBlock {
		to := min(from+meanBlock, len(out))
		clear(sum)
		for _, v := range vectors {
			kernel.AddScaled(sum[:to-from], v[from:to], 1)
		}
		for i, s := range sum[:to-from] {
			out[from+i] = float64(s) / count
		}
	}
}

// meanBlock is how many sums stay in the first cache.
const meanBlock = 2048

// weighted writes Σ weights·vectors to out, in order of the vectors.
func weighted(vectors [][]int32, weights []float64, out []float64) {
	for from := 0; from < len(out); from += meanBlock {
		to := min(from+meanBlock, len(out))
		for i, v := range vectors {
			kernel.AddScaledDouble(out[from:to], v[from:to], weights[i])
		}
	}
}
