package kernel

// DotColumns is the most columns that AddDots takes at a time: so many products of integers on the grid are exact sums in
// float64, too, which is how assembly computes them.
const DotColumns = 512

// dotPadding is what rows in scratch are filled up to a multiple of; as much lies between them, so that they do not all
// begin at the same place of the cache.
const dotPadding = 8

// DotScratch is how much scratch AddDots wants for so many rows.
func DotScratch(rows int) int { return rows * (DotColumns + dotPadding) }

// AddDots adds the exact dot products of every two rows to dst, len(x)×len(x): of rows i and j ≤ i at i·len(x)+j; what lies
// beyond the diagonal is not touched. Rows are of one length, at most DotColumns, and their elements in ±2^23. scratch is
// overwritten.
func AddDots(dst []int64, x [][]int32, scratch []float64) {
	n := len(x)
	dst, scratch = dst[:n*n], scratch[:DotScratch(n)]
	if n == 0 || len(x[0]) == 0 {
		return
	}
	if len(x[0]) > DotColumns {
		panic("kernel: too many columns")
	}
	for _, row := range x {
		if len(row) != len(x[0]) {
			panic("kernel: rows of several lengths")
		}
	}
	use.addDots(dst, x, scratch)
}

// AddScaled is acc += w·q, modulo 2^64.
func AddScaled(acc []int64, q []int32, w int32) {
	q = q[:len(acc)]
	for lo, hi := range blocks(len(acc)) {
		use.addScaled(acc[lo:hi], q[lo:hi], w)
	}
}

// AddFixed is acc += w·round(x·inverse), half to even, clamped to ±limit: ToFixed and AddScaled in one pass. It returns how
// many elements did not fit; NaN is one of them and adds nothing.
func AddFixed(acc []int64, x []float32, inverse, limit float64, w int32) (saturated int) {
	x = x[:len(acc)]
	for lo, hi := range blocks(len(acc)) {
		saturated += use.addFixed(acc[lo:hi], x[lo:hi], inverse, limit, w)
	}
	return saturated
}

// AddScaledDouble is acc += w·q in float64. The product is rounded, and then the sum: the same bits on every path.
func AddScaledDouble(acc []float64, q []int32, w float64) {
	q = q[:len(acc)]
	for lo, hi := range blocks(len(acc)) {
		use.addScaledDouble(acc[lo:hi], q[lo:hi], w)
	}
}
