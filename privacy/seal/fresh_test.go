package seal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"
)

// What is sealed under a fresh key opens under that key only: neither its parent nor another fresh one opens it.
func TestFreshKeysAreApart(t *testing.T) {
	parent, err := newBox(bytes.Repeat([]byte{7}, 32), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, other := parent.NewKey(), parent.NewKey()
	if len(key) != 32 || bytes.Equal(key, other) {
		t.Fatalf("keys %x and %x", key, other)
	}
	under := func(key []byte) *Box {
		b, err := parent.Under(key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	sealed := under(key).Seal([]byte("place"), []byte("row"))
	if plain, err := under(bytes.Clone(key)).Open([]byte("place"), sealed); err != nil || string(plain) != "row" {
		t.Errorf("%q, %v", plain, err)
	}
	for name, b := range map[string]*Box{"parent": parent, "other": under(other)} {
		if _, err := b.Open([]byte("place"), sealed); !errors.Is(err, ErrSealed) {
			t.Errorf("%s opens it: %v", name, err)
		}
	}
	if _, err := parent.Under(key[:16]); err == nil {
		t.Error("a short key is taken")
	}
}
