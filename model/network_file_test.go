package model

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func imageNetwork(t testing.TB) *Network {
	t.Helper()
	n, err := Spec{[]int{2, 3, 1}, []LayerSpec{{Kind: "flatten"}, {Kind: "dense", Units: 5, Activation: "relu"}, {Kind: "dense", Units: 4}}, "softmax"}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNetworkFileRoundTrip(t *testing.T) {
	n := imageNetwork(t)
	params := n.Initial(3)
	b, err := EncodeNetwork(n, params)
	if err != nil {
		t.Fatal(err)
	}
	again, got, err := DecodeNetwork(b)
	if err != nil || !slices.Equal(got, params) || !again.spec.equal(n.spec) {
		t.Fatalf("%+v, %v, %v", again, got, err)
	}
	if twice, err := EncodeNetwork(again, got); err != nil || !bytes.Equal(twice, b) {
		t.Errorf("another file after a round trip: %v", err)
	}
	if _, err := Decode(b); !errors.Is(err, ErrFormat) {
		t.Errorf("read as a model with a schema: %v", err)
	}
}

func TestNetworkFileRefuses(t *testing.T) {
	n := imageNetwork(t)
	params := n.Initial(3)
	if _, err := EncodeNetwork(n, params[1:]); err == nil {
		t.Error("too few parameters are written")
	}
	params[7] = nan32
	if _, err := EncodeNetwork(n, params); !errors.Is(err, ErrNaN) || !strings.Contains(err.Error(), "parameter 7 of dense2.weight is NaN") {
		t.Error(err)
	}
	params[7] = 0
	b, err := EncodeNetwork(n, params)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{
		"nothing":        nil,
		"cut":            b[:len(b)-4],
		"more":           append(slices.Clone(b), 0, 0, 0, 0),
		"another kind":   bytes.Replace(b, []byte(`\"kind\":\"dense\"`), []byte(`\"kind\":\"sense\"`), 1),
		"another size":   bytes.Replace(b, []byte(`\"units\":5`), []byte(`\"units\":6`), 1),
		"another loss":   bytes.Replace(b, []byte(`\"loss\":\"softmax\"`), []byte(`\"loss\":\"softmix\"`), 1),
		"another key":    bytes.Replace(b, []byte(`\"loss\"`), []byte(`\"lose\"`), 1),
		"another tensor": bytes.Replace(b, []byte(`"dense2.bias"`), []byte(`"dense2.bibs"`), 1),
	} {
		if _, _, err := DecodeNetwork(file); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeNetwork(f *testing.F) {
	n := imageNetwork(f)
	b, err := EncodeNetwork(n, n.Initial(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		n, params, err := DecodeNetwork(b)
		if err != nil {
			return
		}
		if again, err := EncodeNetwork(n, params); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("another file after a round trip: %v", err)
		}
	})
}
