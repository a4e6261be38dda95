package simulate

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"choir.example/fedavg"
	"choir.example/internal/seeds"

	"golang.org/x/sync/errgroup"
)

// airspace runs an asynchronous strategy on the virtual clock: as many nodes train at a time as the cohort has, each from
// the model that there was when it began, and what arrives is taken in order of arrival. A node's update depends on nothing
// that happens after it began, so several train at once, ahead of the clock, and the models are the same for any number of
// workers.
type airspace struct {
	trial    *trial
	strategy fedavg.Asynchronous
	workers  []*worker
	clock    float64
	global   []float32
	state    [][]float32 // of the server
	version  int         // steps of the server
	flights  queue       // nodes that train, and wake-ups
	busy     []bool      // by node
	begun    uint64      // nodes that have begun
	lastly   float64     // when the last one did
	buffer   *fedavg.Sum
	waiting  []*flight // updates that are to enter the buffer together, as liars or a rule must see them all
	last     account   // since the last step
}

// flight is a node that trains.
type flight struct {
	participant
	number  uint64 // of all that have begun
	fate    fate
	wake    bool // nobody trains: it is time to look again who is there
	model   []float32
	version int // of the model
	arrives float64
	update  *fedavg.Update // nil until somebody has trained, or if that failed
	failed  error          // why there is no update, told when it would arrive
	outside int            // coordinates of the update that were too large for the grid
}

// queue are flights, the next arrival first.
type queue []*flight

func (q queue) Len() int      { return len(q) }
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q queue) Less(i, j int) bool {
	return q[i].before(q[j]) < 0
}
func (q *queue) Push(f any) { *q = append(*q, f.(*flight)) }
func (q *queue) Pop() any {
	old := *q
	f := old[len(old)-1]
	*q = old[:len(old)-1]
	return f
}

// before orders flights by arrival; who began first is first of those that arrive at one moment.
func (f *flight) before(g *flight) int {
	return cmp.Or(cmp.Compare(f.arrives, g.arrives), cmp.Compare(f.number, g.number))
}

// checkAsynchronous refuses what is for rounds, where there are none.
func (c *caller) checkAsynchronous() error {
	t, s := c.trial, &c.trial.x.Fleet
	strategy, ok := t.algorithm.Strategy.(fedavg.Asynchronous)
	if !ok {
		return nil
	}
	switch {
	case t.result.Fidelity == System:
		return errors.New("the strategy is asynchronous, and fidelity system runs coordinators, who make models in rounds; want fidelity math")
	case !s.timed():
		return errors.New("fleet: the strategy is asynchronous, so time says who comes next, and nothing takes time; want speed or bandwidth")
	case s.OverSelection != 0 || s.Deadline != 0 || s.Interval != 0 || s.Least != 0:
		return errors.New("fleet: over_selection, deadline, interval and least are for rounds, and an asynchronous strategy has none; want none of them")
	case t.x.Cohort.Draw == drawByNumPy:
		return fmt.Errorf("cohort: draw %s is for rounds, and an asynchronous strategy has none; want %s", drawByNumPy, drawBySeed)
	case s.Dropout+s.stragglersLate() >= 1:
		return fmt.Errorf("fleet: dropout of %v and stragglers of %v leave nobody who is heard; want less than 1 together", s.Dropout, s.Stragglers)
	}
	if err := t.algorithm.CheckCohort(strategy.Buffer()); err != nil {
		return err
	}
	return t.checkBuffer(strategy.Buffer())
}

// stragglersLate is the share of nodes that straggle and are late for it.
func (s *FleetSettings) stragglersLate() float64 {
	if s.Partial {
		return 0
	}
	return s.Stragglers
}

// asynchronous runs the trial; a step of the server is a round.
func (t *trial) asynchronous(ctx context.Context, strategy fedavg.Asynchronous) error {
	e, err := newEngine(t)
	if err != nil {
		return err
	}
	a := &airspace{trial: t, strategy: strategy, workers: e.workers, global: e.global, busy: make([]bool, len(t.parts)), buffer: fedavg.NewSum(t.algorithm.Shape())}
	t.account = func(int) account {
		told := a.last
		told.seconds = a.clock
		a.last = account{}
		return told
	}
	if s := t.cfg.Start; s != nil {
		if err := e.restore(s); err != nil {
			return err
		}
		if err := a.restore(s); err != nil {
			return err
		}
	}
	a.state = e.state
	for a.version < t.rounds {
		if err := a.launch(); err != nil {
			return err
		}
		if err := a.arrive(ctx); err != nil {
			return &roundError{a.version + 1, err}
		}
		if int(a.buffer.Count) < strategy.Buffer() {
			continue
		}
		e.global = a.global
		reached, err := t.closed(a.version, int(a.buffer.Count), a.global)
		if err != nil {
			return err
		}
		if reached {
			break
		}
		a.buffer = fedavg.NewSum(t.algorithm.Shape())
		if err := e.keep(a.version, a.aloft()); err != nil {
			return err
		}
	}
	return e.personal(ctx)
}

