package data

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

func TestShoppers(t *testing.T) {
	s, rows, regions, err := Shoppers()
	if err != nil {
		t.Fatal(err)
	}
	positives, held := 0, make([]int, 10)
	for i, r := range rows {
		positives += int(r.Label(s))
		held[regions[i]]++
	}
	if len(rows) != 12_330 || positives != 1_908 || len(regions) != len(rows) {
		t.Errorf("%d rows, %d regions, %d positives; want 12330, 12330, 1908", len(rows), len(regions), positives)
	}
	if held[0] != 0 || slices.Min(held[1:]) == 0 {
		t.Errorf("rows by region: %v", held)
	}
	if s.column("Region") >= 0 || s.Features() != 10+10+8+13+20+3+1 {
		t.Errorf("%d features; region is a column: %v", s.Features(), s.column("Region") >= 0)
	}
}

// TestShoppersHeadroom: each category occurs in the data, and each long-tailed range leaves room above the data.
func TestShoppersHeadroom(t *testing.T) {
	s, rows, _, err := Shoppers()
	if err != nil {
		t.Fatal(err)
	}
	for k := range s.Columns {
		c := &s.Columns[k]
		largest, seen := 0.0, map[float64]bool{}
		for _, r := range rows {
			largest, seen[r[k]] = max(largest, r[k]), true
		}
		if c.Kind == Category && len(seen) != len(c.Categories) {
			t.Errorf("%s: %d of %d categories occur", c.Name, len(seen), len(c.Categories))
		}
		if c.LongTail && largest*2 > c.Max {
			t.Errorf("%s: range to %v over a maximum of %v", c.Name, c.Max, largest)
		}
	}
}

// TestShoppersNotice: the licence asks for the source, the authors and a link, and the file is unchanged.
func TestShoppersNotice(t *testing.T) {
	text, err := ShoppersCSV()
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(text)
	for _, want := range []string{"Sakar", "CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/", hex.EncodeToString(digest[:])} {
		if !strings.Contains(ShoppersNotice(), want) {
			t.Errorf("the notice does not say %q", want)
		}
	}
}
