package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// A tile is a part of the destination that stays in registers: rows × vectors accumulators. For every step of k it loads
// its vectors of b, broadcasts one element of a for each row, and multiplies and adds. Elements of a are found by a row
// and a column stride, so that one tile does for a and aᵀ,
// and a jump from one block of k columns to the next, so that it does for windows of an image.
type tile struct {
	rows, vectors int
	masked        bool         // only the first lanes of the last vector take part
	lanes         reg.Register // the mask of those
}

// shapes lists the tiles of an instruction set: the more rows, the fewer vectors fit.
func (g *generator) shapes() (shapes []tile) {
	most, widths := 6, map[int]int{1: 6, 2: 6, 4: 2, 8: 1} // of 16 registers; vectors: rows
	if g.wide() {
		most, widths = 14, map[int]int{1: 14, 2: 14, 4: 6, 8: 2} // of 32
	}
	for rows := 1; rows <= most; rows++ {
		for _, v := range []int{1, 2, 4, 8} {
			if v <= 2 {
				shapes = append(shapes, tile{rows: rows, vectors: v, masked: true})
			}
			if rows <= widths[v] {
				shapes = append(shapes, tile{rows: rows, vectors: v})
			}
		}
	}
	return shapes
}

const tileSignature = "func(dst *float32, dstStride int, a *float32, aRow, aCol int, b *float32, bStride int, k, blocks, jump, count int, alpha float32, bias *float32, flags int)"

// Flags of a tile; strides are in bytes. path_amd64.go has the same.
const (
	flagAdd   = 1 // to what dst holds
	flagScale = 2 // by alpha; adding scales always
	flagReLU  = 4
	flagBias  = 8
)

func (t tile) name() string {
	if t.masked {
		return fmt.Sprintf("tile%dx%dMask", t.rows, t.vectors)
	}
	return fmt.Sprintf("tile%dx%d", t.rows, t.vectors)
}

// tiles emits all of them and the table that finds them.
func (g *generator) tiles() {
	fmt.Fprintf(&g.tables, "\n// tiles%s are by rows, from 1, and 1 masked, 1, 2 of which the last is masked, 2, 4, 8.\nvar tiles%s = [][6]tile{\n", g.name, g.name)
	last := 0
	for _, t := range g.shapes() {
		if t.rows != last {
			if last > 0 {
				fmt.Fprint(&g.tables, "},\n")
			}
			fmt.Fprint(&g.tables, "\t{")
			last = t.rows
		} else {
			fmt.Fprint(&g.tables, ", ")
		}
		fmt.Fprint(&g.tables, t.name()+g.name)
		g.tile(t)
	}
	fmt.Fprint(&g.tables, "},\n}\n")
}

// split is how many steps of k have accumulators of their own, so that additions need not wait for each other: a core
// has eight under way.
func (t tile) split() int { return max(1, min(4, (t.rows*t.vectors+7)/(t.rows*t.vectors))) }

// tile emits one kernel. It walks along the rows of dst and b, count times the tile's width.
func (g *generator) tile(t tile) {
	what := fmt.Sprintf("computes %d rows of %d vectors, count times along the row.", t.rows, t.vectors)
	if t.masked {
		what = fmt.Sprintf("computes %d rows of %d vectors, of whose last count lanes take part.", t.rows, t.vectors)
	}
	g.begin(t.name(), tileSignature, what)
	if t.masked {
		g.setMask(g.word("count"))
		t.lanes, g.mask = g.mask, nil
	}
	next := g.label("next")
	g.Label(next)
	acc := g.accumulate(t)
	g.epilogue(t, acc)
	if !t.masked {
		step := operand.I32(t.vectors * g.bytes())
		g.ADDQ(step, g.address("dst"))
		g.ADDQ(step, g.address("b"))
		g.ADDQ(step, g.address("bias"))
		g.DECQ(g.address("count"))
		g.JNZ(operand.LabelRef(next))
	}
	g.end()
}

// behind has f emitted behind the mask, if vector j has one.
func (g *generator) behind(t tile, j int, f func()) {
	if j == t.vectors-1 {
		g.mask = t.lanes
	}
	f()
	g.mask = nil
}

