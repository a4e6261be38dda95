package model

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"choir.example/model/kernel"
)

// workload is what simulators are compared by: closed formulas, so that a program in another language does the same
// arithmetic. 3,400 users hold 100 to 200 examples each, of text 40 to 54, slices of one shared pool; a round trains a
// cohort, each from the global model, one epoch of SGD at rate 0.05, and averages by examples.
type workload struct {
	spec         Spec
	cohort, pool int
	x, y         []float32
}

// client is the part of the pool that slot k of a round trains on.
func (w *workload) client(round, slot int) (from, examples int) {
	const users = 3400
	user := (round*w.cohort + slot) * 7919 % users
	if examples = 100 + user*37%101; w.pool < 20_000 {
		examples = 40 + user*7%21
	}
	return user * 131 % (w.pool - 200), examples
}

// worker trains one client at a time: one goroutine a core.
type worker struct {
	trainer     *Trainer
	params, sum []float32
	sparse      bool // sum is of differences to the global model: most of a table is as it was
}

// client trains one client from the global model and adds what it made, weighted, to the sum.
func (w *worker) client(b *testing.B, work *workload, global []float32, round, slot int) (examples int) {
	from, n := work.client(round, slot)
	network := w.trainer.network
	in, out := network.Inputs(), network.Targets()
	_, err := w.trainer.Train(b.Context(), w.params, work.x[from*in:(from+n)*in], work.y[from*out:(from+n)*out],
		TrainConfig{Epochs: 1, Rate: .05, Seed: uint64(round*work.cohort + slot)})
	if err != nil {
		b.Error(err)
	}
	for _, r := range w.trainer.Touched() {
		sum := w.sum[r.From:r.To]
		kernel.Axpy(sum, float32(n), w.params[r.From:r.To])
		if w.sparse {
			kernel.Axpy(sum, float32(-n), global[r.From:r.To])
		}
	}
	w.trainer.Reset(w.params, global)
	return n
}

// warm trains the largest client, so that no buffer grows later.
func (w *worker) warm(b *testing.B, work *workload, global []float32) {
	for round := range 20 {
		for slot := range work.cohort {
			if _, n := work.client(round, slot); n == 200 || n == 54 {
				w.client(b, work, global, round, slot)
				return
			}
		}
	}
}

