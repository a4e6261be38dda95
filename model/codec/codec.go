// Package codec turns vectors into integers on a public grid and integers into bytes, and back. It knows no layer and
// no schema.
//
// A delta's coordinate x in [-Range, Range] becomes the integer round(x/Step) with Step = Range/2^23 or, with fewer bits,
// larger; what lies outside saturates and is counted. Integers are packed at the least width that holds them all, so that each vector
// has exactly one encoding.
package codec

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"choir.example/model/kernel"
)

// MaxQ is the largest magnitude on any grid.
const MaxQ = 1 << 23

// Int is what the packer packs.
type Int interface{ ~int32 | ~int64 }

// Grid maps real coordinates to integers.
type Grid struct {
	Range float64 // largest magnitude that does not saturate; positive and finite
	Bits  int     // of an integer, sign and all, 2 to 24; 0 is 24. Fewer make the step coarser, and an update smaller
}

// Limit is the largest magnitude on this grid: MaxQ, or what so many bits hold.
func (g Grid) Limit() int32 {
	if g.Bits == 0 || g.Bits == 24 {
		return MaxQ
	}
	return 1<<(g.Bits-1) - 1
}

// Step is the distance of two neighbours on the grid.
func (g Grid) Step() float64 { return g.Range / float64(g.Limit()) }

// ClipSquared bounds the squared norm of encoded integers for a clip norm of at least one step, so that their real norm
// is at most clip. It is at least 1, so that a clip norm below one step, which a job may not have, would not become 0:
// no bound.
func (g Grid) ClipSquared(clip float64) int64 {
	n := math.Floor(clip / g.Step())
	return int64(max(1, min(n*n, 1<<62)))
}

// Quantise writes x on the grid to q, of the same length, rounding half to even, and returns how many coordinates
// saturated. A coordinate that is NaN or infinite is an error and leaves q undefined.
func (g Grid) Quantise(x []float32, q []int32) (saturated int, err error) {
	if err := check(x, q); err != nil {
		return 0, err
	}
	return kernel.ToFixed(q, x, 1/g.Step(), float64(g.Limit())), nil
}

// AddTo adds weight times x on the grid to acc, of the same length: Quantise and a sum in one pass. A coordinate that is
// NaN or infinite is an error and leaves acc as it was.
func (g Grid) AddTo(acc []int64, x []float32, weight int32) (saturated int, err error) {
	if len(x) != len(acc) {
		return 0, fmt.Errorf("quantise: %d coordinates into %d", len(x), len(acc))
	}
	saturated = kernel.AddFixed(acc, x, 1/g.Step(), float64(g.Limit()), weight)
	if saturated > 0 { // what is not finite is one of them
		if top := kernel.MaxAbs(x); top-top != 0 {
			kernel.AddFixed(acc, x, 1/g.Step(), float64(g.Limit()), -weight)
			return 0, notFinite(x)
		}
	}
	return saturated, nil
}

// QuantiseRandomly is Quantise that rounds up or down at random, so that the expectation of what stands on the grid is x
// (Alistarh et al. 2017, "QSGD", §3). source is the chance; one that gives the same numbers gives the same integers.
func (g Grid) QuantiseRandomly(x []float32, q []int32, source *rand.PCG) (saturated int, err error) {
	if err := check(x, q); err != nil {
		return 0, err
	}
	var random [512]uint32
	for from := 0; from < len(x); from += len(random) {
		to := min(from+len(random), len(x))
		for i := 0; i < to-from; i += 2 {
			two := source.Uint64()
			random[i], random[i+1] = uint32(two), uint32(two>>32)
		}
		saturated += kernel.ToFixedRandomly(q[from:to], x[from:to], random[:to-from], 1/g.Step(), float64(g.Limit()))
	}
	return saturated, nil
}

// check refuses coordinates that no grid has.
func check(x []float32, q []int32) error {
	if len(x) != len(q) {
		return fmt.Errorf("quantise: %d coordinates into %d", len(x), len(q))
	}
	if top := kernel.MaxAbs(x); top-top == 0 {
		return nil
	}
	return notFinite(x)
}

// notFinite names the first coordinate that is NaN or infinite.
func notFinite(x []float32) error {
	i := slices.IndexFunc(x, func(v float32) bool { return v-v != 0 })
	return fmt.Errorf("quantise: coordinate %d is %v", i, x[i])
}

// Clip scales q in place so that the squared L2 norm of the integers themselves is at most clipSquared: rounding
// cannot push an honest update over the bound. A bound of 0 leaves q alone.
func Clip(q []int32, clipSquared int64) {
	if clipSquared <= 0 {
		return
	}
	for {
		squared := normSquared(q)
		if squared <= float64(clipSquared) {
			return
		}
		scale := math.Sqrt(float64(clipSquared) / squared)
		for i, v := range q {
			q[i] = int32(math.Trunc(float64(v) * scale)) // toward zero: the norm only falls
		}
	}
}

func normSquared(q []int32) float64 {
	var s float64
	for _, v := range q {
		s += float64(int64(v) * int64(v))
	}
	return s
}

