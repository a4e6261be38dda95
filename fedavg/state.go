package fedavg

import (
	"encoding/binary"
	"fmt"
	"math"

	"choir.example/internal/canon"
)

// stateVersion is the first value of an encoded state.
const stateVersion = 1

// EncodeState is the canonical encoding of vectors that a strategy keeps from round to round, the server's or a node's.
func EncodeState(vectors [][]float32) []byte {
	size := 16
	for _, v := range vectors {
		size += 4*len(v) + 10
	}
	w := canon.Writer{Buf: make([]byte, 0, size)}
	w.Uint(stateVersion)
	w.Uint(uint64(len(vectors)))
	for _, v := range vectors {
		w.Uint(uint64(len(v)))
		for _, x := range v {
			w.Buf = binary.LittleEndian.AppendUint32(w.Buf, math.Float32bits(x))
		}
	}
	return w.Buf
}

// DecodeState decodes what EncodeState wrote: n vectors of the length. Anything else, and a value that is not finite, is
// an error. The result shares no memory with b.
func DecodeState(b []byte, n, length int) ([][]float32, error) {
	r := canon.NewReader(b)
	if v := r.Uint(); r.Err() == nil && v != stateVersion {
		return nil, fmt.Errorf("decode state: version %d is not known", v)
	}
	if got := r.Uint(); r.Err() == nil && got != uint64(n) {
		return nil, fmt.Errorf("decode state: %d vectors, want %d", got, n)
	}
	var vectors [][]float32
	for range n {
		if got := r.Uint(); r.Err() == nil && got != uint64(length) {
			return nil, fmt.Errorf("decode state: vector of length %d, want %d", got, length)
		}
		body := r.Fixed(4 * length)
		if r.Err() != nil {
			break
		}
		v := make([]float32, length)
		for i := range v {
			v[i] = math.Float32frombits(binary.LittleEndian.Uint32(body[4*i:]))
			if x := float64(v[i]); math.IsNaN(x) || math.IsInf(x, 0) {
				return nil, fmt.Errorf("decode state: value %d is %v", i, x)
			}
		}
		vectors = append(vectors, v)
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	return vectors, nil
}
