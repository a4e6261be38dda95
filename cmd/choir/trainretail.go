package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"choir.example/internal/seeds"
	"choir.example/model"
	"choir.example/model/data"
)

const (
	leastItems   = 5 // products that a customer has who is counted, as published figures have it
	negatives    = 4 // products drawn for each that a customer has (He et al. 2017, §4.4: 3 to 6 are best)
	itemsPerStep = 2 // values of a step: customer and product
)

// retail reads histories, and makes of them the examples that the architecture reads.
func (c *trainCommand) retail() (*trainSet, error) {
	h, err := data.OnlineRetail(c.From, leastItems)
	if err != nil {
		return nil, err
	}
	set := &trainSet{ids: true, tables: []int{h.MaxUser + 1, h.MaxItem + 1}}
	set.names = []string{"recommend-mlp", "recommend-lstm", "matrix-factorisation"}
	form, values, err := c.retailForm()
	if err != nil {
		return nil, err
	}
	if c.Length > 0 && (form == "pairs" || form == "ranked" || c.Length != values) {
		return nil, &usageError{fmt.Sprintf("--length is not for %s, which says itself how long an example is", c.Model), ""}
	}
	switch form {
	case "pairs":
		set.pairs(h, c.Seed)
	case "ranked":
		set.ranked(h, values, c.Seed)
	case "steps":
		set.windows(h, values, true)
	default:
		set.windows(h, values, false)
	}
	return set, nil
}

// retailForm is what an example is, by the name of an architecture, or by the input and the loss of a file's: a pair of
// customer and product, a customer and products to be ranked, steps of customer and product, or products. values is how
// many products there are in it.
func (c *trainCommand) retailForm() (form string, values int, err error) {
	switch c.Model {
	case "recommend-mlp":
		return "pairs", 1, nil
	case "matrix-factorisation":
		return "ranked", 1 + negatives, nil
	case "recommend-lstm":
		return "steps", c.length(20), nil
	}
	if known(c.Model) {
		return "", c.length(20), nil // which is refused once its data are known
	}
	spec, err := architectureFlags{Spec: c.Model}.spec()
	if err != nil {
		return "", 0, err
	}
	switch {
	case len(spec.Input) == 2 && spec.Input[1] == itemsPerStep:
		return "steps", min(spec.Input[0], 4096), nil
	case (spec.Loss == "bpr" || spec.Loss == "sampled-softmax") && spec.Input[0] > 2 && spec.Input[0] <= 4096:
		return "ranked", spec.Input[0] - 1, nil
	case spec.Loss == "logistic" && spec.Input[0] == 2:
		return "pairs", 1, nil
	}
	return "", c.length(20), nil
}

// windows are the newest products before each, alone or each with the customer, and the one that came next.
func (s *trainSet) windows(h *data.Histories, length int, users bool) {
	s.train.Set = h.Windows(length)
	s.validation.Set, s.validation.seen = h.Queries(length, false)
	s.test.Set, s.test.seen = h.Queries(length, true)
	if !users {
		return
	}
	var of []int32
	for u, items := range h.Train {
		of = append(of, slices.Repeat(h.User[u:u+1], len(items)-1)...)
	}
	withUsers(&s.train.Set, of)
	withUsers(&s.validation.Set, h.User)
	withUsers(&s.test.Set, h.User)
}

// withUsers makes steps of user and item of items. A step without an item has no user.
func withUsers(s *data.Set, users []int32) {
	width := s.Values()
	x := make([]float32, 0, len(s.X)*itemsPerStep)
	for i, item := range s.X {
		user := float32(users[i/width])
		if item == 0 {
			user = 0
		}
		x = append(x, user, item)
	}
	s.X, s.Input = x, []int{width, itemsPerStep}
}

// pairs are a customer and a product each: what the customer has, and what is drawn anew for each epoch.
func (s *trainSet) pairs(h *data.Histories, seed uint64) {
	s.train.Set = h.Pairs(negatives, seed)
	s.redraw = func(epoch int) {
		copy(s.train.X, h.Pairs(negatives, seeds.Derive("choir/train/v1", seed, "pairs", uint64(epoch))).X)
	}
	s.askUsers(h)
	s.rank = &ranks{pair: true, items: h.MaxItem + 1}
}

