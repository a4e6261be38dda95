package kernel

import "math"

func exchangeGo(tile, pairs []int32) {
	for ; len(pairs) > 1; pairs = pairs[2:] {
		pair := (*[2]int32)(pairs)
		a := (*[Lanes]int32)(tile[int(pair[0])*Lanes:])
		b := (*[Lanes]int32)(tile[int(pair[1])*Lanes:])
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
		row := dst[i*len(x):][:i+1]
		for j, b := range x[:len(row)] {
			row[j] += dotIntegers(a, b)
		}
	}
}

func dotIntegers(a, b []int32) (sum int64) {
	b = b[:len(a)]
	for k, v := range a {
		sum += int64(v) * int64(b[k])
	}
	return sum
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
