package kernel

// Maximum is dst = max(x, y), element by element; dst may be either.
func Maximum(dst, x, y []float32) {
	x, y = x[:len(dst)], y[:len(dst)]
	for i, v := range x {
		dst[i] = max(v, y[i])
	}
}

// RouteMaximum gives dst what is left of a gradient where x is the maximum, and takes it away from what is left: called
// for each x that the maximum was taken of, the first of the largest gets it all.
func RouteMaximum(dst, left, x, maximum []float32) {
	left, x, maximum = left[:len(dst)], x[:len(dst)], maximum[:len(dst)]
	for i, m := range maximum {
		if x[i] == m {
			dst[i] += left[i]
			left[i] = 0
		}
	}
}
