package kernel

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// fixedPoints are values around what rounding and clamping decide: halves, limits, beyond, and what is no number.
func fixedPoints(rng *rand.Rand, n int) []float32 {
	edges := []float32{0, .5, 1.5, 2.5, -.5, -1.5, -2.5, 99.5, 100, 100.25, 100.5, -100, -101, 1e30, float32(math.Inf(1)),
		float32(math.Inf(-1)), float32(math.NaN()), -1e-40}
	x := make([]float32, n)
	for i := range x {
		if x[i] = float32(rng.NormFloat64() * 60); rng.IntN(3) == 0 {
			x[i] = edges[rng.IntN(len(edges))]
		}
	}
	return x
}

// TestToFixed: both conversions to integers are the same on every path, to the last one.
func TestToFixed(t *testing.T) {
	const limit = 100
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 1))
		for _, n := range lengths(rng) {
			x := fixedPoints(rng, n+1)[1:]
			random := make([]uint32, n)
			for i := range random {
				if random[i] = rng.Uint32(); rng.IntN(4) == 0 {
					random[i] = uint32(rng.IntN(2)) - 1 // 0 or the largest
				}
			}
			nearest, randomly := newGuarded(n, 3, int32(99999)), newGuarded(n, 1, int32(99999))
			saturated := ToFixed(nearest.x, x, 1.25, limit)
			again := ToFixedRandomly(randomly.x, x, random, 1.25, limit)
			nearest.check(t, "ToFixed")
			randomly.check(t, "ToFixedRandomly")
			count := 0
			for i, v := range x {
				s := float64(v) * 1.25
				if !(math.Abs(s) <= limit) {
					count++
					s = min(max(s, -limit), limit)
					if s != s {
						s = 0
					}
				}
				if want := int32(math.RoundToEven(s)); nearest.x[i] != want {
					t.Fatalf("n %d: %v becomes %d, want %d", n, v, nearest.x[i], want)
				}
				want := int32(math.Floor(s + 1 - float64(random[i])/(1<<32) - 0x1p-33)) // up if random is below the fraction
				if s == math.Floor(s) {
					want = int32(s)
				}
				if randomly.x[i] != want {
					t.Fatalf("n %d: %v and %d become %d, want %d", n, v, random[i], randomly.x[i], want)
				}
			}
			if saturated != count || again != count {
				t.Fatalf("n %d: %d and %d saturated, want %d", n, saturated, again, count)
			}
		}
	})
}

// TestToFixedRandomlyIsUnbiased: over 2^16 draws the mean of ±0.3 is within four deviations, .46/2^8 each.
func TestToFixedRandomlyIsUnbiased(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(2, 2))
		const n = 1 << 16
		q, random := make([]int32, n), make([]uint32, n)
		for i := range random {
			random[i] = rng.Uint32()
		}
		for _, v := range []float32{.3, -.3} {
			ToFixedRandomly(q, slices.Repeat([]float32{v}, n), random, 1, 100)
			var sum float64
			for _, v := range q {
				sum += float64(v)
			}
			if mean := sum / n; math.Abs(mean-float64(v)) > 4*.46/256 {
				t.Errorf("mean %v of %v", mean, v)
			}
		}
	})
}

// TestIntegers: sums of words, conversions back and bytes, against one element at a time.
func TestIntegers(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 3))
		for _, n := range lengths(rng) {
			q, words, bytes := make([]int32, n), make([]uint32, n+1)[1:], make([]int8, n+3)[3:]
			for i := range n {
				q[i], words[i], bytes[i] = int32(rng.Uint32()), rng.Uint32(), int8(rng.IntN(256)-128)
			}
			x := fixedPoints(rng, n)
			f, w, b, d := newGuarded(n, 1, float32(7)), newGuarded(n, 2, uint32(7)), newGuarded(n, 3, int8(77)), newGuarded(n, 2, float32(7))
			r := newGuarded(n, 5, float32(7))
			copy(w.x, words)
			FromFixed(f.x, q, .3)
			AddUint32(w.x, words)
			Quantise(b.x, x, 1.25)
			for i := range d.x {
				d.x[i] = float32(i % 10)
			}
			AxpyInt8(d.x, .5, bytes)
			scales, bias := random(rng, n), random(rng, n)
			Rescale(r.x, q, scales, bias, .25, ReLU)
			f.check(t, "FromFixed")
			w.check(t, "AddUint32")
			b.check(t, "Quantise")
			d.check(t, "AxpyInt8")
			r.check(t, "Rescale")
			for i := range n {
				s := min(max(float64(x[i]*1.25), -127), 127)
				if s != s {
					s = 0
				}
				if f.x[i] != float32(.3*float64(q[i])) || w.x[i] != 2*words[i] || b.x[i] != int8(math.RoundToEven(s)) || d.x[i] != float32(i%10)+.5*float32(bytes[i]) {
					t.Fatalf("n %d, element %d: %v %v %v %v from %v, %v, %v, %v", n, i, f.x[i], w.x[i], b.x[i], d.x[i], q[i], words[i], x[i], bytes[i])
				}
				want := max(.25*float64(scales[i])*float64(q[i])+float64(bias[i]), 0)
				if math.Abs(float64(r.x[i])-want) > 1e-6*(math.Abs(.25*float64(scales[i])*float64(q[i]))+1) {
					t.Fatalf("n %d, element %d: rescaled to %v, want %v", n, i, r.x[i], want)
				}
			}
		}
	})
}

func TestDotInt8(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(4, 4))
		for _, n := range lengths(rng) {
			a, b := make([]int8, n+1)[1:], make([]int8, n+2)[2:]
			var want int32
			for i := range n {
				a[i], b[i] = int8(rng.IntN(255)-127), int8(rng.IntN(256)-128)
				want += int32(a[i]) * int32(b[i])
			}
			if got := DotInt8(a, b); got != want {
				t.Fatalf("n %d: %d, want %d", n, got, want)
			}
		}
	})
}

