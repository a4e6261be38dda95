package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// exponential returns a function that turns x into e^x. With n = round(x/ln 2) and r = x - n·ln 2, in two parts, it is
// 2^n times a polynomial of degree 7 in r (Cephes, expf.c: relative error below 2e-7).
func (g *generator) exponential() func(x reg.VecVirtual) {
	high, low := g.float32s(100), g.float32s(-110) // beyond, the result is Inf or 0
	return func(x reg.VecVirtual) {
		g.VMINPS(x, high, x) // in this order NaN stays
		g.VMAXPS(x, low, x)
		n, p, square := g.vec(), g.vec(), g.vec()
		g.VMULPS(g.data(1.44269504088896341), x, n)
		g.round(8, n, n)
		g.VFNMADD231PS(g.data(0.693359375), n, x)
		g.VFNMADD231PS(g.data(-2.12194440e-4), n, x)
		g.polynomial(x, p, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, .5)
		g.VMULPS(x, x, square)
		g.VADDPS(g.data(1), x, x)
		g.VFMADD231PS(square, p, x)
		g.timesPower(n, x)
	}
}

// timesPower multiplies x by 2^n for whole n in ±160.
func (g *generator) timesPower(n, x reg.VecVirtual) {
	if g.wide() {
		g.VSCALEFPS(n, x, x)
		return
	}
	half, bias := g.vec(), g.words(127) // in two steps, as 2^n alone may not be a float32
	g.VCVTPS2DQ(n, n)
	g.VPSRAD(operand.Imm(1), n, half)
	g.VPSUBD(half, n, n)
	for _, e := range []reg.VecVirtual{half, n} {
		g.VPADDD(bias, e, e)
		g.VPSLLD(operand.Imm(23), e, e)
		g.VMULPS(e, x, x)
	}
}

func (g *generator) exponentials() {
	g.each("exp", "dst x", "", "is dst = e^x.", 2, func() func(w *walk) {
		exp := g.exponential()
		return func(w *walk) {
			x := w.get("x")
			exp(x)
			w.put(x, "dst")
		}
	})

	g.begin("expSum", "func(dst, x []float32, shift float32) float32", "is dst = e^(x-shift), and its sum.")
	sum, lost, shift, exp := g.zero(), g.zero(), g.scalar("shift"), g.exponential()
	g.along("dst x", nil, 1, func(w *walk, _ int) {
		x := w.get("x")
		g.VSUBPS(shift, x, x)
		exp(x)
		w.put(x, "dst")
		w.orElse(x, g.zero())
		g.VSUBPS(lost, x, x) // Kahan's summation: beside the largest, which is 1, many small ones would be rounded away
		next := g.vec()
		g.VADDPS(x, sum, next)
		g.VSUBPS(sum, next, lost)
		g.VSUBPS(x, lost, lost)
		g.VMOVAPS(next, sum)
	})
	g.returnWord(g.fold(sum, func(x, y, dst reg.Register) { g.VADDPS(x, y, dst) }))

	g.each("sigmoid", "dst x", "", "is dst = 1/(1 + e^-x).", 2, func() func(w *walk) {
		exp, sign, one := g.exponential(), g.words(1<<31), g.float32s(1)
		return func(w *walk) {
			x := w.get("x")
			g.xor(sign, x, x)
			exp(x)
			g.VADDPS(one, x, x)
			g.VDIVPS(x, one, x)
			w.put(x, "dst")
		}
	})
	g.tanh()
}

// tanh is x·P(x²)/Q(x²), fitted up to where tanh is 1 in float32 (Eigen, generic_fast_tanh_float: within a few units in
// the last place).
func (g *generator) tanh() {
	g.each("tanh", "dst x", "", "is dst = tanh x.", 2, func() func(w *walk) {
		const end = 7.90531110763549805
		high, low := g.float32s(end), g.float32s(-end)
		return func(w *walk) {
			x, square, p, q := w.get("x"), g.vec(), g.vec(), g.vec()
			g.VMINPS(x, high, x) // in this order NaN stays
			g.VMAXPS(x, low, x)
			g.VMULPS(x, x, square)
			g.polynomial(square, p, -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-8,
				1.48572235717979e-5, 6.37261928875436e-4, 4.89352455891786e-3)
			g.polynomial(square, q, 1.19825839466702e-6, 1.18534705686654e-4, 2.26843463243900e-3, 4.89352518554385e-3)
			g.VDIVPS(q, p, p) // near 1 for x near 0, of which then no digit is lost, be it subnormal
			g.VMULPS(x, p, p)
			w.put(p, "dst")
		}
	})
}

// polynomial evaluates at x, the highest power first.
func (g *generator) polynomial(x, dst reg.Register, coefficients ...float64) {
	g.VMOVUPS(g.data(coefficients[0]), dst)
	for _, c := range coefficients[1:] {
		g.VFMADD213PS(g.data(c), x, dst)
	}
}