// operand is vector j of a row, in memory, or loaded if it has a mask.
func (g *generator) operand(t tile, j int, m operand.Mem) (op operand.Op) {
	if !t.masked || j < t.vectors-1 {
		return m
	}
	g.behind(t, j, func() { op = g.load(m) })
	return op
}

// rowsAt addresses the rows of a matrix with two pointers and three multiples of the stride.
type rowsAt struct{ base, base7, stride, stride3, stride5 reg.GPVirtual }

func (g *generator) rowsAt(base, stride reg.GPVirtual, rows int) rowsAt {
	r := rowsAt{base: base, base7: g.GP64(), stride: stride, stride3: g.GP64(), stride5: g.GP64()}
	if rows > 3 {
		g.LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, r.stride3)
	}
	if rows > 5 {
		g.LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 4}, r.stride5)
	}
	if rows > 7 {
		g.LEAQ(operand.Mem{Base: base, Index: stride, Scale: 2}, r.base7)
		g.ADDQ(r.stride5, r.base7)
	}
	return r
}

// row is the address of a row, of at most 14.
func (r rowsAt) row(i int) operand.Mem {
	switch i {
	case 0:
		return operand.Mem{Base: r.base}
	case 3, 6, 12:
		return operand.Mem{Base: r.base, Index: r.stride3, Scale: uint8(i / 3)}
	case 5, 10:
		return operand.Mem{Base: r.base, Index: r.stride5, Scale: uint8(i / 5)}
	case 7:
		return operand.Mem{Base: r.base7}
	case 9, 11:
		return operand.Mem{Base: r.base7, Index: r.stride, Scale: uint8(i - 7)}
	case 13:
		return operand.Mem{Base: r.base7, Index: r.stride3, Scale: 2}
	}
	return operand.Mem{Base: r.base, Index: r.stride, Scale: uint8(i)} // 1, 2, 4, 8
}

// accumulate emits the loop over k and returns the sums, row by row.
func (g *generator) accumulate(t tile) [][]reg.VecVirtual {
	a := g.rowsAt(g.word("a"), g.word("aRow"), t.rows)
	aCol, b, bStride, k, blocks := g.word("aCol"), g.word("b"), g.word("bStride"), g.GP64(), g.word("blocks")
	split := t.split()
	acc := make([][][]reg.VecVirtual, split)
	for s := range acc {
		acc[s] = make([][]reg.VecVirtual, t.rows)
		for i := range acc[s] {
			for range t.vectors {
				acc[s][i] = append(acc[s][i], g.zero())
			}
		}
	}
	advance := func(by operand.Op) {
		g.ADDQ(by, a.base)
		if t.rows > 7 {
			g.ADDQ(by, a.base7)
		}
	}
	step := func(acc [][]reg.VecVirtual) {
		g.multiply(t, a, b, acc)
		advance(aCol)
		g.ADDQ(bStride, b)
	}
	block, loop, rest, done := g.label("block"), g.label("loop"), g.label("rest"), g.label("done")
	g.Label(block)
	g.MOVQ(g.address("k"), k)
	if split > 1 {
		g.SUBQ(operand.I32(split), k)
		g.JLT(operand.LabelRef(rest))
		g.Label(loop)
		for s := range split {
			step(acc[s])
		}
		g.SUBQ(operand.I32(split), k)
		g.JGE(operand.LabelRef(loop))
		g.Label(rest)
		g.ADDQ(operand.I32(split), k)
		loop = g.label("loop")
	} else {
		g.TESTQ(k, k)
	}
	g.JEQ(operand.LabelRef(done))
	g.Label(loop)
	step(acc[0])
	g.DECQ(k)
	g.JNZ(operand.LabelRef(loop))
	g.Label(done)
	advance(g.address("jump"))
	g.DECQ(blocks)
	g.JNZ(operand.LabelRef(block))
	for stride := 1; stride < split; stride *= 2 {
		for s := 0; s+stride < split; s += 2 * stride {
			for i := range t.rows {
				for j := range t.vectors {
					g.VADDPS(acc[s+stride][i][j], acc[s][i][j], acc[s][i][j])
				}
			}
		}
	}
	return acc[0]
}

