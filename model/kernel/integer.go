package kernel

import "math"

// ToFixed is q = round(x·inverse), half to even, clamped to ±limit, an integer below 2^31. It computes in float64, and
// returns how many elements did not fit; NaN is one of them and becomes 0.
func ToFixed(q []int32, x []float32, inverse, limit float64) (saturated int) {
	for lo, hi := range blocks(len(q)) {
		saturated += use.toFixed(q[lo:hi], x[lo:hi], inverse, limit)
	}
	return saturated
}

// ToFixedRandomly is ToFixed that rounds to one of the two neighbours, so that the expectation is x·inverse: up if
// random[i]/2^32 is below the fraction. The caller draws random.
func ToFixedRandomly(q []int32, x []float32, random []uint32, inverse, limit float64) (saturated int) {
	for lo, hi := range blocks(len(q)) {
		saturated += use.toFixedRandomly(q[lo:hi], x[lo:hi], random[lo:hi], inverse, limit)
	}
	return saturated
}

// FromFixed is dst = step·q, computed in float64 and rounded once.
func FromFixed(dst []float32, q []int32, step float64) {
	for lo, hi := range blocks(len(dst)) {
		use.fromFixed(dst[lo:hi], q[lo:hi], step)
	}
}

// AddUint32 is dst += x modulo 2^32.
func AddUint32(dst, x []uint32) {
	for lo, hi := range blocks(len(dst)) {
		use.addUint32(dst[lo:hi], x[lo:hi])
	}
}

// Quantise is q = round(x·inverse), half to even, clamped to ±127. NaN becomes 0.
func Quantise(q []int8, x []float32, inverse float32) {
	for lo, hi := range blocks(len(q)) {
		use.quantise(q[lo:hi], x[lo:hi], inverse)
	}
}

// QuantiseRow writes x to q, of the same length, as int8 in [-127, 127] with one scale for the row and returns the
// scale: x is scale·q within half a scale. A row of zeros, or of values so small that their scale would not be a normal
// number, becomes zeros and scale 0. A row with a value that is not finite has scale NaN.
func QuantiseRow(q []int8, x []float32) float32 {
	scale := MaxAbs(x) / 127
	if !(scale >= smallestNormal) || math.IsInf(float64(scale), 0) {
		clear(q)
		return scale - scale // 0, or NaN
	}
	Quantise(q, x, 1/scale)
	return scale
}

// smallestNormal is the least float32 with all its digits.
const smallestNormal = 0x1p-126

// AxpyInt8 is dst += a·q: a quantised vector is added as what it stands for.
func AxpyInt8(dst []float32, a float32, q []int8) {
	for lo, hi := range blocks(len(dst)) {
		use.axpyInt8(dst[lo:hi], q[lo:hi], a)
	}
}

// DotInt8 is the exact dot product of two int8 vectors of one length, at most 2^17, of which one has no -128.
func DotInt8(a, b []int8) int32 {
	var s int32
	for lo, hi := range blocks(len(a)) {
		s += use.dotInt8(a[lo:hi], b[lo:hi])
	}
	return s
}

// PackedInt8 is the length of what PackInt8 makes of n outputs by k inputs.
func PackedInt8(n, k int) int { return n * (1 + (k+3)/4) }

// PackInt8 arranges weights of n outputs × k inputs for ProductInt8. A word holds four inputs of
// one output, the first in its low byte; there is a row of n words for every four inputs. Before them stands, for each
// output, -128·Σ weights: what a processor must add whose instruction wants the inputs unsigned, that is plus 128.
func PackInt8(packed []int32, weights []int8, n, k int) {
	sums, words := packed[:n], packed[n:PackedInt8(n, k)]
	clear(packed[:PackedInt8(n, k)])
	for j := range n {
		for l, w := range weights[j*k:][:k] {
			sums[j] -= 128 * int32(w)
			words[l/4*n+j] |= int32(uint32(uint8(w)) << (l % 4 * 8))
		}
	}
}

// Int8Stride is the distance of two rows of k inputs for ProductInt8.
func Int8Stride(k int) int { return (k + 3) &^ 3 }

// ProductInt8 is dst = a·weightsᵀ, exactly, for dst of m×n, a of m rows of k inputs, Int8Stride(k) apart, and n × k
// packed weights, with k at most 2^16. What stands between the rows of a does not matter.
func ProductInt8(dst []int32, a []int8, packed []int32, m, n, k int) {
	if m == 0 || n == 0 || k == 0 {
		clear(dst[:m*n])
		return
	}
	use.productInt8(dst[:m*n], a[:m*Int8Stride(k)], packed[:PackedInt8(n, k)], m, n, k)
}

// Rescale is dst = scale·scales·q + bias, then ReLU if act says so: one row of an int8 product as what it stands for.
// The row has one scale, each output another and its bias.
func Rescale(dst []float32, q []int32, scales, bias []float32, scale float32, act Activation) {
	for lo, hi := range blocks(len(dst)) {
		use.rescale(dst[lo:hi], q[lo:hi], scales[lo:hi], bias[lo:hi], scale)
	}
	if act != Identity {
		Activate(dst, dst, act)
	}
}
