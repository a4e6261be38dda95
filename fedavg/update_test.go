package fedavg

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"choir.example/internal/canon"
	"choir.example/model"
)

// examples is an evaluation of n examples, half of them positive, with all logits in one bin.
func examples(n int64) model.Evaluation {
	e := model.Evaluation{
		Examples: n, Correct: n / 2, Loss: 3 * n,
		Positives: make([]int64, model.Bins), Negatives: make([]int64, model.Bins),
	}
	e.Positives[700], e.Negatives[300] = n/2, n-n/2
	return e
}

func TestCheckRefuses(t *testing.T) {
	shape := Shape{Vectors: []int{3, 2}, Scalars: 2, Evaluations: 1, WeightCap: 100, ClipSquared: 1 << 47}
	good := func() *Update {
		return &Update{
			Vectors: [][]int32{{0, -MaxQ, MaxQ}, {0, 0}}, // squared norm 2^46 + 2^46 = 2^47
			Scalars: []int64{10 * MaxQ, -10 * MaxQ}, Weight: 10, Evaluations: []model.Evaluation{examples(10)},
		}
	}
	for _, c := range []struct {
		name   string
		change func(*Update)
		want   string // "" accepts
	}{
		{"at its bounds", func(*Update) {}, ""},
		{"over the clip norm by one", func(u *Update) { u.Vectors[0][0] = 1 }, "vector 0: norm exceeds the clip norm"},
		{"empty evaluation", func(u *Update) { u.Evaluations[0] = model.Evaluation{} }, ""},
		{"negative weight", func(u *Update) { u.Weight = -1 }, "weight -1 is outside [1, 100]"},
		{"least weight", func(u *Update) { u.Weight = math.MinInt64 }, "weight -9223372036854775808 is outside [1, 100]"},
		{"no weight", func(u *Update) { u.Weight = 0 }, "weight 0 is outside [1, 100]"},
		{"weight over the cap", func(u *Update) { u.Weight = 101 }, "weight 101 is outside [1, 100]"},
		{"huge weight", func(u *Update) { u.Weight = math.MaxInt64 }, "weight 9223372036854775807 is outside [1, 100]"},
		{"a vector too few", func(u *Update) { u.Vectors = u.Vectors[:1] }, "1 vectors, want 2"},
		{"a vector too many", func(u *Update) { u.Vectors = append(u.Vectors, nil) }, "3 vectors, want 2"},
		{"short vector", func(u *Update) { u.Vectors[1] = u.Vectors[1][:1] }, "vector 1: length 1, want 2"},
		{"long vector", func(u *Update) { u.Vectors[0] = make([]int32, 4) }, "vector 0: length 4, want 3"},
		{"q above", func(u *Update) { u.Vectors[0][1] = MaxQ + 1 }, "vector 0: coordinate 1: 8388609 is outside ±2^23"},
		{"q below", func(u *Update) { u.Vectors[1][0] = -MaxQ - 1 }, "vector 1: coordinate 0: -8388609 is outside ±2^23"},
		{"least q", func(u *Update) { u.Vectors[0][2] = math.MinInt32 }, "vector 0: coordinate 2: -2147483648 is outside ±2^23"},
		{"a scalar too few", func(u *Update) { u.Scalars = nil }, "0 scalars, want 2"},
		{"scalar above", func(u *Update) { u.Scalars[0]++ }, "scalar 0: 83886081 is outside ±weight·2^23"},
		{"least scalar", func(u *Update) { u.Scalars[1] = math.MinInt64 }, "scalar 1: -9223372036854775808 is outside ±weight·2^23"},
		{"no evaluation", func(u *Update) { u.Evaluations = nil }, "0 evaluations, want 1"},
	} {
		u := good()
		c.change(u)
		checkText(t, c.name, u.Check(shape), c.want)
	}
}

