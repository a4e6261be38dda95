package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// peaks are loops of nothing but multiplications and additions, by path: calls of n do n·12 vectors.
func BenchmarkPeak(b *testing.B) {
	peak, width := peakOf(use)
	if peak == nil {
		b.Skip("plain Go has no loop of only multiplications and additions")
	}
	const n = 10_000
	for b.Loop() {
		peak(n)
	}
	b.ReportMetric(2*12*float64(width)*n*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}

// BenchmarkGemm: m×n×k as in package comment, of training's shapes: dense layers of batches of 10 and 32, convolutions
// as products of patches, gates of an LSTM.
func BenchmarkGemm(b *testing.B) {
	for _, c := range []struct {
		order   string
		m, n, k int
	}{
		{"NN", 32, 200, 784}, {"TN", 784, 200, 10}, {"NT", 32, 200, 200},
		{"NN", 10, 200, 784}, {"TN", 784, 200, 32}, {"NN", 32, 200, 200}, {"NT", 10, 200, 200},
		{"NN", 32, 10, 200}, {"TN", 200, 10, 32}, {"NT", 32, 200, 10}, {"NN", 10, 10, 784}, {"TN", 784, 10, 10},
		{"NN", 18432, 32, 25}, {"TN", 25, 32, 18432}, {"NN", 2048, 64, 800}, {"TN", 800, 64, 2048}, {"NT", 2048, 800, 64},
		{"NN", 32, 1024, 256}, {"TN", 256, 1024, 32}, {"NT", 32, 256, 1024}, {"NN", 10, 1024, 264},
		{"NN", 512, 512, 512}, {"NN", 1024, 1024, 1024},
		{"NN", 1, 200, 784}, {"NN", 1, 512, 1024}, {"NN", 1, 32, 68},
	} {
		b.Run(fmt.Sprintf("%s/%dx%dx%d", c.order, c.m, c.n, c.k), func(b *testing.B) { benchmarkGemm(b, c.order, c.m, c.n, c.k) })
	}
}

func benchmarkGemm(b *testing.B, order string, m, n, k int) {
	rng := rand.New(rand.NewPCG(1, 1))
	x, y, dst := random(rng, m*k), random(rng, k*n), Matrix{make([]float32, m*n), n}
	bias := make([]float32, n)
	b.ReportAllocs()
	for b.Loop() {
		switch order {
		case "NN":
			NN(dst, Matrix{x, k}, Matrix{y, n}, m, n, k, Epilogue{Bias: bias, Activation: ReLU})
		case "TN":
			TN(dst, Matrix{x, m}, Matrix{y, n}, m, n, k, -1e-9, 1)
		case "NT":
			NT(dst, Matrix{x, k}, Matrix{y, k}, m, n, k, 0, scratch)
		}
	}
	b.ReportMetric(2*float64(m)*float64(n)*float64(k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}

// BenchmarkVector: elements a second, of vectors in the first cache and in the second or third.
func BenchmarkVector(b *testing.B) {
	for _, c := range []struct {
		name string
		run  func(v *vectors)
	}{
		{"axpy", func(v *vectors) { Axpy(v.d, 1e-9, v.x) }},
		{"dot", func(v *vectors) { Dot(v.x, v.y) }},
		{"fold16", func(v *vectors) { Fold(v.d, v.sixteen, v.weights) }},
		{"exp", func(v *vectors) { Exp(v.d, v.x) }},
		{"sigmoid", func(v *vectors) { Activate(v.d, v.x, Sigmoid) }},
		{"tanh", func(v *vectors) { Activate(v.d, v.x, Tanh) }},
		{"maxAbs", func(v *vectors) { MaxAbs(v.x) }},
		{"reluGrad", func(v *vectors) { ActivationGrad(v.d, v.x, ReLU) }},
		{"adam", func(v *vectors) {
			Adaptive(v.d, v.y, v.z, v.x, AdaptiveStep{.9, .1, .99, .01, 1e-9, 1, 1e-6, 1})
		}},
		{"toFixed", func(v *vectors) { ToFixed(v.fixed, v.x, 1<<23, 1<<23) }},
		{"toFixedRandomly", func(v *vectors) { ToFixedRandomly(v.fixed, v.x, v.words, 1<<23, 1<<23) }},
		{"quantiseRow", func(v *vectors) { QuantiseRow(v.bytes, v.x) }},
		{"axpyInt8", func(v *vectors) { AxpyInt8(v.d, 1e-9, v.bytes) }},
		{"dotInt8", func(v *vectors) { DotInt8(v.bytes, v.bytes) }},
		{"addUint32", func(v *vectors) { AddUint32(v.words, v.words) }},
	} {
		for _, n := range []int{4096, 1 << 18} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				v := newVectors(n)
				b.ReportAllocs()
				for b.Loop() {
					c.run(v)
				}
				b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelem/s")
			})
		}
	}
}

type vectors struct {
	d, x, y, z []float32
	sixteen    [][]float32
	weights    []float32
	fixed      []int32
	words      []uint32
	bytes      []int8
}

func newVectors(n int) *vectors {
	rng := rand.New(rand.NewPCG(1, 1))
	v := &vectors{d: random(rng, n), x: random(rng, n), y: random(rng, n), z: make([]float32, n), fixed: make([]int32, n),
		words: make([]uint32, n), bytes: make([]int8, n)}
	for range 16 {
		v.sixteen, v.weights = append(v.sixteen, v.x), append(v.weights, 1e-9)
	}
	return v
}

// BenchmarkInt8: operations, two a product, of prediction at batch 1 and of a batch.
func BenchmarkInt8(b *testing.B) {
	for _, s := range [][3]int{{1, 200, 784}, {32, 200, 784}, {56, 224, 784}} {
		m, n, k := s[0], s[1], s[2]
		b.Run(fmt.Sprintf("%dx%dx%d", m, n, k), func(b *testing.B) {
			packed, dst, a := make([]int32, PackedInt8(n, k)), make([]int32, m*n), make([]int8, m*Int8Stride(k))
			b.ReportAllocs()
			for b.Loop() {
				ProductInt8(dst, a, packed, m, n, k)
			}
			b.ReportMetric(2*float64(m)*float64(n)*float64(k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gop/s")
		})
	}
}
