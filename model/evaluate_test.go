package model

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"choir.example/model/data"
)

var (
	nan32 = float32(math.NaN())
	inf32 = float32(math.Inf(1))
)

// answers is a predictor whose features are the logits.
type answers struct{}

func (answers) Predict(x, logits []float32) { copy(logits, x) }

// TestEvaluateByHand: one example each, with what it counts. A logit z falls into bin ⌊512·(1 + z/(1+|z|))⌋.
func TestEvaluateByHand(t *testing.T) {
	nats := func(v float64) int64 { return int64(math.RoundToEven(v * lossUnit)) }
	for _, c := range []struct {
		logit, label float32
		correct      int64
		loss         int64
		bin          int
	}{
		{0, 0, 1, nats(math.Ln2), 512}, // one half is not positive
		{0, 1, 0, nats(math.Ln2), 512},
		{-1e-9, 0, 1, nats(math.Ln2), 511},
		{1, 1, 1, nats(math.Log(1 + math.Exp(-1))), 768}, // 512 · 3/2
		{-1, 1, 0, nats(math.Log(1 + math.Exp(1))), 256},
		{3, 1, 1, nats(math.Log(1 + math.Exp(-3))), 896}, // 512 · 7/4
		{3, 0, 0, nats(math.Log(1 + math.Exp(3))), 896},
		{-3, 1, 0, nats(math.Log(1 + math.Exp(3))), 128},
		{1. / 510, 1, 1, nats(math.Log(1 + math.Exp(-1./510))), 513}, // the next bin begins at 1/511
		{1. / 512, 1, 1, nats(math.Log(1 + math.Exp(-1./512))), 512},
		{-511, 0, 1, 0, 1},
		{-512, 0, 1, 0, 0},
		{511, 1, 1, 0, 1023},
		{50, 0, 0, 50 * lossUnit, 1013},
		{100, 0, 0, 64 * lossUnit, 1018}, // as much as one example counts
		{-100, 0, 1, 0, 5},
		{3e38, 1, 1, 0, 1023},
		{-3e38, 0, 1, 0, 0},
		{inf32, 1, 1, 0, 1023},
		{inf32, 0, 0, 64 * lossUnit, 1023},
		{-inf32, 1, 0, 64 * lossUnit, 0},
		{nan32, 1, 0, 64 * lossUnit, 0}, // infinitely wrong, for either label
		{nan32, 0, 0, 64 * lossUnit, 1023},
	} {
		t.Run(fmt.Sprintf("logit %v, label %v", c.logit, c.label), func(t *testing.T) {
			e := Evaluate(answers{}, []float32{c.logit}, []float32{c.label})
			if e.Examples != 1 || e.Correct != c.correct || max(e.Loss-c.loss, c.loss-e.Loss) > 1 {
				t.Errorf("%d examples, %d correct, loss %d; want 1, %d, %d", e.Examples, e.Correct, e.Loss, c.correct, c.loss)
			}
			own, other := e.Negatives, e.Positives
			if c.label == 1 {
				own, other = other, own
			}
			if i := slices.Index(own, 1); i != c.bin || slices.Max(other) != 0 || len(own) != Bins {
				t.Errorf("bin %d, want %d", i, c.bin)
			}
		})
	}
}

// TestBinsAreInOrder: a larger logit is never in a lower bin, neighbours never differ by more than one bin near 0, and a
// histogram of logits and that of their negatives are mirror images but for edges.
func TestBinsAreInOrder(t *testing.T) {
	last := 0
	for i := -600_000; i <= 600_000; i++ {
		z := float64(i) / 1000
		bin := Bin(z)
		if bin < last || bin > last+1 {
			t.Fatalf("logit %v is in bin %d, the one before in %d", z, bin, last)
		}
		if mirror := Bins - 1 - Bin(-z); mirror != bin && mirror != bin-1 { // a bin holds its lower edge
			t.Fatalf("logit %v is in bin %d, its negative in %d", z, bin, Bin(-z))
		}
		last = bin
	}
	if last != Bins-1 || Bin(math.MaxFloat64) != Bins-1 || Bin(-math.MaxFloat64) != 0 {
		t.Errorf("the last bin is %d", last)
	}
}

// TestEvaluateAgainstNaive: a real model's loss and correct answers are those of a naïve network in float64.
func TestEvaluateAgainstNaive(t *testing.T) {
	spec, rng := perceptron{7, []int{20, 5}}, rand.New(rand.NewPCG(1, 1))
	params := random(rng, spec.network(t).Size(), 1)
	const n = 300
	x, y := random(rng, n*spec.Inputs, 1), make([]float32, n)
	correct, undecided := int64(0), int64(0)
	for i := range y {
		y[i] = float32(rng.IntN(2))
		z := naive(spec, wide(params), x[i*spec.Inputs:(i+1)*spec.Inputs])
		if math.Abs(z) < 1e-4 {
			undecided++
		} else if (z > 0) == (y[i] == 1) {
			correct++
		}
	}
	e := Evaluate(NewPredictor(spec.network(t), params), x, y)
	if want := naiveLoss(spec, wide(params), x, y); math.Abs(e.MeanLoss()-want) > 1e-4*want {
		t.Errorf("loss %v, want %v", e.MeanLoss(), want)
	}
	if e.Examples != n || e.Correct < correct || e.Correct > correct+undecided {
		t.Errorf("%d of %d correct, want %d of %d", e.Correct, e.Examples, correct, n)
	}
}

