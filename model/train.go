package model

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
)

// TrainConfig says how long and how fast to train.
type TrainConfig struct {
	Epochs int     // passes over the examples; 0 leaves the parameters alone
	Rate   float64 // learning rate of plain SGD, at least 0 and finite
	Seed   uint64  // of the order of examples, and of dropout
	Pause  func()  // called before each step, in the goroutine that trains: it may block to leave the processor to others
}

// Training is what a training did.
type Training struct {
	Steps int
	Loss  float64 // mean over the examples of the last epoch, each measured before the step it took part in
}

// Trainer trains a network on batches. It owns its buffers and allocates nothing a step. It is not for concurrent use:
// one Trainer a goroutine, one goroutine a core.
type Trainer struct {
	network *Network
	batch   int
	passes  []pass    // one a node
	x, y    []float32 // a batch of examples and their targets
	before  []float32 // parameters before training: what comes back if it fails
	order   []int32
	pcg     rand.PCG
	rng     *rand.Rand
}

// NewTrainer makes a trainer for batches of the given size.
func NewTrainer(network *Network, batch int) (*Trainer, error) {
	if err := network.CheckBatch(batch); err != nil {
		return nil, fmt.Errorf("trainer: %w", err)
	}
	t := &Trainer{
		network: network, batch: batch, passes: make([]pass, len(network.nodes)),
		x: make([]float32, batch*network.Inputs()), y: make([]float32, batch*network.Targets()),
		before: make([]float32, network.Size()),
	}
	t.rng = rand.New(&t.pcg)
	work := make([]float32, network.work(batch))
	for i := range network.nodes {
		t.passes[i] = pass{work: work, train: true, rng: t.rng}
		t.connect(i)
	}
	return t, nil
}

// connect gives a node its buffers, and lets it read those of the nodes before it.
func (t *Trainer) connect(i int) {
	n, p := &t.network.nodes[i], &t.passes[i]
	if n.root != i {
		if n.root >= 0 {
			p.out, p.dout = t.passes[n.root].out, t.passes[n.root].dout
		} else {
			p.out = t.x
		}
		return
	}
	p.out, p.scratch, p.add = make([]float32, t.batch*n.width), make([]float32, n.scratch(t.batch)), n.add
	if n.learns {
		p.dout = make([]float32, t.batch*n.width)
	}
	for _, from := range n.from {
		in, din := t.x, []float32(nil)
		if from >= 0 {
			in, din = t.passes[from].out, t.passes[from].dout
		}
		p.in, p.din = append(p.in, in), append(p.din, din)
	}
}

// Train changes params, of the network's Size, in place. x holds the examples one after the other, y their targets. The
// last, smaller batch of an epoch is used too. On any error params are as they were before: what the network cannot
// learn from is named, by its place; a loss or a parameter that is no longer finite is an error. When ctx ends it stops
// before the next step, with ctx's error.
func (t *Trainer) Train(ctx context.Context, params, x, y []float32, cfg TrainConfig) (Training, error) {
	examples, err := t.check(params, x, y, cfg)
	if err != nil {
		return Training{}, fmt.Errorf("train: %w", err)
	}
	copy(t.before, params)
	done, err := t.epochs(ctx, params, x, y, examples, cfg)
	if err == nil || errors.Is(err, ErrDiverged) {
		err = t.explain(err, params, x, done)
	}
	if err != nil {
		copy(params, t.before)
		return done, fmt.Errorf("train: %w", err)
	}
	return done, nil
}

func (t *Trainer) epochs(ctx context.Context, params, x, y []float32, examples int, cfg TrainConfig) (done Training, err error) {
	for i := range t.passes {
		t.passes[i].params = t.network.nodes[i].of(params)
	}
	t.pcg.Seed(cfg.Seed, 0x747261696e)
	order := t.inOrder(examples)
	for epoch := range cfg.Epochs {
		t.rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		sum := 0.0
		for at := 0; at < len(order); at += t.batch {
			if err := ctx.Err(); err != nil {
				return done, fmt.Errorf("stopped after %d steps: %w", done.Steps, err)
			}
			if cfg.Pause != nil {
				cfg.Pause()
			}
			n := t.load(x, y, order[at:min(at+t.batch, len(order))])
			loss := t.step(n, float32(cfg.Rate))
			if math.IsNaN(loss) || math.IsInf(loss, 0) {
				return done, &divergedError{fmt.Sprintf("loss is %v at step %d, in epoch %d", loss, done.Steps+1, epoch+1)}
			}
			done.Steps++
			sum += loss * float64(n)
		}
		done.Loss = sum / float64(examples)
	}
	return done, nil
}

// inOrder is the order of the examples before it is shuffled.
func (t *Trainer) inOrder(examples int) []int32 {
	if cap(t.order) < examples {
		t.order = make([]int32, examples)
	}
	order := t.order[:examples]
	for i := range order {
		order[i] = int32(i)
	}
	return order
}

// load gathers one batch.
func (t *Trainer) load(x, y []float32, rows []int32) int {
	w, k := t.network.Inputs(), t.network.Targets()
	for i, r := range rows {
		copy(t.x[i*w:(i+1)*w], x[int(r)*w:(int(r)+1)*w])
		copy(t.y[i*k:(i+1)*k], y[int(r)*k:(int(r)+1)*k])
	}
	return len(rows)
}

// step is one step of plain SGD on the n examples loaded.
func (t *Trainer) step(n int, rate float32) (loss float64) {
	for i := range t.passes {
		t.passes[i].rate = rate
	}
	return t.propagate(n)
}

// propagate goes forward through the n examples loaded, and back with the gradient of their mean loss.
func (t *Trainer) propagate(n int) (loss float64) {
	nodes := t.network.nodes
	for i := range nodes {
		t.passes[i].n = n
		nodes[i].forward(&t.passes[i])
	}
	top := &t.passes[len(nodes)-1]
	k := n * t.network.Outputs()
	loss = t.network.loss.gradient(n, top.out[:k], t.y[:n*t.network.Targets()], top.dout[:k])
	for i := len(nodes) - 1; i >= 0; i-- {
		if nodes[i].learns {
			nodes[i].backward(&t.passes[i])
		}
	}
	return loss
}
