package fedavg

import (
	"cmp"
	"encoding/binary"

	"choir.example/model/codec"
)

// Bytes is how many bytes the update's numbers take in a payload: what grows with the model. The names, digests,
// signatures and the seal around them come on top, some hundred bytes.
func (u *Update) Bytes() int {
	n := intLen(u.Weight) + uintLen(len(u.Vectors)) + intsLen(u.Scalars)
	for _, v := range u.Vectors {
		n += intsLen(v)
	}
	return n
}

// intsLen is what writeInts writes.
func intsLen[T codec.Int](v []T) int {
	if len(v) == 0 {
		return 1
	}
	return uintLen(len(v)) + 1 + codec.Width(v)*len(v)
}

func uintLen(n int) int { return len(binary.AppendUvarint(nil, uint64(n))) }

func intLen(n int64) int { return len(binary.AppendVarint(nil, n)) }

// ModelBytes is how many bytes a node gets in a round: the model and what the strategy shares with it, four a parameter.
func (a *Algorithm) ModelBytes() int64 {
	return 4 * int64(a.Network.Size()) * int64(1+a.Strategy.Needs().Shared)
}

// UpdateBytes is how many bytes the numbers of an update take whose coordinates need all bits of the grid, in whole bytes,
// and eight for each scalar: about what Update.Bytes says of one whose coordinates are large, known before it is made.
func (a *Algorithm) UpdateBytes() int64 {
	needs := a.Strategy.Needs()
	width := int64(cmp.Or(a.Grid.Bits, 24)+7) / 8
	return int64(1+needs.Vectors)*width*int64(a.Network.Size()) + 8*int64(needs.Scalars)
}
