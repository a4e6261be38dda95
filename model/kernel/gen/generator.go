package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// generator emits kernels for one instruction set. Its vectors are of width float32s; the same code serves both sets but
// where masks and integers differ. Operands stand in Go's order: the destination last.
type generator struct {
	*build.Context
	name   string
	width  int
	tables strings.Builder // Go source after the declarations
	consts map[string]operand.Mem
	mask   reg.Register // of the lanes that take part, nil for all: an opmask, or a vector of signs
	labels int
}

func newGenerator(name string, width int) *generator {
	g := &generator{Context: build.NewContext(), name: name, width: width, consts: map[string]operand.Mem{}}
	g.ConstraintExpr("amd64")
	return g
}

// wide reports whether the set is AVX-512.
func (g *generator) wide() bool { return g.width == 16 }

// bytes is the size of a vector.
func (g *generator) bytes() int { return 4 * g.width }

// begin starts a function whose name ends with the instruction set.
func (g *generator) begin(name, signature, doc string) {
	g.Function(name + g.name)
	g.Attributes(attr.NOSPLIT)
	g.Pragma("noescape")
	g.SignatureExpr(signature)
	g.Doc(name + g.name + " " + doc)
}

// end returns; the upper halves of the vectors are cleared, or the Go code after it would be slow.
func (g *generator) end() {
	g.VZEROUPPER()
	g.RET()
}

// label makes a label that is not yet used.
func (g *generator) label(name string) string {
	g.labels++
	return fmt.Sprintf("%s%d", name, g.labels)
}

func (g *generator) vec() reg.VecVirtual {
	if g.wide() {
		return g.ZMM()
	}
	return g.YMM()
}

func (g *generator) zero() reg.VecVirtual {
	v := g.vec()
	g.clear(v)
	return v
}

func (g *generator) clear(v reg.Register) {
	if g.wide() {
		g.VPXORD(v, v, v)
	} else {
		g.VXORPS(v, v, v)
	}
}

// word loads an integer or pointer argument.
func (g *generator) word(param string) reg.GPVirtual {
	r := g.GP64()
	g.Load(g.Param(param), r)
	return r
}

