package fedavg

import (
	"math/rand/v2"
	"testing"
)

// What Bytes counts is what Encode writes beside names, digests and evaluations.
func TestBytesAreThoseOfThePayload(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		u := &Update{Weight: 1 + rng.Int64N(MaxWeight)}
		for range rng.IntN(3) {
			v := make([]int32, rng.IntN(300))
			for i := range v {
				v[i] = int32(rng.Int64N(1 << rng.IntN(24)))
				if rng.IntN(2) == 0 {
					v[i] = -v[i]
				}
			}
			u.Vectors = append(u.Vectors, v)
		}
		for range rng.IntN(4) {
			u.Scalars = append(u.Scalars, rng.Int64N(1<<40)-1<<39)
		}
		with := len((&Payload{Update: *u}).Encode())
		without := len((&Payload{Update: Update{Weight: 1}}).Encode()) - (&Update{Weight: 1}).Bytes()
		if got := u.Bytes(); got != with-without {
			t.Fatalf("%d bytes of %+v, the payload has %d", got, u, with-without)
		}
	}
}

func BenchmarkBytes(b *testing.B) {
	v := make([]int32, 199_210)
	for i := range v {
		v[i] = int32(i % 40000)
	}
	u := &Update{Weight: 600, Vectors: [][]int32{v}}
	for b.Loop() {
		u.Bytes()
	}
}
