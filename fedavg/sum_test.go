package fedavg

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"choir.example/model"
	"choir.example/model/codec"
)

// Two nodes, three coordinates. Node a trained on 2 examples, node b on 3:
//
//	     weight  vector         weight · vector
//	a    2       1   -2   100    2  -4   200
//	b    3       4    0  -100   12   0  -300
//	sum  5                      14  -4  -100
//
// Scalars are sums already: 7 + (-1) = 6. Evaluations add up: 2+3 examples, 1+3 correct, loss 5+6.
func twoNodes() (a, b *Update, shape Shape) {
	ha, hb := histograms(2, 0), histograms(1, 2)
	a = &Update{Vectors: [][]int32{{1, -2, 100}}, Scalars: []int64{7}, Weight: 2, Evaluations: []model.Evaluation{ha}}
	b = &Update{Vectors: [][]int32{{4, 0, -100}}, Scalars: []int64{-1}, Weight: 3, Evaluations: []model.Evaluation{hb}}
	a.Evaluations[0].Correct, a.Evaluations[0].Loss = 1, 5
	b.Evaluations[0].Correct, b.Evaluations[0].Loss = 3, 6
	return a, b, Shape{Vectors: []int{3}, Scalars: 1, Evaluations: 1, WeightCap: 10}
}

// histograms is an evaluation with all logits in bin 512.
func histograms(positives, negatives int64) model.Evaluation {
	e := model.Evaluation{
		Examples: positives + negatives, Positives: make([]int64, model.Bins), Negatives: make([]int64, model.Bins),
	}
	e.Positives[512], e.Negatives[512] = positives, negatives
	return e
}

func TestSumOfTwoNodes(t *testing.T) {
	a, b, shape := twoNodes()
	sum := NewSum(shape)
	for _, u := range []*Update{a, b} {
		if err := u.Check(shape); err != nil {
			t.Fatal(err)
		}
		if err := sum.Add(u); err != nil {
			t.Fatal(err)
		}
	}
	evaluation := histograms(3, 2)
	evaluation.Correct, evaluation.Loss = 4, 11
	want := &Sum{
		Vectors: [][]int64{{14, -4, -100}}, Scalars: []int64{6}, Weight: 5, Count: 2,
		Evaluations: []model.Evaluation{evaluation}, Evaluated: []int64{2},
	}
	if !reflect.DeepEqual(sum, want) {
		t.Errorf("sum is %+v", sum)
	}
	if err := sum.Sub(b); err != nil {
		t.Fatal(err)
	}
	if want := []int64{2, -4, 200}; sum.Weight != 2 || sum.Count != 1 || !slices.Equal(sum.Vectors[0], want) {
		t.Errorf("without b the sum is %+v", sum)
	}
	if err := sum.Sub(a); err != nil {
		t.Fatal(err)
	}
	if sum.Digest() != NewSum(shape).Digest() {
		t.Error("without a and b the sum is not the empty one")
	}
}

// A fleet whose validation examples are all of one class still has two histograms of one length.
func TestOneClassKeepsBothHistograms(t *testing.T) {
	sum := NewSum(Shape{Evaluations: 1})
	for range 2 {
		if err := sum.Add(&Update{Weight: 1, Evaluations: []model.Evaluation{histograms(4, 0)}}); err != nil {
			t.Fatal(err)
		}
	}
	e := sum.Evaluations[0]
	if len(e.Positives) != model.Bins || len(e.Negatives) != model.Bins || e.Positives[512] != 8 {
		t.Fatalf("histograms of %d and %d bins", len(e.Positives), len(e.Negatives))
	}
	if got := e.AUCMillionths(); got != 500_000 {
		t.Errorf("AUC of one class: %d", got)
	}
}