// address is where an argument lies.
func (g *generator) address(param string) operand.Mem {
	b, err := g.Param(param).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

// scalar fills a vector with an argument of 32 bits, double with a float64.
func (g *generator) scalar(param string) reg.VecVirtual {
	v := g.vec()
	g.VBROADCASTSS(g.address(param), v)
	return v
}

func (g *generator) double(param string) reg.VecVirtual {
	v := g.vec()
	g.VBROADCASTSD(g.address(param), v)
	return v
}

// constant is a static datum.
func (g *generator) constant(name string, c operand.Constant) operand.Mem {
	if _, ok := g.consts[name]; !ok {
		g.consts[name] = g.ConstData(name+g.name, c)
	}
	return g.consts[name]
}

// float32s fills a vector with x, float64s with a float64, words with a bit pattern of 32.
func (g *generator) float32s(x float64) reg.VecVirtual { return g.words(math.Float32bits(float32(x))) }

func (g *generator) words(bits uint32) reg.VecVirtual {
	v := g.vec()
	g.VBROADCASTSS(g.constant(fmt.Sprintf("word%08x", bits), operand.U32(bits)), v)
	return v
}

func (g *generator) float64s(x float64) reg.VecVirtual {
	v := g.vec()
	bits := math.Float64bits(x)
	g.VBROADCASTSD(g.constant(fmt.Sprintf("long%016x", bits), operand.U64(bits)), v)
	return v
}

// data is a vector of x in memory, for an operand that need not be kept in a register.
func (g *generator) data(x float64) operand.Mem {
	name := fmt.Sprintf("data%08x", math.Float32bits(float32(x)))
	if _, ok := g.consts[name]; !ok {
		m := g.StaticGlobal(name + g.name)
		g.DataAttributes(attr.RODATA | attr.NOPTR)
		for i := range g.width {
			g.AddDatum(4*i, operand.U32(math.Float32bits(float32(x))))
		}
		g.consts[name] = m
	}
	return g.consts[name]
}

// setMask lets the first n lanes take part, all of them if n is larger.
func (g *generator) setMask(n reg.Register) {
	if g.wide() {
		bits, lanes, k := g.GP64(), g.GP64(), g.K()
		g.MOVQ(operand.I32(16), lanes) // BZHIQ looks at the lowest byte only
		g.CMPQ(n, lanes)
		g.CMOVQLT(n, lanes)
		g.MOVQ(operand.I32(-1), bits)
		g.BZHIQ(lanes, bits, bits)
		g.KMOVW(bits.As32(), k)
		g.mask = k
		return
	}
	at, none, v := g.GP64(), g.GP64(), g.YMM()
	g.XORQ(none, none)
	g.MOVQ(operand.I32(8), at)
	g.SUBQ(n, at)
	g.CMOVQLT(none, at)
	table := g.GP64()
	g.LEAQ(g.signs(), table)
	g.VMOVUPS(operand.Mem{Base: table, Index: at, Scale: 4}, v)
	g.mask = v
}

// signs is a table of eight words of ones and eight of zeros: a mask of n lanes begins 8-n words into it.
func (g *generator) signs() operand.Mem {
	if m, ok := g.consts["signs"]; ok {
		return m
	}
	m := g.StaticGlobal("signs" + g.name)
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := range 16 {
		g.AddDatum(4*i, operand.U32(uint32(int32(i-8)>>31)))
	}
	g.consts["signs"] = m
	return m
}

// load reads a vector; lanes that are masked off are zero.
func (g *generator) load(m operand.Mem) reg.VecVirtual {
	v := g.vec()
	g.loadTo(m, v)
	return v
}

func (g *generator) loadTo(m operand.Mem, v reg.Register) {
	switch {
	case g.mask == nil:
		g.VMOVUPS(m, v)
	case g.wide():
		g.VMOVUPS_Z(m, g.mask, v)
	default:
		g.VMASKMOVPS(m, g.mask, v)
	}
}

// store writes the lanes that are not masked off.
func (g *generator) store(v reg.Register, m operand.Mem) {
	switch {
	case g.mask == nil:
		g.VMOVUPS(v, m)
	case g.wide():
		g.VMOVUPS(v, g.mask, m)
	default:
		g.VMASKMOVPS(v, g.mask, m)
	}
}

// orElse puts another value where lanes of v are masked off.
func (g *generator) orElse(v, other reg.Register) {
	switch {
	case g.mask == nil:
	case g.wide():
		g.VBLENDMPS(v, other, g.mask, v)
	default:
		g.VBLENDVPS(g.mask, v, other, v)
	}
}

// choose puts yes where a comparison of x with y holds, and no elsewhere. The predicate is VCMPPS's.
func (g *generator) choose(predicate int, y, x operand.Op, yes, no, dst reg.Register) {
	if g.wide() {
		k := g.K()
		g.VCMPPS(operand.U8(predicate), y, x, k)
		g.VBLENDMPS(yes, no, k, dst)
		return
	}
	m := g.YMM()
	g.VCMPPS(operand.U8(predicate), y, x, m)
	g.VBLENDVPS(m, yes, no, dst)
}

// Predicates of VCMPPS and VCMPPD: x OP y. The first three do not hold for NaN.
const (
	equal     = 0
	less      = 17
	lessEqual = 18
	unordered = 3 // one is NaN
	ordered   = 7
)

// and is the bitwise and of two vectors.
func (g *generator) and(x operand.Op, y, dst reg.Register) {
	if g.wide() {
		g.VPANDD(x, y, dst)
	} else {
		g.VPAND(x, y, dst)
	}
}

func (g *generator) or(x operand.Op, y, dst reg.Register) {
	if g.wide() {
		g.VPORD(x, y, dst)
	} else {
		g.VPOR(x, y, dst)
	}
}

func (g *generator) xor(x operand.Op, y, dst reg.Register) {
	if g.wide() {
		g.VPXORD(x, y, dst)
	} else {
		g.VPXOR(x, y, dst)
	}
}

// round rounds float32s by a mode of VROUNDPS: 8 to the nearest, half to even.
func (g *generator) round(mode int, x, dst reg.Register) {
	if g.wide() {
		g.VRNDSCALEPS(operand.U8(mode), x, dst)
	} else {
		g.VROUNDPS(operand.U8(mode), x, dst)
	}
}

// fold reduces a vector to its first lane by op, which must be associative enough.
func (g *generator) fold(v reg.VecVirtual, op func(x, y, dst reg.Register)) reg.VecVirtual {
	if g.wide() {
		high, low := g.ZMM(), v.AsY()
		g.VEXTRACTF64X4(operand.U8(1), v, high.AsY())
		op(high.AsY(), low, low)
	}
	t, x := g.YMM(), v.AsX()
	g.VEXTRACTF128(operand.U8(1), v.AsY(), t.AsX())
	op(t.AsX(), x, x)
	g.VPSHUFD(operand.U8(0b01_00_11_10), x, t.AsX())
	op(t.AsX(), x, x)
	g.VPSHUFD(operand.U8(0b10_11_00_01), x, t.AsX())
	op(t.AsX(), x, x)
	return v
}

// returnWord stores the first lane as the function's result.
func (g *generator) returnWord(v reg.VecVirtual) {
	b, err := g.ReturnIndex(0).Resolve()
	if err != nil {
		panic(err)
	}
	g.VMOVSS(v.AsX(), b.Addr)
	g.end()
}

// raw emits an instruction that avo does not know, which reads all its operands and writes the last.
func (g *generator) raw(opcode string, ops ...operand.Op) {
	g.Instruction(&ir.Instruction{Opcode: opcode, Operands: ops, Inputs: ops, Outputs: ops[len(ops)-1:]})
}
