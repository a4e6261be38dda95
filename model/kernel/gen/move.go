package main

import "github.com/mmcloughlin/avo/operand"

// move emits copies of short vectors.
func (g *generator) move() {
	g.begin("move", "func(dst *float32, dstRow, dstColumn int, src *float32, srcRow, srcColumn int, rows, cols, n, add int)",
		"is Move; strides are in bytes.")
	dst, src, n := g.word("dst"), g.word("src"), g.word("n")
	to, from, columns, rows, toRow, fromRow := g.GP64(), g.GP64(), g.GP64(), g.GP64(), g.GP64(), g.GP64()
	deep, down, along, only := g.label("deep"), g.label("down"), g.label("along"), g.label("only")
	g.Label(deep)
	g.setMask(n)
	g.MOVQ(dst, toRow)
	g.MOVQ(src, fromRow)
	g.MOVQ(g.address("rows"), rows)
	g.Label(down)
	g.MOVQ(toRow, to)
	g.MOVQ(fromRow, from)
	g.MOVQ(g.address("cols"), columns)
	g.Label(along)
	v := g.load(operand.Mem{Base: from})
	g.CMPQ(g.address("add"), operand.I32(0))
	g.JEQ(operand.LabelRef(only))
	g.VADDPS(g.load(operand.Mem{Base: to}), v, v)
	g.Label(only)
	g.store(v, operand.Mem{Base: to})
	g.ADDQ(g.address("dstColumn"), to)
	g.ADDQ(g.address("srcColumn"), from)
	g.DECQ(columns)
	g.JNZ(operand.LabelRef(along))
	g.ADDQ(g.address("dstRow"), toRow)
	g.ADDQ(g.address("srcRow"), fromRow)
	g.DECQ(rows)
	g.JNZ(operand.LabelRef(down))
	g.ADDQ(operand.I32(g.bytes()), dst)
	g.ADDQ(operand.I32(g.bytes()), src)
	g.SUBQ(operand.I32(g.width), n)
	g.JGT(operand.LabelRef(deep))
	g.mask = nil
	g.end()
}
