package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func (g *generator) integers() {
	g.fromFixed()

	g.begin("addUint32", "func(dst, x []uint32)", "is dst += x.")
	g.along("dst x", nil, 4, func(w *walk, _ int) {
		v := w.get("dst")
		g.VPADDD(w.get("x"), v, v)
		w.put(v, "dst")
	})
	g.end()

	g.begin("rescale", "func(dst []float32, q []int32, scales, bias []float32, scale float32)", "is dst = scale·scales·q + bias.")
	scale := g.scalar("scale")
	g.along("dst q scales bias", nil, 2, func(w *walk, _ int) {
		v, s := w.get("q"), w.get("scales")
		g.VCVTDQ2PS(v, v)
		g.VMULPS(scale, s, s)
		g.VFMADD213PS(w.get("bias"), s, v)
		w.put(v, "dst")
	})
	g.end()
	g.toFixed(false)
	g.toFixed(true)
	g.addFixed()
	g.bytesOfInts()
}

// fromFixed computes in float64, so that no integer is rounded before the product is.
func (g *generator) fromFixed() {
	g.begin("fromFixed", "func(dst []float32, q []int32, step float64)", "is FromFixed.")
	step := g.double("step")
	g.along("dst q", nil, 2, func(w *walk, _ int) {
		v := w.get("q")
		for half := range 2 {
			d := g.vec()
			g.extractHalf(v, d, half)
			if g.wide() {
				g.VCVTDQ2PD(d.AsY(), d)
				g.VMULPD(step, d, d)
				g.VCVTPD2PS(d, d.AsY())
				g.VINSERTF64X4(operand.U8(half), d.AsY(), v, v)
			} else {
				g.VCVTDQ2PD(d.AsX(), d)
				g.VMULPD(step, d, d)
				g.VCVTPD2PSY(d, d.AsX())
				g.VINSERTF128(operand.U8(half), d.AsX(), v, v)
			}
		}
		w.put(v, "dst")
	})
	g.end()
}

// toFixed computes in float64, so that one vector of x becomes two. It counts what is not within the limit.
func (g *generator) toFixed(randomly bool) {
	if randomly {
		g.begin("toFixedRandomly", "func(q []int32, x []float32, random []uint32, inverse, limit float64) int", "is ToFixedRandomly.")
	} else {
		g.begin("toFixed", "func(q []int32, x []float32, inverse, limit float64) int", "is ToFixed.")
	}
	inverse, high, low, magnitude := g.double("inverse"), g.double("limit"), g.vec(), g.float64s(0)
	g.VSUBPD(high, magnitude, low)
	count := g.GP64()
	g.XORQ(count, count)
	slices := "q x"
	if randomly {
		slices = "q x random"
	}
	g.along(slices, nil, 1, func(w *walk, _ int) {
		x := w.get("x")
		var random reg.VecVirtual
		if randomly {
			random = w.get("random")
		}
		s := g.withinLimit(x, inverse, low, high, count)
		for half := range s {
			if randomly {
				g.roundRandomly(s[half], random, half)
			}
			g.halfToInt(s[half], x, half)
		}
		w.put(x, "q")
	})
	g.Store(count, g.ReturnIndex(0))
	g.end()
}

// addFixed works on whole vectors; Go does what remains.
func (g *generator) addFixed() {
	g.begin("addFixed", "func(acc []int64, x []float32, inverse, limit float64, w int32) int", "is AddFixed.")
	inverse, high, low, w := g.double("inverse"), g.double("limit"), g.vec(), g.scalar("w") // whatever w is, it has 32 bits
	g.VSUBPD(high, g.float64s(0), low)
	count, acc, from, n := g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.XORQ(count, count)
	g.Load(g.Param("acc").Base(), acc)
	g.Load(g.Param("x").Base(), from)
	g.Load(g.Param("x").Len(), n)
	loop, done := g.label("loop"), g.label("done")
	g.SUBQ(operand.I32(g.width), n)
	g.JLT(operand.LabelRef(done))
	g.Label(loop)
	for half, s := range g.withinLimit(g.load(operand.Mem{Base: from}), inverse, low, high, count) {
		at := operand.Mem{Base: acc, Disp: half * g.bytes()}
		if g.wide() {
			g.VCVTPD2QQ(s, s)
		} else {
			g.VCVTPD2DQY(s, s.AsX())
			g.VPMOVSXDQ(s.AsX(), s)
		}
		g.VPMULDQ(w, s, s)
		g.VPADDQ(at, s, s)
		g.store(s, at)
	}
	g.ADDQ(operand.I32(4*g.width), from)
	g.ADDQ(operand.I32(8*g.width), acc)
	g.SUBQ(operand.I32(g.width), n)
	g.JGE(operand.LabelRef(loop))
	g.Label(done)
	g.Store(count, g.ReturnIndex(0))
	g.end()
}

