// Package kernel holds the matrix and vector kernels that training and prediction are made of: products of small
// row-major float32 matrices, elementwise functions, optimiser steps, and conversions to integers.
//
//	kernel.NN(out, x, w, batch, outputs, inputs, kernel.Epilogue{Bias: bias, Activation: kernel.ReLU}) // forward
//	kernel.NT(dx, dout, w, batch, inputs, outputs, 0, scratch)                                         // to the input
//	kernel.TN(w, x, dout, inputs, outputs, batch, -rate, 1)                                            // w -= rate·xᵀ·dout
//
// Products is their general form, of windows of images too; MaxPool and Move work on images.
//
// Every kernel exists three times: in AVX-512 and AVX2 assembly, which gen generates, and in plain Go, which is what
// other processors run and what the assembly is tested against. One path is chosen when the process starts, the fastest
// that the processor has, or the one that CHOIR_KERNEL names.
//
// Nothing here allocates or starts a goroutine: parallelism is one training a core. Callers own all slices, and only
// the destination is written. A destination must not overlap a source unless it is the same slice and the function
// works element by element. NaN and infinities pass through as IEEE 754 has it. Slices that are too short are a bug of
// the caller and panic.
//
// # Reproducibility
//
// One path gives the same bits for the same call, on whatever processor. Between paths the last bits of float32 results
// differ: the vectors are of different width, so sums are taken in different order; and assembly fuses multiplication and
// addition, plain Go never does (an explicit conversion forbids it). Even on one path the bits of a row may depend on how
// many rows the product has. The logarithm that Softmax returns is package math's, whose last bits are the processor's; a
// loss is made of it, no gradient. Integers are the same everywhere: conversions to and from fixed point, int8 products,
// sums of uint32, sorted columns, dot products and scaled sums of integers; so is AddScaledDouble, which rounds after each
// step.
//
// The federation does not care. Nodes with different processors train different last bits, as they train on different
// rows; what must agree on every machine is the sum of updates, and updates are integers on a public grid before they
// are summed, verified or hashed.
package kernel

import (
	"fmt"
	"iter"
	"os"
	"strings"
)

// path is one implementation of everything. All slices of a call have the length that the exported functions made sure
// of; lengths are at most block.
type path struct {
	name  string
	width int // float32s of a vector

	product   func(p product)
	transpose func(dst []float32, dstStride int, src []float32, srcStride, rows, cols int)

	axpby      func(dst, x []float32, a, b float32)
	axpy       func(dst, x []float32, a float32)
	scale      func(dst []float32, a float32)
	add        func(dst, x, y []float32)
	multiply   func(dst, x, y []float32)
	multiplyTo func(dst, x, y []float32) // dst += x·y
	fold4      func(dst, x0, x1, x2, x3 []float32, a0, a1, a2, a3 float32)

	dot    func(x, y []float32) float32
	sum    func(x []float32) float32
	maxAbs func(x []float32) float32
	max    func(x []float32) float32

	move      func(dst, src Grid, rows, cols, n int, add bool)
	maxPool   func(dst, src []float32, p Pool)
	routePool func(dst, grad, src, top []float32, p Pool, add bool)

	relu        func(dst, x []float32)
	exp         func(dst, x []float32)
	expSum      func(dst, x []float32, shift float32) float32 // dst = exp(x - shift), and its sum
	sigmoid     func(dst, x []float32)
	tanh        func(dst, x []float32)
	reluGrad    func(grad, y []float32)
	sigmoidGrad func(grad, y []float32)
	tanhGrad    func(grad, y []float32)

	momentum func(w, v, g []float32, keep, decay, fromV, fromG float32)
	adaptive func(w, m, v, g []float32, s AdaptiveStep)

	toFixed         func(q []int32, x []float32, inverse, limit float64) int
	toFixedRandomly func(q []int32, x []float32, random []uint32, inverse, limit float64) int
	fromFixed       func(dst []float32, q []int32, step float64)
	addUint32       func(dst, x []uint32)
	quantise        func(q []int8, x []float32, inverse float32)
	axpyInt8        func(dst []float32, q []int8, a float32)
	dotInt8         func(a, b []int8) int32
	productInt8     func(dst []int32, a []int8, packed []int32, m, n, k int)
	rescale         func(dst []float32, q []int32, scales, bias []float32, scale float32)

	exchange        func(tile, pairs []int32)
	addRows         func(sum *[Lanes]int64, tile []int32)
	addDots         func(dst []int64, x [][]int32, scratch []float64)
	addScaled       func(acc []int64, q []int32, w int32)
	addFixed        func(acc []int64, x []float32, inverse, limit float64, w int32) int
	addScaledDouble func(acc []float64, q []int32, w float64)
}

// use is the path of this process; only tests change it.
var use, errPath = choose(os.Getenv("CHOIR_KERNEL"), available())

// choose takes the named path, or the last and fastest. With a name that it cannot take it returns the fastest and
// says so.
func choose(name string, paths []*path) (*path, error) {
	fastest := paths[len(paths)-1]
	if name == "" {
		return fastest, nil
	}
	var names []string
	for _, p := range paths {
		if p.name == name {
			return p, nil
		}
		names = append(names, p.name)
	}
	return fastest, fmt.Errorf("CHOIR_KERNEL is %.20q, and this processor has %s", name, strings.Join(names, ", "))
}

// Path names the implementation in use: go, avx2 or avx512.
func Path() string { return use.name }

// Width is how many float32s a vector of the implementation in use has: 1, 8 or 16.
func Width() int { return use.width }

// Check refuses an environment whose CHOIR_KERNEL names no path that this processor has. A program calls it once at
// its start; one that does not computes on the fastest path.
func Check() error { return errPath }

// block bounds the elements of one call: assembly cannot be preempted, and a call of this size, 256 KB, takes a few
// microseconds.
const block = 1 << 16

// blocks cuts n elements into ranges of at most block.
func blocks(n int) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		for lo := 0; lo < n; lo += block {
			if !yield(lo, min(lo+block, n)) {
				return
			}
		}
	}
}
