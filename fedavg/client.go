package fedavg

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"choir.example/model"
	"choir.example/model/codec"
	"choir.example/model/kernel"
)

// Client is the node's half of an algorithm: from a model and examples to an update. It owns its buffers and is not for
// concurrent use: one a goroutine, one goroutine a core, for any number of nodes one after the other.
type Client struct {
	a         *Algorithm
	trainer   *model.Trainer
	local     Local
	q         [][]int32     // the update's vectors
	changed   []model.Range // of the last update: outside they are zero
	scalars   []int64
	saturated int
}

// NewClient makes a client. The algorithm is kept and read only.
func NewClient(a *Algorithm) (*Client, error) {
	if err := a.Check(); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	trainer, err := model.NewTrainer(a.Network, a.Batch)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	needs, size := a.Strategy.Needs(), a.Network.Size()
	c := &Client{a: a, trainer: trainer, scalars: make([]int64, scalarDigits*needs.Scalars)}
	c.local = Local{
		Network: a.Network, Params: make([]float32, size), Memory: a.FirstMemory(), Vectors: a.zeros(needs.Vectors), Scalars: make([]float64, needs.Scalars),
		client: c,
	}
	for range 1 + needs.Vectors {
		c.q = append(c.q, make([]int32, size))
	}
	return c, nil
}

// Work is one node's part in one round. All of it is read only.
type Work struct {
	Global []float32   // the model
	Shared [][]float32 // what came with it, as the strategy shares
	Memory [][]float32 // what the node kept of the last round in which its update counted; nil: nothing yet
	X, Y   []float32   // the node's examples
	Seed   uint64      // of this node in this round
	Epochs int         // fewer or more than the algorithm's; 0: the algorithm's
	Pause  func()      // called before each step
}

// Update trains and encodes. The update is the client's, and valid until the next call; its Evaluations are empty. Its error is
// model.ErrDiverged where training, or what the strategy makes of it, comes to numbers that are not finite.
func (c *Client) Update(ctx context.Context, w Work) (*Update, error) {
	if err := c.begin(ctx, &w); err != nil {
		return nil, err
	}
	if err := c.a.Strategy.Local(&c.local); err != nil {
		return nil, err
	}
	return c.encode(w.Seed)
}

// Memory is what the node will have to remember if the last Update counts: Work.Memory of its next round. It is the
// client's, and valid until the next call: the caller copies it, and puts the copy in the place of the old memory when the
// round has closed with the update in it, and at no other time. An update that came too late, or of a round that was
// abandoned, leaves no trace on its node, as it leaves none on the server.
func (c *Client) Memory() [][]float32 { return c.local.Memory }

// Saturated is how many coordinates of the last Update's vectors lay outside the grid's range, and were sent as its end.
func (c *Client) Saturated() int { return c.saturated }

// Changed are the parts of the last Update's vectors outside of which they are zero, for Sum.AddWithin: everything but the
// rows of embeddings that no example of the node reads. They are the client's, and valid until the next call.
func (c *Client) Changed() []model.Range { return c.changed }

// Personal is the model that the node predicts with: the global one, made its own as the strategy says, if it is a
// Personal, and then trained for so many epochs on the node's examples. It is the client's, and valid until the next call.
func (c *Client) Personal(ctx context.Context, w Work, epochs int) ([]float32, error) {
	if err := c.begin(ctx, &w); err != nil {
		return nil, err
	}
	l := &c.local
	if own, ok := c.a.Strategy.(Personal); ok {
		if err := own.Personal(l); err != nil {
			return nil, err
		}
	}
	if epochs > 0 {
		l.Config.Epochs = epochs
		if _, err := l.Train(); err != nil {
			return nil, err
		}
	}
	return l.Params, nil
}

