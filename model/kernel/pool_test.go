package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// poolCase is a pool over an image with gaps behind its rows: small whole numbers, so that there are ties, and some
// values with which comparisons go otherwise.
type poolCase struct {
	Pool
	src, grad []float32
}

func newPoolCase(rng *rand.Rand, columns, channels, kernel, stride int) *poolCase {
	c := &poolCase{Pool: Pool{columns, channels, kernel, stride * channels, ((columns-1)*stride+kernel)*channels + gap}}
	c.src, c.grad = make([]float32, (kernel-1)*c.Width+c.Width-gap), random(rng, columns*channels)
	for i := range c.src {
		c.src[i] = float32(rng.IntN(4))
		if rng.IntN(9) == 0 {
			c.src[i] = special[rng.IntN(len(special))]
		}
	}
	return c
}

// naive is the largest of each window, and what the gradient of the image becomes from one that is all 1, added to or not.
func (c *poolCase) naive(add bool) (top, dst []float32) {
	top, dst = make([]float32, c.Columns*c.Channels), make([]float32, len(c.src))
	for i := range dst {
		dst[i] = 1
	}
	for i := range top {
		x, channel := i/c.Channels, i%c.Channels
		first, largest := -1, math.Inf(-1)
		for k := range c.Kernel * c.Kernel {
			at := x*c.Step + k/c.Kernel*c.Width + k%c.Kernel*c.Channels + channel
			v := float64(c.src[at])
			if !add {
				dst[at] = 0
			}
			if first < 0 && v == largest || v > largest {
				first, largest = at, v
			}
			if v != v || largest != largest {
				first, largest = -1, math.NaN()
			}
		}
		top[i] = float32(largest)
		if first >= 0 {
			dst[first] += c.grad[i]
		}
	}
	return top, dst
}

// check holds both kernels to the naive ones: the first of the largest gets the gradient, whole and once.
func (c *poolCase) check(t *testing.T) {
	t.Helper()
	c.checkRoute(t, true)
	if c.Step >= c.Kernel*c.Channels {
		c.checkRoute(t, false)
	}
}

func (c *poolCase) checkRoute(t *testing.T, add bool) {
	t.Helper()
	what := fmt.Sprintf("%+v on %s", c.Pool, use.name)
	want, wantDst := c.naive(add)
	top, dst, grad := newGuarded(len(want), 1, float32(7)), newGuarded(len(c.src), 2, float32(7)), newGuarded(len(want), 3, float32(7))
	for i := range dst.x {
		dst.x[i] = 1
	}
	copy(grad.x, c.grad)
	MaxPool(top.x, c.src, c.Pool)
	RoutePool(dst.x, grad.x, c.src, top.x, c.Pool, add)
	for i, got := range top.x {
		if got != want[i] && !(got != got && want[i] != want[i]) {
			t.Fatalf("%s: largest %d is %v, want %v", what, i, got, want[i])
		}
	}
	for i, got := range dst.x {
		if slack := got - wantDst[i]; !(slack < 1e-5 && slack > -1e-5) {
			t.Fatalf("%s: gradient %d is %v, want %v", what, i, got, wantDst[i])
		}
	}
	for _, g := range []*guarded[float32]{top, dst, grad} {
		g.check(t, what)
	}
}

// TestPools: windows side by side, apart and overlapping, of channels with and without an edge.
func TestPools(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 1))
		for channels := 1; channels <= edge; channels++ {
			for kernel := 1; kernel <= 4; kernel++ {
				for stride := 1; stride <= 4; stride++ {
					newPoolCase(rng, 1+rng.IntN(9), channels, kernel, stride).check(t)
				}
			}
		}
		newPoolCase(rng, 70, 300, 9, 2).check(t) // more than one call's
	})
}

// TestPoolsRefuse: slices that are too short, and sizes that make no sense, before anything is read or written.
func TestPoolsRefuse(t *testing.T) {
	x := make([]float32, 100)
	good := Pool{Columns: 2, Channels: 3, Kernel: 2, Step: 6, Width: 12}
	for name, call := range map[string]func(){
		"windows": func() { MaxPool(x[:5], x, good) }, "image": func() { MaxPool(x, x[:23], good) },
		"gradient": func() { RoutePool(x[:23], x, x, x, good, true) }, "top": func() { RoutePool(x, x, x, x[:5], good, true) },
		"channels": func() { MaxPool(x, x, Pool{2, 0, 2, 6, 12}) }, "step": func() { MaxPool(x, x, Pool{2, 3, 2, -6, 12}) },
		"kernel": func() { MaxPool(x, x, Pool{2, 3, 0, 6, 12}) }, "columns": func() { MaxPool(x, x, Pool{0, 3, 2, 6, 12}) },
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
	MaxPool(x[:6], x[:24], good)
}

// FuzzPool: any sizes give what the naive loops give, on each path.
func FuzzPool(f *testing.F) {
	f.Add(uint64(1), uint8(12), uint8(6), uint8(2), uint8(2))
	f.Add(uint64(2), uint8(1), uint8(17), uint8(3), uint8(1))
	f.Fuzz(func(t *testing.T, seed uint64, columns, channels, kernel, stride uint8) {
		c := newPoolCase(rand.New(rand.NewPCG(seed, 2)), 1+int(columns%20), 1+int(channels%80), 1+int(kernel%6), int(stride%8))
		defer func(p *path) { use = p }(use)
		for _, p := range tested() {
			use = p
			c.check(t)
		}
	})
}
