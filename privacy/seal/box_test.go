package seal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"testing"
)

func newTestBox(t testing.TB) *Box {
	t.Helper()
	key := make([]byte, 32)
	if _, err := io.ReadFull(rand.Reader, key); err != nil {
		t.Fatal(err)
	}
	box, err := newBox(key, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func TestBoxOpensWhatItSealed(t *testing.T) {
	box := newTestBox(t)
	for _, n := range []int{0, 1, 15, 16, 17, 1000, 1 << 20} {
		plain := bytes.Repeat([]byte{7}, n)
		sealed := box.Seal([]byte("rows|1"), plain)
		if len(sealed) != n+Overhead {
			t.Errorf("%d bytes sealed are %d", n, len(sealed))
		}
		got, err := box.Open([]byte("rows|1"), sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if bytes.Equal(box.Seal(nil, []byte("x")), box.Seal(nil, []byte("x"))) {
		t.Error("two sealings of one value are equal")
	}
}

func TestBoxAppends(t *testing.T) {
	box := newTestBox(t)
	buf := []byte("head")
	buf = box.AppendSeal(buf, []byte("0"), []byte("first"))
	border := len(buf)
	buf = box.AppendSeal(buf, []byte("1"), []byte("second"))
	plain := []byte("got ")
	plain, err := box.AppendOpen(plain, []byte("0"), buf[4:border])
	if err != nil {
		t.Fatal(err)
	}
	if plain, err = box.AppendOpen(plain, []byte("1"), buf[border:]); err != nil || string(plain) != "got firstsecond" {
		t.Errorf("%q, %v", plain, err)
	}
	if string(buf[:4]) != "head" {
		t.Error("what stood before was changed")
	}
}

func TestBoxBindsPlaceAndContent(t *testing.T) {
	box := newTestBox(t)
	sealed := box.Seal([]byte("rows|1"), []byte("private"))
	for _, aad := range []string{"", "rows|2", "rows|11", "rows|"} {
		if _, err := box.Open([]byte(aad), sealed); !errors.Is(err, ErrSealed) {
			t.Errorf("opened at %q: %v", aad, err)
		}
	}
	for bit := range len(sealed) * 8 {
		bad := bytes.Clone(sealed)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := box.Open([]byte("rows|1"), bad); !errors.Is(err, ErrSealed) {
			t.Fatalf("bit %d: %v", bit, err)
		}
	}
	for cut := range len(sealed) {
		if _, err := box.Open([]byte("rows|1"), sealed[:cut]); !errors.Is(err, ErrSealed) {
			t.Fatalf("cut to %d: %v", cut, err)
		}
	}
	if _, err := newTestBox(t).Open([]byte("rows|1"), sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("another box: %v", err)
	}
}

func TestSubBoxesAreApart(t *testing.T) {
	box := newTestBox(t)
	a, b := box.Sub("spool"), box.Sub("log")
	sealed := a.Seal(nil, []byte("x"))
	for name, other := range map[string]*Box{"parent": box, "sibling": b, "child": a.Sub("spool")} {
		if _, err := other.Open(nil, sealed); !errors.Is(err, ErrSealed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := box.Sub("spool").Open(nil, sealed); err != nil || string(got) != "x" {
		t.Errorf("derived again: %q, %v", got, err)
	}
}

func TestNewBoxWantsAWholeKey(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33} {
		if _, err := newBox(make([]byte, n), rand.Reader); err == nil {
			t.Errorf("a key of %d bytes was taken", n)
		}
	}
}

func BenchmarkBox(b *testing.B) {
	box, plain := newTestBox(b), make([]byte, 1<<20)
	sealed := box.Seal(nil, plain)
	b.Run("seal", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		buf := make([]byte, 0, len(sealed))
		for b.Loop() {
			buf = box.AppendSeal(buf[:0], nil, plain)
		}
	})
	b.Run("open", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		buf := make([]byte, 0, len(sealed))
		for b.Loop() {
			if _, err := box.AppendOpen(buf[:0], nil, sealed); err != nil {
				b.Fatal(err)
			}
		}
	})
}
