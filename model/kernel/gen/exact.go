package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// columns is how many columns a row of a network's tile has.
const columns = 64

// network emits the kernels over tiles of columns.
func (g *generator) network() {
	g.begin("exchange", "func(tile, pairs []int32)", "sorts the two rows of each pair, column by column.")
	tile, pairs, n := g.GP64(), g.GP64(), g.GP64()
	g.Load(g.Param("tile").Base(), tile)
	g.Load(g.Param("pairs").Base(), pairs)
	g.Load(g.Param("pairs").Len(), n)
	loop, done := g.label("loop"), g.label("done")
	g.SUBQ(operand.Imm(2), n)
	g.JLT(operand.LabelRef(done))
	g.Label(loop)
	a, b := g.GP64(), g.GP64()
	g.MOVLQSX(operand.Mem{Base: pairs}, a)
	g.MOVLQSX(operand.Mem{Base: pairs, Disp: 4}, b)
	g.SHLQ(operand.Imm(8), a) // a row is 256 bytes
	g.SHLQ(operand.Imm(8), b)
	for i := range columns / g.width {
		low, high := operand.Mem{Base: tile, Index: a, Scale: 1, Disp: i * g.bytes()}, operand.Mem{Base: tile, Index: b, Scale: 1, Disp: i * g.bytes()}
		x, y, least := g.load(low), g.load(high), g.vec()
		g.VPMINSD(x, y, least)
		g.VPMAXSD(x, y, y)
		g.store(least, low)
		g.store(y, high)
	}
	g.ADDQ(operand.Imm(8), pairs)
	g.SUBQ(operand.Imm(2), n)
	g.JGE(operand.LabelRef(loop))
	g.Label(done)
	g.end()
	g.addRows()
}

// addRows passes over the tile as often as needed for sums in eight registers.
func (g *generator) addRows() {
	g.begin("addRows", "func(sum *[64]int64, tile []int32)", "adds up rows, column by column.")
	const sums = 8
	lanes := g.width / 2
	sum := g.word("sum")
	for first := 0; first < columns; first += sums * lanes {
		tile, n := g.GP64(), g.GP64()
		g.Load(g.Param("tile").Base(), tile)
		g.Load(g.Param("tile").Len(), n)
		var acc []reg.VecVirtual
		for i := range sums {
			acc = append(acc, g.load(operand.Mem{Base: sum, Disp: 8 * (first + i*lanes)}))
		}
		loop, done := g.label("loop"), g.label("done")
		g.SUBQ(operand.I32(columns), n)
		g.JLT(operand.LabelRef(done))
		g.Label(loop)
		for i, s := range acc {
			v := g.vec()
			g.VPMOVSXDQ(operand.Mem{Base: tile, Disp: 4 * (first + i*lanes)}, v)
			g.VPADDQ(v, s, s)
		}
		g.ADDQ(operand.I32(4*columns), tile)
		g.SUBQ(operand.I32(columns), n)
		g.JGE(operand.LabelRef(loop))
		g.Label(done)
		for i, s := range acc {
			g.store(s, operand.Mem{Base: sum, Disp: 8 * (first + i*lanes)})
		}
	}
	g.end()
}

// exact emits products and sums of integers of 32 bits in 64 and in float64. All of it works on whole vectors of eight bytes
// an element; Go does what remains.
func (g *generator) exact() {
	g.widen()
	g.dotTile()
	g.wideSum("addScaled", "acc []int64, q []int32, w int32", "is acc += w·q.", func() func(v, acc reg.VecVirtual) {
		w := g.scalar("w") // whatever it is, it has 32 bits
		return func(v, acc reg.VecVirtual) {
			g.VPMULDQ(v, w, v)
			g.VPADDQ(v, acc, acc)
		}
	})
	g.wideSum("addScaledDouble", "acc []float64, q []int32, w float64", "is acc += w·q, rounded twice.", func() func(v, acc reg.VecVirtual) {
		w := g.double("w")
		return func(v, acc reg.VecVirtual) {
			g.VMULPD(v, w, v)
			g.VADDPD(v, acc, acc)
		}
	})
}

// wideSum emits a loop over elements of acc, of eight bytes, and of q, of four.
func (g *generator) wideSum(name, params, doc string, prepare func() func(v, acc reg.VecVirtual)) {
	g.begin(name, "func("+params+")", doc)
	step := prepare()
	acc, q, n := g.GP64(), g.GP64(), g.GP64()
	g.Load(g.Param("acc").Base(), acc)
	g.Load(g.Param("q").Base(), q)
	g.Load(g.Param("acc").Len(), n)
	lanes := g.width / 2
	loop, rest, done := g.label("loop"), g.label("rest"), g.label("done")
	once := func(vectors int) {
		for u := range vectors {
			v, at := g.vec(), operand.Mem{Base: acc, Disp: 8 * u * lanes}
			from := operand.Mem{Base: q, Disp: 4 * u * lanes}
			if name == "addScaledDouble" {
				g.VCVTDQ2PD(from, v)
			} else {
				g.VPMOVSXDQ(from, v)
			}
			s := g.load(at)
			step(v, s)
			g.store(s, at)
		}
		g.ADDQ(operand.I32(8*vectors*lanes), acc)
		g.ADDQ(operand.I32(4*vectors*lanes), q)
		g.SUBQ(operand.I32(vectors*lanes), n)
	}
	const unroll = 4
	g.SUBQ(operand.I32(unroll*lanes), n)
	g.JLT(operand.LabelRef(rest))
	g.Label(loop)
	once(unroll)
	g.JGE(operand.LabelRef(loop))
	g.Label(rest)
	g.ADDQ(operand.I32(unroll*lanes), n)
	g.JEQ(operand.LabelRef(done))
	tail := g.label("tail")
	g.Label(tail)
	once(1)
	g.JGT(operand.LabelRef(tail))
	g.Label(done)
	g.end()
}