// withinLimit multiplies x by inverse in float64, which makes two vectors of it. What is not within the limit, seldom
// anything, is clamped and counted.
func (g *generator) withinLimit(x, inverse, low, high reg.VecVirtual, count reg.GPVirtual) (s [2]reg.VecVirtual) {
	const notLessEqual = 6 // or NaN
	outside, within := g.GP64(), g.label("within")
	magnitude := g.vec()
	var ks [2]reg.OpmaskVirtual
	var masks [2]reg.VecVirtual
	for half := range s {
		s[half] = g.halfToDouble(x, half)
		g.VMULPD(inverse, s[half], s[half])
		g.magnitude(s[half], magnitude)
		if g.wide() {
			ks[half] = g.K()
			g.VCMPPD(operand.U8(notLessEqual), high, magnitude, ks[half])
		} else {
			masks[half] = g.vec()
			g.VCMPPD(operand.U8(notLessEqual), high, magnitude, masks[half])
		}
	}
	if g.wide() {
		g.KORTESTB(ks[0], ks[1])
	} else {
		g.VORPD(masks[0], masks[1], masks[0])
		g.VMOVMSKPD(masks[0], outside.As32())
		g.TESTL(outside.As32(), outside.As32())
	}
	g.JEQ(operand.LabelRef(within))
	for _, v := range s {
		g.clampDouble(v, low, high, count)
	}
	g.Label(within)
	return s
}

// magnitude drops the signs of float64s.
func (g *generator) magnitude(v, dst reg.VecVirtual) {
	name := "magnitudes"
	if _, ok := g.consts[name]; !ok {
		m := g.StaticGlobal(name + g.name)
		g.DataAttributes(attr.RODATA | attr.NOPTR)
		for i := range g.width / 2 {
			g.AddDatum(8*i, operand.U64(1<<63-1))
		}
		g.consts[name] = m
	}
	g.VANDPD(g.consts[name], v, dst)
}

// halfToDouble converts one half of the float32s of x.
func (g *generator) halfToDouble(x reg.VecVirtual, half int) reg.VecVirtual {
	d := g.vec()
	g.extractHalf(x, d, half)
	if g.wide() {
		g.VCVTPS2PD(d.AsY(), d)
	} else {
		g.VCVTPS2PD(d.AsX(), d)
	}
	return d
}

// extractHalf moves one half of x to the lower half of d.
func (g *generator) extractHalf(x, d reg.VecVirtual, half int) {
	if g.wide() {
		g.VEXTRACTF64X4(operand.U8(half), x, d.AsY())
	} else {
		g.VEXTRACTF128(operand.U8(half), x, d.AsX())
	}
}

// halfToInt rounds s, half to even, into one half of x.
func (g *generator) halfToInt(s, x reg.VecVirtual, half int) {
	if g.wide() {
		g.VCVTPD2DQ(s, s.AsY())
		g.VINSERTF64X4(operand.U8(half), s.AsY(), x, x)
	} else {
		g.VCVTPD2DQY(s, s.AsX())
		g.VINSERTF128(operand.U8(half), s.AsX(), x, x)
	}
}

