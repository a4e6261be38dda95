package audit

import (
	"bytes"

	"choir.example/internal/canon"
)

// visitor is given each field of a value in the order of its encoding: one description serves writing and reading.
type visitor interface {
	str(*string)
	bytes(*[]byte)
	digest(*[32]byte)
	uint(*uint64)
	uint32(*uint32)
	uint8(*uint8)
	int(*int64)
	bool(*bool)
	length(n int) int   // writes n, or returns the length read
	failed() bool       // reading met an error: what it gives from now on is empty
	more(has bool) bool // whether a field follows that came later: writing, has; reading, whether bytes are left
	fail(why string)    // reading: the value is not in its one encoding
}

// list visits a slice. Reading appends to it; it ends at the first error, so that a length that only claims to be large
// allocates nothing.
func list[T any](v visitor, s *[]T, each func(*T)) {
	n := v.length(len(*s))
	for i := 0; i < n && !v.failed(); i++ {
		if i == len(*s) {
			var zero T
			*s = append(*s, zero)
		}
		each(&(*s)[i])
	}
}

// trailing visits a slice at the end of a value that older encodings of it do not have: an empty one is not written.
func trailing[T any](v visitor, s *[]T, each func(*T)) {
	if !v.more(len(*s) > 0) {
		return
	}
	if list(v, s, each); len(*s) == 0 {
		v.fail("an empty list at the end")
	}
}

// trailingDigest visits a digest in the same place: one of zeros is not written.
func trailingDigest(v visitor, p *[32]byte) {
	if !v.more(*p != [32]byte{}) {
		return
	}
	if v.digest(p); *p == [32]byte{} {
		v.fail("a digest of zeros at the end")
	}
}

type writer struct{ w *canon.Writer }

func (x *writer) str(p *string)      { x.w.String(*p) }
func (x *writer) bytes(p *[]byte)    { x.w.Bytes(*p) }
func (x *writer) digest(p *[32]byte) { x.w.Fixed(p[:]) }
func (x *writer) uint(p *uint64)     { x.w.Uint(*p) }
func (x *writer) uint32(p *uint32)   { x.w.Uint(uint64(*p)) }
func (x *writer) uint8(p *uint8)     { x.w.Uint(uint64(*p)) }
func (x *writer) int(p *int64)       { x.w.Int(*p) }
func (x *writer) bool(p *bool)       { x.w.Bool(*p) }
func (x *writer) length(n int) int   { x.w.Uint(uint64(n)); return n }
func (x *writer) failed() bool       { return false }
func (x *writer) more(has bool) bool { return has }
func (x *writer) fail(string)        {}

type reader struct{ r *canon.Reader }

func (x *reader) str(p *string)      { *p = x.r.String() }
func (x *reader) bytes(p *[]byte)    { *p = bytes.Clone(x.r.Bytes()) }
func (x *reader) digest(p *[32]byte) { copy(p[:], x.r.Fixed(32)) }
func (x *reader) uint(p *uint64)     { *p = x.r.Uint() }
func (x *reader) uint32(p *uint32)   { *p = uint32(x.bounded(1<<32 - 1)) }
func (x *reader) uint8(p *uint8)     { *p = uint8(x.bounded(1<<8 - 1)) }
func (x *reader) int(p *int64)       { *p = x.r.Int() }
func (x *reader) bool(p *bool)       { *p = x.r.Bool() }
func (x *reader) length(int) int     { return x.r.Len(1) }
func (x *reader) failed() bool       { return x.r.Err() != nil }
func (x *reader) more(bool) bool     { return x.r.More() }
func (x *reader) fail(why string)    { x.r.Fail("%s", why) }

func (x *reader) bounded(top uint64) uint64 {
	v := x.r.Uint()
	if v > top {
		x.r.Fail("%d is larger than %d", v, top)
	}
	return v
}