// launch has nodes begin until as many train as are wanted, or nobody is there any more.
func (a *airspace) launch() error {
	for len(a.flights) < a.trial.cohort {
		rng := rand.New(rand.NewPCG(seeds.Derive("choir/start/v1", a.trial.cfg.Seed, jobName, a.begun), 0))
		node, found := a.idle(rng)
		if !found {
			return a.wait()
		}
		a.begin(node)
	}
	return nil
}

// idle draws a node that is there and does not train: by chance, and once that is in vain for long the next one there is.
func (a *airspace) idle(rng *rand.Rand) (node int, found bool) {
	nodes := len(a.busy)
	for range 32 {
		if node = rng.IntN(nodes); a.free(node) {
			return node, true
		}
	}
	from := rng.IntN(nodes)
	for i := range nodes {
		if node = (from + i) % nodes; a.free(node) {
			return node, true
		}
	}
	return 0, false
}

func (a *airspace) free(node int) bool {
	t := a.trial
	return !a.busy[node] && t.x.Fleet.Availability.there(t.cfg.Seed, NodeName(node), t.caller.devices[node], a.clock)
}

// mostHours is how long an airspace stays empty before the run is given up.
const mostHours = 10_000

// wait looks again in the next hour, when others are there.
func (a *airspace) wait() error {
	if len(a.flights) > 0 && slices.ContainsFunc(a.flights, func(f *flight) bool { return f.wake }) {
		return nil
	}
	if a.clock > a.lastly+mostHours*3600 {
		return fmt.Errorf("fleet: availability: in %d hours no node was there", mostHours)
	}
	heap.Push(&a.flights, &flight{wake: true, number: a.begun, arrives: (math.Floor(a.clock/3600) + 1) * 3600})
	return nil
}

// begin has a node train from the model that there is.
func (a *airspace) begin(node int) {
	t, s := a.trial, &a.trial.x.Fleet
	f := &flight{participant: participant{name: NodeName(node), node: node}, number: a.begun, model: a.global, version: a.version}
	seed := t.cfg.Seed
	switch {
	case chance("choir/dropout/v1", seed, f.name, f.number) < s.Dropout:
		f.fate = lost
	case chance("choir/straggler/v1", seed, f.name, f.number) >= s.Stragglers:
	case s.Partial:
		f.epochs = 1 + int(seeds.Derive("choir/epochs/v1", seed, f.name, f.number)%uint64(t.algorithm.Local.Epochs-1))
	default:
		f.fate = late
	}
	d := t.caller.devices[node]
	epochs := cmp.Or(f.epochs, t.algorithm.Local.Epochs)
	f.arrives = a.clock + d.transfer(t.caller.load) + d.train*float64(epochs*len(t.parts[node]))
	a.busy[node], a.begun, a.lastly = true, a.begun+1, a.clock
	a.last.received += t.caller.load.down
	heap.Push(&a.flights, f)
}

// arrive takes the next arrival.
func (a *airspace) arrive(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f := a.flights[0]
	if f.untrained() {
		if err := a.train(ctx); err != nil {
			return err
		}
	}
	if f.failed != nil {
		return fmt.Errorf("%s: %w", f.name, f.failed)
	}
	heap.Pop(&a.flights)
	a.clock = f.arrives
	if f.wake {
		return nil
	}
	a.busy[f.node] = false
	switch f.fate {
	case lost:
		a.last.dropped++
		return nil
	case late:
		a.last.late++
		return nil
	}
	return a.land(f)
}

// untrained reports whether somebody still has to train for the flight.
func (f *flight) untrained() bool {
	return f.fate == heard && !f.wake && f.update == nil && f.failed == nil
}

// ahead is how many nodes each worker trains before the clock goes on, so that a slow one does not keep the others waiting.
const ahead = 4

// train trains those who arrive next, on all cores.
func (a *airspace) train(ctx context.Context) error {
	var next []*flight
	for _, f := range a.flights {
		if f.untrained() {
			next = append(next, f)
		}
	}
	slices.SortFunc(next, (*flight).before)
	next = next[:min(len(next), ahead*len(a.workers))]
	var taken atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range a.workers {
		g.Go(func() error {
			for {
				i := int(taken.Add(1)) - 1
				if i >= len(next) {
					return nil
				}
				if err := w.fly(ctx, next[i]); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// fly trains one node. It fails with ctx alone: what else fails is the flight's.
func (w *worker) fly(ctx context.Context, f *flight) error {
	t := w.trial
	w.gather("train", f.node, t.parts[f.node])
	u, err := w.client.Update(ctx, fedavg.Work{
		Global: f.model, X: w.x, Y: w.y, Epochs: f.epochs, Seed: seeds.Derive("choir/node/v1", t.cfg.Seed, f.name, f.number),
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		f.failed = err
		return nil
	}
	f.update, f.outside = u.Clone(), w.client.Saturated()
	return nil
}
