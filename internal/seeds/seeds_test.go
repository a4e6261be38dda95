package seeds

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
)

// The bytes that are hashed, by hand: each string with its length before it, each number as a varint, 300 = ac 02.
func TestKnownAnswers(t *testing.T) {
	for _, c := range []struct {
		domain string
		parent uint64
		name   string
		number uint64
		hashed string
		want   uint64
	}{
		{"", 0, "", 0, "\x00\x00\x00\x00", 0xdf3f619804a92fdb},
		{"choir/cohort/v1", 42, "edge-1", 300, "\x0fchoir/cohort/v1\x2a\x06edge-1\xac\x02", 0x2294ba228bc73b96},
		{"d", 1<<64 - 1, "n", 1, "\x01d\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01n\x01", 0xfbd204312fee9a34},
	} {
		sum := sha256.Sum256([]byte(c.hashed))
		if got := Derive(c.domain, c.parent, c.name, c.number); got != binary.BigEndian.Uint64(sum[:]) || got != c.want {
			t.Errorf("%q %d %q %d: %#x, the hash says %#x, recorded is %#x",
				c.domain, c.parent, c.name, c.number, got, binary.BigEndian.Uint64(sum[:]), c.want)
		}
	}
}

// Every argument counts, and no two uses share a seed by shifting a border between arguments.
func TestUsesDiffer(t *testing.T) {
	seen := map[uint64]string{}
	for _, domain := range []string{"a", "ab", ""} {
		for parent := range uint64(4) {
			for _, name := range []string{"", "b", "bc", "\x01b"} {
				for number := range uint64(50) {
					use := fmt.Sprintf("%q %d %q %d", domain, parent, name, number)
					s := Derive(domain, parent, name, number)
					if other, ok := seen[s]; ok {
						t.Fatalf("%s and %s share the seed %#x", use, other, s)
					}
					seen[s] = use
				}
			}
		}
	}
}
