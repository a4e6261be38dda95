package codec

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestQuantise(t *testing.T) {
	// Range 2^23 makes one step 1, so that the integers can be read off.
	x := []float32{0, 0.5, 1.5, -0.5, -2.5, MaxQ, -MaxQ, 2 * MaxQ, -3e38, 3}
	want := []int32{0, 0, 2, 0, -2, MaxQ, -MaxQ, MaxQ, -MaxQ, 3}
	q := make([]int32, len(x))
	saturated, err := Grid{Range: MaxQ}.Quantise(x, q)
	if err != nil || saturated != 2 || !slices.Equal(q, want) {
		t.Errorf("Quantise(%v) = %v, %d saturated, %v; want %v, 2", x, q, saturated, err, want)
	}
}

func TestQuantiseRefuses(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, x := range map[string][]float32{"NaN": {1, nan}, "+Inf": {inf, 1}, "-Inf": {1, -inf}, "length": {1}} {
		if _, err := (Grid{Range: 1}).Quantise(x, make([]int32, 2)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestQuantiseIsWithinHalfAStep(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, r := range []float64{1e-6, 0.1, 1, 3, 1e6} {
		g := Grid{Range: r}
		x, q := make([]float32, 1000), make([]int32, 1000)
		for i := range x {
			x[i] = float32((2*rng.Float64() - 1) * r * 0.999)
		}
		if saturated, err := g.Quantise(x, q); err != nil || saturated != 0 {
			t.Fatalf("range %v: %d saturated, %v", r, saturated, err)
		}
		for i := range x {
			if d := math.Abs(float64(q[i])*g.Step() - float64(x[i])); d > 0.5000001*g.Step() {
				t.Fatalf("range %v: %v is off by %v steps", r, x[i], d/g.Step())
			}
		}
	}
}

func TestClipBoundsTheIntegers(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 2))
		g := Grid{Range: math.Exp(rng.Float64()*10 - 5)}
		q := make([]int32, 1+rng.IntN(300))
		for i := range q {
			q[i] = rng.Int32N(2*MaxQ+1) - MaxQ
		}
		before := slices.Clone(q)
		bound := g.ClipSquared(g.Range * math.Exp(rng.Float64()*12-8))
		Clip(q, bound)
		if got := normSquared(q); got > float64(bound) {
			t.Fatalf("seed %d: squared norm %v is above %d", seed, got, bound)
		}
		// The direction stays: each coordinate is scaled by one factor and cut toward zero by less than one step a pass.
		if normSquared(before) <= float64(bound) && !slices.Equal(q, before) {
			t.Fatalf("seed %d: a vector within the bound changed", seed)
		}
		scale := math.Sqrt(min(1, float64(bound)/normSquared(before)))
		for i := range q {
			if d := math.Abs(float64(q[i]) - float64(before[i])*scale); d > 2 {
				t.Fatalf("seed %d: coordinate %d went from %d to %d, %v off its share", seed, i, before[i], q[i], d)
			}
		}
	}
}

func TestClipAtTheEdges(t *testing.T) {
	for _, c := range []struct {
		q     []int32
		bound int64
		want  []int32
	}{
		{[]int32{3, 4}, 25, []int32{3, 4}},
		{[]int32{3, 4}, 24, []int32{2, 3}},
		{[]int32{30, -40}, 25, []int32{3, -4}},
		{[]int32{1, 1}, 1, []int32{0, 0}},
		{[]int32{MaxQ}, MaxQ*MaxQ - 1, []int32{MaxQ - 1}},
		{[]int32{3, 4}, 0, []int32{3, 4}},
		{nil, 1, nil},
	} {
		q := slices.Clone(c.q)
		if Clip(q, c.bound); !slices.Equal(q, c.want) {
			t.Errorf("Clip(%v, %d) = %v, want %v", c.q, c.bound, q, c.want)
		}
	}
}

