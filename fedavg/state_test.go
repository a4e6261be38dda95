package fedavg

import (
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestStateRoundTrip(t *testing.T) {
	want := [][]float32{{1, -2.5, 0}, {float32(math.Copysign(0, -1)), math.MaxFloat32, math.SmallestNonzeroFloat32}}
	b := EncodeState(want)
	got, err := DecodeState(b, 2, 3)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, %v", got, err)
	}
	for i := range b { // one flipped bit anywhere is another state, or none
		for bit := range 8 {
			c := append([]byte(nil), b...)
			c[i] ^= 1 << bit
			if got, err := DecodeState(c, 2, 3); err == nil && string(EncodeState(got)) != string(c) {
				t.Fatalf("bit %d of byte %d: two encodings of %v", bit, i, got)
			}
		}
	}
}

func TestBadStates(t *testing.T) {
	b := EncodeState([][]float32{{1, 2}})
	for want, bad := range map[string][]byte{
		"version 2 is not known":        append([]byte{2}, b[1:]...),
		"0 vectors, want 1":             EncodeState(nil),
		"vector of length 3, want 2":    EncodeState([][]float32{{1, 2, 3}}),
		"value 1 is NaN":                EncodeState([][]float32{{1, float32(math.NaN())}}),
		"value 0 is +Inf":               EncodeState([][]float32{{float32(math.Inf(1)), 1}}),
		"decode state: ":                b[:len(b)-1],
		"decode state: not a canonical": append(append([]byte(nil), b...), 0),
		"bad or truncated integer":      nil,
	} {
		if _, err := DecodeState(bad, 1, 2); err == nil {
			t.Errorf("%q passes", bad)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