// begin lays out a node's work.
func (c *Client) begin(ctx context.Context, w *Work) error {
	l, needs := &c.local, c.a.Strategy.Needs()
	if len(w.Global) != len(l.Params) || len(w.Shared) != needs.Shared || w.Memory != nil && len(w.Memory) != needs.Memory {
		return fmt.Errorf("%d parameters, %d shared vectors and %d of memory, want %d, %d and %d", len(w.Global), len(w.Shared), len(w.Memory),
			len(l.Params), needs.Shared, needs.Memory)
	}
	for _, v := range slices.Concat(w.Shared, w.Memory) {
		if len(v) != len(l.Params) {
			return fmt.Errorf("a vector of %d beside a model of %d parameters", len(v), len(l.Params))
		}
	}
	copy(l.Params, w.Global)
	for i, m := range l.Memory {
		if w.Memory == nil {
			clear(m)
		} else {
			copy(m, w.Memory[i])
		}
	}
	for _, v := range l.Vectors {
		clear(v)
	}
	clear(l.Scalars)
	l.Global, l.Shared, l.work = w.Global, w.Shared, w
	l.Scale, l.Examples, l.Epochs, l.Config = 1, len(w.X)/c.a.Network.Inputs(), c.a.Local.Epochs, c.a.Local
	l.Cap = c.a.heaviest()
	l.Weight = min(int64(l.Examples), l.Cap)
	l.Config.Seed, l.Config.Pause = w.Seed, w.Pause
	if w.Epochs > 0 {
		l.Config.Epochs = w.Epochs
	}
	l.train = func(cfg model.TrainConfig) (model.Training, error) {
		return c.trainer.Train(ctx, l.Params, w.X, w.Y, cfg)
	}
	return nil
}

// encode makes the update of what the strategy left.
func (c *Client) encode(seed uint64) (*Update, error) {
	l, a := &c.local, c.a
	c.settle()
	for _, r := range c.changed {
		delta := l.Params[r.From:r.To]
		kernel.Axpy(delta, -1, l.Global[r.From:r.To])
		if l.Scale != 1 {
			kernel.Scale(delta, float32(l.Scale))
		}
	}
	c.saturated = 0
	for i, q := range c.q {
		v := l.Params
		if i > 0 {
			v = l.Vectors[i-1]
		}
		if err := c.quantise(v, q, seed, i); err != nil {
			return nil, fmt.Errorf("vector %d of the update: %w", i, err)
		}
		if a.Clip > 0 {
			codec.Clip(q, a.Grid.ClipSquared(a.Clip))
		}
	}
	for i, v := range l.Memory {
		if k := notFinite(v); k >= 0 {
			return nil, fmt.Errorf("coordinate %d of vector %d of the node's memory is %v: %w", k, i, v[k], model.ErrDiverged)
		}
	}
	u := &Update{Vectors: c.q, Scalars: c.scalars, Weight: min(max(l.Weight, 1), l.Cap)}
	for i, s := range l.Scalars {
		var err error
		if u.Scalars[2*i], u.Scalars[2*i+1], err = scalarParts(s, u.Weight); err != nil {
			return nil, fmt.Errorf("scalar %d %w", i, err)
		}
	}
	return u, nil
}

// settle finds what changed, and empties the update's vectors.
func (c *Client) settle() {
	for _, q := range c.q {
		for _, r := range c.changed {
			clear(q[r.From:r.To])
		}
	}
	c.changed = append(c.changed[:0], c.local.Touched()...)
	if c.elsewhere() {
		c.changed = append(c.changed[:0], model.Range{From: 0, To: len(c.local.Params)})
	}
}

// elsewhere reports whether the strategy wrote where training did not. Looking costs less than to put zeros on the grid.
func (c *Client) elsewhere() bool {
	l, at := &c.local, 0
	same := func(to int) bool {
		for _, v := range l.Vectors {
			if slices.ContainsFunc(v[at:to], func(x float32) bool { return x != 0 }) {
				return false
			}
		}
		return slices.Equal(l.Params[at:to], l.Global[at:to])
	}
	for _, r := range c.changed {
		if !same(r.From) {
			return true
		}
		at = r.To
	}
	return !same(len(l.Params))
}

// quantise puts the i-th vector on the grid, where it changed; q is zero elsewhere.
func (c *Client) quantise(v []float32, q []int32, seed uint64, i int) error {
	random := rand.NewPCG(seed, 0x726f756e64+uint64(i))
	for _, r := range c.changed {
		var saturated int
		var err error
		if c.a.Stochastic {
			saturated, err = c.a.Grid.QuantiseRandomly(v[r.From:r.To], q[r.From:r.To], random)
		} else {
			saturated, err = c.a.Grid.Quantise(v[r.From:r.To], q[r.From:r.To])
		}
		if err != nil {
			return fmt.Errorf("from parameter %d on: %w: %w", r.From, err, model.ErrDiverged) // the lengths are the same
		}
		c.saturated += saturated
	}
	return nil
}
