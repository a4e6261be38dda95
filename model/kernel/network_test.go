package kernel

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// sortedColumns sorts each column of a tile, naively.
func sortedColumns(tile []int32) []int32 {
	rows, out := len(tile)/Lanes, slices.Clone(tile)
	column := make([]int32, rows)
	for c := range Lanes {
		for r := range rows {
			column[r] = tile[r*Lanes+c]
		}
		slices.Sort(column)
		for r, v := range column {
			out[r*Lanes+c] = v
		}
	}
	return out
}

// randomTile has values of all sizes, and many that are equal.
func randomTile(rng *rand.Rand, rows int) []int32 {
	tile := make([]int32, rows*Lanes)
	for i := range tile {
		if tile[i] = int32(rng.Uint32()); i%3 == 0 {
			tile[i] = int32(rng.IntN(5)) - 2
		}
	}
	return tile
}

// TestNetworkOfZerosAndOnes: a network that sorts all columns of zeros and ones sorts everything (Knuth, §5.3.4, theorem Z).
func TestNetworkOfZerosAndOnes(t *testing.T) {
	for rows := range 13 {
		for lo := 0; lo <= rows; lo++ {
			for hi := lo; hi <= rows; hi++ {
				n := NewNetwork(rows, lo, hi)
				for bits := range 1 << rows {
					ones, x := 0, make([]int, rows)
					for i := range x {
						x[i] = bits >> i & 1
						ones += x[i]
					}
					for at := 0; at < len(n.pairs); at += 2 {
						if i, j := n.pairs[at], n.pairs[at+1]; x[i] > x[j] {
							x[i], x[j] = x[j], x[i]
						}
					}
					for _, part := range [][2]int{{0, lo}, {lo, hi}, {hi, rows}} {
						got := 0
						for _, v := range x[part[0]:part[1]] {
							got += v
						}
						if want := min(max(ones-(rows-part[1]), 0), part[1]-part[0]); got != want {
							t.Fatalf("%d rows, %d to %d: of %0*b the rows %v have %d ones, want %d", rows, lo, hi, rows, bits, part, got, want)
						}
					}
					if lo == 0 && hi == rows && !slices.IsSorted(x) {
						t.Fatalf("%d rows: %0*b becomes %v", rows, rows, bits, x)
					}
				}
			}
		}
	}
}

// TestNetworkSorts: on every path, tiles of up to 67 rows and large ones are sorted column by column.
func TestNetworkSorts(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		for _, rows := range append(rowsToTest(), 100, 255, 700) {
			tile := newGuarded(rows*Lanes, rows%5, int32(7))
			copy(tile.x, randomTile(rng, rows))
			want := sortedColumns(tile.x)
			NewNetwork(rows, 0, rows).Sort(tile.x)
			tile.check(t, "Sort")
			if !slices.Equal(tile.x, want) {
				t.Fatalf("%d rows are not sorted", rows)
			}
		}
	})
}

func rowsToTest() (rows []int) {
	for i := range edge + 1 {
		rows = append(rows, i)
	}
	return rows
}

// TestNetworkSelects: the middle rows of 100 are those of the sorted column, in whatever order, and it took fewer pairs.
func TestNetworkSelects(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 3))
		all := len(NewNetwork(100, 0, 100).pairs)
		for _, c := range [][2]int{{49, 51}, {20, 80}, {0, 1}, {99, 100}, {30, 31}} {
			n := NewNetwork(100, c[0], c[1])
			tile := randomTile(rng, 100)
			sorted := sortedColumns(tile)
			n.Sort(tile)
			if len(n.pairs) >= all {
				t.Errorf("rows %v take %d pairs, all take %d", c, len(n.pairs)/2, all/2)
			}
			got, want := sortedColumns(tile[c[0]*Lanes:c[1]*Lanes]), sorted[c[0]*Lanes:c[1]*Lanes]
			if !slices.Equal(got, want) {
				t.Errorf("rows %v are not those of sorted columns", c)
			}
		}
	})
}

func TestNetworkRefuses(t *testing.T) {
	for _, c := range [][3]int{{-1, 0, 0}, {3, -1, 2}, {3, 2, 1}, {3, 0, 4}} {
		mustPanic(t, func() { NewNetwork(c[0], c[1], c[2]) })
	}
	mustPanic(t, func() { NewNetwork(3, 0, 3).Sort(make([]int32, 3*Lanes-1)) })
}

func mustPanic(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error("there was no panic")
		}
	}()
	f()
}

func TestAddRows(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 4))
		for _, rows := range append(rowsToTest(), 2*block/Lanes+3) {
			tile := randomTile(rng, rows)
			sum := newGuarded(Lanes, 3, int64(9))
			var want [Lanes]int64
			for i := range want {
				want[i] = int64(i) << 40
				sum.x[i] = want[i]
			}
			for i, v := range tile {
				want[i%Lanes] += int64(v)
			}
			AddRows((*[Lanes]int64)(sum.x), tile)
			sum.check(t, "AddRows")
			if !slices.Equal(sum.x, want[:]) {
				t.Fatalf("%d rows add up to %v, want %v", rows, sum.x, want)
			}
		}
	})
}

// FuzzNetwork: of any values, every path makes the same tile.
func FuzzNetwork(f *testing.F) {
	f.Add(uint64(1), uint8(9), uint8(3), uint8(5))
	f.Add(uint64(2), uint8(100), uint8(0), uint8(100))
	f.Fuzz(func(t *testing.T, seed uint64, rows, lo, hi uint8) {
		lo, hi = min(lo, rows), min(hi, rows)
		n := NewNetwork(int(rows), int(min(lo, hi)), int(max(lo, hi)))
		tile := randomTile(rand.New(rand.NewPCG(seed, 0)), int(rows))
		want := slices.Clone(tile)
		portable.exchange(want, n.pairs)
		for _, p := range available()[1:] {
			got := slices.Clone(tile)
			p.exchange(got, n.pairs)
			if !slices.Equal(got, want) {
				t.Errorf("%s: another tile than plain Go", p.name)
			}
		}
	})
}
