package data

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"
)

// TestCollectByHand has three rows in the layout of StatLen. age scales to (x+10)/100, spent to log(1+x)/log(1001).
func TestCollectByHand(t *testing.T) {
	s, nan := visits(t), math.NaN()
	rows := []Row{
		{-10, 1000, 0, 1, 0, 1}, // 0 and 1
		{40, nan, 2, nan, 1, 0}, // 0.5
		{90, 0, nan, 0, 1, 0},   // 1 and 0
	}
	want := []int64{
		3, 1, StatGrid * 3 / 2, StatGrid * 5 / 4, // age
		2, 1, StatGrid, StatGrid, // spent
		1, 0, 1, // day
		2, 1, // member
		1, 2, // shop
		3, 1, // label
	}
	sums := Collect(s, rows)
	if !slices.Equal(sums, want) || len(sums) != s.StatLen() {
		t.Fatalf("sums %v, want %v", sums, want)
	}
	st, err := NewStatistics(s, sums)
	if err != nil {
		t.Fatal(err)
	}
	std := math.Sqrt(1.25/3 - .25)
	if a := st.columns[0]; math.Abs(a.mean-.5) > 1e-12 || math.Abs(a.std-std) > 1e-12 {
		t.Errorf("age: mean %v, deviation %v; want .5, %v", a.mean, a.std, std)
	}
	x, y := st.Matrix(rows)
	wantX := []float32{float32(-.5 / std), 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, float32(.5 / std), -1, 0, 0, 0, 0, 0, 1}
	if !slices.EqualFunc(x, wantX, func(a, b float32) bool { return math.Abs(float64(a-b)) < 1e-6 }) {
		t.Errorf("features %v, want %v", x, wantX)
	}
	if !slices.Equal(y, []float32{1, 0, 0}) {
		t.Errorf("labels %v", y)
	}
}

// TestStatisticsAddUp: the sums over parts are the sums over all rows, to the last bit, in whatever order.
func TestStatisticsAddUp(t *testing.T) {
	s, rows, regions, err := Shoppers()
	if err != nil {
		t.Fatal(err)
	}
	parts := make([][]Row, 10)
	for i, r := range rows {
		parts[regions[i]] = append(parts[regions[i]], r)
	}
	total := make([]int64, s.StatLen())
	for _, p := range parts {
		for i, v := range Collect(s, p) {
			if v < 0 || v > int64(len(p))<<23 {
				t.Fatalf("sum %d is %d over %d rows", i, v, len(p))
			}
			total[i] += v
		}
	}
	slices.Reverse(rows)
	if !slices.Equal(total, Collect(s, rows)) {
		t.Error("sums over regions differ from sums over all rows")
	}
}

// TestStatisticsAgainstFloats compares with a two-pass computation in floats. The tolerance is the grid's: half a unit
// in the mean, and 1.5 units in the variance.
func TestStatisticsAgainstFloats(t *testing.T) {
	s, rows, _, err := Shoppers()
	if err != nil {
		t.Fatal(err)
	}
	st, err := NewStatistics(s, Collect(s, rows))
	if err != nil {
		t.Fatal(err)
	}
	for k := range s.Columns {
		c := &s.Columns[k]
		if c.Kind != Numeric {
			continue
		}
		low, high := c.Min, c.Max
		if c.LongTail {
			low, high = math.Log1p(low), math.Log1p(high)
		}
		scaled := make([]float64, len(rows))
		mean, variance := 0.0, 0.0
		for i, r := range rows {
			scaled[i] = r[k]
			if c.LongTail {
				scaled[i] = math.Log1p(r[k])
			}
			scaled[i] = (scaled[i] - low) / (high - low)
			mean += scaled[i] / float64(len(rows))
		}
		for _, v := range scaled {
			variance += (v - mean) * (v - mean) / float64(len(rows))
		}
		got := st.columns[k]
		if math.Abs(got.mean-mean) > .5/StatGrid+1e-12 || math.Abs(got.std*got.std-variance) > 1.5/StatGrid {
			t.Errorf("%s: mean %v, variance %v; want %v, %v", c.Name, got.mean, got.std*got.std, mean, variance)
		}
	}
}

// TestConstantColumn: a column of one value standardises to zero, and another value later stays moderate.
func TestConstantColumn(t *testing.T) {
	s := visits(t)
	for _, age := range []float64{-10, 17.3, 90} {
		rows := slices.Repeat([]Row{{age, 0, 0, 0, 0, 0}}, 7)
		st, err := NewStatistics(s, Collect(s, rows))
		if err != nil {
			t.Fatal(err)
		}
		x := first(st.Matrix([]Row{rows[0], {50, 0, 0, 0, 0, 0}}))
		if math.Abs(float64(x[0])) > 1e-6 || math.Abs(float64(x[s.Features()])) > 1 {
			t.Errorf("constant %v: features %v and %v", age, x[0], x[s.Features()])
		}
	}
}

// TestTooWideRange: values far below the range's width keep their order and do not blow up by rounding noise.
func TestTooWideRange(t *testing.T) {
	s := visits(t)
	s.Columns[0].Min, s.Columns[0].Max = 0, 1e6
	var rows []Row
	for i := range 101 {
		rows = append(rows, Row{float64(i), 0, 0, 0, 0, 0})
	}
	st, err := NewStatistics(s, Collect(s, rows))
	if err != nil {
		t.Fatal(err)
	}
	x := first(st.Matrix(rows))
	low, high := x[0], x[100*s.Features()]
	if low >= 0 || high <= 0 || high-low < .1 || high-low > 4 {
		t.Errorf("features from %v to %v", low, high)
	}
}

