package kernel

// Maximum is dst = max(x, y), element by element, and NaN if either is; dst may be either.
func Maximum(dst, x, y []float32) {
	for lo, hi := range blocks(len(dst)) {
		use.maximum(dst[lo:hi], x[lo:hi], y[lo:hi])
	}
}

// RouteMaximum adds to dst what is left of a gradient where x is top, the maximum, and leaves nothing of it there. Called
// for each x that the maximum was taken of, it gives all to the first of the largest.
func RouteMaximum(dst, left, x, top []float32) {
	for lo, hi := range blocks(len(dst)) {
		use.routeMaximum(dst[lo:hi], left[lo:hi], x[lo:hi], top[lo:hi])
	}
}
