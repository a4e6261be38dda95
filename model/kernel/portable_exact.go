package kernel

import "math"

func exchangeGo(tile, pairs []int32) {
	for at := 0; at+1 < len(pairs); at += 2 {
		a := (*[Lanes]int32)(tile[int(pairs[at])*Lanes:])
		b := (*[Lanes]int32)(tile[int(pairs[at+1])*Lanes:])
		for i := range a {
			x, y := a[i], b[i]
			a[i], b[i] = min(x, y), max(x, y)
		}
	}
}

func addRowsGo(sum *[Lanes]int64, tile []int32) {
	for ; len(tile) > 0; tile = tile[Lanes:] {
		for i, v := range (*[Lanes]int32)(tile) {
			sum[i] += int64(v)
		}
	}
}

func addDotsGo(dst []int64, x [][]int32, _ []float64) {
	for i, a := range x {
		for j, b := range x[:i+1] {
			b = b[:len(a)]
			var s0, s1 int64
			k := 0
			for ; k+1 < len(a) && k+1 < len(b); k += 2 {
				s0 += int64(a[k]) * int64(b[k])
				s1 += int64(a[k+1]) * int64(b[k+1])
			}
			if k < len(a) {
				s0 += int64(a[k]) * int64(b[k])
			}
			dst[i*len(x)+j] += s0 + s1
		}
	}
}

func addScaledGo(acc []int64, q []int32, w int32) {
	q = q[:len(acc)]
	for i, v := range q {
		acc[i] += int64(w) * int64(v)
	}
}

func addFixedGo(acc []int64, x []float32, inverse, limit float64, w int32) (saturated int) {
	x = x[:len(acc)]
	for i, v := range x {
		s, outside := clamped(float64(v)*inverse, limit)
		if outside {
			saturated++
		}
		acc[i] += int64(w) * int64(math.RoundToEven(s))
	}
	return saturated
}

func addScaledDoubleGo(acc []float64, q []int32, w float64) {
	q = q[:len(acc)]
	for i, v := range q {
		acc[i] += float64(w * float64(v))
	}
}