func TestCheckRefusesEvaluations(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*model.Evaluation)
		want   string
	}{
		{"as it should be", func(*model.Evaluation) {}, ""},
		{"most examples", func(e *model.Evaluation) { *e = examples(MaxExamples) }, ""},
		{"loss at its bound", func(e *model.Evaluation) { e.Loss = 10 << 26 }, ""},
		{"no examples, zero histograms", func(e *model.Evaluation) { *e = examples(0) }, ""},
		{"negative examples", func(e *model.Evaluation) { e.Examples = -1 }, "-1 examples is outside [0, 1048576]"},
		{"too many examples", func(e *model.Evaluation) { *e = examples(MaxExamples + 1) }, "1048577 examples is outside [0, 1048576]"},
		{"negative correct", func(e *model.Evaluation) { e.Correct = -1 }, "-1 correct of 10 examples"},
		{"more correct than examples", func(e *model.Evaluation) { e.Correct = 11 }, "11 correct of 10 examples"},
		{"negative loss", func(e *model.Evaluation) { e.Loss = -1 }, "loss -1 is outside [0, 64 nat an example]"},
		{"loss above", func(e *model.Evaluation) { e.Loss = 10<<26 + 1 }, "loss 671088641 is outside [0, 64 nat an example]"},
		{"loss without examples", func(e *model.Evaluation) { *e = model.Evaluation{Loss: 1} }, "loss 1 is outside [0, 64 nat an example]"},
		{"no histograms", func(e *model.Evaluation) { e.Positives, e.Negatives = nil, nil }, "histograms of 0 and 0 bins, want 1024"},
		{"one histogram", func(e *model.Evaluation) { e.Negatives = nil }, "histograms of 1024 and 0 bins, want 1024"},
		{"long histogram", func(e *model.Evaluation) { e.Positives = append(e.Positives, 0) }, "histograms of 1025 and 1024 bins, want 1024"},
		{"negative count", func(e *model.Evaluation) { e.Positives[7] = -1 }, "bin 7: counts -1 and 0"},
		{"count above the examples", func(e *model.Evaluation) { e.Negatives[7] = 11 }, "bin 7: counts 0 and 11"},
		{"counts that wrap around", func(e *model.Evaluation) { e.Positives[0], e.Positives[1] = math.MaxInt64, math.MaxInt64 }, "bin 0: counts 9223372036854775807 and 0"},
		{"an example too few", func(e *model.Evaluation) { e.Positives[700]-- }, "histograms hold 9 examples, want 10"},
		{"an example too many", func(e *model.Evaluation) { e.Negatives[0]++ }, "histograms hold 11 examples, want 10"},
	} {
		e := examples(10)
		c.change(&e)
		u := &Update{Weight: 1, Evaluations: []model.Evaluation{{}, e}}
		want := c.want
		if want != "" {
			want = "evaluation 1: " + want
		}
		checkText(t, c.name, u.Check(Shape{Evaluations: 2, WeightCap: MaxWeight}), want)
	}
}

// No cap of a job lifts the public one.
func TestCheckHoldsThePublicCap(t *testing.T) {
	shape := Shape{WeightCap: math.MaxInt64}
	checkText(t, "at the cap", (&Update{Weight: MaxWeight}).Check(shape), "")
	checkText(t, "above", (&Update{Weight: MaxWeight + 1}).Check(shape), "weight 1048577 is outside [1, 1048576]")
	checkText(t, "no cap", (&Update{Weight: 1}).Check(Shape{}), "weight 1 is outside [1, 0]")
}