// multiply adds one step of k to the accumulators.
func (g *generator) multiply(t tile, a rowsAt, b reg.GPVirtual, acc [][]reg.VecVirtual) {
	at := func(j int) operand.Mem { return operand.Mem{Base: b, Disp: j * g.bytes()} }
	if t.rows == 1 { // b is used once: straight from memory
		x := g.vec()
		g.VBROADCASTSS(a.row(0), x)
		for j := range t.vectors {
			g.VFMADD231PS(g.operand(t, j, at(j)), x, acc[0][j])
		}
		return
	}
	var vectors []reg.VecVirtual
	for j := range t.vectors {
		g.behind(t, j, func() { vectors = append(vectors, g.load(at(j))) })
	}
	for i := range t.rows {
		if g.wide() && t.vectors == 1 {
			g.VFMADD231PS_BCST(a.row(i), vectors[0], acc[i][0])
			continue
		}
		x := g.vec()
		g.VBROADCASTSS(a.row(i), x)
		for j, y := range vectors {
			g.VFMADD231PS(x, y, acc[i][j])
		}
	}
}

// epilogue scales, adds what dst holds, adds the bias, clamps and stores.
func (g *generator) epilogue(t tile, acc [][]reg.VecVirtual) {
	each := func(do func(i, j int, v reg.VecVirtual)) {
		for i := range acc {
			for j, v := range acc[i] {
				do(i, j, v)
			}
		}
	}
	dst := g.rowsAt(g.word("dst"), g.word("dstStride"), t.rows)
	at := func(i, j int) operand.Mem { return dst.row(i).Offset(j * g.bytes()) }
	flags := g.word("flags")
	noAdd, scaled, noBias, store := g.label("noAdd"), g.label("scaled"), g.label("noBias"), g.label("store")

	alpha := g.scalar("alpha")
	g.TESTQ(operand.U32(flagAdd), flags)
	g.JEQ(operand.LabelRef(noAdd))
	each(func(i, j int, v reg.VecVirtual) { g.VFMADD213PS(g.operand(t, j, at(i, j)), alpha, v) })
	g.JMP(operand.LabelRef(scaled))
	g.Label(noAdd)
	g.TESTQ(operand.U32(flagScale), flags)
	g.JEQ(operand.LabelRef(scaled))
	each(func(_, _ int, v reg.VecVirtual) { g.VMULPS(alpha, v, v) })
	g.Label(scaled)

	g.TESTQ(operand.U32(flagBias), flags)
	g.JEQ(operand.LabelRef(noBias))
	bias := g.word("bias")
	for j := range t.vectors {
		var b reg.VecVirtual
		g.behind(t, j, func() { b = g.load(operand.Mem{Base: bias, Disp: j * g.bytes()}) })
		for i := range acc {
			g.VADDPS(b, acc[i][j], acc[i][j])
		}
	}
	g.Label(noBias)

	g.TESTQ(operand.U32(flagReLU), flags)
	g.JEQ(operand.LabelRef(store))
	zero := g.zero()
	each(func(_, _ int, v reg.VecVirtual) { g.VMAXPS(v, zero, v) }) // in this order NaN stays
	g.Label(store)
	each(func(i, j int, v reg.VecVirtual) { g.behind(t, j, func() { g.store(v, at(i, j)) }) })
}

// peak emits a loop of nothing but independent multiplications and additions: what a core can do at most.
func (g *generator) peak() {
	g.begin("peak", "func(n int)", "does n times 12 vectors of multiplications and additions.")
	n := g.word("n")
	var acc []reg.VecVirtual
	for range 12 {
		acc = append(acc, g.zero())
	}
	x := g.zero()
	loop := g.label("loop")
	g.Label(loop)
	for _, v := range acc {
		g.VFMADD231PS(x, x, v)
	}
	g.DECQ(n)
	g.JNZ(operand.LabelRef(loop))
	g.end()
}