// TestProductInt8 holds every product of up to 67×67×67, with inputs of the whole range and weights of ±127. The sums of
// one depth are those of the last and one more product.
func TestProductInt8(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(5, 5))
		a, weights, want := make([]int8, edge*edge), make([]int8, edge*edge), make([]int32, edge*edge)
		for i := range a {
			a[i], weights[i] = int8(rng.IntN(256)-128), int8(rng.IntN(2)*254-127)
		}
		for k := range edge + 1 {
			for i := range edge {
				for j := range edge {
					if k > 0 {
						want[i*edge+j] += int32(a[i*edge+k-1]) * int32(weights[j*edge+k-1])
					}
				}
			}
			if !sparsely() || k%4 == 0 || k == edge {
				allInt8OfDepth(t, a, weights, want, k)
			}
		}
		checkInt8(t, rng, 33, 200, 784)
		checkInt8(t, rng, 2, 3, 1<<16)
		checkInt8(t, rng, 1, 700, 3000)
	})
}

// allInt8OfDepth runs all m and n with one k.
func allInt8OfDepth(t *testing.T, a, weights []int8, want []int32, k int) {
	stride := Int8Stride(k)
	x, w := make([]int8, edge*stride+1)[1:], make([]int8, edge*k)
	for i := range edge {
		copy(x[i*stride:], a[i*edge:][:k])
		copy(w[i*k:], weights[i*edge:][:k])
		for l := k; l < stride; l++ {
			x[i*stride+l] = 77 // does not matter
		}
	}
	for n := range edge + 1 {
		packed, dst := make([]int32, PackedInt8(n, k)+1)[1:], make([]int32, edge*n+2)
		PackInt8(packed, w, n, k)
		for m := range edge + 1 {
			if sparsely() && m%5 != 0 && m != n {
				continue
			}
			dst[0], dst[m*n+1] = guard, guard
			ProductInt8(dst[1:], x, packed, m, n, k)
			if dst[0] != guard || dst[m*n+1] != guard {
				t.Fatalf("%d×%d×%d: wrote %d before and %d behind", m, n, k, dst[0], dst[m*n+1])
			}
			for i := range m {
				for j, got := range dst[1+i*n:][:n] {
					if got != want[i*edge+j] {
						t.Fatalf("%d×%d×%d: element %d, %d is %d, want %d", m, n, k, i, j, got, want[i*edge+j])
					}
				}
			}
		}
	}
}

func checkInt8(t *testing.T, rng *rand.Rand, m, n, k int) {
	t.Helper()
	stride := Int8Stride(k)
	a, weights := make([]int8, m*stride), make([]int8, n*k)
	for i := range a {
		a[i] = int8(rng.IntN(256) - 128) // between the rows, too
	}
	for i := range weights {
		weights[i] = int8(rng.IntN(2)*254 - 127)
	}
	packed := newGuarded(PackedInt8(n, k), 1, int32(5))
	dst := newGuarded(m*n, 1, int32(-77))
	PackInt8(packed.x, weights, n, k)
	ProductInt8(dst.x, a, packed.x, m, n, k)
	packed.check(t, "PackInt8")
	dst.check(t, "ProductInt8")
	for i := range m {
		for j := range n {
			var want int32
			for l := range k {
				want += int32(a[i*stride+l]) * int32(weights[j*k+l])
			}
			if got := dst.x[i*n+j]; got != want {
				t.Fatalf("%d×%d×%d: element %d, %d is %d, want %d", m, n, k, i, j, got, want)
			}
		}
	}
}

// FuzzIntegers: of any floats and random words, every path makes the same integers.
func FuzzIntegers(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789abcdef"), 3.7, uint16(40))
	f.Fuzz(func(t *testing.T, b []byte, inverse float64, top uint16) {
		n := len(b) / 8
		x, random := make([]float32, n), make([]uint32, n)
		for i := range n {
			for j := range 4 {
				random[i] = random[i]<<8 | uint32(b[8*i+4+j])
				x[i] = math.Float32frombits(math.Float32bits(x[i])<<8 | uint32(b[8*i+j]))
			}
		}
		type result struct {
			nearest, randomly []int32
			bytes             []int8
			words             []uint32
			saturated         int
			dot               int32
		}
		all := func(p *path) (r result) {
			r = result{nearest: make([]int32, n), randomly: make([]int32, n), bytes: make([]int8, n), words: slices.Clone(random)}
			r.saturated = p.toFixed(r.nearest, x, inverse, float64(top)) + p.toFixedRandomly(r.randomly, x, random, inverse, float64(top))
			p.quantise(r.bytes, x, float32(inverse))
			p.addUint32(r.words, random)
			r.dot = p.dotInt8(r.bytes, r.bytes)
			return r
		}
		want := all(portable)
		for _, p := range tested()[1:] {
			got := all(p)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: of %v times %v comes %v, want %v", p.name, x, inverse, got, want)
			}
		}
	})
}

// FuzzProductInt8: any shape is exact.
func FuzzProductInt8(f *testing.F) {
	f.Add(uint64(1), uint8(1), uint8(33), uint16(5))
	f.Add(uint64(2), uint8(5), uint8(64), uint16(784))
	f.Fuzz(func(t *testing.T, seed uint64, m, n uint8, k uint16) {
		defer func(p *path) { use = p }(use)
		for _, p := range tested() {
			use = p
			checkInt8(t, rand.New(rand.NewPCG(seed, 6)), int(m)%20, int(n), int(k)%2000)
		}
	})
}
