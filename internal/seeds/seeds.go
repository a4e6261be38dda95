// Package seeds derives the seed of each use of chance from one experiment's seed: the same on every machine, in
// every deployment, and never twice the same for two uses.
package seeds

import (
	"crypto/sha256"
	"encoding/binary"

	"choir.example/internal/canon"
)

// Derive returns the seed for one use: the first eight bytes of SHA-256 over a domain string, the parent seed, a name
// (of a job or a node) and a number (of a round). It is not secret and must not protect anything.
func Derive(domain string, parent uint64, name string, number uint64) uint64 {
	var w canon.Writer
	w.String(domain)
	w.Uint(parent)
	w.String(name)
	w.Uint(number)
	sum := sha256.Sum256(w.Buf)
	return binary.BigEndian.Uint64(sum[:8])
}
