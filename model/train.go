package model

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
)

// TrainConfig says how long, how fast and in which way to train.
type TrainConfig struct {
	Epochs    int       // passes over the examples; 0 leaves the parameters alone
	Rate      float64   // learning rate, at least 0 and finite
	Seed      uint64    // of the order of examples, and of dropout
	Optimiser Optimiser // what makes a step of a gradient; it begins anew with each training
	Schedule  Schedule  // how the rate changes
	Clip      float64   // L2 norm to which a batch's gradient is scaled down; 0: none
	// Adjust changes the mean gradient of a batch before it is clipped: FedProx's term, SCAFFOLD's correction. It is called
	// for ranges of the flat parameters, which begin at at. nil leaves it.
	Adjust func(at int, params, grad []float32)
	Pause  func() // called before each step, in the goroutine that trains: it may block to leave the processor to others
	// Redraw is called before each epoch, counted from 0, in the goroutine that trains, and may write other ids to x, as
	// DrawNegatives does. As nobody knows which come, every row of an embedding then counts as touched. nil leaves x.
	Redraw func(epoch int)
}

// Validate names the setting that is out of range.
func (cfg *TrainConfig) Validate() error {
	switch {
	case !(cfg.Rate >= 0) || math.IsInf(cfg.Rate, 0):
		return fmt.Errorf("learning rate %v, want a finite one of at least 0", cfg.Rate)
	case cfg.Epochs < 0:
		return fmt.Errorf("%d epochs, want at least 0", cfg.Epochs)
	case !(cfg.Clip >= 0) || math.IsInf(cfg.Clip, 0):
		return fmt.Errorf("clip %v, want a finite norm of at least 0", cfg.Clip)
	}
	return cmp.Or(cfg.Optimiser.Validate(), cfg.Schedule.Validate())
}

// fused reports whether steps can be taken while propagating backward.
func (cfg *TrainConfig) fused() bool {
	return cfg.Optimiser.plain() && cfg.Clip == 0 && cfg.Adjust == nil
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
	tables  []*tables // one a node, nil but for lookups
	touched []Range   // what this training may change
	stepped []Range   // what the gradient of this step covers
	before  []float32 // touched parameters before training, in their places: what comes back if it fails
	order   []int32
	pcg     rand.PCG
	rng     *rand.Rand
	state   // of what is not plain SGD
}

// NewTrainer makes a trainer for batches of the given size.
func NewTrainer(network *Network, batch int) (*Trainer, error) {
	if err := network.CheckBatch(batch); err != nil {
		return nil, fmt.Errorf("trainer: %w", err)
	}
	t := &Trainer{
		network: network, batch: batch, passes: make([]pass, len(network.nodes)),
		x: make([]float32, batch*network.Inputs()), y: make([]float32, batch*network.Targets()),
		before: make([]float32, network.Size()), tables: make([]*tables, len(network.nodes)),
	}
	t.rng = rand.New(&t.pcg)
	work := make([]float32, network.work(batch))
	for i := range network.nodes {
		t.passes[i] = pass{work: work, train: true, rng: t.rng}
		if t.tables[i] = newTables(&network.nodes[i]); t.tables[i] != nil {
			t.passes[i].rows = &t.tables[i].batch
		}
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
	examples, err := t.check(params, x, y, &cfg)
	if err != nil {
		return Training{}, fmt.Errorf("train: %w", err)
	}
	t.touch(x, cfg.Redraw != nil)
	t.Reset(t.before, params)
	done, err := t.epochs(ctx, params, x, y, examples, &cfg)
	if err == nil || errors.Is(err, ErrDiverged) {
		err = t.explain(err, params, x, done)
	}
	if err != nil {
		t.Reset(params, t.before)
		return done, fmt.Errorf("train: %w", err)
	}
	return done, nil
}

func (t *Trainer) epochs(ctx context.Context, params, x, y []float32, examples int, cfg *TrainConfig) (done Training, err error) {
	t.begin(params, cfg)
	order, batch := t.inOrder(examples), t.batch
	if cfg.Optimiser.Kind == "gd" {
		batch = examples
	}
	perEpoch := (examples + batch - 1) / batch
	for epoch := range cfg.Epochs {
		if cfg.Redraw != nil {
			cfg.Redraw(epoch)
			if err := t.checkIDs(x); err != nil {
				return done, fmt.Errorf("epoch %d: %w", epoch+1, err)
			}
		}
		t.rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		sum := 0.0
		for at := 0; at < len(order); at += batch {
			if err := ctx.Err(); err != nil {
				return done, fmt.Errorf("stopped after %d steps: %w", done.Steps, err)
			}
			if cfg.Pause != nil {
				cfg.Pause()
			}
			rate := cfg.Rate * cfg.Schedule.at(done.Steps, cfg.Epochs*perEpoch, perEpoch)
			rows := order[at:min(at+batch, len(order))]
			loss := t.step(params, x, y, rows, rate, done.Steps+1, cfg)
			if math.IsNaN(loss) || math.IsInf(loss, 0) {
				return done, &divergedError{fmt.Sprintf("loss is %v at step %d, in epoch %d", loss, done.Steps+1, epoch+1)}
			}
			done.Steps++
			sum += loss * float64(len(rows))
		}
		done.Loss = sum / float64(examples)
	}
	return done, nil
}

// begin hands the parameters to the layers and forgets what was before.
func (t *Trainer) begin(params []float32, cfg *TrainConfig) {
	t.pcg.Seed(cfg.Seed, 0x747261696e)
	if !cfg.fused() {
		t.state.begin(len(params), t.touched, cfg.Optimiser)
	}
	for i := range t.passes {
		n := &t.network.nodes[i]
		t.passes[i].params, t.passes[i].grad = n.of(params), nil
		if !cfg.fused() {
			t.passes[i].grad = n.of(t.grad)
		}
	}
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

// step is one step on the rows: plain SGD while it propagates, or the gradient first and then the optimiser.
func (t *Trainer) step(params, x, y []float32, rows []int32, rate float64, number int, cfg *TrainConfig) (loss float64) {
	if !cfg.fused() {
		loss = t.gradient(x, y, rows)
		t.update(params, rate, number, cfg)
		return loss
	}
	for i := range t.passes {
		t.passes[i].rate = float32(rate)
	}
	return t.propagate(t.load(x, y, rows))
}

// propagate goes forward through the n examples loaded, and back with the gradient of their mean loss.
func (t *Trainer) propagate(n int) (loss float64) {
	loss = t.forward(n)
	for i := len(t.passes) - 1; i >= 0; i-- {
		if node := &t.network.nodes[i]; node.learns {
			node.backward(&t.passes[i])
		}
	}
	return loss
}
