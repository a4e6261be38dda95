package kernel

import "math"

// clamped is s within ±limit, or 0 and true for NaN.
func clamped(s, limit float64) (clamped float64, outside bool) {
	switch {
	case s > limit:
		return limit, true
	case s < -limit:
		return -limit, true
	case s != s:
		return 0, true
	}
	return s, false
}

func toFixedGo(q []int32, x []float32, inverse, limit float64) (saturated int) {
	x = x[:len(q)]
	for i, v := range x {
		s, outside := clamped(float64(float64(v)*inverse), limit)
		if outside {
			saturated++
		}
		q[i] = int32(math.Float64bits(s + nearest))
	}
	return saturated
}

func toFixedRandomlyGo(q []int32, x []float32, random []uint32, inverse, limit float64) (saturated int) {
	x, random = x[:len(q)], random[:len(q)]
	for i, v := range x {
		s, outside := clamped(float64(float64(v)*inverse), limit)
		if outside {
			saturated++
		}
		whole := float64(s+nearest) - nearest
		below := negative(s - whole)
		fraction := s - (whole - float64(below))
		up := negative(float64(float64(random[i])*0x1p-32) - fraction)
		q[i] = int32(whole) - below + up
	}
	return saturated
}

// nearest is a float64 whose neighbours are whole numbers: adding it rounds, half to even, and leaves the number in its
// lower bits.
const nearest = 0x1.8p52

// negative is 1 of a negative number and 0 of others, without a jump.
func negative(x float64) int32 { return int32(math.Float64bits(x) >> 63) }

func fromFixedGo(dst []float32, q []int32, step float64) {
	q = q[:len(dst)]
	for i, v := range q {
		dst[i] = float32(step * float64(v))
	}
}

func addUint32Go(dst, x []uint32) {
	x = x[:len(dst)]
	for i, v := range x {
		dst[i] += v
	}
}

func quantiseGo(q []int8, x []float32, inverse float32) {
	x = x[:len(q)]
	for i, v := range x {
		s, _ := clamped(float64(v*inverse), 127)
		q[i] = int8(math.Float64bits(s + nearest))
	}
}

func axpyInt8Go(dst []float32, q []int8, a float32) {
	q = q[:len(dst)]
	for i, v := range q {
		dst[i] += float32(a * float32(v))
	}
}

func dotInt8Go(a, b []int8) (s int32) {
	b = b[:len(a)]
	for i, v := range a {
		s += int32(v) * int32(b[i])
	}
	return s
}

func productInt8Go(dst []int32, a []int8, packed []int32, m, n, k int) {
	stride := Int8Stride(k)
	for i := range m {
		row := dst[i*n:][:n]
		clear(row)
		for l := 0; l < k; l += 4 {
			x := a[i*stride+l:][:4]
			x0, x1, x2, x3 := int32(x[0]), int32(x[1]), int32(x[2]), int32(x[3])
			words := packed[(1+l/4)*n:][:len(row)]
			for j, w := range words {
				row[j] += x0*int32(int8(w)) + x1*int32(int8(w>>8)) + x2*int32(int8(w>>16)) + x3*(w>>24)
			}
		}
	}
}

func rescaleGo(dst []float32, q []int32, scales, bias []float32, scale float32) {
	q, scales, bias = q[:len(dst)], scales[:len(dst)], bias[:len(dst)]
	for i, v := range q {
		dst[i] = float32(float32(scale*scales[i])*float32(v)) + bias[i]
	}
}
