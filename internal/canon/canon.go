// Package canon is the binary encoding of everything in choir that is hashed or signed: updates, envelopes,
// records, heads. It has no slack: each value has exactly one encoding, and every byte string that decodes is the
// encoding of what it decodes to. So one flipped bit anywhere is another value or an error, never the same value
// written differently.
//
// Integers are minimal unsigned varints (signed ones zigzag first), strings and byte slices are length-prefixed.
// A Writer cannot fail; a Reader remembers its first error, so that callers read straight through and ask once, in
// Close, which also refuses trailing bytes.
package canon

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrEncoding is the error class of every malformed input; errors of a Reader wrap it.
var ErrEncoding = errors.New("not a canonical encoding")

// Writer appends canonical values to Buf. The zero Writer is ready to use.
type Writer struct{ Buf []byte }

// Uint appends an unsigned integer as a minimal varint.
func (w *Writer) Uint(v uint64) { w.Buf = binary.AppendUvarint(w.Buf, v) }

// Int appends a signed integer, zigzag-coded.
func (w *Writer) Int(v int64) { w.Uint(uint64(v)<<1 ^ uint64(v>>63)) }

// Bool appends one byte, 0 or 1.
func (w *Writer) Bool(v bool) {
	if v {
		w.Uint(1)
	} else {
		w.Uint(0)
	}
}

// Bytes appends a length and the bytes.
func (w *Writer) Bytes(b []byte) {
	w.Uint(uint64(len(b)))
	w.Buf = append(w.Buf, b...)
}

// String appends a length and the string's bytes.
func (w *Writer) String(s string) {
	w.Uint(uint64(len(s)))
	w.Buf = append(w.Buf, s...)
}

// Fixed appends bytes whose number both sides know.
func (w *Writer) Fixed(b []byte) { w.Buf = append(w.Buf, b...) }

// Reader takes canonical values from the front of a byte slice.
type Reader struct {
	buf []byte
	err error
}

// NewReader reads from b, which must not change meanwhile: Bytes and Fixed return parts of it.
func NewReader(b []byte) *Reader { return &Reader{buf: b} }

// Err is the first error met, nil if none.
func (r *Reader) Err() error { return r.err }

// Fail makes the Reader's error err, unless it has one already. Callers use it for values out of their range.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrEncoding, fmt.Sprintf(format, args...))
	}
}

// Uint reads a minimal varint.
func (r *Reader) Uint() uint64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.buf)
	switch {
	case n <= 0:
		r.Fail("bad or truncated integer")
		return 0
	case n > 1 && r.buf[n-1] == 0:
		r.Fail("integer is not minimal")
		return 0
	}
	r.buf = r.buf[n:]
	return v
}

// Int reads a zigzag-coded integer.
func (r *Reader) Int() int64 {
	v := r.Uint()
	return int64(v>>1) ^ -int64(v&1)
}

// Bool reads 0 or 1.
func (r *Reader) Bool() bool {
	switch r.Uint() {
	case 0:
		return false
	case 1:
		return true
	}
	r.Fail("boolean is neither 0 nor 1")
	return false
}

// Len reads a count of things of which each takes at least size bytes, and refuses one that cannot fit in what is
// left: a hostile count never makes the caller allocate more than the input's own length.
func (r *Reader) Len(size int) int {
	n := r.Uint()
	if r.err == nil && n > uint64(len(r.buf)/max(size, 1)) {
		r.Fail("count %d is more than the input holds", n)
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

// Bytes reads a length-prefixed byte slice, which aliases the input.
func (r *Reader) Bytes() []byte { return r.Fixed(r.Len(1)) }

// String reads a length-prefixed string.
func (r *Reader) String() string { return string(r.Bytes()) }

// Fixed reads n bytes, which alias the input.
func (r *Reader) Fixed(n int) []byte {
	if r.err == nil && (n < 0 || n > len(r.buf)) {
		r.Fail("truncated")
	}
	if r.err != nil {
		return nil
	}
	b := r.buf[:n:n]
	r.buf = r.buf[n:]
	return b
}

// More reports whether bytes are left, and no error was met.
func (r *Reader) More() bool { return r.err == nil && len(r.buf) > 0 }

// Close reports the first error, or that bytes are left over.
func (r *Reader) Close() error {
	if r.err == nil && len(r.buf) > 0 {
		r.Fail("%d bytes left over", len(r.buf))
	}
	return r.err
}
