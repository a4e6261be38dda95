package main

import (
	"fmt"
	"strings"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// walk goes along slices of one length, vector by vector.
type walk struct {
	*generator
	pointers map[string]reg.GPVirtual
	sizes    map[string]int // of an element in bytes, where it is not 4
	offset   int            // of the vector at hand, in elements
}

// at is where the vector at hand lies in the named slice.
func (w *walk) at(slice string) operand.Mem {
	return operand.Mem{Base: w.pointers[slice], Disp: w.offset * w.size(slice)}
}

func (w *walk) size(slice string) int {
	if s, ok := w.sizes[slice]; ok {
		return s
	}
	return 4
}

func (w *walk) get(slice string) reg.VecVirtual  { return w.load(w.at(slice)) }
func (w *walk) put(v reg.Register, slice string) { w.store(v, w.at(slice)) }

// along emits a loop over slices, of which the first gives the length: unroll vectors at a time, then one at a time
// behind a mask, which lets all lanes take part until the last.
func (g *generator) along(slices string, sizes map[string]int, unroll int, step func(w *walk, u int)) {
	names := strings.Fields(slices)
	w := &walk{generator: g, pointers: map[string]reg.GPVirtual{}, sizes: sizes}
	for _, s := range names {
		r := g.GP64()
		g.Load(g.Param(s).Base(), r)
		w.pointers[s] = r
	}
	n := g.GP64()
	g.Load(g.Param(names[0]).Len(), n)
	advance := func(elements int) {
		for _, s := range names {
			g.ADDQ(operand.I32(elements*w.size(s)), w.pointers[s])
		}
	}
	loop, rest, tail, done := g.label("loop"), g.label("rest"), g.label("tail"), g.label("done")
	g.SUBQ(operand.I32(int32(unroll*g.width)), n)
	g.JLT(operand.LabelRef(rest))
	g.Label(loop)
	for u := range unroll {
		w.offset = u * g.width
		step(w, u)
	}
	w.offset = 0
	advance(unroll * g.width)
	g.SUBQ(operand.I32(int32(unroll*g.width)), n)
	g.JGE(operand.LabelRef(loop))
	g.Label(rest)
	g.ADDQ(operand.I32(int32(unroll*g.width)), n)
	g.JLE(operand.LabelRef(done))
	g.Label(tail)
	g.setMask(n)
	step(w, 0)
	g.mask = nil
	advance(g.width)
	g.SUBQ(operand.I32(g.width), n)
	g.JGT(operand.LabelRef(tail))
	g.Label(done)
}

// each is a kernel that works element by element. prepare loads scalars and returns the step.
func (g *generator) each(name, slices, scalars, doc string, unroll int, prepare func() func(w *walk)) {
	signature := "func(" + strings.ReplaceAll(slices, " ", ", ") + " []float32"
	if scalars != "" {
		signature += ", " + scalars + " float32"
	}
	g.begin(name, signature+")", doc)
	step := prepare()
	g.along(slices, nil, unroll, func(w *walk, _ int) { step(w) })
	g.end()
}

func (g *generator) elementwise() {
	g.each("axpy", "dst x", "a", "is dst += a·x.", 4, func() func(w *walk) {
		a := g.scalar("a")
		return func(w *walk) {
			v := w.get("dst")
			g.VFMADD231PS(w.get("x"), a, v)
			w.put(v, "dst")
		}
	})
	g.each("axpby", "dst x", "a, b", "is dst = b·dst + a·x.", 4, func() func(w *walk) {
		a, b := g.scalar("a"), g.scalar("b")
		return func(w *walk) {
			v, t := w.get("dst"), g.vec()
			g.VMULPS(b, v, t)
			g.VFMADD231PS(w.get("x"), a, t)
			w.put(t, "dst")
		}
	})
	g.each("scale", "dst", "a", "is dst *= a.", 4, func() func(w *walk) {
		a := g.scalar("a")
		return func(w *walk) {
			v := w.get("dst")
			g.VMULPS(a, v, v)
			w.put(v, "dst")
		}
	})
	g.each("add", "dst x y", "", "is dst = x + y.", 4, func() func(w *walk) {
		return func(w *walk) {
			v := w.get("x")
			g.VADDPS(w.get("y"), v, v)
			w.put(v, "dst")
		}
	})
	g.each("multiply", "dst x y", "", "is dst = x·y.", 4, func() func(w *walk) {
		return func(w *walk) {
			v := w.get("x")
			g.VMULPS(w.get("y"), v, v)
			w.put(v, "dst")
		}
	})
	g.each("multiplyTo", "dst x y", "", "is dst += x·y.", 4, func() func(w *walk) {
		return func(w *walk) {
			v := w.get("dst")
			g.VFMADD231PS(w.get("x"), w.get("y"), v)
			w.put(v, "dst")
		}
	})
	g.each("fold4", "dst x0 x1 x2 x3", "a0, a1, a2, a3", "is dst += a0·x0 + a1·x1 + a2·x2 + a3·x3.", 2, func() func(w *walk) {
		var a []reg.VecVirtual
		for i := range 4 {
			a = append(a, g.scalar(fmt.Sprint("a", i)))
		}
		return func(w *walk) {
			v := w.get("dst")
			for i := range 4 {
				g.VFMADD231PS(w.get(fmt.Sprint("x", i)), a[i], v)
			}
			w.put(v, "dst")
		}
	})
	g.each("relu", "dst x", "", "is dst = max(x, 0).", 4, func() func(w *walk) {
		zero := g.zero()
		return func(w *walk) {
			v := w.get("x")
			g.VMAXPS(v, zero, v) // in this order NaN stays
			w.put(v, "dst")
		}
	})
	g.gradients()
	g.steps()
}

// gradients multiplies by the derivatives of activations.
func (g *generator) gradients() {
	g.each("reluGrad", "grad y", "", "zeroes grad where y <= 0.", 4, func() func(w *walk) {
		zero := g.zero()
		return func(w *walk) {
			v := w.get("grad")
			g.choose(lessEqual, zero, w.get("y"), zero, v, v)
			w.put(v, "grad")
		}
	})
	g.each("sigmoidGrad", "grad y", "", "is grad *= y·(1-y).", 4, func() func(w *walk) {
		one := g.float32s(1)
		return func(w *walk) {
			y, t := w.get("y"), g.vec()
			g.VSUBPS(y, one, t)
			g.VMULPS(y, t, t)
			g.VMULPS(w.get("grad"), t, t)
			w.put(t, "grad")
		}
	})
	g.each("tanhGrad", "grad y", "", "is grad *= 1-y².", 4, func() func(w *walk) {
		one := g.float32s(1)
		return func(w *walk) {
			y := w.get("y")
			g.VFNMADD213PS(one, y, y)
			g.VMULPS(w.get("grad"), y, y)
			w.put(y, "grad")
		}
	})
}

// steps are those of optimisers.
func (g *generator) steps() {
	g.each("momentum", "w v g", "keep, decay, fromV, fromG", "is Momentum.", 2, func() func(w *walk) {
		keep, decay, fromV, fromG := g.scalar("keep"), g.scalar("decay"), g.scalar("fromV"), g.scalar("fromG")
		return func(w *walk) {
			x, v, d := w.get("w"), w.get("v"), w.get("g")
			g.VFMADD231PS(x, decay, d)
			g.VFMADD213PS(d, keep, v)
			w.put(v, "v")
			g.VFNMADD231PS(v, fromV, x)
			g.VFNMADD231PS(d, fromG, x)
			w.put(x, "w")
		}
	})
	scalars := "keepM, addM, keepV, addV, rate, root, epsilon, shrink"
	g.each("adaptive", "w m v g", scalars, "is Adaptive.", 1, func() func(w *walk) {
		s := map[string]reg.VecVirtual{}
		for name := range strings.SplitSeq(scalars, ", ") {
			s[name] = g.scalar(name)
		}
		return func(w *walk) {
			m, v, d := w.get("m"), w.get("v"), w.get("g")
			g.VMULPS(s["keepM"], m, m)
			g.VFMADD231PS(d, s["addM"], m)
			w.put(m, "m")
			g.VMULPS(d, d, d)
			g.VMULPS(s["keepV"], v, v)
			g.VFMADD231PS(d, s["addV"], v)
			w.put(v, "v")
			g.VSQRTPS(v, d)
			g.VFMADD213PS(s["epsilon"], s["root"], d)
			g.VMULPS(s["rate"], m, m)
			g.VDIVPS(d, m, m)
			x := w.get("w")
			g.VFMSUB132PS(s["shrink"], m, x)
			w.put(x, "w")
		}
	})
}

// reductions make one number of slices.
func (g *generator) reductions() {
	const lanes = 4 // independent partial sums in vectors
	plus := func(x, y, dst reg.Register) { g.VADDPS(x, y, dst) }
	sum := func(acc []reg.VecVirtual) {
		g.VADDPS(acc[1], acc[0], acc[0])
		g.VADDPS(acc[3], acc[2], acc[2])
		g.VADDPS(acc[2], acc[0], acc[0])
		g.returnWord(g.fold(acc[0], plus))
	}
	start := func() (acc []reg.VecVirtual) {
		for range lanes {
			acc = append(acc, g.zero())
		}
		return acc
	}
	g.begin("dot", "func(x, y []float32) float32", "is Σ x·y.")
	acc := start()
	g.along("x y", nil, lanes, func(w *walk, u int) { g.VFMADD231PS(w.get("x"), w.get("y"), acc[u]) })
	sum(acc)

	g.begin("sum", "func(x []float32) float32", "is Σ x.")
	acc = start()
	g.along("x", nil, lanes, func(w *walk, u int) { g.VADDPS(w.get("x"), acc[u], acc[u]) })
	sum(acc)

	// As integers, magnitudes are in the order of floats, and NaN is above all.
	g.begin("maxAbs", "func(x []float32) float32", "is the largest magnitude.")
	acc = start()
	magnitude := g.words(1<<31 - 1)
	larger := func(x, y, dst reg.Register) { g.VPMAXSD(x, y, dst) }
	g.along("x", nil, lanes, func(w *walk, u int) {
		v := w.get("x")
		g.and(v, magnitude, v)
		larger(v, acc[u], acc[u])
	})
	for _, v := range acc[1:] {
		larger(v, acc[0], acc[0])
	}
	g.returnWord(g.fold(acc[0], larger))
	g.max()
}

// max keeps a second accumulator, whose lanes become all ones, which is NaN, with the first NaN: VMAXPS forgets it.
func (g *generator) max() {
	g.begin("max", "func(x []float32) float32", "is the largest element.")
	lowest, nans := g.words(0xff800000), g.zero()
	top := g.vec()
	g.VMOVUPS(lowest, top)
	g.along("x", nil, 2, func(w *walk, _ int) {
		v, ones := w.get("x"), g.vec()
		w.orElse(v, lowest)
		g.VMAXPS(v, top, top)
		if g.wide() {
			k := g.K()
			g.VCMPPS(operand.U8(unordered), v, v, k)
			g.VPTERNLOGD(operand.U8(255), ones, ones, k, nans)
		} else {
			g.VCMPPS(operand.U8(unordered), v, v, ones)
			g.or(ones, nans, nans)
		}
	})
	g.fold(nans, func(x, y, dst reg.Register) { g.VPOR(x, y, dst) })
	g.fold(top, func(x, y, dst reg.Register) { g.VMAXPS(x, y, dst) })
	g.VPOR(nans.AsX(), top.AsX(), top.AsX()) // all ones is NaN
	g.returnWord(top)
}
