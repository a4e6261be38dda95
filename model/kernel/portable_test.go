package kernel

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestPlainGoIsTheSameEverywhere: its bits depend neither on the processor nor on the compiler, which on some processors
// fuses x·y + z where no conversion forbids it.
func TestPlainGoIsTheSameEverywhere(t *testing.T) {
	defer func(p *path) { use = p }(use)
	use = portable
	rng := rand.New(rand.NewPCG(7, 7))
	const m, n, k = 13, 35, 18
	sum := fnv.New64a()
	note := func(x ...float32) {
		for _, v := range x {
			if v != v {
				v = 0 // the bits of NaN are the processor's
			}
			_ = binary.Write(sum, binary.LittleEndian, math.Float32bits(v))
		}
	}
	x, y, dst := random(rng, m*k), random(rng, k*n), random(rng, m*n)
	NN(Matrix{dst, n}, Matrix{x, k}, Matrix{y, n}, m, n, k, Epilogue{Bias: y[:n], Activation: Tanh})
	note(dst...)
	TN(Matrix{dst, n}, Matrix{x, m}, Matrix{y, n}, m, n, k, -.1, 1)
	note(dst...)
	NT(Matrix{dst, n}, Matrix{x, k}, Matrix{y, k}, m, n, k, .5, scratch)
	note(dst...)
	Products(Repeat{2, 3, 1}, Matrix{dst, n}, Strided{x, 5, 1, 3, 11}, Matrix{y, n}, m-1, n, k, -.5, Epilogue{Beta: 1})
	note(dst...)
	Move(Grid{dst, 40, 7}, Grid{x, 9, 3}, 5, 4, 6, true)
	note(dst...)
	pool := Pool{Columns: 2, Channels: 5, Kernel: 2, Step: 10, Width: 35}
	MaxPool(y, x, pool)
	RoutePool(x, dst, slices.Clone(x), y, pool, true)
	note(y...)
	note(x...)
	for _, c := range append(elementwise[:len(elementwise):len(elementwise)], compared...) {
		d, x, y := random(rng, 500), random(rng, 500), random(rng, 500)
		Scale(x, 20)
		copy(x, special)
		c.run(d, x, y)
		note(d...)
	}
	note(Dot(x, x), Sum(x), MaxAbs(x), Max(x), float32(SumSquares(x)))
	Softmax(x, x)
	note(x...)
	const want = "5134a307e06b48ae"
	if got := fmt.Sprintf("%016x", sum.Sum64()); got != want {
		t.Errorf("results have the digest %s, want %s", got, want)
	}
}