func TestEvaluationOfNothing(t *testing.T) {
	e := Evaluate(answers{}, nil, nil)
	if e.Examples != 0 || e.Positives != nil || e.Negatives != nil {
		t.Errorf("no examples give %+v", e)
	}
	if e.AUC() != .5 || e.AUCMillionths() != 500_000 || e.Accuracy() != 0 || e.MeanLoss() != 0 {
		t.Errorf("no examples: AUC %v, %d, accuracy %v, loss %v", e.AUC(), e.AUCMillionths(), e.Accuracy(), e.MeanLoss())
	}
}

// TestEvaluationsAddUp: the sum over parts is the evaluation of the whole, to the last bit, also with parts of nothing.
func TestEvaluationsAddUp(t *testing.T) {
	z, y := scores(rand.New(rand.NewPCG(2, 2)), 500)
	for i := range z {
		z[i] *= 6
	}
	whole := Evaluate(answers{}, z, y)
	var sum Evaluation
	for _, cut := range [][2]int{{400, 500}, {0, 0}, {0, 1}, {1, 400}} {
		sum.Add(Evaluate(answers{}, z[cut[0]:cut[1]], y[cut[0]:cut[1]]))
	}
	if fmt.Sprint(sum) != fmt.Sprint(whole) {
		t.Errorf("parts add up to %+v, want %+v", sum, whole)
	}
	part := Evaluate(answers{}, z[:5], y[:5])
	before := fmt.Sprint(part)
	var other Evaluation
	other.Add(part)
	other.Add(whole)
	if fmt.Sprint(part) != before {
		t.Error("adding changes the evaluation that was added")
	}
}

// scores are n scores on a coarse grid, so that there are ties, with labels that depend on them a little.
func scores(rng *rand.Rand, n int) (z, y []float32) {
	z, y = make([]float32, n), make([]float32, n)
	for i := range z {
		z[i] = float32(math.Round(rng.NormFloat64()*8) / 8)
		if rng.Float64() < Probability(z[i]) {
			y[i] = 1
		}
	}
	return z, y
}

// pairs is the AUC by counting all pairs of a positive and a negative.
func pairs(z, y []float32) float64 {
	won, n := 0.0, 0.0
	for i := range z {
		for j := range z {
			if y[i] != 1 || y[j] != 0 {
				continue
			}
			n++
			switch a, b := z[i], z[j]; {
			case a != a || b != b: // a number is missing: lost
			case a > b:
				won++
			case a == b:
				won += .5
			}
		}
	}
	return won / n
}

func TestExactAUC(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for range 30 {
		z, y := scores(rng, 2+rng.IntN(200))
		y[0], y[1] = 0, 1
		if got, want := ExactAUC(z, y), pairs(z, y); math.Abs(got-want) > 1e-12 {
			t.Fatalf("%d scores: AUC %v, want %v", len(z), got, want)
		}
	}
	for _, c := range []struct {
		name string
		z, y []float32
		want float64
	}{
		{"right", []float32{1, 2, 3}, []float32{0, 1, 1}, 1},
		{"reversed", []float32{3, 2, 1}, []float32{0, 1, 1}, 0},
		{"all tied", []float32{2, 2, 2}, []float32{0, 1, 1}, .5},
		{"signed zeros tie", []float32{0, float32(math.Copysign(0, -1))}, []float32{0, 1}, .5},
		{"infinities", []float32{-inf32, inf32, inf32}, []float32{0, 1, 0}, .75},
		{"all NaN", []float32{nan32, nan32, nan32, nan32}, []float32{0, 1, 0, 1}, 0},
		{"NaN positive", []float32{0, nan32, 1}, []float32{0, 1, 1}, .5},
		{"NaN negative", []float32{0, nan32, 1}, []float32{0, 0, 1}, .5},
		{"only positives", []float32{1, nan32}, []float32{1, 1}, .5},
		{"only negatives", []float32{1, nan32}, []float32{0, 0}, .5},
		{"none", nil, nil, .5},
	} {
		if got := ExactAUC(c.z, c.y); got != c.want {
			t.Errorf("%s: AUC %v, want %v", c.name, got, c.want)
		}
		if c.want != .5 && pairs(c.z, c.y) != c.want {
			t.Errorf("%s: all pairs say %v", c.name, pairs(c.z, c.y))
		}
	}
}

