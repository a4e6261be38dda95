package simulate

import (
	"context"
	"maps"
	"slices"
	"sync"

	"choir.example/fedavg"
)

// conspiracy is a round of fidelity system in which liars take part. What they send may follow from what all others send,
// so they wait until everybody whose update will count has computed one. What was computed before a break, by nodes whose
// updates may count already and who then are not asked again, lies in kept.
type conspiracy struct {
	trial *trial
	round int
	kept  *computed     // nil: the run ends with its process
	want  []string      // whose updates will count
	over  chan struct{} // closed when all are there, or there can be no lie

	mu       sync.Mutex // guards what follows
	computed map[string]*fedavg.Update
	err      error // why there is no lie; settled when over is closed
}

// conspire is the conspiracy of a round, nil if nobody in it lies.
func (t *trial) conspire(m *muster) *conspiracy {
	c := &conspiracy{trial: t, round: m.number, over: make(chan struct{}), computed: map[string]*fedavg.Update{}}
	for _, p := range m.counted() {
		c.want = append(c.want, p.name)
	}
	if !slices.ContainsFunc(c.want, func(name string) bool { return t.lies(t.places[name]) }) {
		return nil
	}
	return c
}

// remember takes in what was computed before a break, and has what is computed from now on kept.
func (c *conspiracy) remember(kept *computed) {
	c.kept = kept
	if err := kept.forget(c.round); err != nil {
		c.end(err)
		return
	}
	for _, name := range c.want {
		u, err := kept.get(c.round, name)
		if err != nil {
			c.end(err)
			return
		}
		if u != nil {
			c.take(name, u)
		}
	}
}

// add takes in a copy of the update that a node has computed. For a liar it returns what waits for its lie.
func (c *conspiracy) add(node string, u *fedavg.Update) (lie func(ctx context.Context) (*fedavg.Update, error)) {
	err := c.kept.put(c.round, node, u)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.end(err)
	} else if c.computed[node] == nil { // otherwise it was computed before a break, and may be a lie by now
		c.take(node, u.Clone())
	}
	if !c.trial.lies(c.trial.places[node]) {
		return nil
	}
	own := c.computed[node]
	return func(ctx context.Context) (*fedavg.Update, error) {
		select {
		case <-c.over:
			return own, c.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take takes in an update; mu is held, or nobody else has the conspiracy yet.
func (c *conspiracy) take(node string, u *fedavg.Update) {
	c.computed[node] = u
	if len(c.computed) == len(c.want) {
		c.end(c.trial.forge(c.round, c.each()))
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
