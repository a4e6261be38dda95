package model

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
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
	b := encodeNetwork(t, n, params, nil)
	again, got, quantised, err := DecodeNetwork(b)
	if err != nil || !slices.Equal(got, params) || quantised != nil || !again.spec.equal(n.spec) {
		t.Fatalf("%+v, %v, %v, %v", again, got, quantised, err)
	}
	if _, err := Decode(b); !errors.Is(err, ErrFormat) {
		t.Errorf("read as a model with a schema: %v", err)
	}
}

// Every architecture comes back from its file, in float32 and in int8, and answers to the last bit what it answered.
func TestNetworkFilesOfArchitectures(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 0))
	for _, c := range onnxCases(t) {
		n := compile(t, c.spec)
		params := n.Initial(1)
		quantised, err := Quantise(n, params)
		if err != nil {
			t.Fatal(err)
		}
		x, _ := c.input(rng, n, 2)
		for _, w := range []struct {
			name      string
			params    []float32
			quantised []Int8Tensor
		}{{"float32", params, nil}, {"int8", nil, quantised}} {
			file := encodeNetwork(t, n, w.params, w.quantised)
			again, p, q, err := DecodeNetwork(file)
			if err != nil || !again.spec.equal(c.spec) || (p == nil) != (w.params == nil) {
				t.Errorf("%s, %s: %v", c.name, w.name, err)
				continue
			}
			if !bytes.Equal(encodeNetwork(t, again, p, q), file) {
				t.Errorf("%s, %s: another file after a round trip", c.name, w.name)
			}
			if want, got := outputsOf(n, w.params, w.quantised, x), outputsOf(again, p, q, x); !slices.Equal(got, want) {
				t.Errorf("%s, %s: answers %v, want %v", c.name, w.name, got, want)
			}
		}
	}
}

func encodeNetwork(t testing.TB, n *Network, params []float32, quantised []Int8Tensor) []byte {
	t.Helper()
	b, err := EncodeNetwork(n, params)
	if quantised != nil {
		b, err = EncodeInt8Network(n, quantised)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func outputsOf(n *Network, params []float32, quantised []Int8Tensor, x []float32) []float32 {
	m := Model{Network: n, Params: params, Quantised: quantised}
	out := make([]float32, len(x)/n.Inputs()*n.Outputs())
	m.Predictor().Predict(x, out)
	return out
}

func TestNetworkFileRefuses(t *testing.T) {
	n := imageNetwork(t)
	params := n.Initial(3)
	if _, err := EncodeNetwork(n, params[1:]); err == nil {
		t.Error("too few parameters are written")
	}
	if _, err := EncodeInt8Network(n, nil); err == nil {
		t.Error("no tensors are written")
	}
	params[7] = nan32
	if _, err := EncodeNetwork(n, params); !errors.Is(err, ErrNaN) || !strings.Contains(err.Error(), "parameter 7 of dense2.weight is NaN") {
		t.Error(err)
	}
	params[7] = 0
	b := encodeNetwork(t, n, params, nil)
	quantised, err := Quantise(n, params)
	if err != nil {
		t.Fatal(err)
	}
	q := encodeNetwork(t, n, nil, quantised)
	body := 8 + int(binary.LittleEndian.Uint64(q)) // floats come first
	for name, file := range map[string][]byte{
		"nothing":        nil,
		"cut":            b[:len(b)-4],
		"more":           append(slices.Clone(b), 0, 0, 0, 0),
		"another kind":   bytes.Replace(b, []byte(`\"kind\":\"dense\"`), []byte(`\"kind\":\"sense\"`), 1),
		"another size":   bytes.Replace(b, []byte(`\"units\":5`), []byte(`\"units\":6`), 1),
		"another loss":   bytes.Replace(b, []byte(`\"loss\":\"softmax\"`), []byte(`\"loss\":\"softmix\"`), 1),
		"another key":    bytes.Replace(b, []byte(`\"loss\"`), []byte(`\"lose\"`), 1),
		"another tensor": bytes.Replace(b, []byte(`"dense2.bias"`), []byte(`"dense2.bibs"`), 1),

		"int8, another scale":    bytes.Replace(q, []byte(`"dense2.scale"`), []byte(`"dense2.scole"`), 1),
		"int8, NaN":              slices.Concat(q[:body], []byte{0, 0, 0xc0, 0x7f}, q[body+4:]),
		"int8, a weight of -128": slices.Concat(q[:len(q)-1], []byte{0x80}),
	} {
		if _, _, _, err := DecodeNetwork(file); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeNetwork(f *testing.F) {
	n := imageNetwork(f)
	quantised, err := Quantise(n, n.Initial(1))
	if err != nil {
		f.Fatal(err)
	}
	b := encodeNetwork(f, n, n.Initial(1), nil)
	f.Add(b)
	f.Add(b[:40])
	f.Add(encodeNetwork(f, n, nil, quantised))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, params, quantised, err := DecodeNetwork(b)
		if err != nil {
			return
		}
		if again := encodeNetwork(t, n, params, quantised); !bytes.Equal(again, b) {
			t.Fatal("another file after a round trip")
		}
	})
}