// clampDouble clamps s to the limits, makes NaN zero, and adds to count how many lanes that changed.
func (g *generator) clampDouble(s, low, high reg.VecVirtual, count reg.GPVirtual) {
	clamped, bits := g.vec(), g.GP64()
	g.VMINPD(high, s, clamped)
	g.VMAXPD(low, clamped, clamped) // NaN became a limit
	const notEqual = 4              // or NaN
	if g.wide() {
		changed, isNumber := g.K(), g.K()
		g.VCMPPD(operand.U8(notEqual), s, clamped, changed)
		g.VCMPPD(operand.U8(ordered), s, s, isNumber)
		g.KMOVB(changed, bits.As32())
		g.VMOVAPD_Z(clamped, isNumber, s)
	} else {
		changed, isNumber := g.vec(), g.vec()
		g.VCMPPD(operand.U8(notEqual), s, clamped, changed)
		g.VCMPPD(operand.U8(ordered), s, s, isNumber)
		g.VMOVMSKPD(changed, bits.As32())
		g.VANDPD(isNumber, clamped, s)
	}
	g.POPCNTQ(bits, bits)
	g.ADDQ(bits, count)
}

// roundRandomly makes s the whole number below it, or above it where random/2^32 is below the fraction.
func (g *generator) roundRandomly(s, random reg.VecVirtual, half int) {
	u, fraction, one := g.vec(), g.vec(), g.float64s(1)
	g.extractHalf(random, u, half)
	if g.wide() {
		g.VCVTUDQ2PD(u.AsY(), u)
		g.VMULPD(g.float64s(0x1p-32), u, u)
		g.VRNDSCALEPD(operand.U8(9), s, fraction)
	} else { // there are only signed conversions
		flipped := g.words(1 << 31)
		g.VPXOR(flipped.AsX(), u.AsX(), u.AsX())
		g.VCVTDQ2PD(u.AsX(), u)
		g.VADDPD(g.float64s(0x1p31), u, u)
		g.VMULPD(g.float64s(0x1p-32), u, u)
		g.VROUNDPD(operand.U8(9), s, fraction)
	}
	floor := g.vec()
	g.VMOVAPD(fraction, floor)
	g.VSUBPD(floor, s, fraction)
	if g.wide() {
		k := g.K()
		g.VCMPPD(operand.U8(less), fraction, u, k)
		g.VADDPD(one, floor, k, floor)
	} else {
		up := g.vec()
		g.VCMPPD(operand.U8(less), fraction, u, up)
		g.VANDPD(one, up, up)
		g.VADDPD(up, floor, floor)
	}
	g.VMOVAPD(floor, s)
}

// bytesOfInts are the kernels over int8. AVX2 has no masks of bytes: its kernels work on whole vectors and Go does what
// remains.
func (g *generator) bytesOfInts() {
	narrow := map[string]int{"q": 1, "a": 1, "b": 1}
	g.begin("quantise", "func(q []int8, x []float32, inverse float32)", "is Quantise.")
	inverse, high, low := g.scalar("inverse"), g.float32s(127), g.float32s(-127)
	g.along("q x", narrow, 1, func(w *walk, _ int) {
		v := w.get("x")
		g.VMULPS(inverse, v, v)
		number := g.zeroNaN(v)
		g.VMINPS(high, number, number)
		g.VMAXPS(low, number, number)
		g.VCVTPS2DQ(number, number)
		g.storeBytes(number, w.at("q"))
	})
	g.end()

	g.begin("axpyInt8", "func(dst []float32, q []int8, a float32)", "is dst += a·q.")
	a := g.scalar("a")
	g.along("dst q", narrow, 1, func(w *walk, _ int) {
		q := g.vec()
		if g.mask != nil && g.wide() {
			g.VPMOVSXBD_Z(w.at("q"), g.mask, q)
		} else {
			g.VPMOVSXBD(w.at("q"), q)
		}
		g.VCVTDQ2PS(q, q)
		v := w.get("dst")
		g.VFMADD231PS(q, a, v)
		w.put(v, "dst")
	})
	g.end()
	g.dotInt8()
}

func (g *generator) zeroNaN(v reg.VecVirtual) reg.VecVirtual {
	number := g.vec()
	if g.wide() {
		k := g.K()
		g.VCMPPS(operand.U8(ordered), v, v, k)
		g.VMOVAPS_Z(v, k, number)
	} else {
		g.VCMPPS(operand.U8(ordered), v, v, number)
		g.VANDPS(number, v, number)
	}
	return number
}

