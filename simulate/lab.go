package simulate

import (
	"context"
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

// called is who is called for a round.
type called struct {
	there map[string]bool // by name
	parts map[string]invitee
	liars *conspiracy // nil: nobody lies
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
	c := &called{there: map[string]bool{}, parts: map[string]invitee{}}
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

// Computed implements node.Lab.
func (l *lab) Computed(name string, round uint64, u *fedavg.Update, err error) (lie func(ctx context.Context) (*fedavg.Update, error)) {
	l.mu.Lock()
	liars := l.round(int(round)).liars
	l.mu.Unlock()
	if liars == nil {
		return nil
	}
	return liars.add(name, u, err)
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
