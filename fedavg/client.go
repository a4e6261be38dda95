package fedavg

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"choir.example/model"
	"choir.example/model/codec"
	"choir.example/model/kernel"
)

// Client is the node's half of an algorithm: from a model and examples to an update. It owns its buffers and is not for
// concurrent use: one a goroutine, one goroutine a core, for any number of nodes one after the other.
type Client struct {
	a       *Algorithm
	trainer *model.Trainer
	local   Local
	q       [][]int32 // the update's vectors
	scalars []int64
	fresh   bool // Params are equal to the last Global but in what was touched
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
	c := &Client{a: a, trainer: trainer, scalars: make([]int64, needs.Scalars)}
	c.local = Local{Params: make([]float32, size), Vectors: a.zeros(needs.Vectors), Scalars: make([]float64, needs.Scalars)}
	for range 1 + needs.Vectors {
		c.q = append(c.q, make([]int32, size))
	}
	return c, nil
}

// Work is one node's part in one round. All of it is read only but Memory, which changes.
type Work struct {
	Global []float32   // the model
	Shared [][]float32 // what came with it, as the strategy shares
	Memory [][]float32 // of this node; the caller undoes the change if the update does not count
	X, Y   []float32   // the node's examples
	Seed   uint64      // of this node in this round
	Epochs int         // fewer or more than the algorithm's; 0: the algorithm's
	Pause  func()      // called before each step
}

// Update trains and encodes. The update is the client's, and valid until the next call; its Evaluations are empty.
func (c *Client) Update(ctx context.Context, w Work) (*Update, error) {
	l := &c.local
	copy(l.Params, w.Global)
	l.Global, l.Shared, l.Memory = w.Global, w.Shared, w.Memory
	l.Scale, l.Examples, l.Config = 1, len(w.X)/c.a.Network.Inputs(), c.a.Local
	l.Config.Seed, l.Config.Pause = w.Seed, w.Pause
	if w.Epochs > 0 {
		l.Config.Epochs = w.Epochs
	}
	for _, v := range l.Vectors {
		clear(v)
	}
	clear(l.Scalars)
	l.train = func(cfg model.TrainConfig) (model.Training, error) {
		return c.trainer.Train(ctx, l.Params, w.X, w.Y, cfg)
	}
	l.loss = func() (float64, error) { return c.loss(w) }
	if err := c.a.Strategy.Local(l); err != nil {
		return nil, err
	}
	return c.encode(w.Seed)
}

// loss is the mean loss of the global model on the node's examples: what training measures when it does not move.
func (c *Client) loss(w Work) (float64, error) {
	params := append([]float32(nil), w.Global...)
	done, err := c.trainer.Train(context.Background(), params, w.X, w.Y, model.TrainConfig{Epochs: 1})
	return done.Loss, err
}

// encode makes the update of what the strategy left.
func (c *Client) encode(seed uint64) (*Update, error) {
	l, a := &c.local, c.a
	delta := l.Params
	kernel.Axpy(delta, -1, l.Global)
	if l.Scale != 1 {
		kernel.Scale(delta, float32(l.Scale))
	}
	for i, q := range c.q {
		v := delta
		if i > 0 {
			v = l.Vectors[i-1]
		}
		if err := c.quantise(v, q, seed, i); err != nil {
			return nil, fmt.Errorf("vector %d: %w", i, err)
		}
		if a.Clip > 0 {
			codec.Clip(q, a.Grid.ClipSquared(a.Clip))
		}
	}
	u := &Update{Vectors: c.q, Scalars: c.scalars, Weight: min(int64(l.Examples), a.WeightCap)}
	needs := a.Strategy.Needs()
	if needs.Uniform {
		u.Weight = 1
	}
	for i, s := range l.Scalars {
		q := math.RoundToEven(s / needs.unit())
		if !(math.Abs(q) <= MaxQ) {
			return nil, fmt.Errorf("scalar %d is %v, want at most %v", i, s, MaxQ*needs.unit())
		}
		u.Scalars[i] = u.Weight * int64(q)
	}
	return u, nil
}

// quantise puts the i-th vector on the grid.
func (c *Client) quantise(v []float32, q []int32, seed uint64, i int) (err error) {
	if c.a.Stochastic {
		_, err = c.a.Grid.QuantiseRandomly(v, q, rand.NewPCG(seed, 0x726f756e64+uint64(i)))
	} else {
		_, err = c.a.Grid.Quantise(v, q)
	}
	return err
}
