package data

import (
	"math"
	"slices"
	"testing"
)

func TestSplit(t *testing.T) {
	s, rows, _, err := Shoppers()
	if err != nil {
		t.Fatal(err)
	}
	before := slices.Clone(rows)
	p := Split(s, rows, 1)
	if !slices.EqualFunc(rows, before, func(a, b Row) bool { return &a[0] == &b[0] }) {
		t.Error("the caller's rows are in another order")
	}
	seen := map[*float64]bool{}
	for _, part := range []struct {
		name  string
		rows  []Row
		share float64
	}{{"train", p.Train, .7}, {"validation", p.Validation, .1}, {"held", p.Held, .2}} {
		positives := 0
		for _, r := range part.rows {
			if seen[&r[0]] {
				t.Fatalf("%s: a row is in two parts", part.name)
			}
			seen[&r[0]] = true
			positives += int(r.Label(s))
		}
		if got := float64(len(part.rows)) / 12_330; math.Abs(got-part.share) > .001 {
			t.Errorf("%s: share %v, want %v", part.name, got, part.share)
		}
		if got := float64(positives) / 1_908; math.Abs(got-part.share) > .001 {
			t.Errorf("%s: share of positives %v, want %v", part.name, got, part.share)
		}
	}
	if len(seen) != len(rows) {
		t.Errorf("%d of %d rows are in a part", len(seen), len(rows))
	}
	again, other := Split(s, rows, 1), Split(s, rows, 2)
	same := func(a, b Row) bool { return &a[0] == &b[0] }
	if !slices.EqualFunc(again.Train, p.Train, same) || slices.EqualFunc(other.Train, p.Train, same) {
		t.Error("the seed does not decide the split")
	}
}

func TestSplitSmall(t *testing.T) {
	s := visits(t)
	for n := range 12 {
		rows := slices.Repeat([]Row{{0, 0, 0, 0, 0, 1}}, n)
		p := Split(s, rows, 1)
		if got := len(p.Train) + len(p.Validation) + len(p.Held); got != n {
			t.Errorf("%d of %d rows are in a part", got, n)
		}
	}
}