// ranked are a customer, a product that the customer has, and others that are drawn anew for each epoch.
func (s *trainSet) ranked(h *data.Histories, values int, seed uint64) {
	width := 1 + values
	s.train.Set = data.Set{Input: []int{width}, Classes: values}
	for u, items := range h.Train {
		for _, item := range items {
			x := make([]float32, width)
			x[0], x[1] = float32(h.User[u]), float32(item)
			s.train.X = append(s.train.X, x...)
		}
	}
	s.redraw = func(epoch int) {
		rng := rand.New(rand.NewPCG(seeds.Derive("choir/train/v1", seed, "negatives", uint64(epoch)), 0))
		model.DrawNegatives(s.train.X, width, 1, h.MaxItem+1, rng)
	}
	s.askUsers(h)
	s.rank = &ranks{items: h.MaxItem + 1}
}

// askUsers measures by the users alone.
func (s *trainSet) askUsers(h *data.Histories) {
	s.validation.Set, s.validation.seen = h.Queries(1, false)
	s.test.Set, s.test.seen = h.Queries(1, true)
	users := make([]float32, len(h.User))
	for i, u := range h.User {
		users[i] = float32(u)
	}
	s.validation.X, s.test.X = users, users
}

// ranks is how all items are scored for a user by a network that learnt from few at a time: a pair for each of them, or
// one example with all of them, for which another network has the same parameters.
type ranks struct {
	pair    bool
	items   int
	network *model.Network
}

// compile makes the network that scores.
func (r *ranks) compile(spec model.Spec, network *model.Network) error {
	if r == nil {
		return nil
	}
	if r.network = network; r.pair {
		return nil
	}
	learnt, all := upTo(spec.Input[0]-1), upTo(r.items)
	wide := model.Spec{Input: []int{1 + r.items}, Layers: slices.Clone(spec.Layers), Loss: spec.Loss}
	for i := range wide.Layers {
		if slices.Equal(wide.Layers[i].Columns, learnt) {
			wide.Layers[i].Columns = all
		}
	}
	var err error
	if r.network, err = wide.Compile(); err != nil {
		return fmt.Errorf("score all %d items: %w", r.items, err)
	}
	if r.network.Size() != network.Size() || r.network.Outputs() != r.items {
		return &hinted{errors.New("the architecture cannot score all items at once"), "an embedding with columns 1 and so on, and a factorisation, can"}
	}
	return nil
}

// upTo are the columns 1 to n.
func upTo(n int) []int {
	columns := make([]int, n)
	for i := range columns {
		columns[i] = 1 + i
	}
	return columns
}

// example is what asks for the scores of all items for a user.
func (r *ranks) example(user float32) []float32 {
	x := make([]float32, 0, 2*r.items)
	if !r.pair {
		x = append(x, user)
	}
	for item := range r.items {
		if r.pair {
			x = append(x, user)
		}
		x = append(x, float32(item))
	}
	return x
}

// predictor is what is measured.
func (s *trainSet) predictor(network *model.Network, params []float32) *model.Predictor {
	if s.rank != nil {
		network = s.rank.network
	}
	return model.NewPredictor(network, params)
}

// ranking are the figures of what each user got next, among all items that the user does not have.
func (s *trainSet) ranking(p *model.Predictor, of *part) (measured, error) {
	ranks, scores := make([]int, len(of.Y)), make([]float32, of.Classes)
	width := len(of.X) / len(of.Y)
	for i, y := range of.Y {
		x := of.X[i*width:][:width]
		if s.rank != nil {
			x = s.rank.example(x[0])
		}
		p.Predict(x, scores)
		seen := append([]int32{0}, of.seen[i]...) // id 0 is no item
		var err error
		if ranks[i], err = model.Rank(scores, int(y), seen); err != nil {
			return nil, fmt.Errorf("user %d: %w", i, err)
		}
	}
	hit, err := model.HitRate(ranks, 10)
	gain, again := model.NDCG(ranks, 10)
	return measured{{"hr@10", hit}, {"ndcg@10", gain}}, errors.Join(err, again)
}
