package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// checkMove moves between grids whose rows or columns lie apart, of which dst may be turned.
func checkMove(t *testing.T, rng *rand.Rand, rows, cols, n int, add, turned bool) {
	t.Helper()
	src := Grid{random(rng, rows*(cols*n+gap)), cols*n + gap, n}
	to := Grid{nil, cols*(n+gap) + 1, n + gap}
	size := rows * to.Row
	if turned {
		to.Row, to.Column = n, rows*n+gap
		size = cols * to.Column
	}
	dst := newGuarded(size, 2, float32(guard))
	before := random(rng, size)
	copy(dst.x, before)
	to.Data = dst.x
	Move(to, src, rows, cols, n, add)
	what := fmt.Sprintf("%d×%d×%d, add %v, turned %v on %s", rows, cols, n, add, turned, use.name)
	dst.check(t, what)
	for i := range rows {
		for j := range cols {
			for k := range n {
				at, want := i*to.Row+j*to.Column+k, src.Data[i*src.Row+j*src.Column+k]
				if add {
					want += before[at]
				}
				if dst.x[at] != want {
					t.Fatalf("%s: element %d, %d, %d is %v, want %v", what, i, j, k, dst.x[at], want)
				}
				before[at] = want
			}
		}
	}
	for i, got := range dst.x {
		if got != before[i] {
			t.Fatalf("%s: wrote %v between the vectors", what, got)
		}
	}
}

func TestMove(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 1))
		for n := range edge + 1 {
			for i := range 8 {
				checkMove(t, rng, rng.IntN(6), rng.IntN(9), n, i%2 == 0, i%4 < 2)
			}
		}
		checkMove(t, rng, 9, 500, 40, false, true) // more than a call's
	})
}

// TestMoveRefuses: grids that are too short, before anything is read or written.
func TestMoveRefuses(t *testing.T) {
	x := make([]float32, 24)
	good := Grid{x, 12, 3}
	for name, call := range map[string]func(){
		"dst": func() { Move(Grid{x[:23], 12, 3}, good, 2, 4, 3, false) }, "src": func() { Move(good, Grid{x[:23], 12, 3}, 2, 4, 3, false) },
		"negative": func() { Move(good, good, -2, 4, 3, true) }, "stride": func() { Move(good, Grid{x, -1, 3}, 2, 4, 3, false) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: accepted", name)
				}
			}()
			call()
		}()
	}
}

// FuzzMove: grids of any size.
func FuzzMove(f *testing.F) {
	f.Add(uint64(1), uint8(3), uint8(4), uint8(6), uint8(0))
	f.Add(uint64(2), uint8(12), uint8(1), uint8(33), uint8(3))
	f.Fuzz(func(t *testing.T, seed uint64, rows, cols, n, how uint8) {
		defer func(p *path) { use = p }(use)
		for _, p := range tested() {
			use = p
			checkMove(t, rand.New(rand.NewPCG(seed, 3)), int(rows%20), int(cols%20), int(n%100), how&1 != 0, how&2 != 0)
		}
	})
}