// widen emits the conversion to float64.
func (g *generator) widen() {
	g.begin("widen", "func(dst []float64, q []int32)", "is dst = q.")
	dst, q, n := g.GP64(), g.GP64(), g.GP64()
	g.Load(g.Param("dst").Base(), dst)
	g.Load(g.Param("q").Base(), q)
	g.Load(g.Param("q").Len(), n)
	lanes := g.width / 2
	loop, done := g.label("loop"), g.label("done")
	g.SUBQ(operand.I32(lanes), n)
	g.JLT(operand.LabelRef(done))
	g.Label(loop)
	v := g.vec()
	g.VCVTDQ2PD(operand.Mem{Base: q}, v)
	g.store(v, operand.Mem{Base: dst})
	g.ADDQ(operand.I32(4*lanes), q)
	g.ADDQ(operand.I32(8*lanes), dst)
	g.SUBQ(operand.I32(lanes), n)
	g.JGE(operand.LabelRef(loop))
	g.Label(done)
	g.end()
}

// dotTile emits the dot products of some rows with four, of float64s that hold integers: as long as no sum in a lane
// passes 2^53, nothing is rounded, whether multiplication and addition are fused or not.
func (g *generator) dotTile() {
	rows := 2
	if g.wide() {
		rows = 4
	}
	fmt.Fprintf(&g.tables, "\n// dotRows%s is how many rows of a dotTile%s takes.\nconst dotRows%s = %d\n", g.name, g.name, g.name, rows)
	g.begin("dotTile", "func(dst *[16]int64, a, b *[4]*float64, n int)", fmt.Sprintf("writes the dot products of %d rows of n elements, whole vectors, with 4.", rows))
	pointers := func(param string, count int) (rows []reg.GPVirtual) {
		table := g.word(param)
		for i := range count {
			r := g.GP64()
			g.MOVQ(operand.Mem{Base: table, Disp: 8 * i}, r)
			rows = append(rows, r)
		}
		return rows
	}
	a, b := pointers("a", rows), pointers("b", 4)
	n, at := g.word("n"), g.GP64()
	g.XORQ(at, at)
	var acc []reg.VecVirtual
	for range 4 * rows {
		acc = append(acc, g.zero())
	}
	loop := g.label("loop")
	g.Label(loop)
	var x []reg.VecVirtual
	for _, r := range a {
		x = append(x, g.load(operand.Mem{Base: r, Index: at, Scale: 8}))
	}
	for j, r := range b {
		y := g.load(operand.Mem{Base: r, Index: at, Scale: 8})
		for i := range a {
			g.VFMADD231PD(x[i], y, acc[4*i+j])
		}
	}
	g.ADDQ(operand.I32(g.width/2), at)
	g.CMPQ(at, n)
	g.JLT(operand.LabelRef(loop))
	dst := g.word("dst")
	for i, v := range acc {
		g.addLanes(v, operand.Mem{Base: dst, Disp: 8 * i})
	}
	g.end()
}

// addLanes stores the sum of the whole numbers in the lanes of v. They are added as integers: as floats the sum might not
// be exact.
func (g *generator) addLanes(v reg.VecVirtual, m operand.Mem) {
	if g.wide() {
		g.VCVTPD2QQ(v, v)
		g.fold64(v)
		g.VMOVQ(v.AsX(), m)
		return
	}
	sum, lane := g.GP64(), g.GP64()
	high, x := g.YMM(), v.AsX()
	g.VEXTRACTF128(operand.U8(1), v, high.AsX())
	g.VCVTTSD2SIQ(x, sum)
	for i, part := range []reg.Register{x, high.AsX(), high.AsX()} {
		if i != 1 {
			g.VPERMILPD(operand.U8(1), part, part)
		}
		g.VCVTTSD2SIQ(part, lane)
		g.ADDQ(lane, sum)
	}
	g.MOVQ(sum, m)
}

// fold64 adds up the words of 64 bits of a vector of AVX-512 in its first.
func (g *generator) fold64(v reg.VecVirtual) {
	t, x := g.ZMM(), v.AsX()
	g.VEXTRACTI64X4(operand.U8(1), v, t.AsY())
	g.VPADDQ(t.AsY(), v.AsY(), v.AsY())
	g.VEXTRACTI64X2(operand.U8(1), v.AsY(), t.AsX())
	g.VPADDQ(t.AsX(), x, x)
	g.VPSHUFD(operand.U8(0b01_00_11_10), x, t.AsX())
	g.VPADDQ(t.AsX(), x, x)
}
