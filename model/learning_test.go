package model

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// A language model learns a text whose next character depends on the one before the last: a period of five over three
// characters, 0 0 1 2 1.
func TestRecurrentLearns(t *testing.T) {
	text := []float32{0, 0, 1, 2, 1}
	const steps, examples = 12, 20
	var x, y []float32
	for e := range examples {
		for i := range steps {
			x, y = append(x, text[(e+i)%5]), append(y, text[(e+i+1)%5])
		}
	}
	for _, kind := range []string{"rnn", "gru", "lstm"} {
		network := compile(t, CharLM(kind, steps, 3, 16, 2))
		params, trainer := network.Initial(1), newTrainer(t, network, 4)
		done, err := trainer.Train(t.Context(), params, x, y, TrainConfig{Epochs: 60, Rate: .02, Optimiser: Optimiser{Kind: "adam"}, Clip: 1})
		// The first character can be followed by itself or another, and the third of the three by one of two.
		if floor := 2 * math.Log(2) / steps; err != nil || done.Loss > floor+.05 {
			t.Errorf("%s: loss %v, %v; want about %v at most", kind, done.Loss, err, floor)
		}
	}
}

// Users choose items of their own parity. Ranked by what choices alone taught, each user's come first.
func TestRankingLearns(t *testing.T) {
	const users, items, others = 12, 20, 4
	for _, loss := range []string{"bpr", "sampled-softmax"} {
		network := compile(t, Factorisation(users, items, 4, 1+others, loss))
		rng := rand.New(rand.NewPCG(1, 1))
		var x []float32
		for u := range users {
			for range 40 {
				x = append(x, float32(u), float32(rng.IntN(items/2)*2+u%2), 0, 0, 0, 0)
			}
		}
		params, trainer := network.Initial(1), newTrainer(t, network, 8)
		for epoch := range 30 {
			DrawNegatives(x, 2+others, 1, items, rng)
			cfg := TrainConfig{Epochs: 1, Rate: .1, Seed: uint64(epoch), Optimiser: Optimiser{Kind: "adagrad"}}
			if _, err := trainer.Train(t.Context(), params, x, nil, cfg); err != nil {
				t.Fatal(err)
			}
		}
		rank := compile(t, Factorisation(users, items, 4, items, loss))
		right := 0
		for u := range users {
			scores := make([]float32, items)
			NewPredictor(rank, params).Predict(append([]float32{float32(u)}, upTo(items)...), scores)
			for i, s := range scores {
				for j, other := range scores {
					if i%2 == u%2 && j%2 != u%2 && s > other {
						right++
					}
				}
			}
		}
		if pairs := users * items / 2 * items / 2; right < pairs*95/100 {
			t.Errorf("%s: %d of %d pairs in order", loss, right, pairs)
		}
	}
}

func upTo(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(i)
	}
	return x
}

// Drawn items are never the chosen one, and each of the others comes.
func TestDrawNegatives(t *testing.T) {
	x := slices.Repeat([]float32{9, 2, 0, 0}, 100)
	DrawNegatives(x, 4, 1, 4, rand.New(rand.NewPCG(1, 1)))
	var seen [4]int
	for ; len(x) > 0; x = x[4:] {
		if x[0] != 9 || x[1] != 2 {
			t.Fatalf("an example became %v", x[:4])
		}
		seen[int(x[2])]++
		seen[int(x[3])]++
	}
	if seen[2] != 0 || min(seen[0], seen[1], seen[3]) < 40 {
		t.Errorf("drawn %v times", seen)
	}
}

// A row that a batch does not read keeps what the optimiser knew of it: only its own batches move it. Two rows, one
// example each, in batches of one: momentum goes on where the row's last batch left it.
func TestOptimiserSeesOnlyRowsOfBatch(t *testing.T) {
	n := compile(t, Spec{[]int{1}, []LayerSpec{{Kind: "embedding", Rows: []int{2}, Dim: 1}}, "squared"})
	cfg := TrainConfig{Epochs: 2, Rate: .1, Optimiser: Optimiser{Kind: "momentum", Momentum: .5}}
	got := train(t, newTrainer(t, n, 1), []float32{1, -2}, []float32{0, 1}, []float32{0, 0}, cfg)
	for i, w := range []float64{1, -2} {
		v := w // gradient w, velocity w
		w -= .1 * v
		v = .5*v + w
		if w -= .1 * v; math.Abs(float64(got[i])-w) > 1e-6 {
			t.Errorf("row %d is %v, want %v", i, got[i], w)
		}
	}
}

// Full-batch descent over more examples than a batch steps on the rows of all.
func TestDescentOverRows(t *testing.T) {
	n := compile(t, Spec{[]int{1}, []LayerSpec{{Kind: "embedding", Rows: []int{4}, Dim: 1}}, "squared"})
	cfg := TrainConfig{Epochs: 1, Rate: 1, Optimiser: Optimiser{Kind: "gd"}}
	got := train(t, newTrainer(t, n, 1), []float32{1, 2, 3, 4}, []float32{0, 2, 2, 3}, make([]float32, 4), cfg)
	if want := []float32{.75, 2, 1.5, 3}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after a step %v, want %v", got, want)
	}
}

// Ids that are drawn for each epoch are learnt from, whichever come; one that no table has is named, and leaves the
// parameters as they were.
func TestRedraw(t *testing.T) {
	n := compile(t, Spec{[]int{1}, []LayerSpec{{Kind: "embedding", Rows: []int{4}, Dim: 1}}, "squared"})
	x, y, trainer := []float32{0, 0}, []float32{0, 0}, newTrainer(t, n, 2)
	draw := func(epoch int) { x[0], x[1] = float32(epoch), float32(epoch+1) }
	cfg := TrainConfig{Epochs: 3, Rate: .5, Redraw: draw}
	got := []float32{1, 1, 1, 1}
	if _, err := trainer.Train(t.Context(), got, x, y, cfg); err != nil {
		t.Fatal(err)
	}
	if want := []float32{.75, .5625, .5625, .75}; !slices.Equal(got, want) {
		t.Errorf("after three epochs %v, want %v", got, want)
	}
	trainer.Reset(got, []float32{1, 1, 1, 1})
	if !slices.Equal(got, []float32{1, 1, 1, 1}) {
		t.Errorf("reset to %v", got)
	}
	cfg.Epochs = 4
	_, err := trainer.Train(t.Context(), got, x, y, cfg)
	if !errors.Is(err, ErrID) || !strings.Contains(fmt.Sprint(err), "epoch 4: example 1: value 0 is 4") || !slices.Equal(got, []float32{1, 1, 1, 1}) {
		t.Errorf("%v, parameters %v", err, got)
	}
}
