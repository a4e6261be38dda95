package model

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"choir.example/model/data"
)

// ids are three columns with ids below 4, 5 and 6, of which some come twice in a batch.
func ids(examples int) []float32 {
	rng, x := rand.New(rand.NewPCG(3, 3)), make([]float32, 3*examples)
	for i := range x {
		x[i] = float32(rng.IntN(4 + i%3))
	}
	return x
}

func TestEmbeddingGradient(t *testing.T) {
	for name, embedding := range map[string]LayerSpec{
		"a table a column":    {Kind: "embedding", Rows: []int{4, 5, 6}, Dim: 3},
		"one table":           {Kind: "embedding", Rows: []int{6}, Dim: 3},
		"columns":             {Kind: "embedding", Rows: []int{6, 4}, Columns: []int{2, 0}, Dim: 3},
		"columns, one table":  {Kind: "embedding", Rows: []int{6}, Columns: []int{1, 0}, Dim: 3},
		"bag":                 {Kind: "embedding-bag", Rows: []int{6}, Dim: 3},
		"bag whose sum it is": {Kind: "embedding-bag", Rows: []int{6}, Dim: 3, Pool: "sum"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Spec{[]int{3}, []LayerSpec{embedding, {Kind: "flatten"}, {Kind: "dense", Units: 3}}, "softmax"}
			checkGradient(t, s, ids(5), indices(5, 3))
			checkGradient(t, s, ids(1), indices(1, 3))
		})
	}
}

// Positions have columns of their own.
func TestEmbeddingOfSteps(t *testing.T) {
	s := Spec{[]int{4, 3}, []LayerSpec{{Kind: "embedding", Rows: []int{4, 5, 6}, Dim: 2}, {Kind: "lstm", Units: 3}}, "squared"}
	if shape := compile(t, s).Layers()[0].Output; !slices.Equal(shape, []int{4, 6}) {
		t.Errorf("four steps of three columns become %v", shape)
	}
	checkGradient(t, s, ids(4*2), reals(3*2))
}

func TestFactorisationGradient(t *testing.T) {
	for _, loss := range []string{"squared", "bpr", "sampled-softmax"} {
		s := Factorisation(4, 6, 2, 3, loss)
		x := indices(4*5, 4)
		var y []float32
		if loss == "squared" {
			y = reals(3 * 5)
		}
		checkGradient(t, s, x, y)
	}
}

// The two tables of user 1 and items 0 and 2: 1/2 + 3 + 7 + 1·5 + 2·6, and likewise.
func TestFactorisationByHand(t *testing.T) {
	n := compile(t, Factorisation(2, 3, 2, 2, "bpr"))
	params := []float32{0, 0, 0, 1, 2, 3, 5, 6, 7, 0, 0, 0, -1, 1, 2, .5}
	out := make([]float32, 2)
	NewPredictor(n, params).Predict([]float32{1, 0, 2}, out)
	if out[0] != 27.5 || out[1] != 6.5 {
		t.Errorf("scores %v, want 27.5 and 6.5", out)
	}
}

// An id that no table has is named in training, and reads as zeros in prediction.
func TestBadIDs(t *testing.T) {
	n := compile(t, Spec{[]int{2}, []LayerSpec{{Kind: "embedding", Rows: []int{3, 5}, Dim: 2}}, "squared"})
	params := n.Initial(1)
	nan := float32(math.NaN())
	for _, x := range [][]float32{{0, 5}, {3, 0}, {-1, 0}, {0, 1.5}, {nan, 0}, {1e30, 0}, {0, float32(math.Inf(1))}} {
		_, err := newTrainer(t, n, 1).Train(t.Context(), params, x, make([]float32, 4), TrainConfig{Epochs: 1, Rate: 1})
		if !errors.Is(err, ErrID) {
			t.Errorf("ids %v: %v", x, err)
		}
	}
	out := make([]float32, 4)
	NewPredictor(n, params).Predict([]float32{nan, 4}, out)
	if out[0] != 0 || out[1] != 0 || out[2] != params[(3+4)*2] {
		t.Errorf("an unknown id reads as %v", out)
	}
}

