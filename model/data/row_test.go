package data

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
)

// rowBytes writes values as EncodeRow would, without asking the schema.
func rowBytes(values ...float64) (b []byte) {
	for _, x := range values {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	}
	return b
}

func TestRowRoundTrip(t *testing.T) {
	s, nan := visits(t), math.NaN()
	otherNaN := math.Float64frombits(math.Float64bits(nan) ^ 1<<63)
	for _, r := range []Row{{31, 12.5, 1, 1, 0, 0}, {-10, 1000, 2, 0, 1, 1}, {nan, otherNaN, nan, nan, 0, 1}} {
		b, err := s.EncodeRow(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.DecodeRow(b)
		if err != nil || !equal(again, r) {
			t.Errorf("%v became %v, error %v", r, again, err)
		}
		if again.Label(s) != float32(r[5]) {
			t.Errorf("label %v of %v", again.Label(s), r)
		}
	}
}

func TestRowRefused(t *testing.T) {
	s, nan := visits(t), math.NaN()
	for _, c := range []struct {
		name string
		row  Row
		want string
	}{
		{"short", Row{1}, "want"},
		{"out of range", Row{91, 0, 0, 0, 0, 0}, "column age: 91 is outside [-10, 90]"},
		{"infinite", Row{math.Inf(-1), 0, 0, 0, 0, 0}, "column age: -Inf"},
		{"category too large", Row{0, 0, 3, 0, 0, 0}, "column day: 3 is not the index"},
		{"category negative", Row{0, 0, -1, 0, 0, 0}, "column day: -1"},
		{"category 1e300", Row{0, 0, 1e300, 0, 0, 0}, "column day: 1e+300"},
		{"category infinite", Row{0, 0, math.Inf(1), 0, 0, 0}, "column day: +Inf"},
		{"category between", Row{0, 0, .5, 0, 0, 0}, "column day: 0.5"},
		{"boolean", Row{0, 0, 0, 2, 0, 0}, "column member: 2 is neither 0 nor 1"},
		{"required", Row{0, 0, 0, 0, nan, 0}, "column shop: the value is missing"},
		{"label", Row{0, 0, 0, 0, 0, nan}, "column bought: the value is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := s.EncodeRow(c.row); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("encode: error %v, want %q", err, c.want)
			}
			if _, err := s.DecodeRow(rowBytes(c.row...)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("decode: error %v, want %q", err, c.want)
			}
		})
	}
	quiet := math.Float64frombits(math.Float64bits(nan) ^ 1<<63)
	if _, err := s.DecodeRow(rowBytes(quiet, 0, 0, 0, 0, 0)); err == nil {
		t.Error("a second encoding of a missing value is accepted")
	}
}

func TestRowsFromInputs(t *testing.T) {
	s, nan := visits(t), math.NaN()
	for _, c := range []struct {
		name string
		in   map[string]any
		row  Row
		want string
	}{
		{"all", map[string]any{"age": 31.0, "spent": "12.5", "day": "Tue", "member": true, "shop": "b"}, Row{31, 12.5, 1, 1, 1, 0}, ""},
		{"absent and null", map[string]any{"day": nil, "shop": "a"}, Row{nan, nan, nan, nan, 0, 0}, ""},
		{"label ignored", map[string]any{"shop": "a", "member": 0.0, "bought": true}, Row{nan, nan, nan, 0, 0, 0}, ""},
		{"unknown", map[string]any{"shop": "a", "z": 1.0}, nil, "input z: the schema has no such column"},
		{"required", map[string]any{"age": 1.0}, nil, "input shop: the value is missing"},
		{"NaN", map[string]any{"shop": "a", "age": nan}, nil, "input age: NaN is outside"},
		{"1e30", map[string]any{"shop": "a", "age": 1e30}, nil, "input age: 1e+30 is outside [-10, 90]"},
		{"category", map[string]any{"shop": "c"}, nil, `input shop: "c" is not one of its 2 categories`},
		{"boolean for a number", map[string]any{"shop": "a", "age": true}, nil, "input age: a boolean for a numeric column"},
		{"number for a boolean", map[string]any{"shop": "a", "member": .5}, nil, "input member: 0.5 is neither 0 nor 1"},
		{"other type", map[string]any{"shop": "a", "age": []any{1.0}}, nil, "input age: a list for a numeric column"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fine := map[string]any{"shop": "b"} // the first of two rows
			rows, err := s.RowsFromInputs(2, func(yield func(string, []any) bool) {
				for _, name := range slices.Sorted(maps.Keys(c.in)) {
					if !yield(name, []any{fine[name], c.in[name]}) {
						return
					}
				}
			})
			if c.want == "" && (err != nil || !equal(rows[1], c.row)) {
				t.Errorf("%v, error %v; want %v", rows, err, c.row)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzDecodeRow(f *testing.F) {
	nan := math.NaN()
	f.Add(rowBytes(31, 12.5, 1, 1, 0, 0))
	f.Add(rowBytes(nan, nan, nan, nan, 1, 1))
	f.Add(rowBytes(0, 0, 1e300, 0, 0, 0))
	f.Add([]byte{1})
	s := visits(f)
	t0, err := NewStatistics(s, Collect(s, []Row{{31, 12.5, 1, 1, 0, 0}, {20, 0, 2, 0, 1, 1}}))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := s.DecodeRow(b)
		if err != nil {
			return
		}
		if again, err := s.EncodeRow(r); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x became %x, error %v", b, again, err)
		}
		for i, x := range Collect(s, []Row{r}) {
			if x < 0 || x > StatGrid {
				t.Fatalf("sum %d of %v is %d", i, r, x)
			}
		}
		for i, x := range first(t0.Matrix([]Row{r})) {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				t.Fatalf("feature %d of %v is %v", i, r, x)
			}
		}
	})
}

func first(x, _ []float32) []float32 { return x }
