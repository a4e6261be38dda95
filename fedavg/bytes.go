package fedavg

import (
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