func TestClipSquared(t *testing.T) {
	for _, c := range []struct {
		grid Grid
		clip float64
		want int64
	}{
		{Grid{Range: MaxQ}, 5, 25},
		{Grid{Range: MaxQ}, 5.9, 25},
		{Grid{Range: 1}, 1, MaxQ * MaxQ},
		{Grid{Range: MaxQ}, 0.1, 1}, // below a step: the least bound, never none
		{Grid{Range: 1e-6}, 1e9, 1 << 62},
	} {
		if got := c.grid.ClipSquared(c.clip); got != c.want {
			t.Errorf("%v.ClipSquared(%v) = %d, want %d", c.grid, c.clip, got, c.want)
		}
	}
}

// edges are the values at which the width changes.
func edges() []int64 {
	all := []int64{0, -1, 1, math.MinInt64, math.MaxInt64}
	for bits := 7; bits < 63; bits += 8 {
		e := int64(1) << bits
		all = append(all, e-1, e, -e, -e-1)
	}
	return all
}

func TestPackIntsUsesTheLeastWidth(t *testing.T) {
	for _, v := range edges() {
		want := 1
		for want < 8 && (v < -(1<<(8*want-1)) || v > 1<<(8*want-1)-1) {
			want++
		}
		b := PackInts(nil, []int64{0, v, -1})
		if int(b[0]) != want || len(b) != 1+3*want {
			t.Errorf("%d packs to %d bytes of width %d, want width %d", v, len(b), b[0], want)
		}
		got, err := UnpackInts[int64](int(b[0]), b[1:])
		if err != nil || !slices.Equal(got, []int64{0, v, -1}) {
			t.Errorf("%d unpacks to %v, %v", v, got, err)
		}
	}
}

func TestPackIntsAppends(t *testing.T) {
	b := PackInts([]byte("head"), []int32{-2, 300})
	if want := []byte("head\x02\xfe\xff\x2c\x01"); !bytes.Equal(b, want) {
		t.Errorf("packed %x, want %x", b, want)
	}
	if b := PackInts(nil, []int32(nil)); !bytes.Equal(b, []byte{1}) {
		t.Errorf("nothing packs to %x", b)
	}
}

func TestPackIntsRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for bits := range 64 {
		for n := range 20 {
			v := make([]int64, n)
			for i := range v {
				v[i] = int64(rng.Uint64()) >> (63 - bits)
			}
			b := PackInts(nil, v)
			got, err := UnpackInts[int64](int(b[0]), b[1:])
			if err != nil || !slices.Equal(got, v) {
				t.Fatalf("%v unpacks to %v, %v", v, got, err)
			}
		}
	}
}

type named int32

func TestUnpackIntsRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		width int
		body  []byte
	}{
		"width 0":           {0, nil},
		"width 9":           {9, make([]byte, 9)},
		"not whole":         {2, make([]byte, 3)},
		"needs less":        {2, []byte{5, 0, 0x80, 0xff}},
		"empty and wide":    {2, nil},
		"wide after a tail": {3, []byte{0xff, 0x7f, 0, 0, 0x80, 0xff}},
	} {
		if v, err := UnpackInts[int64](c.width, c.body); err == nil {
			t.Errorf("%s: %v, no error", name, v)
		}
	}
	five := PackInts(nil, []int64{1 << 31})[1:]
	if v, err := UnpackInts[int32](5, five); err == nil {
		t.Errorf("2^31 unpacks to the 32-bit integer %d", v)
	}
	if v, err := UnpackInts[named](5, five); err == nil {
		t.Errorf("2^31 unpacks to the named 32-bit integer %d", v)
	}
}

// FuzzUnpack holds that whatever unpacks is the one encoding of its values.
func FuzzUnpack(f *testing.F) {
	for _, v := range edges() {
		f.Add(PackInts(nil, []int64{v, 1}))
	}
	f.Add([]byte{1})
	f.Add([]byte{2, 5, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		if v, err := UnpackInts[int64](int(b[0]), b[1:]); err == nil && !bytes.Equal(PackInts(nil, v), b) {
			t.Errorf("%x unpacks to %v, which packs to %x", b, v, PackInts(nil, v))
		}
		if v, err := UnpackInts[int32](int(b[0]), b[1:]); err == nil && !bytes.Equal(PackInts(nil, v), b) {
			t.Errorf("%x unpacks to %v, which packs to %x", b, v, PackInts(nil, v))
		}
	})
}

