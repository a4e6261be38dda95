package fedavg

import (
	"math/rand/v2"
	"runtime"
	"testing"

	"choir.example/model/codec"
	"choir.example/model/kernel"
)

// BenchmarkAggregate: how many bytes of input a core combines a second, of 100 deltas of a million parameters each, 20 of
// which may lie. stream is the measure of the machine: it reads as many float32 and updates as many sums of 64 bits as mean
// does, and does nothing with them.
func BenchmarkAggregate(b *testing.B) {
	const clients, size, f = 100, 1_000_000, 20
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	deltas, vectors := aggregateInput(clients, size)
	run := func(name string, step func(b *testing.B)) {
		b.Run(name+"/100x1M", func(b *testing.B) {
			for b.Loop() {
				step(b)
			}
			b.ReportMetric(4*clients*size*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
		})
	}
	sums := make([]float32, 2*size) // as long as a million of int64
	run("stream", func(b *testing.B) {
		for _, d := range deltas {
			const block = 1 << 14
			for from := 0; from < size; from += block {
				to := min(from+block, size)
				kernel.MaxAbs(d[from:to])
				kernel.Scale(sums[2*from:2*to], 1)
			}
		}
	})
	grid := codec.Grid{Range: 4}
	run("mean", func(b *testing.B) {
		sum := &Sum{Vectors: [][]int64{make([]int64, size)}}
		for _, d := range deltas {
			if _, err := sum.AddDelta(grid, d, 3); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, r := range []struct {
		name string
		rule Rule
	}{
		{"median", CoordinateMedian{f}}, {"trimmed", TrimmedMean{f}}, {"krum", Krum{f}}, {"multikrum", MultiKrum{F: f}},
		{"bulyan", Bulyan{f}}, {"geomedian", GeometricMedian{F: f, Smoothing: 1}},
		{"clipping", CentredClipping{F: f}}, {"normbound", NormBound{F: f}}, {"fltrust", FLTrust{}},
	} {
		out, last := make([]float64, size), make([]float64, size)
		run(r.name, func(b *testing.B) {
			clear(out)
			if err := r.rule.Combine(&Combination{Vectors: vectors, Out: out, Last: last, Trusted: vectors[0]}); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// aggregateInput are deltas, and the same on the grid.
func aggregateInput(clients, size int) (deltas [][]float32, vectors [][]int32) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range clients {
		delta, q := make([]float32, size), make([]int32, size)
		for i := range delta {
			delta[i] = float32(rng.NormFloat64()) / 16
		}
		if _, err := (codec.Grid{Range: 4}).Quantise(delta, q); err != nil {
			panic(err)
		}
		deltas, vectors = append(deltas, delta), append(vectors, q)
	}
	return deltas, vectors
}
