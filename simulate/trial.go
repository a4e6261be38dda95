package simulate

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"choir.example/fedavg"
	"choir.example/internal/seeds"
	"choir.example/simulate/attack"
	"choir.example/simulate/partition"
)

// UsualRounds is how many rounds an experiment has that does not say.
const UsualRounds = 20

// trial is an experiment with one seed, under way.
type trial struct {
	x         *Experiment
	cfg       RunConfig
	data      *Dataset
	parts     [][]int32           // examples of each node
	distorter partition.Distorter // of what nodes see; nil: they see what is there
	held      [][]int32           // of each node, for personal accuracy; nil if it is not asked for
	names     []string            // of nodes, by place
	places    map[string]int
	algorithm *fedavg.Algorithm
	attack    attack.Attack // of the liars; nil: nobody lies
	liars     []bool        // by node
	root      []int32       // examples of the server's own, for a rule that trusts an update made of them
	rounds    int
	cohort    int
	caller    *caller                 // of cohorts
	account   func(round int) account // of what became of a round that is over
	heard     []int                   // of fidelity system: updates that count, by round from the first
	start     time.Time
	result    *Result

	// Of the round under way.
	sent      atomic.Int64 // bytes of updates
	saturated atomic.Int64 // coordinates that lay outside the grid
}

func newTrial(x Experiment, cfg RunConfig) (*trial, error) {
	t := &trial{x: &x, cfg: cfg, data: x.Own.Data, rounds: cmp.Or(x.Rounds, UsualRounds)}
	if t.cfg.Stage == nil {
		t.cfg.Stage = func(string) {}
	}
	t.result = &Result{Name: x.Name, Seed: cfg.Seed, Fidelity: cmp.Or(cfg.Fidelity, Math), RoundsTo: map[string]int{}, Series: []Measurement{}}
	if t.cfg.Workers == 0 {
		t.cfg.Workers = runtime.GOMAXPROCS(0)
	}
	for _, step := range []func() error{t.check, t.load, t.divide, t.compose, t.setAside, t.suborn, t.drawable, t.call, t.foresee} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// check refuses what cannot be, before anything is read.
func (t *trial) check() error {
	if t.cfg.Start != nil && t.result.Fidelity == System && t.cfg.Dir == "" {
		return errors.New("fidelity system goes on with the coordinators and nodes in RunConfig.Dir, which is empty")
	}
	return t.x.check()
}

// load reads the data set, unless it is one's own.
func (t *trial) load() (err error) {
	if t.data != nil {
		return t.data.check()
	}
	t.cfg.Stage("reading data")
	t.data, err = cmp.Or(t.cfg.Loader, &Loader{}).Load(t.x.Data, t.cfg.Seed)
	return err
}

// compose makes the algorithm of the settings and of parts of one's own.
func (t *trial) compose() (err error) {
	if t.algorithm, err = t.x.settings().Algorithm(t.data.Train.Input, t.data.Train.Classes, t.data.Tables...); err != nil {
		return err
	}
	if t.x.Own.Strategy != nil {
		t.algorithm.Strategy = t.x.Own.Strategy
	}
	if t.x.Own.Rule != nil {
		t.algorithm.Rule = t.x.Own.Rule
	}
	return t.algorithm.Check()
}

// call makes who calls the cohorts.
func (t *trial) call() (err error) {
	if t.caller, err = newCaller(t); err != nil {
		return err
	}
	t.account = t.caller.account
	return nil
}

// divide deals the examples to nodes.
func (t *trial) divide() (err error) {
	t.cfg.Stage("dealing examples")
	p := t.x.Own.Partition
	if p == nil {
		if p, err = t.x.Partition.Partitioner(); err != nil {
			return err
		}
	}
	if t.parts, err = partition.Divide(p, t.data.examples(), t.x.Partition.Nodes, t.cfg.Seed); err != nil {
		return err
	}
	t.places = map[string]int{}
	for i := range t.parts {
		t.names = append(t.names, NodeName(i))
		t.places[NodeName(i)] = i
	}
	return t.distortTest(p)
}

// drawable settles how many nodes a round wants.
func (t *trial) drawable() error {
	c, fleet := t.x.Cohort, len(t.parts)
	switch {
	case c.Nodes < 0 || c.Nodes > fleet:
		return fmt.Errorf("cohort: nodes is %d, want 1 to %d, the fleet", c.Nodes, fleet)
	case !(c.Share >= 0 && c.Share <= 1):
		return fmt.Errorf("cohort: share is %v, want above 0 and at most 1", c.Share)
	case c.Nodes > 0 && c.Share > 0:
		return fmt.Errorf("cohort: both nodes, %d, and share, %v: want one of them", c.Nodes, c.Share)
	}
	t.cohort = fleet
	if c.Nodes > 0 {
		t.cohort = c.Nodes
	} else if c.Share > 0 {
		t.cohort = max(1, int(c.Share*float64(fleet)+.5))
	}
	return nil
}

// seed is of a round, as a federation's coordinator derives it: from the run's seed, never from the attempt.
func (t *trial) seed(round int) uint64 {
	return seeds.Derive("choir/round/v1", t.cfg.Seed, jobName, uint64(round))
}

// jobName is of the job that an experiment is in a federation.
const jobName = "experiment"

// participant is a node that was drawn for a round.
type participant struct {
	name   string
	node   int
	epochs int // 0: all of them
}

// draw is who takes part in a round and is heard: those whose updates make the next model, by name. There are none in a
// round that is skipped: muster says why.
func (t *trial) draw(round int) []participant { return t.muster(round).counted() }

// muster is who is drawn for a round, and what becomes of each. It follows from the experiment and its seed alone. It is
// valid until the next call, and not for concurrent use.
func (t *trial) muster(round int) *muster { return t.caller.round(round) }
