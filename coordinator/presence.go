package coordinator

import (
	"sync"
	"time"
)

// presenceWindow is how long a node counts as available after its last call. It is longer than the longest poll.
const presenceWindow = maxPoll + 15*time.Second

// presence remembers which nodes called this coordinator lately.
type presence struct {
	mu   sync.Mutex // guards both
	last map[string]time.Time
	here map[string]int // calls under way
}

func newPresence() *presence {
	return &presence{last: map[string]time.Time{}, here: map[string]int{}}
}

// seen notes that a call of the node begins; the function it returns notes that it ends.
func (p *presence) seen(node string, now func() time.Time) (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.here[node]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.here[node]--; p.here[node] == 0 {
			delete(p.here, node)
		}
		p.last[node] = now()
	}
}

// rests forgets a node that takes no task now.
func (p *presence) rests(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.last, node)
}

// recent is the set of nodes that are calling or called within the window.
func (p *presence) recent(now time.Time) map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	set := map[string]bool{}
	for name := range p.here {
		set[name] = true
	}
	for name, t := range p.last {
		if now.Sub(t) <= presenceWindow {
			set[name] = true
		} else {
			delete(p.last, name)
		}
	}
	return set
}