func TestEmptyEvaluationsLeaveNoTrace(t *testing.T) {
	shape := Shape{Evaluations: 1}
	plain, zeros := NewSum(shape), NewSum(shape)
	if err := plain.Add(&Update{Weight: 1, Evaluations: make([]model.Evaluation, 1)}); err != nil {
		t.Fatal(err)
	}
	if err := zeros.Add(&Update{Weight: 1, Evaluations: []model.Evaluation{histograms(0, 0)}}); err != nil {
		t.Fatal(err)
	}
	if plain.Digest() != zeros.Digest() {
		t.Error("a histogram of zeros changes the sum's encoding")
	}
}

// Three nodes: one without validation examples, one that has them for the first of two models, one for both.
//
//	       first      second
//	a      0          0
//	b      4          0
//	c      1 + 2      3
//	nodes  2          1
func TestSumCountsWhoEvaluated(t *testing.T) {
	shape := Shape{Evaluations: 2, WeightCap: 10}
	a := &Update{Weight: 1, Evaluations: make([]model.Evaluation, 2)}
	b := &Update{Weight: 4, Evaluations: []model.Evaluation{histograms(4, 0), {}}}
	c := &Update{Weight: 3, Evaluations: []model.Evaluation{histograms(1, 2), histograms(3, 0)}}
	sum, part := NewSum(shape), NewSum(shape)
	must(t, sum.Add(a))
	must(t, sum.Add(b))
	must(t, part.Add(c))
	must(t, sum.Merge(part))
	if want := []int64{2, 1}; sum.Count != 3 || !slices.Equal(sum.Evaluated, want) {
		t.Errorf("%d updates, %d with examples, want 3, %d", sum.Count, sum.Evaluated, want)
	}
	decoded, err := DecodeSum(sum.Encode())
	if err != nil || !slices.Equal(decoded.Evaluated, sum.Evaluated) {
		t.Errorf("read back: %v, %v", decoded, err)
	}
	must(t, sum.Sub(b))
	must(t, sum.Sub(a))
	if sum.Digest() != part.Digest() {
		t.Errorf("without a and b: %d with examples, want those of c", sum.Evaluated)
	}
	must(t, sum.Add(a))
	must(t, sum.Sub(c)) // a is left, which evaluated nothing
	before := sum.Digest()
	if err := sum.Sub(&Update{Weight: 1, Evaluations: []model.Evaluation{{}, histograms(1, 0)}}); err == nil || sum.Digest() != before {
		t.Errorf("an evaluation was taken out of a sum without one: %v", err)
	}
}

// naive is the sum in big integers, one at a time.
type naive struct {
	vectors       [][]*big.Int
	scalars       []*big.Int
	weight, count *big.Int
}

func naiveSum(s Shape, updates []*Update) *naive {
	n := &naive{weight: new(big.Int), count: big.NewInt(int64(len(updates)))}
	for i, length := range s.Vectors {
		v := make([]*big.Int, length)
		for k := range v {
			v[k] = new(big.Int)
			for _, u := range updates {
				v[k].Add(v[k], new(big.Int).Mul(big.NewInt(u.Weight), big.NewInt(int64(u.Vectors[i][k]))))
			}
		}
		n.vectors = append(n.vectors, v)
	}
	for i := range s.Scalars {
		x := new(big.Int)
		for _, u := range updates {
			x.Add(x, big.NewInt(u.Scalars[i]))
		}
		n.scalars = append(n.scalars, x)
	}
	for _, u := range updates {
		n.weight.Add(n.weight, big.NewInt(u.Weight))
	}
	return n
}

func (n *naive) check(t *testing.T, s *Sum) {
	t.Helper()
	same := n.weight.Cmp(big.NewInt(s.Weight)) == 0 && n.count.Cmp(big.NewInt(s.Count)) == 0
	for i, v := range n.vectors {
		for k, x := range v {
			same = same && x.Cmp(big.NewInt(s.Vectors[i][k])) == 0
		}
	}
	for i, x := range n.scalars {
		same = same && x.Cmp(big.NewInt(s.Scalars[i])) == 0
	}
	if !same {
		t.Errorf("the sum is %v, big integers say %v", s, n)
	}
}