// TestHistogramAUC: with scores on the bins' edges a histogram loses nothing, so that both must agree to rounding, with
// NaN as well.
func TestHistogramAUC(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for range 30 {
		z, y := scores(rng, 2+rng.IntN(200))
		y[0], y[1] = 0, 1
		if rng.IntN(2) == 0 {
			z[rng.IntN(len(z))] = nan32
		}
		e := Evaluate(answers{}, z, y)
		want := pairs(z, y)
		if got := e.AUC(); math.Abs(got-want) > 1e-12 || math.Abs(ExactAUC(z, y)-want) > 1e-12 {
			t.Fatalf("%d scores: AUC %v and exact %v, want %v", len(z), got, ExactAUC(z, y), want)
		}
		if got := e.AUCMillionths(); got != int64(math.Floor(want*1e6+1e-9)) {
			t.Fatalf("%d scores: %d millionths, want %v", len(z), got, want*1e6)
		}
	}
	for _, y := range [][]float32{{0, 0}, {1, 1}} {
		e := Evaluate(answers{}, []float32{1, -1}, y)
		if e.AUC() != .5 || e.AUCMillionths() != 500_000 || LossOfAUCWithin(e, e, 1_000_000) {
			t.Errorf("labels %v alone: AUC %v, within any gate %v", y, e.AUC(), LossOfAUCWithin(e, e, 1_000_000))
		}
	}
}

// histogram is an evaluation with the given counts in its first bins.
func histogram(positives, negatives []int64) Evaluation {
	e := Evaluation{Positives: make([]int64, Bins), Negatives: make([]int64, Bins)}
	copy(e.Positives, positives)
	copy(e.Negatives, negatives)
	return e
}

// TestGate decides to the last unit, with counts beyond what a float or an int64 product holds.
func TestGate(t *testing.T) {
	const many = 1 << 40
	right := histogram([]int64{0, many}, []int64{many, 0})
	for _, c := range []struct {
		name   string
		e      Evaluation
		ppm    int64
		within bool
	}{
		{"as good", right, 0, true},
		{"one pair tied in 2^80", histogram([]int64{1, many - 1}, []int64{many, 0}), 0, false},
		{"half the pairs, gate at the half", histogram([]int64{many}, []int64{many}), 500_000, true},
		{"half the pairs, gate below the half", histogram([]int64{many}, []int64{many}), 499_999, false},
		{"no positives", histogram(nil, []int64{1}), 1_000_000, false},
		{"no negatives", histogram([]int64{1}, nil), 1_000_000, false},
		{"nothing", Evaluation{}, 1_000_000, false},
	} {
		if got := LossOfAUCWithin(right, c.e, c.ppm); got != c.within {
			t.Errorf("%s: within %d millionths is %v", c.name, c.ppm, got)
		}
	}
	if !LossOfAUCWithin(histogram([]int64{1}, []int64{1}), right, 0) {
		t.Error("a better model is refused")
	}
	rng := rand.New(rand.NewPCG(5, 5))
	for range 200 {
		var h [4][]int64
		for i := range h {
			for range 4 {
				h[i] = append(h[i], 1+rng.Int64N(9))
			}
		}
		ref, e, ppm := histogram(h[0], h[1]), histogram(h[2], h[3]), rng.Int64N(400_000)
		loss := new(big.Rat).Sub(auc(h[0], h[1]), auc(h[2], h[3]))
		if want := loss.Cmp(big.NewRat(ppm, 1_000_000)) <= 0; LossOfAUCWithin(ref, e, ppm) != want {
			t.Fatalf("loss %v within %d millionths: want %v", loss, ppm, want)
		}
	}
}

// auc counts the pairs of two small histograms in fractions.
func auc(positives, negatives []int64) *big.Rat {
	var twice, n int64
	for i, p := range positives {
		for j, q := range negatives {
			n += p * q
			switch {
			case i > j:
				twice += 2 * p * q
			case i == j:
				twice += p * q
			}
		}
	}
	return big.NewRat(twice, 2*n)
}

// TestHistogramAUCOnRealData: the histogram's AUC is within .0005 of the exact one on the built-in data.
func TestHistogramAUCOnRealData(t *testing.T) {
	m, held := shoppersModel(t)
	x, y := m.Statistics.Matrix(held)
	logits := make([]float32, len(y))
	m.Predictor().Predict(x, logits)
	exact, e := ExactAUC(logits, y), m.Evaluate(held)
	if math.Abs(e.AUC()-exact) > .0005 || exact < .9 {
		t.Errorf("AUC from the histogram %v, exact %v", e.AUC(), exact)
	}
	if want := pairs(logits, y); math.Abs(exact-want) > 1e-12 {
		t.Errorf("exact AUC %v, by pairs %v", exact, want)
	}
}

// shoppersModel is a model trained for a moment on the built-in data, and the rows held out.
func shoppersModel(t *testing.T) (*Model, []data.Row) {
	t.Helper()
	schema, rows, _, err := data.Shoppers()
	if err != nil {
		t.Fatal(err)
	}
	parts := data.Split(schema, rows, 1)
	st, err := data.NewStatistics(schema, data.Collect(schema, parts.Train))
	if err != nil {
		t.Fatal(err)
	}
	network := compile(t, MLP(schema.Features(), 32))
	x, y := st.Matrix(parts.Train)
	params := train(t, newTrainer(t, network, 32), network.Initial(1), x, y, TrainConfig{Epochs: 5, Rate: .1})
	return &Model{Name: "purchase", Variant: "float32", Network: network, Schema: schema, Statistics: st, Params: params}, parts.Held
}
