package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// TestMaximum: also of zeros of either sign, infinities and NaN, which stays.
func TestMaximum(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 1))
		for _, n := range lengths(rng) {
			x, y, dst := newGuarded(n, 1, float32(7)), newGuarded(n, 2, float32(7)), newGuarded(n, 3, float32(7))
			for i := range n {
				x.x[i], y.x[i] = rng.Float32()-.5, rng.Float32()-.5
				if i%5 == 0 {
					x.x[i] = special[rng.IntN(len(special))]
				}
				if i%7 == 0 {
					y.x[i] = special[rng.IntN(len(special))]
				}
			}
			Maximum(dst.x, x.x, y.x)
			for i, got := range dst.x {
				want := math.Max(float64(x.x[i]), float64(y.x[i]))
				if x.x[i] != x.x[i] || y.x[i] != y.x[i] {
					want = math.NaN()
				}
				if float64(got) != want && !(got != got && want != want) {
					t.Fatalf("max(%v, %v) of %d is %v", x.x[i], y.x[i], n, got)
				}
			}
			dst.check(t, fmt.Sprint(n))
		}
	})
}

// TestRouteMaximum: of three inputs the first of the largest gets the gradient, whole and once.
func TestRouteMaximum(t *testing.T) {
	onPaths(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(2, 2))
		for _, n := range lengths(rng) {
			var x [3][]float32
			var dst [3]*guarded[float32]
			for k := range x {
				x[k], dst[k] = make([]float32, n), newGuarded(n, k, float32(7))
				for i := range x[k] {
					x[k][i], dst[k].x[i] = float32(rng.IntN(3)), 1
				}
			}
			top, left := make([]float32, n), newGuarded(n, 5, float32(7))
			Maximum(top, x[0], x[1])
			Maximum(top, top, x[2])
			for i := range n {
				left.x[i] = float32(i%11) + .5
			}
			for k := range x {
				RouteMaximum(dst[k].x, left.x, x[k], top)
			}
			for i := range n {
				given := false
				for k := range x {
					want := float32(1)
					if x[k][i] == top[i] && !given {
						want, given = 1+float32(i%11)+.5, true
					}
					if dst[k].x[i] != want || left.x[i] != 0 {
						t.Fatalf("element %d of %d: input %d gets %v, want %v; %v is left", i, n, k, dst[k].x[i], want, left.x[i])
					}
				}
			}
			for _, g := range append(dst[:], left) {
				g.check(t, fmt.Sprint(n))
			}
		}
	})
}
