package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// stridedCase is a product, taken several times, of a matrix whose columns lie in blocks, which may overlap.
type stridedCase struct {
	Repeat
	m, n, block, blocks int
	beta, alpha         float32
	act                 Activation
	a                   Strided
	b, bias, before     []float32
}

func newStridedCase(rng *rand.Rand, m, n, block, blocks, times int) *stridedCase {
	c := &stridedCase{Repeat: Repeat{times, rng.IntN(2*n + 2), rng.IntN(9)}, m: m, n: n, block: block, blocks: blocks,
		beta: []float32{0, 1, -.5}[rng.IntN(3)], alpha: []float32{1, -.25}[rng.IntN(2)], act: Activation(rng.IntN(2))}
	c.a = Strided{Row: rng.IntN(8), Column: 1 + rng.IntN(3), Block: block, Jump: rng.IntN(40)}
	size := (times-1)*c.A + (m-1)*c.a.Row + (blocks-1)*c.a.Jump + (block-1)*c.a.Column + 1
	c.a.Data, c.b, c.bias = random(rng, size), random(rng, block*blocks*n), random(rng, n)
	c.before = random(rng, (times-1)*c.Dst+(m-1)*(n+gap)+n)
	return c
}

// want is what dst becomes, one product after the other.
func (c *stridedCase) want() []float64 {
	dst := make([]float64, len(c.before))
	for i, v := range c.before {
		dst[i] = float64(v)
	}
	for at := range c.Times * c.m * c.n {
		t, i, j := at/(c.m*c.n), at/c.n%c.m, at%c.n
		to := &dst[t*c.Dst+i*(c.n+gap)+j]
		sum := float64(c.bias[j])
		if c.beta != 0 {
			sum += float64(c.beta) * *to
		}
		for l := range c.block * c.blocks {
			a := c.a.Data[t*c.A+i*c.a.Row+l/c.block*c.a.Jump+l%c.block*c.a.Column]
			sum += float64(c.alpha) * float64(a) * float64(c.b[l*c.n+j])
		}
		if c.act == ReLU {
			sum = max(sum, 0)
		}
		*to = sum
	}
	return dst
}

func (c *stridedCase) check(t *testing.T) {
	t.Helper()
	what := fmt.Sprintf("%d×%d×%d·%d, %+v, rows %d, columns %d, blocks %d apart, beta %v, on %s",
		c.m, c.n, c.blocks, c.block, c.Repeat, c.a.Row, c.a.Column, c.a.Jump, c.beta, use.name)
	dst := newGuarded(len(c.before), c.n%3, float32(guard))
	copy(dst.x, c.before)
	Products(c.Repeat, Matrix{dst.x, c.n + gap}, c.a, Matrix{c.b, c.n}, c.m, c.n, c.block*c.blocks, c.alpha,
		Epilogue{c.beta, c.bias, c.act})
	dst.check(t, what)
	for i, want := range c.want() {
		if off := float64(dst.x[i]) - want; !(off < 1e-4 && off > -1e-4) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, dst.x[i], want)
		}
	}
}

// TestStridedProducts: rows and blocks that overlap or lie apart, blocks deeper and less deep than one pass takes, dst that
// overlap from one time to the next.
func TestStridedProducts(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(5, 5))
		for range 500 {
			newStridedCase(rng, 1+rng.IntN(33), 1+rng.IntN(70), 1+rng.IntN(12), 1+rng.IntN(7), 1+rng.IntN(4)).check(t)
		}
		for _, s := range [][4]int{{9, 20, 90, 7}, {3, 5, 300, 3}, {17, 33, 256, 2}, {2, 600, 150, 2}, {5, 6, 24, 24}} {
			newStridedCase(rng, s[0], s[1], s[2], s[3], 2).check(t)
		}
	})
}

// TestStridedRefuses: matrices that do not reach, and what is no matrix.
func TestStridedRefuses(t *testing.T) {
	x, b := make([]float32, 20), Matrix{make([]float32, 24), 4}
	dst, a := Matrix{make([]float32, 16), 4}, Strided{x, 3, 1, 2, 5} // 3×6 of windows
	run := func(r Repeat, dst Matrix, a Strided) { Products(r, dst, a, b, 3, 4, 6, 1, Epilogue{}) }
	run(Repeat{2, 4, 2}, dst, a)
	for name, call := range map[string]func(){
		"a":        func() { run(Repeat{2, 4, 3}, dst, a) },
		"dst":      func() { run(Repeat{2, 5, 2}, dst, a) },
		"negative": func() { run(Repeat{2, 4, -1}, dst, a) },
		"block":    func() { run(Repeat{1, 0, 0}, dst, Strided{x, 3, 1, 4, 5}) },
		"none":     func() { run(Repeat{1, 0, 0}, dst, Strided{x, 3, 1, 0, 5}) },
		"jump":     func() { run(Repeat{1, 0, 0}, dst, Strided{x, 3, 1, 2, -1}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: accepted", name)
				}
			}()
			call()
		}()
	}
}

// FuzzStrided: any such product gives what float64 gives, on each path.
func FuzzStrided(f *testing.F) {
	f.Add(uint64(1), uint8(12), uint8(12), uint8(5), uint8(6), uint8(24))
	f.Add(uint64(2), uint8(5), uint8(16), uint8(24), uint8(24), uint8(1))
	f.Fuzz(func(t *testing.T, seed uint64, m, n, block, blocks, times uint8) {
		c := newStridedCase(rand.New(rand.NewPCG(seed, 4)), 1+int(m%40), 1+int(n%80), 1+int(block%40), 1+int(blocks%9), 1+int(times%5))
		defer func(p *path) { use = p }(use)
		for _, p := range tested() {
			use = p
			c.check(t)
		}
	})
}
