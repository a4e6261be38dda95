package simulate

import (
	"context"
	"errors"
	"path/filepath"
	"sync"

	"choir.example/fedavg"
	"choir.example/node"
)

// lab is where the nodes of a trial in fidelity system work: as many at a time as there are workers, each on its own
// examples, which are copied to where the worker before had its own.
type lab struct {
	trial  *trial
	places chan *bench
	kept   *computed // nil: the run ends with its process
	sent   *sentLog
	failed func(round int, err error) // is told why there is no model of a round, and may be told again

	mu        sync.Mutex // guards what follows
	lent      map[*node.Place]*bench
	caller    *caller
	rounds    map[int]*called  // the latest that were asked about
	saturated map[string]int64 // coordinates of each node's latest update
}

// bench is a place of the lab.
type bench struct {
	node.Place
	worker worker
	node   string // whose it is
}

// newLab furnishes a lab. Below dir lies what a run that goes on needs to know; empty: it ends with its process.
func newLab(t *trial, dir string) (*lab, error) {
	own, err := newCaller(t) // which runs ahead of the trial's
	if err != nil {
		return nil, err
	}
	l := &lab{
		trial: t, places: make(chan *bench, t.cfg.Workers), lent: map[*node.Place]*bench{}, caller: own, rounds: map[int]*called{}, saturated: map[string]int64{},
	}
	sent := ""
	if dir != "" {
		if l.kept, err = openComputed(filepath.Join(dir, "computed")); err != nil {
			return nil, err
		}
		sent = filepath.Join(dir, "sent.jsonl")
	}
	if l.sent, err = openSentLog(sent, t.behind()); err != nil {
		return nil, err
	}
	for range t.cfg.Workers {
		l.places <- &bench{worker: worker{trial: t}}
	}
	return l, nil
}

// round is who is called for a round; mu is held.
func (l *lab) round(number int) *called {
	if c := l.rounds[number]; c != nil {
		return c
	}
	m := l.caller.round(number)
	c := &called{number: number, there: map[string]bool{}, parts: map[string]invitee{}, known: l.sent.nodes(number), failed: map[string]error{}}
	for _, p := range m.counted() {
		c.want = append(c.want, p.name)
	}
	if c.liars = l.trial.conspire(m); c.liars != nil {
		c.liars.remember(l.kept)
	}
	for _, name := range l.caller.candidates(m) {
		c.there[name] = true
	}
	for _, p := range m.drawn {
		c.parts[p.name] = p
	}
	l.rounds[number] = c
	delete(l.rounds, number-2)
	return c
}

// Part implements node.Lab.
func (l *lab) Part(name, _ string, round uint64) (epochs int, absent string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch p, ok := l.round(int(round)).parts[name]; {
	case !ok:
		return 0, "the experiment did not draw it"
	case p.fate == lost:
		return 0, "in the experiment it drops out"
	case p.fate == late:
		return 0, "in the experiment it comes too late"
	default:
		return p.epochs, ""
	}
}

// available tells who is there in a round.
func (l *lab) available(_ string, round uint64, name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.round(int(round)).there[name]
}

// Take implements node.Lab.
func (l *lab) Take(ctx context.Context, name string) (*node.Place, error) {
	select {
	case b := <-l.places:
		place := l.trial.places[name]
		b.worker.gather("train", place, l.trial.parts[place])
		b.X, b.Y, b.node = b.worker.x, b.worker.y, name
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lent[&b.Place] = b
		return &b.Place, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Computed implements node.Lab. A node that fails tells nobody but the lab, and stays in its round: a round without its update is
// another than the experiment's, so that the round stays open until the run is over.
func (l *lab) Computed(name string, round uint64, u *fedavg.Update, err error) (lie func(ctx context.Context) (*fedavg.Update, error)) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil // the run stops, and the node computes it when the run goes on
	}
	l.mu.Lock()
	c := l.round(int(round))
	l.mu.Unlock()
	l.note(c, name, err)
	switch {
	case err != nil:
		return stay
	case c.liars == nil:
		return nil
	}
	return l.lying(c, c.liars.add(name, u))
}

// Return implements node.Lab.
func (l *lab) Return(p *node.Place) {
	l.mu.Lock()
	b := l.lent[p]
	delete(l.lent, p)
	l.saturated[b.node] = int64(p.Saturated())
	l.mu.Unlock()
	l.places <- b
}

// sending notes an update that a node is about to send, which is the one it computed last.
func (l *lab) sending(name string, round uint64, payload []byte) {
	l.mu.Lock()
	saturated := l.saturated[name]
	l.mu.Unlock()
	l.sent.add(sentUpdate{int(round), name, int64(len(payload)), saturated})
	l.mu.Lock()
	c := l.rounds[int(round)]
	l.mu.Unlock()
	if c != nil { // otherwise the round begins with what was sent
		l.note(c, name, nil)
	}
}

// lacks lists those of nodes whose updates in a round are not to be had for the liars in it; none once a later round is open.
func (l *lab) lacks(round int, nodes []string) (missing []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for later := range l.rounds {
		if later > round {
			return nil
		}
	}
	liars := l.round(round).liars
	if liars == nil {
		return nil
	}
	liars.mu.Lock()
	defer liars.mu.Unlock()
	for _, name := range nodes {
		if liars.computed[name] == nil {
			missing = append(missing, name)
		}
	}
	return missing
}