// benchTrain is a round a iteration, on two cores.
func benchTrain(b *testing.B, work *workload, batch int) {
	network := compile(b, work.spec)
	global := network.Initial(1)
	workers := make([]*worker, 2)
	var next, samples atomic.Int64
	rounds, done := make([]chan int, len(workers)), make(chan bool)
	var ends sync.WaitGroup
	sparse := slices.ContainsFunc(network.nodes, func(n node) bool { return n.table != nil })
	for i := range workers {
		w := &worker{newTrainer(b, network, batch), make([]float32, len(global)), make([]float32, len(global)), sparse}
		workers[i], rounds[i] = w, make(chan int)
		w.warm(b, work, global)
		ends.Go(func() {
			for round := range rounds[i] {
				clear(w.sum)
				copy(w.params, global)
				for slot := int(next.Add(1)) - 1; slot < work.cohort; slot = int(next.Add(1)) - 1 {
					samples.Add(int64(w.client(b, work, global, round, slot)))
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
		keep := float32(0)
		if sparse {
			keep = 1
		}
		kernel.Axpby(global, weight, workers[0].sum, keep)
		kernel.Axpy(global, weight, workers[1].sum)
		round++
	}
	play() // fills caches
	fillWaiting()
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

// fillWaiting has many goroutines wait at once. For each that waits the runtime keeps a record, and makes a new one where a
// processor has none left: with enough of them, what is counted afterwards is training's alone.
func fillWaiting() {
	var ready, done sync.WaitGroup
	start := make(chan bool)
	ready.Add(1000)
	for range 1000 {
		done.Go(func() {
			ready.Done()
			<-start
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
}

// benchImages is the pool of images.
func benchImages() (x, y []float32) {
	rng := rand.New(rand.NewPCG(1234, 0))
	x, y = make([]float32, 20_000*784), make([]float32, 20_000)
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

// benchSmallCNN is LeNet as NIID-Bench trains it: few channels.
func benchSmallCNN() Spec {
	return Spec{[]int{28, 28, 1}, []LayerSpec{
		{Kind: "conv", Filters: 6, Kernel: 5, Activation: "relu"}, {Kind: "maxpool", Kernel: 2},
		{Kind: "conv", Filters: 16, Kernel: 5, Activation: "relu"}, {Kind: "maxpool", Kernel: 2}, {Kind: "flatten"},
		{Kind: "dense", Units: 120, Activation: "relu"}, {Kind: "dense", Units: 84, Activation: "relu"}, {Kind: "dense", Units: 10},
	}, "softmax"}
}

// benchText is the pool of sequences and of what follows each of their characters.
func benchText() *workload {
	const pool, steps, classes = 2000, 80, 90
	w := &workload{spec: CharLM("lstm", steps, classes, 256, 2), cohort: 5, pool: pool}
	rng := rand.New(rand.NewPCG(1234, 0))
	text := make([]float32, steps+1)
	for range pool {
		for i := range text {
			text[i] = float32(1 + rng.IntN(classes-1))
		}
		w.x, w.y = append(w.x, text[:steps]...), append(w.y, text[1:]...)
	}
	return w
}

// benchRatings is the pool of users and items, of which MovieLens-1M has so many.
func benchRatings(spec func(users, items int) Spec) *workload {
	const pool, users, items = 20_000, 6040, 3706
	w := &workload{spec: spec(users, items), cohort: 50, pool: pool}
	rng := rand.New(rand.NewPCG(1234, 0))
	for range pool {
		w.x, w.y = append(w.x, float32(rng.IntN(users)), float32(rng.IntN(items))), append(w.y, float32(rng.IntN(2)))
	}
	return w
}

func benchRecommendMLP(users, items int) Spec  { return RecommendMLP(users, items, 64, 128, 1) }
func benchRecommendLSTM(users, items int) Spec { return RecommendLSTM(1, users, items, 64, 128, 1) }

func BenchmarkTrain(b *testing.B) {
	x, y := benchImages()
	for _, c := range []struct {
		name    string
		work    *workload
		batches []int
	}{
		{"2nn", &workload{bench2NN(), 50, 20_000, x, y}, []int{10, 32}},
		{"logreg", &workload{benchLogistic(), 50, 20_000, x, y}, []int{10, 32}},
		{"cnn512", &workload{benchCNN(), 50, 20_000, x, y}, []int{10, 32}},
		{"cnn-small", &workload{benchSmallCNN(), 50, 20_000, x, y}, []int{64}},
		{"lstm", benchText(), []int{10}},
		{"rec_mlp", benchRatings(benchRecommendMLP), []int{10}},
		{"rec_lstm", benchRatings(benchRecommendLSTM), []int{10}},
	} {
		for _, batch := range c.batches {
			b.Run(fmt.Sprintf("%s/b%d", c.name, batch), func(b *testing.B) { benchTrain(b, c.work, batch) })
		}
	}
}

// benchTokens is a network that reads 20 tokens of 1,000.
func benchTokens() Spec {
	return Spec{[]int{20}, []LayerSpec{
		{Kind: "embedding", Rows: []int{1000}, Dim: 64}, {Kind: "lstm", Units: 128}, {Kind: "dense", Units: 1},
	}, "logistic"}
}

// predictCase is a network that predicts one example at a time.
type predictCase struct {
	name string
	spec Spec
	x    []float32
}

func predictCases() []predictCase {
	return []predictCase{
		{"purchase", MLP(66, 32), reals(66)}, {"mlp", bench2NN(), reals(784)}, {"cnn", benchCNN(), reals(784)},
		{"lstm20", benchTokens(), indices(20, 1000)},
	}
}

func BenchmarkPredict(b *testing.B) {
	for _, c := range predictCases() {
		network := compile(b, c.spec)
		params := network.Initial(1)
		tensors, err := Quantise(network, params)
		if err != nil {
			b.Fatal(err)
		}
		out := make([]float32, network.Outputs())
		for _, v := range []struct {
			name      string
			predictor *Predictor
		}{{c.name, NewPredictor(network, params)}, {c.name + "/int8", NewInt8Predictor(network, tensors)}} {
			b.Run(v.name, func(b *testing.B) {
				v.predictor.Predict(c.x, out)
				b.ReportAllocs()
				for b.Loop() {
					v.predictor.Predict(c.x, out)
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "samples/s")
			})
		}
	}
}
