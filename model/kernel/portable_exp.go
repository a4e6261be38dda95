package kernel

import "math"

// The exponential and what is made of it, by the approximations that the assembly computes, in float32 alone. Package math
// would not do: it is several times slower, and on some processors it is assembly with other last bits.

// expGo is dst = e^x. With n = round(x/ln 2) and r = x - n·ln 2, in two parts, it is 2^n times a polynomial of degree 7
// in r (Cephes, expf.c).
func expGo(dst, x []float32) {
	x = x[:len(dst)]
	for i, v := range x {
		if v > 100 { // beyond, the result is Inf or 0
			v = 100
		}
		if v < -110 {
			v = -110
		}
		const half = 0x1.8p23 // a float32 so large has no fraction: adding it rounds
		shifted := float32(v*1.44269504088896341) + half
		n := shifted - half
		r := v - float32(n*0.693359375) - float32(n*-2.12194440e-4)
		p := float32(r*1.9875691500e-4) + 1.3981999507e-3
		p = float32(r*p) + 8.3334519073e-3
		p = float32(r*p) + 4.1665795894e-2
		p = float32(r*p) + 1.6666665459e-1
		p = float32(r*p) + .5
		y := float32(float32(r*r)*p) + r + 1
		power := int32(math.Float32bits(shifted) - math.Float32bits(half))
		first := power >> 1 // in two steps, as 2^n alone may not be a float32
		dst[i] = y * powerOfTwo(first) * powerOfTwo(power-first)
	}
}

// powerOfTwo is 2^n for n in [-126, 127].
func powerOfTwo(n int32) float32 { return math.Float32frombits(uint32(n+127) << 23) }

func expSumGo(dst, x []float32, shift float32) (sum float32) {
	x = x[:len(dst)]
	for i, v := range x {
		dst[i] = v - shift
	}
	expGo(dst, dst)
	var long float64 // beside the largest, which is 1, many small ones would be rounded away
	for _, e := range dst {
		long += float64(e)
	}
	return float32(long)
}

func sigmoidGo(dst, x []float32) {
	x = x[:len(dst)]
	for i, v := range x {
		dst[i] = -v
	}
	expGo(dst, dst)
	for i, v := range dst {
		dst[i] = 1 / (1 + v)
	}
}

// tanhGo is x·P(x²)/Q(x²), fitted up to where the hyperbolic tangent is 1 in float32 (Eigen, generic_fast_tanh_float).
func tanhGo(dst, x []float32) {
	x = x[:len(dst)]
	for i, v := range x {
		const end = 7.90531110763549805
		if v > end {
			v = end
		}
		if v < -end {
			v = -end
		}
		s := v * v
		p := float32(s*-2.76076847742355e-16) + 2.00018790482477e-13
		p = float32(s*p) - 8.60467152213735e-11
		p = float32(s*p) + 5.12229709037114e-8
		p = float32(s*p) + 1.48572235717979e-5
		p = float32(s*p) + 6.37261928875436e-4
		p = float32(s*p) + 4.89352455891786e-3
		q := float32(s*1.19825839466702e-6) + 1.18534705686654e-4
		q = float32(s*q) + 2.26843463243900e-3
		q = float32(s*q) + 4.89352518554385e-3
		dst[i] = v * (p / q) // near 1 for v near 0, of which then no digit is lost, be it subnormal
	}
}
