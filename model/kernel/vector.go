package kernel

import "math"

// Axpy is dst += a·x.
func Axpy(dst []float32, a float32, x []float32) {
	for lo, hi := range blocks(len(dst)) {
		use.axpy(dst[lo:hi], x[lo:hi], a)
	}
}

// Axpby is dst = b·dst + a·x. With a = -rate and b = 1 - rate·decay it is a step of SGD with weight decay.
func Axpby(dst []float32, a float32, x []float32, b float32) {
	for lo, hi := range blocks(len(dst)) {
		use.axpby(dst[lo:hi], x[lo:hi], a, b)
	}
}

// Scale is x *= a.
func Scale(x []float32, a float32) {
	for lo, hi := range blocks(len(x)) {
		use.scale(x[lo:hi], a)
	}
}

// Add is dst = x + y; dst may be either.
func Add(dst, x, y []float32) {
	for lo, hi := range blocks(len(dst)) {
		use.add(dst[lo:hi], x[lo:hi], y[lo:hi])
	}
}

// Multiply is dst = x·y, element by element; dst may be either.
func Multiply(dst, x, y []float32) {
	for lo, hi := range blocks(len(dst)) {
		use.multiply(dst[lo:hi], x[lo:hi], y[lo:hi])
	}
}

// AddProduct is dst += x·y, element by element.
func AddProduct(dst, x, y []float32) {
	for lo, hi := range blocks(len(dst)) {
		use.multiplyTo(dst[lo:hi], x[lo:hi], y[lo:hi])
	}
}

// Fold is dst += Σ weights[i]·inputs[i]. It reads and writes dst once for every four inputs, block by block, so that
// dst stays in the cache.
func Fold(dst []float32, inputs [][]float32, weights []float32) {
	weights = weights[:len(inputs)]
	const cached = block / 8 // 32 KB of dst
	for lo := 0; lo < len(dst); lo += cached {
		hi, i := min(lo+cached, len(dst)), 0
		for ; i+4 <= len(inputs); i += 4 {
			use.fold4(dst[lo:hi], inputs[i][lo:hi], inputs[i+1][lo:hi], inputs[i+2][lo:hi], inputs[i+3][lo:hi],
				weights[i], weights[i+1], weights[i+2], weights[i+3])
		}
		for ; i < len(inputs); i++ {
			use.axpy(dst[lo:hi], inputs[i][lo:hi], weights[i])
		}
	}
}

// Dot is Σ x·y.
func Dot(x, y []float32) float32 {
	if len(x) <= block {
		return use.dot(x, y[:len(x)])
	}
	var s float64
	for lo, hi := range blocks(len(x)) {
		s += float64(use.dot(x[lo:hi], y[lo:hi]))
	}
	return float32(s)
}

// Sum is Σ x.
func Sum(x []float32) float32 {
	var s float64
	for lo, hi := range blocks(len(x)) {
		s += float64(use.sum(x[lo:hi]))
	}
	return float32(s)
}

// SumSquares is Σ x². It sums in float32 within blocks of 2^16 elements, of which assembly has 16 or more partial sums
// and plain Go four, and in float64 between them; a block whose squares exceed float32 makes it infinite.
func SumSquares(x []float32) float64 {
	var s float64
	for lo, hi := range blocks(len(x)) {
		s += float64(use.dot(x[lo:hi], x[lo:hi]))
	}
	return s
}

// MaxAbs is the largest magnitude, 0 of nothing, and NaN if an element is.
func MaxAbs(x []float32) float32 {
	var top float32
	for lo, hi := range blocks(len(x)) {
		top = max(top, use.maxAbs(x[lo:hi]))
	}
	return top
}

// Max is the largest element, -Inf of nothing, and NaN if an element is.
func Max(x []float32) float32 {
	top := float32(math.Inf(-1))
	for lo, hi := range blocks(len(x)) {
		top = max(top, use.max(x[lo:hi]))
	}
	return top
}