func checkText(t *testing.T, name string, err error, want string) {
	t.Helper()
	if got := errorText(err); got != want {
		t.Errorf("%s: %q, want %q", name, got, want)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func smallPayload() *Payload {
	return &Payload{
		Header: Header{Cluster: "c", Job: "j", Round: 300, Attempt: 2, Node: "n", Plan: [32]byte{1}, Model: [32]byte{2}},
		Update: Update{
			Vectors: [][]int32{{1, -2, 300}, nil, {MaxQ}, nil, nil, nil}, Scalars: []int64{-1, 1 << 40}, Weight: 3,
			Evaluations: []model.Evaluation{
				{Examples: 3, Correct: 2, Loss: 9, Positives: []int64{0, 2}, Negatives: []int64{1, 0}},
				{},
			},
		},
	}
}

func TestPayloadReadsBack(t *testing.T) {
	for _, p := range []*Payload{smallPayload(), {}, {Update: Update{Weight: -5, Vectors: [][]int32{{math.MinInt32, math.MaxInt32}}}}} {
		got, err := DecodePayload(p.Encode())
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%+v reads back as %+v, %v", p, got, err)
		}
	}
}

func TestDecodedPayloadSharesNothing(t *testing.T) {
	b := smallPayload().Encode()
	got, err := DecodePayload(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if !reflect.DeepEqual(got, smallPayload()) {
		t.Error("the payload changed with the bytes it was read from")
	}
}

// An encoding has no slack: each flipped bit and each truncation gives another value or an error.
func TestEveryBitOfAPayloadCounts(t *testing.T) {
	p := smallPayload()
	b := p.Encode()
	for bit := range 8 * len(b) {
		damaged := bytes.Clone(b)
		damaged[bit/8] ^= 1 << (bit % 8)
		got, err := DecodePayload(damaged)
		if err == nil && reflect.DeepEqual(got, p) {
			t.Errorf("bit %d does not count", bit)
		}
		if err == nil && !bytes.Equal(got.Encode(), damaged) {
			t.Errorf("bit %d: what was read is written otherwise", bit)
		}
	}
	for n := range b {
		if _, err := DecodePayload(b[:n]); err == nil {
			t.Errorf("the first %d bytes of %d are a payload", n, len(b))
		}
	}
	if _, err := DecodePayload(append(bytes.Clone(b), 0)); err == nil {
		t.Error("a byte more is a payload")
	}
}

func TestDecodePayloadRefuses(t *testing.T) {
	header := func(version, attempt uint64) *canon.Writer {
		w := &canon.Writer{}
		w.Uint(version)
		w.String("c")
		w.String("j")
		w.Uint(1)
		w.Uint(attempt)
		w.String("n")
		w.Fixed(make([]byte, 64))
		w.Int(1)
		return w
	}
	for _, c := range []struct {
		name string
		body func() *canon.Writer
		want string
	}{
		{"another version", func() *canon.Writer { return header(payloadVersion-1, 1) }, "version 2 is not known"},
		{"attempt of 33 bits", func() *canon.Writer { return header(payloadVersion, 1<<32) }, "4294967296 does not fit 32 bits"},
		{"vectors without end", func() *canon.Writer { w := header(payloadVersion, 1); w.Uint(1 << 60); return w }, "count 1152921504606846976 is more than the input holds"},
		{"many empty vectors", func() *canon.Writer {
			w := header(payloadVersion, 1)
			w.Uint(MaxParts + 1)
			w.Fixed(make([]byte, MaxParts+3))
			return w
		}, "17 parts, at most 16 are allowed"},
		{"many empty evaluations", func() *canon.Writer {
			w := header(payloadVersion, 1)
			w.Fixed([]byte{0, 0, MaxParts + 1})
			w.Fixed(make([]byte, 5*(MaxParts+1)))
			return w
		}, "17 parts, at most 16 are allowed"},
		{"width 0", func() *canon.Writer { w := header(payloadVersion, 1); w.Fixed([]byte{1, 1, 0, 0, 0}); return w }, "integer width 0"},
		{"width 9", func() *canon.Writer { w := header(payloadVersion, 1); w.Fixed([]byte{1, 1, 9, 0, 0}); return w }, "integer width 9"},
		{"wider than needed", func() *canon.Writer { w := header(payloadVersion, 1); w.Fixed([]byte{1, 1, 2, 5, 0, 0, 0}); return w }, "integers of width 2 need less"},
		{"wider than the type", func() *canon.Writer {
			w := header(payloadVersion, 1)
			w.Fixed([]byte{1, 1, 5, 0, 0, 0, 0, 1, 0, 0})
			return w
		}, "integers of width 5 do not fit 32 bits"},
	} {
		_, err := DecodePayload(c.body().Buf)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func FuzzDecodePayload(f *testing.F) {
	f.Add(smallPayload().Encode())
	f.Add((&Payload{}).Encode())
	f.Add((&Payload{Update: Update{Weight: 1, Scalars: []int64{1, 2}}}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodePayload(b)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Encode(), b) {
			t.Errorf("%x is written as %x", b, p.Encode())
		}
		shape := shapeOf(&p.Update)
		if p.Check(shape) != nil {
			return
		}
		sum := NewSum(shape)
		if err := sum.Add(&p.Update); err != nil {
			t.Fatalf("a checked update cannot be added: %v", err)
		}
		if _, err := DecodeSum(sum.Encode()); err != nil {
			t.Errorf("the sum of a checked update does not read back: %v", err)
		}
	})
}

// shapeOf is the shape that the update has.
func shapeOf(u *Update) Shape {
	s := Shape{Scalars: len(u.Scalars), Evaluations: len(u.Evaluations), WeightCap: MaxWeight}
	for _, v := range u.Vectors {
		s.Vectors = append(s.Vectors, len(v))
	}
	return s
}

// randomUpdate fits the shape; about a third of its evaluations are empty and some know only one class.
func randomUpdate(rng *rand.Rand, s Shape) *Update {
	u := &Update{Weight: 1 + rng.Int64N(s.WeightCap)}
	for _, n := range s.Vectors {
		v := make([]int32, n)
		for i := range v {
			v[i] = int32(rng.IntN(2*MaxQ+1)) - MaxQ
		}
		u.Vectors = append(u.Vectors, v)
	}
	for range s.Scalars {
		u.Scalars = append(u.Scalars, rng.Int64N(2*u.Weight*MaxQ+1)-u.Weight*MaxQ)
	}
	for range s.Evaluations {
		var e model.Evaluation
		if rng.IntN(3) > 0 {
			e.Positives, e.Negatives = make([]int64, model.Bins), make([]int64, model.Bins)
			e.Examples = 1 + rng.Int64N(20)
			classes := rng.IntN(3)
			for range e.Examples {
				if classes == 0 || classes == 1 && rng.IntN(2) == 0 {
					e.Positives[rng.IntN(model.Bins)]++
				} else {
					e.Negatives[rng.IntN(model.Bins)]++
				}
			}
			e.Correct, e.Loss = rng.Int64N(e.Examples+1), rng.Int64N(e.Examples<<26+1)
		}
		u.Evaluations = append(u.Evaluations, e)
	}
	return u
}
