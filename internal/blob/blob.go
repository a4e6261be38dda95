// Package blob names bulk data by its content. Coordinators store blobs under these ids and nodes check what they fetch.
package blob

import (
	"crypto/sha256"
	"slices"

	"choir.example/internal/canon"
)

// LeafBytes is the size of a blob's leaves; the last may be shorter.
const LeafBytes = 1 << 20

// ID is SHA-256 of the blob's manifest: its length and the SHA-256 of each of its leaves.
func ID(body []byte) [32]byte {
	var w canon.Writer
	w.String("choir/blob/v1")
	w.Uint(uint64(len(body)))
	for leaf := range slices.Chunk(body, LeafBytes) {
		sum := sha256.Sum256(leaf)
		w.Fixed(sum[:])
	}
	return sha256.Sum256(w.Buf)
}
