package canon

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"testing"
)

func TestKnownEncodings(t *testing.T) {
	for _, c := range []struct {
		name  string
		write func(*Writer)
		want  string
	}{
		{"uint 0", func(w *Writer) { w.Uint(0) }, "00"},
		{"uint 127", func(w *Writer) { w.Uint(127) }, "7f"},
		{"uint 128", func(w *Writer) { w.Uint(128) }, "8001"}, // seven bits a byte, least first: 0000000 | 0000001
		{"uint 300", func(w *Writer) { w.Uint(300) }, "ac02"}, // 300 = 2·128 + 44, 44 = 0x2c
		{"uint max", func(w *Writer) { w.Uint(math.MaxUint64) }, "ffffffffffffffffff01"},
		{"int 0", func(w *Writer) { w.Int(0) }, "00"},
		{"int -1", func(w *Writer) { w.Int(-1) }, "01"}, // zigzag: 0, -1, 1, -2, 2 … become 0, 1, 2, 3, 4 …
		{"int 1", func(w *Writer) { w.Int(1) }, "02"},
		{"int -64", func(w *Writer) { w.Int(-64) }, "7f"},
		{"int 64", func(w *Writer) { w.Int(64) }, "8001"},
		{"int max", func(w *Writer) { w.Int(math.MaxInt64) }, "feffffffffffffffff01"},
		{"int min", func(w *Writer) { w.Int(math.MinInt64) }, "ffffffffffffffffff01"},
		{"bool", func(w *Writer) { w.Bool(false); w.Bool(true) }, "0001"},
		{"bytes", func(w *Writer) { w.Bytes([]byte{0xab}) }, "01ab"},
		{"no bytes", func(w *Writer) { w.Bytes(nil) }, "00"},
		{"string", func(w *Writer) { w.String("né") }, "036ec3a9"},
		{"fixed", func(w *Writer) { w.Fixed([]byte{1, 2}) }, "0102"},
	} {
		var w Writer
		c.write(&w)
		if got := hex.EncodeToString(w.Buf); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	for _, c := range []struct {
		name, input string
		read        func(*Reader)
	}{
		{"no integer", "", func(r *Reader) { r.Uint() }},
		{"truncated integer", "80", func(r *Reader) { r.Uint() }},
		{"zero in two bytes", "8000", func(r *Reader) { r.Uint() }},
		{"one in three bytes", "818000", func(r *Reader) { r.Uint() }},
		{"integer of 65 bits", "ffffffffffffffffff02", func(r *Reader) { r.Uint() }},
		{"integer of eleven bytes", "8080808080808080808001", func(r *Reader) { r.Uint() }},
		{"boolean 2", "02", func(r *Reader) { r.Bool() }},
		{"string longer than the input", "026e", func(r *Reader) { _ = r.String() }},
		{"huge string", "ffffffffffffffffff01", func(r *Reader) { r.Bytes() }},
		{"fixed longer than the input", "00", func(r *Reader) { r.Fixed(2) }},
		{"negative length", "00", func(r *Reader) { r.Fixed(-1) }},
		{"count that cannot fit", "030000", func(r *Reader) { r.Len(1) }},
		{"count of wide things that cannot fit", "02000000", func(r *Reader) { r.Len(2) }},
		{"bytes left over", "0000", func(r *Reader) { r.Uint() }},
	} {
		input, err := hex.DecodeString(c.input)
		if err != nil {
			t.Fatal(err)
		}
		r := NewReader(input)
		c.read(r)
		if err := r.Close(); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestFirstErrorStays(t *testing.T) {
	r := NewReader([]byte{0x80})
	r.Uint()
	first := r.Err()
	r.Fail("later")
	if r.Uint() != 0 || r.Int() != 0 || r.Bool() || r.Len(0) != 0 || r.Bytes() != nil || r.String() != "" || r.Fixed(0) != nil {
		t.Error("a failed reader returned something")
	}
	if first == nil || r.Err() != first || r.Close() != first {
		t.Errorf("first error %v, at the end %v", first, r.Close())
	}
}

func TestBytesCannotGrowIntoWhatFollows(t *testing.T) {
	input := []byte{1, 'a', 'b'}
	r := NewReader(input)
	_ = append(r.Bytes(), 'x')
	if input[2] != 'b' {
		t.Error("appending to a part wrote into the next one")
	}
}

// step is one value of a random message.
type step struct {
	kind  int
	uint  uint64
	bytes []byte
}

func (s step) write(w *Writer) {
	switch s.kind {
	case 0:
		w.Uint(s.uint)
	case 1:
		w.Int(int64(s.uint))
	case 2:
		w.Bool(s.uint&1 == 1)
	case 3:
		w.Bytes(s.bytes)
	case 4:
		w.String(string(s.bytes))
	case 5:
		w.Fixed(s.bytes)
	}
}

// read returns the step of the same kind (and length) that the reader holds.
func (s step) read(r *Reader) step {
	got := step{kind: s.kind}
	switch s.kind {
	case 0:
		got.uint = r.Uint()
	case 1:
		got.uint = uint64(r.Int())
	case 2:
		if r.Bool() {
			got.uint = 1
		}
	case 3:
		got.bytes = r.Bytes()
	case 4:
		got.bytes = []byte(r.String())
	case 5:
		got.bytes = r.Fixed(len(s.bytes))
	}
	return got
}

func (s step) equal(o step) bool {
	return s.kind == o.kind && s.uint == o.uint && bytes.Equal(s.bytes, o.bytes)
}

func randomMessage(rng *rand.Rand) []step {
	message := make([]step, 1+rng.IntN(6))
	for i := range message {
		s := step{kind: rng.IntN(6)}
		if s.kind < 3 {
			s.uint = rng.Uint64() >> rng.IntN(64)
		} else {
			s.bytes = make([]byte, rng.IntN(20))
			for k := range s.bytes {
				s.bytes[k] = byte(rng.Uint32())
			}
		}
		if s.kind == 2 {
			s.uint &= 1
		}
		message[i] = s
	}
	return message
}

// Every message reads back, and each of its single-bit damages is an error or another message.
func TestEveryBitCounts(t *testing.T) {
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 500 {
		message := randomMessage(rng)
		var w Writer
		for _, s := range message {
			s.write(&w)
		}
		read := func(input []byte) (same bool, err error) {
			r := NewReader(input)
			same = true
			for _, s := range message {
				same = s.equal(s.read(r)) && same
			}
			return same, r.Close()
		}
		if same, err := read(w.Buf); err != nil || !same {
			t.Fatalf("seed %d: %v does not read back: %v", seed, message, err)
		}
		for bit := range 8 * len(w.Buf) {
			damaged := bytes.Clone(w.Buf)
			damaged[bit/8] ^= 1 << (bit % 8)
			if same, err := read(damaged); err == nil && same {
				t.Fatalf("seed %d: bit %d of %x does not count", seed, bit, w.Buf)
			}
		}
	}
}

// FuzzReader reads a message whose layout stands in its first bytes, one a value, and wants what was read to be written
// as the same bytes again.
func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 1, 2}, []byte{0xac, 0x02, 0x01, 0x01})
	f.Add([]byte{3, 4, 5}, []byte{1, 'a', 0, 0, 0, 0, 0})
	f.Add([]byte{1}, []byte{0x80, 0x00})
	f.Add([]byte{3}, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, layout, input []byte) {
		if len(layout) > 16 {
			return
		}
		r := NewReader(input)
		var w Writer
		for _, kind := range layout {
			step{kind: int(kind) % 6, bytes: make([]byte, 4)}.read(r).write(&w)
		}
		if r.Close() == nil && !bytes.Equal(w.Buf, input) {
			t.Errorf("layout %v: %x was read, it is written as %x", layout, input, w.Buf)
		}
	})
}