// Rows that no example reads are not touched: not by training, not by what puts parameters back. NaNs in them show it.
func TestOnlySeenRows(t *testing.T) {
	n := compile(t, Spec{[]int{2}, []LayerSpec{{Kind: "embedding", Rows: []int{50, 50}, Dim: 3}, {Kind: "dense", Units: 1}}, "logistic"})
	params := n.Initial(1)
	x, y := []float32{3, 7, 4, 7, 3, 49}, []float32{0, 1, 1}
	seen := []Range{{9, 15}, {(50 + 7) * 3, (50 + 8) * 3}, {99 * 3, n.Size()}}
	inSeen := func(i int) bool {
		return slices.ContainsFunc(seen, func(r Range) bool { return i >= r.From && i < r.To })
	}
	for i := range params {
		if !inSeen(i) {
			params[i] = float32(math.NaN())
		}
	}
	global := slices.Clone(params)
	trainer := newTrainer(t, n, 2)
	if _, err := trainer.Train(t.Context(), params, x, y, TrainConfig{Epochs: 3, Rate: .5}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(trainer.Touched(), seen) {
		t.Errorf("touched %v, want %v", trainer.Touched(), seen)
	}
	for i, v := range params {
		if inSeen(i) == (v == global[i]) && v == v {
			t.Errorf("parameter %d is %v and was %v", i, v, global[i])
		}
	}
	trainer.Reset(params, global)
	for i, v := range params {
		if v != global[i] && v == v {
			t.Errorf("parameter %d is not reset", i)
		}
	}
}

// A row named twice in a batch takes both steps: with examples {2, 2} of a bag's sum it is as if it were one of twice
// the gradient.
func TestRowTwiceInBatch(t *testing.T) {
	n := compile(t, Spec{[]int{2}, []LayerSpec{{Kind: "embedding-bag", Rows: []int{3}, Dim: 1, Pool: "sum"}}, "squared"})
	params := []float32{0, 1, 2}
	// out = 4 and 3, targets 0: gradients 4/2 for row 2 twice, and 3/2 for rows 1 and 2
	train(t, newTrainer(t, n, 2), params, []float32{2, 2, 1, 2}, []float32{0, 0}, TrainConfig{})
	after := train(t, newTrainer(t, n, 2), params, []float32{2, 2, 1, 2}, []float32{0, 0}, TrainConfig{Epochs: 1, Rate: 1})
	if !slices.Equal(after, []float32{0, 1 - 1.5, 2 - 5.5}) {
		t.Errorf("after a step %v", after)
	}
}

// Padding counts for nothing, and an empty bag is zeros.
func TestBagPadding(t *testing.T) {
	n := compile(t, Spec{[]int{3}, []LayerSpec{{Kind: "embedding-bag", Rows: []int{3}, Dim: 1}}, "squared"})
	out := make([]float32, 3)
	NewPredictor(n, []float32{100, 1, 2}).Predict([]float32{0, 1, 2, 0, 0, 0, 2, 0, 0}, out)
	if !slices.Equal(out, []float32{1.5, 0, 2}) {
		t.Errorf("means %v", out)
	}
}

func TestEmbeddingRefuses(t *testing.T) {
	for _, l := range []LayerSpec{
		{Kind: "embedding", Dim: 3},
		{Kind: "embedding", Rows: []int{3, 3}, Dim: 3},
		{Kind: "embedding", Rows: []int{3}},
		{Kind: "embedding", Rows: []int{0}, Dim: 3},
		{Kind: "embedding", Rows: []int{1 << 24}, Dim: 1 << 17},
		{Kind: "embedding", Rows: []int{3}, Dim: 3, Columns: []int{3}},
		{Kind: "embedding", Rows: []int{3}, Dim: 3, Columns: []int{-1}},
		{Kind: "embedding", Rows: []int{3}, Dim: 3, Columns: []int{0, 0, 0, 0}},
		{Kind: "embedding-bag", Rows: []int{3, 3, 3}, Dim: 3},
		{Kind: "embedding-bag", Rows: []int{3}, Dim: 3, Pool: "max"},
	} {
		if _, err := (Spec{[]int{3}, []LayerSpec{l}, "squared"}).Compile(); err == nil {
			t.Errorf("%v compiles", l)
		} else {
			t.Log(err)
		}
	}
	s := Spec{[]int{3}, []LayerSpec{{Kind: "dense", Units: 3}, {Kind: "embedding", Rows: []int{3}, Dim: 3}}, "squared"}
	if _, err := s.Compile(); err == nil {
		t.Error("an embedding reads what is not ids")
	}
}

// Files hold tables row by row, in int8 with a scale a row, and recurrent weights output by output.
func TestRoundTripOfTables(t *testing.T) {
	for _, variant := range []string{"float32", "int8"} {
		m := ofIDs(t, 4, 5, 6)
		m.Variant = variant
		if variant == "int8" {
			var err error
			if m.Quantised, err = Quantise(m.Network, m.Params); err != nil {
				t.Fatal(err)
			}
			if table := m.Quantised[1]; len(table.Weights) != 10 || len(table.Scales) != 5 {
				t.Errorf("a table of 5 rows of 2 has %d weights and %d scales", len(table.Weights), len(table.Scales))
			}
			m.Params = nil
		}
		b := encode(t, m)
		again, err := Decode(b)
		if err != nil {
			t.Fatalf("%s: %v", variant, err)
		}
		if !slices.Equal(again.Params, m.Params) || !reflect.DeepEqual(again.Quantised, m.Quantised) || !slices.Equal(encode(t, again), b) {
			t.Errorf("%s: comes back as %+v", variant, again)
		}
	}
}

// ofIDs is a model of three columns of ids up to 3, 4 and 5, whose tables have so many rows.
func ofIDs(t *testing.T, rows ...int) *Model {
	schema, err := data.ParseSchema([]byte(`{"name":"visits","columns":[{"name":"user","kind":"id","min":1,"max":3},` +
		`{"name":"item","kind":"id","min":1,"max":4},{"name":"shop","kind":"id","min":1,"max":5},{"name":"bought","kind":"boolean"}],"label":"bought","unit":"visit"}`))
	if err != nil {
		t.Fatal(err)
	}
	statistics, err := data.NewStatistics(schema, data.Collect(schema, []data.Row{{3, 1, 5, 0}}))
	if err != nil {
		t.Fatal(err)
	}
	network := compile(t, Spec{[]int{3}, []LayerSpec{
		{Kind: "embedding", Rows: rows, Dim: 2}, {Kind: "lstm", Units: 3}, {Kind: "dense", Units: 1},
	}, "logistic"})
	return &Model{Name: "small", Variant: "float32", Network: network, Schema: schema, Statistics: statistics, Params: network.Initial(1)}
}

// A model whose tables lack a row for an id that its schema takes is neither written nor read; nor is one that takes a
// number for an id.
func TestTablesFitTheSchema(t *testing.T) {
	for want, m := range map[string]*Model{
		"layer embedding1 has 5 rows for column shop, want 6":                  ofIDs(t, 4, 5, 5),
		"layer embedding1 has 3 rows for column user, want 4":                  ofIDs(t, 3, 9, 9),
		"layer embedding1 reads column age, which is numeric and holds no ids": {},
		"layer embedding-bag1 has 4 rows for column item, want 5":              ofIDs(t, 4, 5, 6),
	} {
		switch {
		case m.Network == nil:
			n := ofIDs(t, 99, 99, 99).Network
			*m = *small(t, "float32")
			m.Network, m.Params = n, n.Initial(1)
		case strings.Contains(want, "bag"):
			m.Network = compile(t, Spec{[]int{3}, []LayerSpec{{Kind: "embedding-bag", Rows: []int{4}, Dim: 2}, {Kind: "dense", Units: 1}}, "logistic"})
			m.Params = m.Network.Initial(1)
		}
		if _, err := m.Encode(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	b := encode(t, ofIDs(t, 4, 5, 6))
	narrow := bytes.Replace(b, []byte(`\"max\":5`), []byte(`\"max\":7`), 1)
	if _, err := Decode(narrow); bytes.Equal(narrow, b) || err == nil || !strings.Contains(err.Error(), "layer embedding1 has 6 rows for column shop, want 8") {
		t.Errorf("a file whose schema takes more ids: %v", err)
	}
}

// The architectures that read ids are as large as their tables and cells make them.
func TestNamesOfIDs(t *testing.T) {
	for name, want := range map[string]int{
		"rnn":                  90*8 + (8+256+1)*256 + 257*90,
		"lstm":                 90*8 + (8+256+1)*1024 + (256+256+1)*1024 + 257*90,
		"text":                 1<<14*64 + 65*77,
		"recommend-mlp":        2000*64 + 129*128 + 129,
		"recommend-lstm":       2000*64 + (128+128+1)*512 + 129,
		"matrix-factorisation": 2000*33 + 1,
	} {
		s, err := Named(name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n := compile(t, s); n.Size() != want {
			t.Errorf("%s has %d parameters, want %d", name, n.Size(), want)
		}
	}
	s, err := Named("recommend-mlp", nil, 1, 6040, 3706)
	if err != nil || !slices.Equal(s.Layers[0].Rows, []int{6040, 3706}) {
		t.Errorf("with other tables: %v, %v", s, err)
	}
	if _, err := Named("text", nil, 2, 1, 2); err == nil {
		t.Error("text takes two kinds of ids")
	}
}
