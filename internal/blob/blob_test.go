package blob

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"testing"
)

// naive is the id worked out by hand: "choir/blob/v1" behind its length, the blob's length, the digest of each leaf.
func naive(body []byte) [32]byte {
	manifest := append([]byte{13}, "choir/blob/v1"...)
	manifest = binary.AppendUvarint(manifest, uint64(len(body)))
	for at := 0; at < len(body); at += 1 << 20 {
		sum := sha256.Sum256(body[at:min(at+1<<20, len(body))])
		manifest = append(manifest, sum[:]...)
	}
	return sha256.Sum256(manifest)
}

// pattern is n bytes without a period of a leaf.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

func TestID(t *testing.T) {
	seen := map[[32]byte]int{}
	for _, n := range []int{0, 1, LeafBytes - 1, LeafBytes, LeafBytes + 1, 2*LeafBytes - 1, 2 * LeafBytes, 3*LeafBytes + 7} {
		id := ID(pattern(n))
		if want := naive(pattern(n)); id != want {
			t.Errorf("%d bytes: id %x, want %x", n, id, want)
		}
		if other, ok := seen[id]; ok {
			t.Errorf("%d and %d bytes have one id", n, other)
		}
		seen[id] = n
	}
}

// TestIDsDoNotDrift: ids stand in logs and bundles for ever.
func TestIDsDoNotDrift(t *testing.T) {
	for n, want := range map[int]string{
		0:             "6c4db5ef076c56a94fd68475c724d52c3fe20bd4cbfabe303cbd0b6cc3c94076",
		5:             "a62083d8549de0ee9e5dbf3ad4e6138e2307d5842844140f08070583bdb466c8",
		LeafBytes + 1: "69c752927d1d24ca9d81b943ec2c8d38599996c01cef59e42bbc44d7d2bd7027",
	} {
		if id := ID(pattern(n)); hex.EncodeToString(id[:]) != want {
			t.Errorf("%d bytes: id %x, want %s", n, id, want)
		}
	}
}

// TestEveryByteCounts: a change anywhere, a swap of leaves and zeros at the end are other blobs.
func TestEveryByteCounts(t *testing.T) {
	body := pattern(2*LeafBytes + 3)
	id := ID(body)
	for _, at := range []int{0, LeafBytes - 1, LeafBytes, 2*LeafBytes - 1, 2 * LeafBytes, len(body) - 1} {
		body[at] ^= 1
		if ID(body) == id {
			t.Errorf("a bit of byte %d does not count", at)
		}
		body[at] ^= 1
	}
	swapped := bytes.Join([][]byte{body[LeafBytes : 2*LeafBytes], body[:LeafBytes], body[2*LeafBytes:]}, nil)
	if ID(swapped) == id || ID(append(body, 0)) == id || ID(body[:len(body)-1]) == id || ID(body) != id {
		t.Error("swapped leaves, a byte more or a byte less are the same blob, or one blob has two ids")
	}
}

func ExampleID() {
	id := ID([]byte("a model"))
	fmt.Println(len(id), id == ID([]byte("a model")), id == ID([]byte("another")))
	// Output: 32 true false
}