// storeBytes narrows integers of 32 bits, in ±127, to bytes and stores them.
func (g *generator) storeBytes(v reg.VecVirtual, m operand.Mem) {
	switch {
	case g.wide() && g.mask != nil:
		g.VPMOVSDB(v, g.mask, m)
	case g.wide():
		g.VPMOVSDB(v, m)
	default:
		high := g.YMM()
		g.VEXTRACTI128(operand.U8(1), v, high.AsX())
		g.VPACKSSDW(high.AsX(), v.AsX(), v.AsX())
		g.VPACKSSWB(v.AsX(), v.AsX(), v.AsX())
		g.VMOVQ(v.AsX(), m)
	}
}

// dotInt8 is exact. VNNI multiplies unsigned by signed bytes: 128 is added to a, by flipping its highest bit, and
// 128·Σb taken off. AVX2 widens to 16 bits first.
func (g *generator) dotInt8() {
	g.begin("dotInt8", "func(a, b []int8) int32", "is Σ a·b.")
	pa, pb, n := g.GP64(), g.GP64(), g.GP64()
	g.Load(g.Param("a").Base(), pa)
	g.Load(g.Param("b").Base(), pb)
	g.Load(g.Param("a").Len(), n)
	acc, off := g.zero(), g.zero()
	flip := g.words(0x80808080)
	once := func() {
		x, y := g.vec(), g.vec()
		switch {
		case !g.wide():
			g.VPMOVSXBW(operand.Mem{Base: pa}, x)
			g.VPMOVSXBW(operand.Mem{Base: pb}, y)
			g.VPMADDWD(x, y, x)
			g.VPADDD(x, acc, acc)
			return
		case g.mask != nil:
			g.VMOVDQU8_Z(operand.Mem{Base: pa}, g.mask, x)
			g.VMOVDQU8_Z(operand.Mem{Base: pb}, g.mask, y)
		default:
			g.VMOVDQU8(operand.Mem{Base: pa}, x)
			g.VMOVDQU8(operand.Mem{Base: pb}, y)
		}
		g.VPXORD(flip, x, x)
		g.raw("VPDPBUSD", y, x, acc)
		g.raw("VPDPBUSD", y, flip, off)
	}
	size := 16
	if g.wide() {
		size = 64
	}
	loop, rest, done := g.label("loop"), g.label("rest"), g.label("done")
	g.SUBQ(operand.I32(size), n)
	g.JLT(operand.LabelRef(rest))
	g.Label(loop)
	once()
	g.ADDQ(operand.I32(size), pa)
	g.ADDQ(operand.I32(size), pb)
	g.SUBQ(operand.I32(size), n)
	g.JGE(operand.LabelRef(loop))
	g.Label(rest)
	if g.wide() {
		g.ADDQ(operand.I32(size), n)
		g.JEQ(operand.LabelRef(done))
		bits, k := g.GP64(), g.K()
		g.MOVQ(operand.I32(-1), bits)
		g.BZHIQ(n, bits, bits)
		g.KMOVQ(bits, k)
		g.mask = k
		once()
		g.mask = nil
		g.Label(done)
		g.VPSUBD(off, acc, acc)
	}
	g.returnWord(g.fold(acc, func(x, y, dst reg.Register) { g.VPADDD(x, y, dst) }))
}

// tilesInt8 emits the tiles of ProductInt8: rows of a times vectors of packed outputs. A step takes four inputs.
func (g *generator) tilesInt8() {
	widths := []tile{{vectors: 1, masked: true}, {vectors: 1}}
	if g.wide() {
		widths = append(widths, tile{vectors: 4})
	}
	fmt.Fprintf(&g.tables, "\n// tilesInt8%s are by rows, from 1, and vectors: masked, 1, 4.\nvar tilesInt8%s = [][]tileInt8{\n", g.name, g.name)
	for rows := 1; rows <= 4; rows++ {
		for i, t := range widths {
			t.rows = rows
			fmt.Fprintf(&g.tables, "%s%sInt8%s", []string{"\t{", ", ", ", "}[i], t.name(), g.name)
			g.tileInt8(t)
		}
		fmt.Fprint(&g.tables, "},\n")
	}
	fmt.Fprint(&g.tables, "}\n")
}