// Any order, any grouping into batches, and updates that came in only to be taken out again: one digest.
func TestOrderAndGroupingDoNotMatter(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		shape := Shape{
			Vectors: []int{1 + rng.IntN(9), rng.IntN(3)}[:1+rng.IntN(2)], Scalars: rng.IntN(4), Evaluations: rng.IntN(3),
			WeightCap: 1 << rng.IntN(21),
		}
		updates := make([]*Update, 1+rng.IntN(12))
		for i := range updates {
			updates[i] = randomUpdate(rng, shape)
			if err := updates[i].Check(shape); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		want := NewSum(shape)
		for _, u := range updates {
			must(t, want.Add(u))
		}
		naiveSum(shape, updates).check(t, want)
		for range 4 {
			if got := shuffled(t, rng, shape, updates); got.Digest() != want.Digest() || !bytes.Equal(got.Encode(), want.Encode()) {
				t.Fatalf("seed %d: another order gives %v, want %v", seed, got, want)
			}
		}
		decoded, err := DecodeSum(want.Encode())
		if err != nil || decoded.Digest() != want.Digest() {
			t.Fatalf("seed %d: the sum does not read back: %v", seed, err)
		}
		before := want.Digest()
		extra := randomUpdate(rng, shape)
		must(t, want.Add(extra))
		must(t, want.Sub(extra))
		if want.Digest() != before {
			t.Fatalf("seed %d: Sub does not undo Add", seed)
		}
	}
}

