package simulate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"choir.example/fedavg"
)

// conspiracy is a round of fidelity system in which liars take part. What they send may follow from what all others send,
// so they wait until everybody whose update will count has computed one.
type conspiracy struct {
	trial *trial
	round int
	want  int           // updates that will count
	over  chan struct{} // closed when all are there, or one cannot be

	mu       sync.Mutex // guards what follows
	computed map[string]*fedavg.Update
	err      error // why there is no lie; settled when over is closed
}

// conspire is the conspiracy of a round, nil if nobody in it lies.
func (t *trial) conspire(m *muster) *conspiracy {
	counted := m.counted()
	if !slices.ContainsFunc(counted, func(p participant) bool { return t.lies(p.node) }) {
		return nil
	}
	return &conspiracy{trial: t, round: m.number, want: len(counted), over: make(chan struct{}), computed: map[string]*fedavg.Update{}}
}

// add takes in a copy of the update that a node has computed, or why there is none. For a liar it returns what waits for its lie.
func (c *conspiracy) add(node string, u *fedavg.Update, err error) (lie func(ctx context.Context) (*fedavg.Update, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.end(fmt.Errorf("the liars wait for the update of %s, and there is none: %w", node, err))
		return nil
	}
	own := u.Clone()
	c.computed[node] = own
	if len(c.computed) == c.want {
		c.end(c.trial.forge(c.round, c.each()))
	}
	if !c.trial.lies(c.trial.places[node]) {
		return nil
	}
	return func(ctx context.Context) (*fedavg.Update, error) {
		select {
		case <-c.over:
			return own, c.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// each are the updates, in order of names.
func (c *conspiracy) each() (all []fedavg.Named) {
	for _, node := range slices.Sorted(maps.Keys(c.computed)) {
		all = append(all, fedavg.Named{Node: node, Update: c.computed[node]})
	}
	return all
}

// end lets the liars go on, with a lie or without one. Only the first end counts.
func (c *conspiracy) end(err error) {
	select {
	case <-c.over:
	default:
		c.err = err
		close(c.over)
	}
}
