package kernel

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// onGrid are integers on the grid, some at its ends.
func onGrid(rng *rand.Rand, n int) []int32 {
	q := make([]int32, n)
	for i := range q {
		if q[i] = int32(rng.IntN(1<<24+1) - 1<<23); rng.IntN(4) == 0 {
			q[i] = int32(rng.IntN(2)*2-1) << 23
		}
	}
	return q
}

// TestAddDots: every path gives what exact integers give, for all small numbers of rows and lengths, unaligned.
func TestAddDots(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(5, 1))
		for _, rows := range []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 21} {
			for n := range edge + 1 {
				checkDots(t, rng, rows, n)
			}
			checkDots(t, rng, rows, DotColumns-1)
			checkDots(t, rng, rows, DotColumns)
		}
		s := make([]float64, DotScratch(2))
		mustPanic(t, func() { AddDots(make([]int64, 4), [][]int32{{1}, {1, 2}}, s) })
		mustPanic(t, func() { AddDots(make([]int64, 1), [][]int32{make([]int32, DotColumns+1)}, s) })
		mustPanic(t, func() { AddDots(make([]int64, 3), [][]int32{{1}, {2}}, s) })
		mustPanic(t, func() { AddDots(make([]int64, 4), [][]int32{{1}, {2}}, s[1:]) })
	})
}

func checkDots(t *testing.T, rng *rand.Rand, rows, n int) {
	t.Helper()
	x := make([][]int32, rows)
	for i := range x {
		x[i] = onGrid(rng, n+i)[i:]
	}
	dst, scratch := newGuarded(rows*rows, 1, int64(-5)), newGuarded(DotScratch(rows), 1, 3.)
	AddDots(dst.x, x, scratch.x)
	dst.check(t, "AddDots")
	scratch.check(t, "AddDots")
	for i := range rows {
		for j := range rows {
			want := int64(-5)
			for k := range n {
				if j <= i {
					want += int64(x[i][k]) * int64(x[j][k])
				}
			}
			if got := dst.x[i*rows+j]; got != want {
				t.Fatalf("%d rows of %d: rows %d and %d give %d, want %d", rows, n, i, j, got, want)
			}
		}
	}
}

// TestAddDotsAtTheEdge: the longest rows of the largest values, which the last of odd ones do not round away.
func TestAddDotsAtTheEdge(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		dst, row := make([]int64, 1), slices.Repeat([]int32{-1 << 23}, DotColumns)
		for i := range row {
			row[i] += int32(i % 2) // squares are even and odd
		}
		var want int64
		for _, v := range row {
			want += int64(v) * int64(v)
		}
		AddDots(dst, [][]int32{row}, make([]float64, DotScratch(1)))
		if dst[0] != want {
			t.Errorf("%d, want %d", dst[0], want)
		}
	})
}

func TestAddScaled(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(5, 2))
		for _, n := range lengths(rng) {
			q := onGrid(rng, n+2)[2:]
			sum, double := newGuarded(n, 1, int64(4)), newGuarded(n, 3, 4.)
			want, wantDouble := make([]int64, n), make([]float64, n)
			for i := range n {
				sum.x[i], double.x[i] = rng.Int64()>>4, rng.NormFloat64()*1e6
				want[i], wantDouble[i] = sum.x[i]-1<<20*int64(q[i]), double.x[i]+float64(.1*float64(q[i]))
			}
			AddScaled(sum.x, q, -1<<20)
			AddScaledDouble(double.x, q, .1)
			sum.check(t, "AddScaled")
			double.check(t, "AddScaledDouble")
			if !slices.Equal(sum.x, want) || !slices.Equal(double.x, wantDouble) {
				t.Fatalf("n %d: another sum", n)
			}
		}
	})
}

// TestAddFixed: conversion and sum in one pass are what they are in two.
func TestAddFixed(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(5, 3))
		for _, n := range lengths(rng) {
			x, q := fixedPoints(rng, n+1)[1:], make([]int32, n)
			sum, want := newGuarded(n, 1, int64(4)), make([]int64, n)
			for i := range n {
				sum.x[i] = rng.Int64() >> 4
				want[i] = sum.x[i]
			}
			outside := ToFixed(q, x, 1.25, 100)
			AddScaled(want, q, -1<<20)
			got := AddFixed(sum.x, x, 1.25, 100, -1<<20)
			sum.check(t, "AddFixed")
			if !slices.Equal(sum.x, want) || got != outside {
				t.Fatalf("n %d: another sum, or %d that did not fit, want %d", n, got, outside)
			}
		}
	})
}