func million() []int32 {
	rng := rand.New(rand.NewPCG(4, 4))
	q := make([]int32, 1<<20)
	for i := range q {
		q[i] = rng.Int32N(2*MaxQ) - MaxQ
	}
	return q
}

func BenchmarkPackInts(b *testing.B) {
	q, buf := million(), make([]byte, 0, 4<<20)
	b.SetBytes(int64(4 * len(q)))
	for b.Loop() {
		buf = PackInts(buf[:0], q)
	}
}

func BenchmarkUnpackInts(b *testing.B) {
	q := million()
	packed := PackInts(nil, q)
	b.SetBytes(int64(4 * len(q)))
	for b.Loop() {
		if _, err := UnpackInts[int32](int(packed[0]), packed[1:]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkQuantise(b *testing.B) {
	x, q := make([]float32, 1<<20), make([]int32, 1<<20)
	for i, v := range million() {
		x[i] = float32(v) / MaxQ
	}
	b.SetBytes(int64(4 * len(x)))
	for b.Loop() {
		if _, err := (Grid{Range: 1}).Quantise(x, q); err != nil {
			b.Fatal(err)
		}
	}
}

// With 3 bits and a range of 6 the grid is -3 to 3 times 2.
func TestFewBits(t *testing.T) {
	g := Grid{Range: 6, Bits: 3}
	x, want := []float32{0, 1, 3, 5, 5.1, 7, -9, -1.1}, []int32{0, 0, 2, 2, 3, 3, -3, -1}
	q := make([]int32, len(x))
	saturated, err := g.Quantise(x, q)
	if err != nil || saturated != 2 || !slices.Equal(q, want) || g.Step() != 2 || g.Limit() != 3 {
		t.Errorf("%v with 3 bits: %v, %d saturated, %v; want %v, 2", x, q, saturated, err, want)
	}
	for bits, width := range map[int]int{2: 1, 8: 1, 9: 2, 16: 2, 17: 3, 23: 3} {
		g := Grid{Range: 1, Bits: bits}
		if _, err := g.Quantise([]float32{2, -2}, q[:2]); err != nil || Width(q[:2]) != width {
			t.Errorf("%d bits saturated: %v of %d bytes, %v; want %d bytes", bits, q[:2], Width(q[:2]), err, width)
		}
	}
}

// The mean of what random rounding makes of x is x: within five standard errors, each at most half a step.
func TestRandomRoundingIsUnbiased(t *testing.T) {
	const n, seed = 20_000, 4
	g := Grid{Range: 6, Bits: 3}
	for _, v := range []float32{0, .1, 1, 2, 3.7, -5.9, 6} {
		x, q, again := make([]float32, n), make([]int32, n), make([]int32, n)
		for i := range x {
			x[i] = v
		}
		saturated, err := g.QuantiseRandomly(x, q, rand.NewPCG(seed, 0))
		if err != nil || saturated != 0 {
			t.Fatalf("%v: %d saturated, %v", v, saturated, err)
		}
		sum := 0.0
		for _, k := range q {
			if d := float64(k)*g.Step() - float64(v); math.Abs(d) >= g.Step() {
				t.Fatalf("%v became %d, which is no neighbour", v, k)
			}
			sum += float64(k) * g.Step()
		}
		if mean := sum / n; math.Abs(mean-float64(v)) > 5*g.Step()/2/math.Sqrt(n) {
			t.Errorf("seed %d: %v became %v in the mean", seed, v, mean)
		}
		if _, err := g.QuantiseRandomly(x, again, rand.NewPCG(seed, 0)); err != nil || !slices.Equal(q, again) {
			t.Errorf("the same source gives other integers, %v", err)
		}
	}
	if _, err := g.QuantiseRandomly([]float32{float32(math.NaN())}, make([]int32, 1), rand.NewPCG(1, 1)); err == nil {
		t.Error("NaN: no error")
	}
}
