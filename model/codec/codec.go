// Package codec turns vectors into integers on a public grid and integers into bytes, and back. It knows no layer and
// no schema.
//
// A delta's coordinate x in [-Range, Range] becomes the integer round(x/Step) with Step = Range/2^23; what lies
// outside saturates and is counted. Integers are packed at the least width that holds them all, so that each vector
// has exactly one encoding.
package codec

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// MaxQ is the largest magnitude on the grid.
const MaxQ = 1 << 23

// Int is what the packer packs.
type Int interface{ ~int32 | ~int64 }

// Grid maps real coordinates to integers.
type Grid struct {
	Range float64 // largest magnitude that does not saturate; positive and finite
}

// Step is the distance of two neighbours on the grid.
func (g Grid) Step() float64 { return g.Range / MaxQ }

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
	if len(x) != len(q) {
		return 0, fmt.Errorf("quantise: %d coordinates into %d", len(x), len(q))
	}
	inverse := 1 / g.Step()
	for i, v := range x {
		s := float64(v) * inverse
		switch {
		case s > MaxQ:
			if math.IsInf(s, 0) {
				return 0, fmt.Errorf("quantise: coordinate %d is %v", i, v)
			}
			q[i] = MaxQ
			saturated++
		case s < -MaxQ:
			if math.IsInf(s, 0) {
				return 0, fmt.Errorf("quantise: coordinate %d is %v", i, v)
			}
			q[i] = -MaxQ
			saturated++
		case s != s:
			return 0, fmt.Errorf("quantise: coordinate %d is not a number", i)
		default:
			q[i] = int32(math.RoundToEven(s))
		}
	}
	return saturated, nil
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
func PackInts[T Int](dst []byte, v []T) []byte {
	width := Width(v)
	dst = append(dst, byte(width))
	start, size := len(dst), len(v)*width+8 // room for the last 8-byte store
	dst = slices.Grow(dst, size)
	out := dst[start : start+size]
	switch width {
	case 1:
		for i, x := range v {
			out[i] = byte(x)
		}
	case 2:
		for i, x := range v {
			binary.LittleEndian.PutUint16(out[2*i:], uint16(x))
		}
	case 3:
		for i, x := range v {
			binary.LittleEndian.PutUint32(out[3*i:], uint32(x))
		}
	case 4:
		for i, x := range v {
			binary.LittleEndian.PutUint32(out[4*i:], uint32(x))
		}
	default:
		for i, x := range v {
			binary.LittleEndian.PutUint64(out[width*i:], uint64(int64(x)))
		}
	}
	return dst[:start+len(v)*width]
}

// Width is the least width in bytes, 1 to 8, that holds all of v.
func Width[T Int](v []T) int {
	var bits uint64
	for _, x := range v {
		bits |= uint64(int64(x)) ^ uint64(int64(x)>>63)
	}
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
	n := len(body) / width
	v := make([]T, n)
	shift := 64 - 8*width
	whole := max(0, min(n, (len(body)-8)/width+1)) // how many can be read as 8 bytes
	if len(body) < 8 {
		whole = 0
	}
	var bits uint64
	for i := range whole {
		x := int64(binary.LittleEndian.Uint64(body[i*width:])<<shift) >> shift
		bits |= uint64(x) ^ uint64(x>>63)
		v[i] = T(x)
	}
	for i := whole; i < n; i++ {
		var tail [8]byte
		copy(tail[:], body[i*width:(i+1)*width])
		x := int64(binary.LittleEndian.Uint64(tail[:])<<shift) >> shift
		bits |= uint64(x) ^ uint64(x>>63)
		v[i] = T(x)
	}
	if width > 1 && bits>>(8*(width-1)-1) == 0 {
		return nil, fmt.Errorf("integers of width %d need less", width)
	}
	if narrow := T(1)<<31 < 0; narrow && bits>>31 != 0 {
		return nil, fmt.Errorf("integers of width %d do not fit 32 bits", width)
	}
	return v, nil
}
