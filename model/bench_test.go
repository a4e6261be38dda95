package model

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"choir.example/model/kernel"
)

// The workload that simulators are compared by: closed formulas, so that a program in another language does the same
// arithmetic. 3,400 users hold 100 to 200 examples each, slices of one shared pool; a round trains a cohort of 50, each
// from the global model, one epoch of SGD at rate 0.05, and averages by examples.
const (
	benchUsers  = 3400
	benchCohort = 50
	benchPool   = 20_000
)

// benchClient is the part of the pool that slot k of a round trains on.
func benchClient(round, slot int) (from, examples int) {
	user := (round*benchCohort + slot) * 7919 % benchUsers
	return user * 131 % (benchPool - 200), 100 + user*37%101
}

// worker trains one client at a time: one goroutine a core.
type worker struct {
	trainer     *Trainer
	params, sum []float32
	x, y        []float32
	batch       int
}

// client trains one client from the global model and adds what it made, weighted, to the sum.
func (w *worker) client(b *testing.B, network *Network, global []float32, round, slot int) (examples int) {
	from, n := benchClient(round, slot)
	copy(w.params, global)
	in, out := network.Inputs(), network.Targets()
	_, err := w.trainer.Train(b.Context(), w.params, w.x[from*in:(from+n)*in], w.y[from*out:(from+n)*out],
		TrainConfig{Epochs: 1, Rate: .05, Seed: uint64(round*benchCohort + slot)})
	if err != nil {
		b.Error(err)
	}
	kernel.Axpy(w.sum, float32(n), w.params)
	return n
}

// benchTrain is a round a iteration, on two cores.
func benchTrain(b *testing.B, spec Spec, batch int, x, y []float32) {
	network := compile(b, spec)
	global := network.Initial(1)
	workers := make([]*worker, 2)
	var next, samples atomic.Int64
	rounds, done := make([]chan int, len(workers)), make(chan bool)
	var ends sync.WaitGroup
	for i := range workers {
		w := &worker{newTrainer(b, network, batch), make([]float32, len(global)), make([]float32, len(global)), x, y, batch}
		workers[i], rounds[i] = w, make(chan int)
		ends.Go(func() {
			for round := range rounds[i] {
				clear(w.sum)
				for slot := int(next.Add(1)) - 1; slot < benchCohort; slot = int(next.Add(1)) - 1 {
					samples.Add(int64(w.client(b, network, global, round, slot)))
				}
				done <- true
			}
		})
	}
	round := 0
	play := func() {
		next.Store(0)
		before := samples.Load()
		for i := range workers {
			rounds[i] <- round
		}
		for range workers {
			<-done
		}
		weight := 1 / float32(samples.Load()-before)
		kernel.Axpby(global, weight, workers[0].sum, 0)
		kernel.Axpy(global, weight, workers[1].sum)
		round++
	}
	play() // fills pools and caches
	samples.Store(0)
	b.ReportAllocs()
	for b.Loop() {
		play()
	}
	b.ReportMetric(float64(samples.Load())/b.Elapsed().Seconds(), "samples/s")
	for _, c := range rounds {
		close(c)
	}
	ends.Wait()
}

// benchImages is the pool of images.
func benchImages() (x, y []float32) {
	rng := rand.New(rand.NewPCG(1234, 0))
	x, y = make([]float32, benchPool*784), make([]float32, benchPool)
	for i := range x {
		x[i] = rng.Float32()
	}
	for i := range y {
		y[i] = float32(rng.IntN(10))
	}
	return x, y
}

func bench2NN() Spec {
	return Spec{[]int{784}, []LayerSpec{
		{Kind: "dense", Units: 200, Activation: "relu"}, {Kind: "dense", Units: 200, Activation: "relu"}, {Kind: "dense", Units: 10},
	}, "softmax"}
}

func benchLogistic() Spec {
	return Spec{[]int{784}, []LayerSpec{{Kind: "dense", Units: 10}}, "softmax"}
}

func benchCNN() Spec {
	return Spec{[]int{28, 28, 1}, []LayerSpec{
		{Kind: "conv", Filters: 32, Kernel: 5, Padding: 2, Activation: "relu"}, {Kind: "maxpool", Kernel: 2},
		{Kind: "conv", Filters: 64, Kernel: 5, Padding: 2, Activation: "relu"}, {Kind: "maxpool", Kernel: 2},
		{Kind: "flatten"}, {Kind: "dense", Units: 512, Activation: "relu"}, {Kind: "dense", Units: 10},
	}, "softmax"}
}

func BenchmarkTrain(b *testing.B) {
	x, y := benchImages()
	for _, c := range []struct {
		name string
		spec Spec
	}{{"2nn", bench2NN()}, {"logreg", benchLogistic()}, {"cnn512", benchCNN()}} {
		for _, batch := range []int{10, 32} {
			b.Run(fmt.Sprintf("%s/b%d", c.name, batch), func(b *testing.B) { benchTrain(b, c.spec, batch, x, y) })
		}
	}
}

func BenchmarkPredict(b *testing.B) {
	for _, c := range []struct {
		name string
		spec Spec
	}{{"purchase", MLP(66, 32)}, {"mlp", bench2NN()}, {"cnn", benchCNN()}} {
		network := compile(b, c.spec)
		params := network.Initial(1)
		tensors, err := Quantise(network, params)
		if err != nil {
			b.Fatal(err)
		}
		x, out := reals(network.Inputs()), make([]float32, network.Outputs())
		for _, v := range []struct {
			name      string
			predictor *Predictor
		}{{c.name, NewPredictor(network, params)}, {c.name + "/int8", NewInt8Predictor(network, tensors)}} {
			b.Run(v.name, func(b *testing.B) {
				v.predictor.Predict(x, out)
				b.ReportAllocs()
				for b.Loop() {
					v.predictor.Predict(x, out)
				}
			})
		}
	}
}