// shuffled folds the updates in a random order into random batches, adds strangers, takes them out, and merges.
func shuffled(t *testing.T, rng *rand.Rand, shape Shape, updates []*Update) *Sum {
	t.Helper()
	order := slices.Clone(updates)
	rng.Shuffle(len(order), func(i, k int) { order[i], order[k] = order[k], order[i] })
	var batches []*Sum
	for len(order) > 0 {
		n := 1 + rng.IntN(len(order))
		batch, stranger := NewSum(shape), randomUpdate(rng, shape)
		must(t, batch.Add(stranger))
		for _, u := range order[:n] {
			must(t, batch.Add(u))
		}
		must(t, batch.Sub(stranger))
		decoded, err := DecodeSum(batch.Encode()) // as it travels in a batch
		must(t, err)
		batches, order = append(batches, decoded), order[n:]
	}
	for len(batches) > 1 {
		i := rng.IntN(len(batches) - 1)
		must(t, batches[i].Merge(batches[len(batches)-1]))
		batches = batches[:len(batches)-1]
	}
	total := NewSum(shape)
	must(t, total.Merge(batches[0]))
	return total
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// 2^16 updates at every bound at once: |q| = 2^23, weight 2^20, so the total weight is 2^36 and the sums reach 2^59.
// No update fits after that, not even one of weight 1.
func TestExtremesOfTheGrid(t *testing.T) {
	shape := Shape{Vectors: []int{2}, Scalars: 2, Evaluations: 1, WeightCap: MaxWeight}
	e := model.Evaluation{
		Examples: MaxExamples, Correct: MaxExamples, Loss: MaxExamples << 26,
		Positives: make([]int64, model.Bins), Negatives: make([]int64, model.Bins),
	}
	e.Negatives[0] = MaxExamples
	u := &Update{
		Vectors: [][]int32{{MaxQ, -MaxQ}}, Scalars: []int64{MaxWeight * MaxQ, -MaxWeight * MaxQ}, Weight: MaxWeight,
		Evaluations: []model.Evaluation{e},
	}
	must(t, u.Check(shape))
	sum := NewSum(shape)
	must(t, sum.Add(u))
	for range 16 { // doubling by merging: 2^16 updates
		twin, err := DecodeSum(sum.Encode())
		must(t, err)
		must(t, sum.Merge(twin))
	}
	if sum.Weight != MaxTotalWeight || sum.Count != MaxUpdates {
		t.Fatalf("%d updates of weight %d", sum.Count, sum.Weight)
	}
	if want := []int64{1 << 59, -1 << 59}; !slices.Equal(sum.Vectors[0], want) || !slices.Equal(sum.Scalars, want) {
		t.Errorf("vectors %d, scalars %d, want %d", sum.Vectors, sum.Scalars, want)
	}
	got := sum.Evaluations[0]
	if got.Loss != 1<<62 || got.Examples != 1<<36 || got.Correct != 1<<36 || got.Negatives[0] != 1<<36 {
		t.Errorf("evaluations sum to %d examples, loss %d", got.Examples, got.Loss)
	}
	full := sum.Digest()
	one := &Update{Vectors: [][]int32{{0, 0}}, Scalars: []int64{0, 0}, Weight: 1, Evaluations: make([]model.Evaluation, 1)}
	single := NewSum(shape)
	must(t, single.Add(one))
	if err := sum.Add(one); !errors.Is(err, ErrTooMuch) {
		t.Errorf("one more: %v", err)
	}
	if err := sum.Merge(single); !errors.Is(err, ErrTooMuch) {
		t.Errorf("one more merged: %v", err)
	}
	if sum.Digest() != full {
		t.Error("what was refused changed the sum")
	}
	must(t, sum.Sub(u)) // room again, to the bound and no further
	must(t, sum.Add(u))
	if sum.Digest() != full {
		t.Error("the full sum is another one after Sub and Add")
	}
}

// The count has a bound of its own: 2^16 updates of weight 1 leave weight to spare.
func TestCountIsBounded(t *testing.T) {
	sum := NewSum(Shape{})
	u := &Update{Weight: 1}
	for range MaxUpdates {
		must(t, sum.Add(u))
	}
	if err := sum.Add(u); !errors.Is(err, ErrTooMuch) || sum.Count != MaxUpdates {
		t.Errorf("update %d: %v", sum.Count+1, err)
	}
}

func TestFoldRefusesAnotherShapeAndChangesNothing(t *testing.T) {
	a, _, shape := twoNodes()
	for _, c := range []struct {
		name   string
		change func(*Update)
		want   string
	}{
		{"vectors", func(u *Update) { u.Vectors = append(u.Vectors, nil) }, "its shape is not the sum's"},
		{"scalars", func(u *Update) { u.Scalars = nil }, "its shape is not the sum's"},
		{"evaluations", func(u *Update) { u.Evaluations = nil }, "its shape is not the sum's"},
		{"length", func(u *Update) { u.Vectors = [][]int32{{1, 2}} }, "vector 0 has length 2, want 3"},
		{"short histograms", func(u *Update) {
			u.Evaluations = []model.Evaluation{{Examples: 1, Positives: []int64{1}, Negatives: []int64{0}}}
		}, "the histograms of evaluation 0 do not fit"},
		{"one histogram", func(u *Update) {
			u.Evaluations = []model.Evaluation{{Examples: 1, Positives: make([]int64, model.Bins)}}
		}, "the histograms of evaluation 0 do not fit"},
	} {
		sum := NewSum(shape)
		must(t, sum.Add(a))
		before := sum.Digest()
		u, _, _ := twoNodes()
		c.change(u)
		if err := sum.Add(u); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		other := NewSum(shapeOf(u))
		must(t, foldUnchecked(other, u))
		if err := sum.Merge(other); err == nil {
			t.Errorf("%s: merged", c.name)
		}
		if sum.Digest() != before {
			t.Errorf("%s: what was refused changed the sum", c.name)
		}
	}
}

// The bounds of sums rest on the bounds of weights, so a weight beyond them does not get so far, whoever forgot to check.
func TestFoldRefusesWeights(t *testing.T) {
	sum := NewSum(Shape{})
	for _, w := range []int64{0, -1, MaxWeight + 1, 1<<32 + 1} {
		if err := sum.Add(&Update{Weight: w}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("weight %d is outside [1, 1048576]", w)) {
			t.Errorf("weight %d: %v", w, err)
		}
	}
	if sum.Count != 0 || sum.Weight != 0 {
		t.Errorf("what was refused is in the sum: %+v", sum)
	}
}

// foldUnchecked makes a sum whose histograms are as long as those of u, as a damaged batch might hold.
func foldUnchecked(s *Sum, u *Update) error {
	bare := *u
	bare.Evaluations = make([]model.Evaluation, len(u.Evaluations))
	if err := s.Add(&bare); err != nil {
		return err
	}
	copy(s.Evaluations, u.Evaluations)
	return nil
}

func TestSubRefusesWhatWasNotAdded(t *testing.T) {
	a, b, shape := twoNodes()
	sum := NewSum(shape)
	if err := sum.Sub(a); err == nil {
		t.Error("an update was taken out of the empty sum")
	}
	must(t, sum.Add(a))
	if err := sum.Sub(b); err == nil {
		t.Error("an update of weight 3 was taken out of a sum of weight 2")
	}
	if sum.Weight != 2 || sum.Count != 1 {
		t.Errorf("sum is %+v", sum)
	}
}

func TestEveryBitOfASumCounts(t *testing.T) {
	a, b, shape := twoNodes()
	sum := NewSum(shape)
	must(t, sum.Add(a))
	must(t, sum.Add(b))
	sum.Evaluations[0].Positives = slices.Clone(sum.Evaluations[0].Positives)
	encoded := sum.Encode()
	for bit := range 8 * len(encoded) {
		damaged := bytes.Clone(encoded)
		damaged[bit/8] ^= 1 << (bit % 8)
		got, err := DecodeSum(damaged)
		if err == nil && (got.Digest() == sum.Digest() || !bytes.Equal(got.Encode(), damaged)) {
			t.Fatalf("bit %d does not count", bit)
		}
	}
}

func TestDecodeSumRefuses(t *testing.T) {
	sum := func(change func(*Sum)) *Sum {
		s := &Sum{
			Vectors: [][]int64{{5 * MaxQ, 1}}, Scalars: []int64{-5 * MaxQ}, Weight: 5, Count: 2,
			Evaluations: []model.Evaluation{histograms(1, 2), {}}, Evaluated: []int64{2, 0},
		}
		change(s)
		return s
	}
	for _, c := range []struct {
		name   string
		change func(*Sum)
		want   string
	}{
		{"as it should be", func(*Sum) {}, ""},
		{"negative weight", func(s *Sum) { s.Weight = -1 }, "weight -1 or count 2 is outside"},
		{"weight below the count", func(s *Sum) { s.Weight = 1 }, "weight 1 or count 2 is outside"},
		{"weight above the count's", func(s *Sum) { s.Weight = 2*MaxWeight + 1 }, "weight 2097153 or count 2 is outside"},
		{"total weight", func(s *Sum) { s.Weight, s.Count = MaxTotalWeight+1, MaxUpdates }, "is outside its bounds"},
		{"count", func(s *Sum) { s.Count = MaxUpdates + 1 }, "is outside its bounds"},
		{"weight without updates", func(s *Sum) { s.Count = 0 }, "is outside its bounds"},
		{"vector", func(s *Sum) { s.Vectors[0][0]++ }, "vector 0 is outside ±weight·2^23"},
		{"least integer", func(s *Sum) { s.Vectors[0][0] = math.MinInt64 }, "vector 0 is outside ±weight·2^23"},
		{"scalar", func(s *Sum) { s.Scalars[0]-- }, "scalars are outside ±weight·2^23"},
		{"evaluation", func(s *Sum) { s.Evaluations[0].Correct = 4 }, "evaluation 0: 4 correct of 3 examples"},
		{"zero histograms", func(s *Sum) { s.Evaluations[1] = histograms(0, 0) }, "evaluation 1: histograms without examples"},
		{"too many examples", func(s *Sum) { s.Evaluations[0] = histograms(2*MaxExamples, 1) }, "outside [0, 2097152]"},
		{"examples of nobody", func(s *Sum) { s.Evaluated[0] = 0 }, "3 examples is outside [0, 0]"},
		{"more with examples than updates", func(s *Sum) { s.Evaluated[0] = 3 }, "3 examples of 3 updates with examples, in a sum of 2"},
		{"more with examples than examples", func(s *Sum) { s.Evaluated[1] = 1 }, "0 examples of 1 updates with examples, in a sum of 2"},
		{"fewer than none with examples", func(s *Sum) { s.Evaluated[1] = -1 }, "0 examples of -1 updates"},
	} {
		_, err := DecodeSum(sum(c.change).Encode())
		if (err == nil) != (c.want == "") || !strings.Contains(errorText(err), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	for _, version := range []byte{1, 2, 4} {
		if _, err := DecodeSum([]byte{version}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("version %d is not known", version)) {
			t.Errorf("version %d: %v", version, err)
		}
	}
}

func FuzzDecodeSum(f *testing.F) {
	a, b, shape := twoNodes()
	a.Evaluations, b.Evaluations, shape.Evaluations = nil, nil, 0 // histograms of 1024 bins are too long for a seed
	sum := NewSum(shape)
	f.Add(sum.Encode())
	for _, u := range []*Update{a, b} {
		if err := sum.Add(u); err != nil {
			f.Fatal(err)
		}
		f.Add(sum.Encode())
	}
	empty := NewSum(Shape{Vectors: []int{0, 1}, Evaluations: 2})
	f.Add(empty.Encode())
	f.Fuzz(func(t *testing.T, encoded []byte) {
		s, err := DecodeSum(encoded)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Encode(), encoded) {
			t.Fatalf("%x is written as %x", encoded, s.Encode())
		}
		double, err := DecodeSum(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if err := double.Merge(s); err != nil && !errors.Is(err, ErrTooMuch) {
			t.Fatalf("a sum does not merge with itself: %v", err)
		} else if err != nil {
			return
		}
		if _, err := DecodeSum(double.Encode()); err != nil {
			t.Errorf("twice the sum does not read back: %v", err)
		}
	})
}

// TestAddDelta: folding a delta is quantising it and adding the update, saturated coordinates counted; what is refused leaves
// the sum as it was.
func TestAddDelta(t *testing.T) {
	grid := codec.Grid{Range: 1, Bits: 12}
	rng := rand.New(rand.NewPCG(8, 8))
	one := NewSum(Shape{Vectors: []int{1000}})
	two := NewSum(Shape{Vectors: []int{1000}})
	for weight := range int64(5) {
		delta, q := make([]float32, 1000), make([]int32, 1000)
		for i := range delta {
			delta[i] = float32(rng.NormFloat64() / 2)
		}
		want, err := grid.Quantise(delta, q)
		must(t, err)
		must(t, two.Add(&Update{Vectors: [][]int32{q}, Weight: weight + 1}))
		got, err := one.AddDelta(grid, delta, weight+1)
		must(t, err)
		if got != want || want == 0 {
			t.Errorf("%d saturated, want %d", got, want)
		}
	}
	if !reflect.DeepEqual(one, two) {
		t.Error("another sum")
	}
	for _, c := range []struct {
		change func(delta []float32) []float32
		weight int64
		want   string
	}{
		{func(d []float32) []float32 { return d[1:] }, 1, "its shape is not the sum's"},
		{func(d []float32) []float32 { return d }, 0, "weight 0 is outside"},
		{func(d []float32) []float32 { return d }, MaxWeight + 1, "weight 1048577 is outside"},
		{func(d []float32) []float32 { d[7] = float32(math.NaN()); return d }, 1, "coordinate 7 is NaN"},
		{func(d []float32) []float32 { d[900] = float32(math.Inf(-1)); return d }, 3, "coordinate 900 is -Inf"},
	} {
		delta := make([]float32, 1000)
		for i := range delta {
			delta[i] = float32(i)
		}
		if _, err := one.AddDelta(grid, c.change(delta), c.weight); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
		if !reflect.DeepEqual(one, two) {
			t.Fatalf("%s: the sum changed", c.want)
		}
	}
}
