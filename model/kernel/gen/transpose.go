package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// transpose emits dst = srcᵀ by blocks of width × width, which are transposed in registers. At the edges the last row is
// read again in place of those that are not there, and what that gives is not stored.
func (g *generator) transpose() {
	g.begin("transpose", "func(dst *float32, dstStride int, src *float32, srcStride, rows, cols int)", "is dst = srcᵀ; strides are in bytes, rows and cols those of src.")
	dst, src, rows := g.word("dst"), g.word("src"), g.word("rows")
	dstStride, srcStride := g.word("dstStride"), g.word("srcStride")
	down := g.label("down")
	g.Label(down)
	cols, from, to := g.word("cols"), g.GP64(), g.GP64()
	g.MOVQ(src, from)
	g.MOVQ(dst, to)
	across, edge, next, done := g.label("across"), g.label("edge"), g.label("next"), g.label("done")
	g.Label(across)
	g.CMPQ(cols, operand.I32(g.width))
	g.JLT(operand.LabelRef(edge))
	g.CMPQ(rows, operand.I32(g.width))
	g.JLT(operand.LabelRef(edge))
	g.transposeBlock(from, srcStride, to, dstStride, nil, nil, "")
	g.JMP(operand.LabelRef(next))
	g.Label(edge)
	g.transposeBlock(from, srcStride, to, dstStride, rows, cols, next)
	g.Label(next)
	g.ADDQ(operand.I32(g.bytes()), from)
	step := g.GP64()
	g.MOVQ(dstStride, step)
	g.IMUL3Q(operand.I32(g.width), step, step)
	g.ADDQ(step, to)
	g.SUBQ(operand.I32(g.width), cols)
	g.JGT(operand.LabelRef(across))
	g.ADDQ(operand.I32(g.bytes()), dst)
	g.MOVQ(srcStride, step)
	g.IMUL3Q(operand.I32(g.width), step, step)
	g.ADDQ(step, src)
	g.SUBQ(operand.I32(g.width), rows)
	g.JGT(operand.LabelRef(down))
	g.Label(done)
	g.end()
}

// transposeBlock does one block; at an edge, rows and cols are what is left of src, and it leaves for the label after the
// last column.
func (g *generator) transposeBlock(from, srcStride, to, dstStride, rows, cols reg.Register, leave string) {
	read, write := g.GP64(), g.GP64()
	g.MOVQ(from, read)
	g.MOVQ(to, write)
	if cols != nil {
		g.setMask(cols)
	}
	var v []reg.VecVirtual
	for i := range g.width {
		v = append(v, g.load(operand.Mem{Base: read}))
		if i == g.width-1 {
			break
		}
		if rows == nil {
			g.ADDQ(srcStride, read)
			continue
		}
		further := g.GP64()
		g.XORQ(further, further)
		g.CMPQ(rows, operand.I32(i+1))
		g.CMOVQGT(srcStride, further)
		g.ADDQ(further, read)
	}
	if rows != nil {
		g.setMask(rows)
	}
	for j, x := range g.turned(v) {
		g.store(x, operand.Mem{Base: write})
		if j == g.width-1 {
			break
		}
		if cols != nil {
			g.CMPQ(cols, operand.I32(j+1))
			g.JLE(operand.LabelRef(leave))
		}
		g.ADDQ(dstStride, write)
	}
	g.mask = nil
}

// turned transposes a square of vectors: first within lanes of four, pairs and then pairs of pairs, and then the lanes.
func (g *generator) turned(v []reg.VecVirtual) []reg.VecVirtual {
	n := len(v)
	pairs := make([]reg.VecVirtual, n)
	for i := 0; i < n; i += 2 {
		pairs[i], pairs[i+1] = g.vec(), g.vec()
		g.VUNPCKLPS(v[i+1], v[i], pairs[i])
		g.VUNPCKHPS(v[i+1], v[i], pairs[i+1])
	}
	quads := make([]reg.VecVirtual, n) // quads[4r+c]: column c of each lane, of rows 4r to 4r+3
	for i := 0; i < n; i += 4 {
		for c := range 4 {
			quads[i+c] = g.vec()
		}
		g.VUNPCKLPD(pairs[i+2], pairs[i], quads[i])
		g.VUNPCKHPD(pairs[i+2], pairs[i], quads[i+1])
		g.VUNPCKLPD(pairs[i+3], pairs[i+1], quads[i+2])
		g.VUNPCKHPD(pairs[i+3], pairs[i+1], quads[i+3])
	}
	out := make([]reg.VecVirtual, n) // out[4l+c] is lane l of quads[c], quads[4+c], …
	for i := range out {
		out[i] = g.vec()
	}
	for c := range 4 {
		if !g.wide() {
			g.VPERM2F128(operand.U8(0x20), quads[4+c], quads[c], out[c])
			g.VPERM2F128(operand.U8(0x31), quads[4+c], quads[c], out[4+c])
			continue
		}
		low, high, low2, high2 := g.vec(), g.vec(), g.vec(), g.vec()
		g.VSHUFF32X4(operand.U8(0x88), quads[4+c], quads[c], low)     // lanes 0, 2 of both
		g.VSHUFF32X4(operand.U8(0xdd), quads[4+c], quads[c], high)    // lanes 1, 3
		g.VSHUFF32X4(operand.U8(0x88), quads[12+c], quads[8+c], low2) // of the next two
		g.VSHUFF32X4(operand.U8(0xdd), quads[12+c], quads[8+c], high2)
		g.VSHUFF32X4(operand.U8(0x88), low2, low, out[c])
		g.VSHUFF32X4(operand.U8(0x88), high2, high, out[4+c])
		g.VSHUFF32X4(operand.U8(0xdd), low2, low, out[8+c])
		g.VSHUFF32X4(operand.U8(0xdd), high2, high, out[12+c])
	}
	return out
}