const tileInt8Signature = "func(dst *int32, dstStride int, a *int8, aRow int, packed *int32, packedStride int, k, count int)"

// tileInt8 emits one; strides are in bytes, k counts steps.
func (g *generator) tileInt8(t tile) {
	g.begin(t.name()+"Int8", tileInt8Signature, fmt.Sprintf("computes %d rows of %d vectors.", t.rows, t.vectors))
	if t.masked {
		g.setMask(g.word("count"))
	}
	next, loop, done := g.label("next"), g.label("loop"), g.label("done")
	g.Label(next)
	a := g.rowsAt(g.word("a"), g.word("aRow"), t.rows)
	packed, stride, k := g.word("packed"), g.word("packedStride"), g.word("k")
	at := func(j int) operand.Mem { return operand.Mem{Base: packed, Disp: j * g.bytes()} }
	var acc [][]reg.VecVirtual
	for range t.rows {
		var row []reg.VecVirtual
		for j := range t.vectors {
			if g.wide() {
				row = append(row, g.load(at(j))) // what flipping the highest bit of the inputs adds, negative
			} else {
				row = append(row, g.zero())
			}
		}
		acc = append(acc, row)
	}
	g.ADDQ(stride, packed)
	flip := g.words(0x80808080)
	g.TESTQ(k, k)
	g.JEQ(operand.LabelRef(done))
	g.Label(loop)
	g.multiplyInt8(t, a, at, flip, acc)
	g.ADDQ(operand.Imm(4), a.base)
	g.ADDQ(stride, packed)
	g.DECQ(k)
	g.JNZ(operand.LabelRef(loop))
	g.Label(done)
	dst := g.rowsAt(g.word("dst"), g.word("dstStride"), t.rows)
	for i := range acc {
		for j, v := range acc[i] {
			g.store(v, dst.row(i).Offset(j*g.bytes()))
		}
	}
	if !t.masked {
		g.ADDQ(operand.I32(t.vectors*g.bytes()), g.address("dst"))
		g.ADDQ(operand.I32(t.vectors*g.bytes()), g.address("packed"))
		g.DECQ(g.address("count"))
		g.JNZ(operand.LabelRef(next))
	}
	g.mask = nil
	g.end()
}

// multiplyInt8 adds four inputs' products to the accumulators.
func (g *generator) multiplyInt8(t tile, a rowsAt, at func(int) operand.Mem, flip reg.VecVirtual, acc [][]reg.VecVirtual) {
	if g.wide() {
		var w []reg.VecVirtual
		for j := range t.vectors {
			w = append(w, g.load(at(j)))
		}
		for i := range t.rows {
			x := g.vec()
			g.VPBROADCASTD(a.row(i), x)
			g.VPXORD(flip, x, x)
			for j, y := range w {
				g.raw("VPDPBUSD", y, x, acc[i][j])
			}
		}
		return
	}
	// Bytes 0 and 2 of a word, and 1 and 3, become pairs of 16 bits.
	odd, even := g.load(at(0)), g.vec()
	g.VPSLLW(operand.Imm(8), odd, even)
	g.VPSRAW(operand.Imm(8), even, even)
	g.VPSRAW(operand.Imm(8), odd, odd)
	for i := range t.rows {
		x, y := g.vec(), g.vec()
		g.VPBROADCASTD(a.row(i), x)
		g.VPSLLW(operand.Imm(8), x, y)
		g.VPSRAW(operand.Imm(8), y, y)
		g.VPSRAW(operand.Imm(8), x, x)
		g.VPMADDWD(even, y, y)
		g.VPMADDWD(odd, x, x)
		g.VPADDD(y, acc[i][0], acc[i][0])
		g.VPADDD(x, acc[i][0], acc[i][0])
	}
}