func TestNewStatisticsRefuses(t *testing.T) {
	s := visits(t)
	good := Collect(s, []Row{{31, 12.5, 1, 1, 0, 0}, {-10, 0, 2, 0, 1, 1}})
	for _, c := range []struct {
		name  string
		index int
		value int64
		want  string
	}{
		{"no rows", 15, 0, "0 rows"},
		{"negative rows", 15, -1, "-1 rows"},
		{"rows overflow", 15, math.MaxInt64, "rows, want 1 to"},
		{"labels", 16, 3, "3 of 2 labels are positive"},
		{"negative", 2, -1, "column age: sum 2 is -1"},
		{"count", 0, 3, "column age: sum 0 is 3 over 2 rows"},
		{"minimum", 0, 0, "column age: 1 of 0 values are at the minimum"},
		{"sum", 2, StatGrid + 1, "column age: sum 4194305 is too large for 1 values"},
		{"squares", 3, StatGrid, "column age: sum of squares"},
		{"category", 8, 2, "column day: 4 categories over 2 rows"},
		{"boolean", 11, 0, "column member: 1 of 0 values are true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sums := slices.Clone(good)
			sums[c.index] = c.value
			if _, err := NewStatistics(s, sums); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	if _, err := NewStatistics(s, good[1:]); err == nil || !strings.Contains(err.Error(), "16 sums, want 17") {
		t.Errorf("length: error %v", err)
	}
	st, err := NewStatistics(s, good)
	if err != nil {
		t.Fatal(err)
	}
	before := st.Encode()
	good[0] = 77
	if !bytes.Equal(st.Encode(), before) {
		t.Error("statistics share the caller's slice")
	}
}

// TestSynthetic: rows drawn from the marginals have their moments. A standardised column has mean 0 and deviation 1;
// cutting the normal at the range's ends moves the two unlogged rates by about a tenth.
func TestSynthetic(t *testing.T) {
	s, rows, _, err := Shoppers()
	if err != nil {
		t.Fatal(err)
	}
	st, err := NewStatistics(s, Collect(s, rows))
	if err != nil {
		t.Fatal(err)
	}
	const n, seed = 20_000, 7
	x, width := st.Synthetic(n, seed), s.Features()
	if !slices.Equal(x, st.Synthetic(n, seed)) || slices.Equal(x, st.Synthetic(n, seed+1)) {
		t.Fatalf("seed %d does not decide the rows", seed)
	}
	real := first(st.Matrix(rows))
	for f := range width {
		wantMean, wantStd := moments(real, f, width)
		mean, std := moments(x, f, width)
		if math.Abs(mean-wantMean) > .15 || math.Abs(std-wantStd) > .2 {
			t.Errorf("seed %d: feature %d: mean %.3f, deviation %.3f; real %.3f, %.3f", seed, f, mean, std, wantMean, wantStd)
		}
	}
}

// TestSyntheticNeedsNoRows: sums alone decide the rows, also through their encoding on another machine.
func TestSyntheticNeedsNoRows(t *testing.T) {
	s := visits(t)
	st, err := NewStatistics(s, Collect(s, []Row{{31, 12.5, 1, 1, 0, 0}, {-10, 0, 2, 0, 1, 1}, {5, 99, 0, 0, 1, 1}}))
	if err != nil {
		t.Fatal(err)
	}
	far, err := DecodeStatistics(visits(t), st.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(st.Synthetic(100, 3), far.Synthetic(100, 3)) {
		t.Error("decoded statistics draw other rows")
	}
	empty, err := NewStatistics(s, append(make([]int64, s.StatLen()-2), 1, 0))
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range empty.Synthetic(10, 3) {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			t.Fatalf("value %d from columns without a value is %v", i, v)
		}
	}
}

func moments(x []float32, feature, width int) (mean, std float64) {
	n := float64(len(x) / width)
	squares := 0.0
	for i := feature; i < len(x); i += width {
		mean += float64(x[i]) / n
		squares += float64(x[i]) * float64(x[i]) / n
	}
	return mean, math.Sqrt(max(squares-mean*mean, 0))
}

func FuzzDecodeStatistics(f *testing.F) {
	s := visits(f)
	st, err := NewStatistics(s, Collect(s, []Row{{31, 12.5, 1, 1, 0, 0}, {-10, 0, 2, 0, 1, 1}}))
	if err != nil {
		f.Fatal(err)
	}
	good := st.Encode()
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append(slices.Clone(good), 0))
	f.Add([]byte{2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := DecodeStatistics(s, b)
		if err != nil {
			return
		}
		if !bytes.Equal(st.Encode(), b) {
			t.Fatalf("%x became %x", b, st.Encode())
		}
		x := append(st.Synthetic(4, 1), first(st.Matrix([]Row{{31, 12.5, 1, 1, 0, 0}}))...)
		for i, v := range x {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				t.Fatalf("value %d is %v", i, v)
			}
		}
	})
}
