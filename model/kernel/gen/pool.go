package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// pools emits kernels of a row of windows, whose channels are the lanes.
func (g *generator) pools() {
	const sizes = "columns, channels, kernel, step, width int"
	g.begin("maxPool", "func(dst, src *float32, "+sizes+")", "is MaxPool; step and width are in bytes.")
	dst, top := g.word("dst"), g.vec()
	g.windows(g.word("src"), []reg.GPVirtual{dst},
		func(src operand.Mem) { g.loadTo(src, top) },
		func(src operand.Mem) {
			x, largest := g.load(src), g.vec()
			g.VMAXPS(x, top, largest) // in this order NaN of x stays
			g.choose(unordered, top, top, top, largest, top)
		},
		func() { g.store(top, operand.Mem{Base: dst}) })

	g.begin("routePool", "func(dst, grad, src, top *float32, add int, "+sizes+")", "is RoutePool; step and width are in bytes.")
	zero, left, largest := g.zero(), g.vec(), g.vec()
	further, grad, src, tops := g.word("dst"), g.word("grad"), g.word("src"), g.word("top")
	g.SUBQ(src, further) // how far dst lies from src
	g.windows(src, []reg.GPVirtual{grad, tops},
		func(operand.Mem) {
			g.loadTo(operand.Mem{Base: grad}, left)
			g.loadTo(operand.Mem{Base: tops}, largest)
		},
		func(src operand.Mem) {
			x, hit := g.load(src), g.vec()
			g.choose(equal, largest, x, left, zero, hit)
			g.xor(hit, left, left)
			src.Index, src.Scale = further, 1
			only := g.label("only") // reading what the last masked store wrote beside would wait for it
			g.CMPQ(g.address("add"), operand.I32(0))
			g.JEQ(operand.LabelRef(only))
			g.VADDPS(g.load(src), hit, hit)
			g.Label(only)
			g.store(hit, src)
		},
		func() {})
}

// windows emits loops over the channels, a vector at a time, over the windows of a row, and over what a window sees of
// src. outs have a pixel for each window.
func (g *generator) windows(src reg.GPVirtual, outs []reg.GPVirtual, before, tap func(src operand.Mem), after func()) {
	channels, pixel, window, row, at := g.word("channels"), g.GP64(), g.GP64(), g.GP64(), g.GP64()
	columns, rows, taps := g.GP64(), g.GP64(), g.GP64()
	g.MOVQ(channels, pixel)
	g.SHLQ(operand.U8(2), pixel)
	deep, across, down, along := g.label("deep"), g.label("across"), g.label("down"), g.label("along")
	g.Label(deep)
	g.setMask(channels)
	g.MOVQ(src, window)
	g.MOVQ(g.address("columns"), columns)
	g.Label(across)
	before(operand.Mem{Base: window})
	g.MOVQ(window, row)
	g.MOVQ(g.address("kernel"), rows)
	g.Label(down)
	g.MOVQ(row, at)
	g.MOVQ(g.address("kernel"), taps)
	g.Label(along)
	tap(operand.Mem{Base: at})
	g.ADDQ(pixel, at)
	g.DECQ(taps)
	g.JNZ(operand.LabelRef(along))
	g.ADDQ(g.address("width"), row)
	g.DECQ(rows)
	g.JNZ(operand.LabelRef(down))
	after()
	for _, out := range outs {
		g.ADDQ(pixel, out)
	}
	g.ADDQ(g.address("step"), window)
	g.DECQ(columns)
	g.JNZ(operand.LabelRef(across))
	back := g.GP64()
	g.MOVQ(g.address("columns"), back)
	g.IMULQ(pixel, back)
	g.SUBQ(operand.I32(g.bytes()), back)
	for _, out := range outs {
		g.SUBQ(back, out)
	}
	g.ADDQ(operand.I32(g.bytes()), src)
	g.SUBQ(operand.I32(g.width), channels)
	g.JGT(operand.LabelRef(deep))
	g.mask = nil
	g.end()
}
