package simulate

import (
	"context"
	"sync"
	"sync/atomic"

	"choir.example/node"
)

// lab is where the nodes of a trial in fidelity system work: as many at a time as there are workers, each on its own
// examples, which are copied to where the worker before had its own.
type lab struct {
	trial     *trial
	places    chan *bench
	saturated atomic.Int64 // coordinates of all updates

	mu    sync.Mutex // guards what follows
	lent  map[*node.Place]*bench
	parts map[int]map[string]participant // of the latest rounds asked about, by name
}

// bench is a place of the lab.
type bench struct {
	node.Place
	worker worker
}

func newLab(t *trial) *lab {
	l := &lab{trial: t, places: make(chan *bench, t.cfg.Workers), lent: map[*node.Place]*bench{}, parts: map[int]map[string]participant{}}
	for range t.cfg.Workers {
		l.places <- &bench{worker: worker{trial: t}}
	}
	return l
}

// Part implements node.Lab.
func (l *lab) Part(name, _ string, round uint64) (epochs int, absent string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	part, ok := l.part(int(round))[name]
	if !ok {
		return 0, "in the experiment it is not heard of in this round"
	}
	return part.epochs, ""
}

// part are those who are heard in a round; mu is held.
func (l *lab) part(round int) map[string]participant {
	parts, ok := l.parts[round]
	if !ok {
		parts = map[string]participant{}
		for _, p := range l.trial.draw(round) {
			parts[p.name] = p
		}
		l.parts[round] = parts
		delete(l.parts, round-2)
	}
	return parts
}

// heard is how many are heard in a round.
func (l *lab) heard(round int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.part(round))
}

// available tells who is there in a round.
func (l *lab) available(_ string, _ uint64, name string) bool {
	_, ok := l.trial.places[name]
	return ok
}

// Take implements node.Lab.
func (l *lab) Take(ctx context.Context, name string) (*node.Place, error) {
	select {
	case b := <-l.places:
		b.worker.gather(l.trial.parts[l.trial.places[name]])
		b.X, b.Y = b.worker.x, b.worker.y
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lent[&b.Place] = b
		return &b.Place, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Return implements node.Lab.
func (l *lab) Return(p *node.Place) {
	l.mu.Lock()
	b := l.lent[p]
	delete(l.lent, p)
	l.mu.Unlock()
	l.saturated.Add(int64(p.Saturated()))
	l.places <- b
}
