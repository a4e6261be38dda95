package model

// charRNN and charLSTM are language models of characters; the LSTM is that of McMahan et al. 2017, §3.
func charRNN(b *builder, outputs int)  { b.take(CharLM("rnn", 0, outputs, 256, 1)) }
func charLSTM(b *builder, outputs int) { b.take(CharLM("lstm", 0, outputs, 256, 2)) }

// take takes the layers and leaves the input.
func (b *builder) take(s Spec) { b.spec.Layers, b.spec.Loss = s.Layers, s.Loss }

func textBag(b *builder, outputs int) { b.take(Text(0, b.ids[0], 64, nil, outputs)) }

func recommendMLP(b *builder, outputs int) {
	b.take(RecommendMLP(b.ids[0], b.ids[1], 64, 128, outputs))
}

func recommendLSTM(b *builder, outputs int) {
	b.take(RecommendLSTM(0, b.ids[0], b.ids[1], 64, 128, outputs))
}

// factors scores one item as an answer, or ranks what was chosen above what was not.
func factors(b *builder, outputs int) {
	loss := "bpr"
	if outputs == 1 {
		loss = "logistic"
	}
	b.take(Factorisation(b.ids[0], b.ids[1], 32, outputs, loss))
}

// CharLM is a language model of characters: an embedding of 8 values, recurrent layers of the given kind, and scores of
// the next character at every step (McMahan et al. 2017, §3, have two LSTM layers of 256).
func CharLM(kind string, steps, classes, units, depth int) Spec {
	return Spec{[]int{steps}, []LayerSpec{
		{Name: "embedding", Kind: "embedding", Rows: []int{classes}, Dim: 8},
		{Name: kind, Kind: kind, Units: units, Depth: depth, Sequence: true},
		{Name: "out", Kind: "dense", Units: classes},
	}, "softmax"}
}

// Text classifies bags of hashed n-grams, of which id 0 is padding: the mean of their embeddings, then dense layers
// (Joulin et al. 2017). One class is the logit of the positive one.
func Text(bag, rows, dim int, hidden []int, classes int) Spec {
	s := Spec{[]int{bag}, []LayerSpec{{Name: "embedding", Kind: "embedding-bag", Rows: []int{rows}, Dim: dim}}, "softmax"}
	for _, h := range hidden {
		s.Layers = append(s.Layers, LayerSpec{Kind: "dense", Units: h, Activation: "relu"})
	}
	s.Layers = append(s.Layers, LayerSpec{Name: "out", Kind: "dense", Units: classes})
	if classes == 1 {
		s.Loss = "logistic"
	}
	return s
}

// RecommendMLP answers whether a user takes an item: both embedded, a hidden layer, and one logit, or
// as many as there are answers.
func RecommendMLP(users, items, dim, hidden, answers int) Spec {
	return Spec{[]int{2}, []LayerSpec{
		{Name: "embedding", Kind: "embedding", Rows: []int{users, items}, Dim: dim},
		{Name: "hidden", Kind: "dense", Units: hidden, Activation: "relu"},
		{Name: "out", Kind: "dense", Units: answers},
	}, "logistic"}
}

// RecommendLSTM answers the same after steps of user and item.
func RecommendLSTM(steps, users, items, dim, units, answers int) Spec {
	return Spec{[]int{steps, 2}, []LayerSpec{
		{Name: "embedding", Kind: "embedding", Rows: []int{users, items}, Dim: dim},
		{Name: "lstm", Kind: "lstm", Units: units},
		{Name: "out", Kind: "dense", Units: answers},
	}, "logistic"}
}

// Factorisation scores items for a user by factors of both, with biases. An example is a user and a number of items. For
// the losses bpr and sampled-softmax the first was chosen, and the others were drawn.
func Factorisation(users, items, factors, scored int, loss string) Spec {
	columns := make([]int, scored)
	for i := range columns {
		columns[i] = 1 + i
	}
	return Spec{[]int{1 + scored}, []LayerSpec{
		{Name: "user", Kind: "embedding", From: []string{"input"}, Rows: []int{users}, Columns: []int{0}, Dim: factors + 1},
		{Name: "item", Kind: "embedding", From: []string{"input"}, Rows: []int{items}, Columns: columns, Dim: factors + 1},
		{Name: "score", Kind: "factorisation", From: []string{"user", "item"}},
	}, loss}
}
