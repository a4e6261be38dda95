package fedavg

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"choir.example/model/codec"
)

// serverStep is FedAvg's server step on a grid of the given step.
func serverStep(step, rate float64, global []float32, s *Sum) ([]float32, error) {
	a := Algorithm{Strategy: FedAvg{Rate: rate}, Grid: codec.Grid{Range: step * codec.MaxQ}}
	plain := *s
	plain.Scalars = nil // of statistics, which these updates have, too
	return a.Combine(global, nil, Counted{Sum: &plain})
}

// The sum of the two nodes is 14, -4, -100 at weight 5. With a step of 1/2 and rate 1 the model moves by
// 14/5·1/2 = 1.4, -4/5·1/2 = -0.4 and -100/5·1/2 = -10; with rate 1/4 by a quarter of that.
func TestNextByHand(t *testing.T) {
	a, b, shape := twoNodes()
	sum := NewSum(shape)
	must(t, sum.Add(a))
	must(t, sum.Add(b))
	global := []float32{1, 0.5, 3}
	for _, c := range []struct {
		rate float64
		want []float32
	}{
		{1, []float32{2.4, 0.1, -7}},
		{0.25, []float32{1.35, 0.4, 0.5}},
		{0, []float32{1, 0.5, 3}},
		{-1, []float32{-0.4, 0.9, 13}},
	} {
		got, err := serverStep(0.5, c.rate, global, sum)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("rate %v: %v, %v, want %v", c.rate, got, err, c.want)
		}
	}
	if !slices.Equal(global, []float32{1, 0.5, 3}) {
		t.Error("the old model was written to")
	}
}

func TestNextRefuses(t *testing.T) {
	a, _, shape := twoNodes()
	sum := NewSum(shape)
	for _, c := range []struct {
		name   string
		sum    *Sum
		global int
		want   string
	}{
		{"nothing in the sum", sum, 3, "the sum is empty"},
		{"another length", sum, 4, "the sum does not fit a model of 4 parameters"},
		{"no vector", NewSum(Shape{}), 0, "the sum does not fit a model of 0 parameters"},
		{"two vectors", NewSum(Shape{Vectors: []int{3, 3}}), 3, "the sum does not fit a model of 3 parameters"},
	} {
		if _, err := serverStep(1, 1, make([]float32, c.global), c.sum); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	must(t, sum.Add(a))
	if _, err := serverStep(1, 1, make([]float32, 3), sum); err != nil {
		t.Error(err)
	}
}

// The bits of one random step, recorded: they must be the same on every processor and in every later version.
func TestNextHasTheSameBitsEverywhere(t *testing.T) {
	next := func(batches int) []float32 {
		src := rand.NewPCG(7, 7) // its stream is specified, unlike what rand.Rand makes of it
		shape := Shape{Vectors: []int{1000}, WeightCap: MaxWeight}
		global := make([]float32, 1000)
		for i := range global {
			global[i] = float32(src.Uint64()>>40)/(1<<22) - 2
		}
		sums := make([]*Sum, batches)
		for i := range sums {
			sums[i] = NewSum(shape)
		}
		for i := range 20 {
			u := &Update{Vectors: [][]int32{make([]int32, 1000)}, Weight: 1 + int64(src.Uint64()%MaxWeight)}
			for k := range u.Vectors[0] {
				u.Vectors[0][k] = int32(src.Uint64()%(2*MaxQ+1)) - MaxQ
			}
			must(t, u.Check(shape))
			must(t, sums[i%batches].Add(u))
		}
		for _, s := range sums[1:] {
			must(t, sums[0].Merge(s))
		}
		out, err := serverStep(0.1/MaxQ, 0.7, global, sums[0])
		must(t, err)
		return out
	}
	h := uint64(14695981039346656037) // FNV-1a over the bits
	for _, v := range next(1) {
		h = (h ^ uint64(math.Float32bits(v))) * 1099511628211
	}
	const recorded = 0x3c76ca3531623cb4
	if h != recorded {
		t.Errorf("the bits hash to %#x, recorded is %#x", h, uint64(recorded))
	}
	if !slices.Equal(next(1), next(3)) {
		t.Error("three batches give another model than one")
	}
}

// Against exact rationals: each parameter is within half a unit in the last place and the roundings before it.
func TestNextIsNearTheExactMean(t *testing.T) {
	const seed = 3
	rng := rand.New(rand.NewPCG(seed, 0))
	shape := Shape{Vectors: []int{50}, WeightCap: 1000}
	sum := NewSum(shape)
	for range 5 {
		must(t, sum.Add(randomUpdate(rng, shape)))
	}
	global := make([]float32, 50)
	for i := range global {
		global[i] = float32(rng.Float64() - 0.5)
	}
	const step = 1.0 / MaxQ
	next, err := serverStep(step, 1, global, sum)
	must(t, err)
	for i := range next {
		exact := new(big.Rat).SetFrac64(sum.Vectors[0][i], sum.Weight)
		exact.Mul(exact, new(big.Rat).SetFloat64(step))
		exact.Add(exact, new(big.Rat).SetFloat64(float64(global[i])))
		want, _ := exact.Float32()
		if d := math.Abs(float64(next[i]) - float64(want)); d > 1.2e-7 {
			t.Errorf("seed %d: parameter %d is %v, exactly %v", seed, i, next[i], want)
		}
	}
}