// PackInts appends the width in bytes, 1 to 8, and the integers in little-endian two's complement at that width: the
// least that holds them all.
func PackInts[T Int](dst []byte, v []T) []byte { return PackWidth(dst, v, Width(v)) }

// PackWidth is PackInts for a caller who knows the least width, Width(v), already.
func PackWidth[T Int](dst []byte, v []T, width int) []byte {
	dst = append(dst, byte(width))
	start, size := len(dst), len(v)*width+8 // room for the last 8-byte store
	dst = slices.Grow(dst, size)
	out := dst[start : start+size]
	packBody(out, v, width)
	return dst[:start+len(v)*width]
}

// packBody writes the integers at a width into out, which has eight bytes more than they need.
func packBody[T Int](out []byte, v []T, width int) {
	done := 0
	switch width {
	case 3: // two at a time, as unpack3 reads them
		done = len(v) / 2
		for i := range done {
			two := v[2*i : 2*i+2]
			binary.LittleEndian.PutUint64(out[6*i:], uint64(two[0])&0xffffff|uint64(two[1])<<24)
		}
	case 4:
		done = len(v) / 2
		for i := range done {
			two := v[2*i : 2*i+2]
			binary.LittleEndian.PutUint64(out[8*i:], uint64(uint32(two[0]))|uint64(two[1])<<32)
		}
	}
	for i := 2 * done; i < len(v); i++ {
		binary.LittleEndian.PutUint64(out[width*i:], uint64(int64(v[i])))
	}
}

// Width is the least width in bytes, 1 to 8, that holds all of v.
func Width[T Int](v []T) int {
	sign := 31 // bits to shift a value so that its sign alone is left
	if T(1)<<31 > 0 {
		sign = 63
	}
	var a, b, c, d T // what is true of any value, its sign folded away: x, or -1-x of a negative one; four at a time
	i := 0
	for ; i+4 <= len(v); i += 4 {
		q := v[i : i+4 : i+4]
		a |= q[0] ^ q[0]>>sign
		b |= q[1] ^ q[1]>>sign
		c |= q[2] ^ q[2]>>sign
		d |= q[3] ^ q[3]>>sign
	}
	for _, x := range v[i:] {
		a |= x ^ x>>sign
	}
	bits := uint64(a | b | c | d)
	width := 1
	for width < 8 && bits>>(8*width-1) != 0 {
		width++
	}
	return width
}

// UnpackInts reads integers of the given width. A width larger than they need, or too large for T, is an error.
func UnpackInts[T Int](width int, body []byte) ([]T, error) {
	if width < 1 || width > 8 || len(body)%width != 0 {
		return nil, fmt.Errorf("%d bytes are no integers of width %d", len(body), width)
	}
	v := make([]T, len(body)/width)
	bits := unpackBody(v, body, width)
	if width > 1 && bits>>(8*(width-1)-1) == 0 {
		return nil, fmt.Errorf("integers of width %d need less", width)
	}
	if narrow := T(1)<<31 < 0; narrow && bits>>31 != 0 {
		return nil, fmt.Errorf("integers of width %d do not fit 32 bits", width)
	}
	return v, nil
}

// unpackBody reads len(v) integers of a width and returns the union of their bits, each turned over if it is negative.
func unpackBody[T Int](v []T, body []byte, width int) (bits uint64) {
	done := 0
	switch {
	case len(body) < 8:
	case width == 3:
		done = (len(body) - 8) / 6
		bits = unpack3(v[:2*done], body)
	case width == 4:
		done = len(v) / 2
		bits = unpack4(v[:2*done], body)
	}
	shift := 64 - 8*width
	for i := 2 * done; i < len(v); i++ {
		var word [8]byte
		copy(word[:], body[i*width:min(i*width+8, len(body))])
		x := int64(binary.LittleEndian.Uint64(word[:])<<shift) >> shift
		bits |= uint64(x ^ x>>63)
		v[i] = T(x)
	}
	return bits
}

// unpack3 reads an even number of integers of three bytes, what a delta on the grid usually needs, two at a time.
func unpack3[T Int](v []T, body []byte) uint64 {
	var bits uint32
	for i := range len(v) / 2 {
		pair := binary.LittleEndian.Uint64(body[6*i:])
		x, y := int32(pair<<8)>>8, int32(pair>>16)>>8
		bits |= uint32(x^x>>31) | uint32(y^y>>31)
		two := v[2*i : 2*i+2]
		two[0], two[1] = T(x), T(y)
	}
	return uint64(bits)
}

// unpack4 reads an even number of integers of four bytes, two at a time.
func unpack4[T Int](v []T, body []byte) uint64 {
	var bits uint32
	for i := range len(v) / 2 {
		pair := binary.LittleEndian.Uint64(body[8*i:])
		x, y := int32(pair), int32(pair>>32)
		bits |= uint32(x^x>>31) | uint32(y^y>>31)
		two := v[2*i : 2*i+2]
		two[0], two[1] = T(x), T(y)
	}
	return uint64(bits)
}
