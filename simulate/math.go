package simulate

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"choir.example/fedavg"
	"choir.example/internal/seeds"
)

// math runs the trial by calling what nodes and coordinators call, on a clock that is counted in rounds.
func (t *trial) math(ctx context.Context) error {
	if strategy, ok := t.algorithm.Strategy.(fedavg.Asynchronous); ok {
		return t.asynchronous(ctx, strategy)
	}
	e, err := newEngine(t)
	if err != nil {
		return err
	}
	first := 1
	if s := t.cfg.Start; s != nil {
		if err := e.restore(s); err != nil {
			return err
		}
		first = s.Round + 1
	}
	for round := first; round <= t.rounds; round++ {
		counted, err := e.round(ctx, round)
		if err != nil {
			return &roundError{round, err}
		}
		reached, err := t.closed(round, counted, e.global)
		if err != nil {
			return err
		}
		if reached {
			break
		}
		if err := e.keep(round, nil); err != nil {
			return err
		}
	}
	return e.personal(ctx)
}

// engine is what lasts from round to round.
type engine struct {
	trial    *trial
	workers  []*worker
	global   []float32
	state    [][]float32 // of the server
	memories *memories   // of the nodes
}

func newEngine(t *trial) (*engine, error) {
	e := &engine{trial: t, global: t.algorithm.Network.Initial(t.cfg.Seed), state: t.algorithm.FirstState(), memories: &memories{byNode: map[int][][]float32{}}}
	for range t.cfg.Workers {
		c, err := fedavg.NewClient(t.algorithm)
		if err != nil {
			return nil, err
		}
		e.workers = append(e.workers, &worker{trial: t, client: c})
	}
	return e, nil
}

// round makes the next model and says how many updates are in it.
func (e *engine) round(ctx context.Context, number int) (counted int, err error) {
	t := e.trial
	drawn := t.draw(number)
	if len(drawn) == 0 {
		return 0, nil // the round is skipped, and the model stays
	}
	m := &mathRound{
		number: number, seed: t.seed(number), global: e.global, shared: t.algorithm.Shared(e.state), drawn: drawn, failed: make([]error, len(drawn)),
		memories: e.memories,
	}
	next, err := m.run(ctx, t, e.workers, e.state)
	if err != nil {
		return 0, err
	}
	e.global = next
	return len(m.drawn), nil
}

// mathRound is one round under way.
type mathRound struct {
	number   int
	seed     uint64
	global   []float32
	shared   [][]float32
	drawn    []participant
	memories *memories
	next     atomic.Int64 // of drawn
	failed   []error      // of drawn
	each     []fedavg.Named
}

// run trains everybody who was drawn and combines what they sent.
func (m *mathRound) run(ctx context.Context, t *trial, workers []*worker, state [][]float32) ([]float32, error) {
	if t.algorithm.Each() || t.attack != nil {
		m.each = make([]fedavg.Named, len(m.drawn))
	}
	var training sync.WaitGroup
	sums := make([]*fedavg.Sum, len(workers))
	for i, w := range workers {
		training.Go(func() { sums[i] = w.train(ctx, m) })
	}
	training.Wait()
	for i, err := range m.failed {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.drawn[i].name, err)
		}
	}
	for _, s := range sums[1:] {
		if err := sums[0].Merge(s); err != nil {
			return nil, err
		}
	}
	c := fedavg.Counted{Sum: sums[0], Each: m.each, Fleet: len(t.parts), Seed: m.seed}
	if t.attack != nil { // no update was added yet
		if err := m.forge(t, c.Sum); err != nil {
			return nil, err
		}
	}
	if t.algorithm.Trusts() {
		var err error
		work := fedavg.Work{Global: m.global, Shared: m.shared, Seed: seeds.Derive("choir/trusted/v1", m.seed, "", uint64(m.number))}
		if c.Trusted, err = workers[0].trusted(ctx, work); err != nil {
			return nil, err
		}
	}
	return t.algorithm.Combine(m.global, state, c)
}

// forge has liars lie, and adds up what all sent.
func (m *mathRound) forge(t *trial, sum *fedavg.Sum) error {
	if err := t.forge(m.number, m.each); err != nil {
		return err
	}
	shape := t.algorithm.Shape()
	for _, u := range m.each {
		t.sent.Add(int64(u.Bytes()))
		err := u.Check(shape)
		if err == nil {
			err = sum.Add(u.Update)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", u.Node, err)
		}
	}
	return nil
}

// trusted is the update that the server makes of examples of its own, as a node would.
func (w *worker) trusted(ctx context.Context, work fedavg.Work) (*fedavg.Update, error) {
	t, set := w.trial, &w.trial.data.Train
	w.x, w.y = w.x[:0], w.y[:0]
	for _, e := range t.root {
		w.x = append(w.x, set.X[int(e)*set.Values():][:set.Values()]...)
		w.y = append(w.y, set.Y[int(e)*set.Targets:][:set.Targets]...)
	}
	work.X, work.Y = w.x, w.y
	u, err := w.client.Update(ctx, work)
	if err != nil {
		return nil, fmt.Errorf("the server's own update: %w", err)
	}
	return u, nil
}

// worker trains one node after the other: one goroutine a core.
type worker struct {
	trial  *trial
	client *fedavg.Client
	sum    *fedavg.Sum
	x, y   []float32
}

// train takes nodes until none is left, and returns the sum of their updates. After one that failed none is begun; those before it
// are under way or done, so that the first that fails is the same for any number of workers.
func (w *worker) train(ctx context.Context, m *mathRound) *fedavg.Sum {
	w.sum = fedavg.NewSum(w.trial.algorithm.Shape())
	for {
		i := int(m.next.Add(1)) - 1
		if i >= len(m.drawn) {
			return w.sum
		}
		p := m.drawn[i]
		w.gather("train", p.node, w.trial.parts[p.node])
		u, err := w.client.Update(ctx, fedavg.Work{
			Global: m.global, Shared: m.shared, Memory: m.memories.of(p.node), X: w.x, Y: w.y, Epochs: p.epochs,
			Seed: seeds.Derive("choir/node/v1", m.seed, p.name, uint64(m.number)),
		})
		if err == nil && w.trial.attack == nil { // otherwise liars first see all of them
			w.trial.sent.Add(int64(u.Bytes()))
			err = w.sum.AddWithin(u, w.client.Changed())
		}
		if err != nil {
			m.failed[i] = err
			m.next.Store(int64(len(m.drawn)))
			return w.sum
		}
		m.memories.keep(p.node, w.client.Memory()) // every update of a round counts
		w.trial.saturated.Add(int64(w.client.Saturated()))
		if m.each != nil {
			m.each[i] = fedavg.Named{Node: p.name, Update: u.Clone()}
		}
	}
}

// gather copies examples of a node's, as the node sees them, to where they lie one after the other.
func (w *worker) gather(part string, node int, examples []int32) {
	w.x, w.y = w.trial.appendExamples(part, node, examples, w.x[:0], w.y[:0])
}

// memories are what nodes keep from round to round: of those that took part, and only if the strategy wants any.
type memories struct {
	mu     sync.Mutex // guards byNode
	byNode map[int][][]float32
}

// of is a node's memory, nil before its first update that counted.
func (m *memories) of(node int) [][]float32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byNode[node]
}

// keep remembers a copy for a node whose update counted.
func (m *memories) keep(node int, memory [][]float32) {
	if len(memory) == 0 {
		return
	}
	old := m.of(node)
	if old == nil {
		old = make([][]float32, len(memory))
	}
	for i, v := range memory {
		old[i] = append(old[i][:0], v...)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byNode[node] = old
}
