package coordinator

import (
	"context"
	"sync"
	"time"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"
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

// appliedBy asks a peer how far it has applied the log.
func (c *Coordinator) appliedBy(ctx context.Context, v state.Coordinator) (uint64, bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	reply, err := c.askPeer(ctx, v, &choirv1.PresenceRequest{})
	if err != nil {
		return 0, false
	}
	return reply.Applied, true
}

func (c *Coordinator) askPeer(ctx context.Context, v state.Coordinator, req *choirv1.PresenceRequest) (*choirv1.PresenceReply, error) {
	peer, err := c.peers.client(v.Name, v.Address)
	if err != nil {
		return nil, err
	}
	return peer.Presence(ctx, req)
}

// askPeers asks the other voters, at once, and waits a second at most. The answers are by name.
func (c *Coordinator) askPeers(ctx context.Context, s *state.State) map[string]*choirv1.PresenceReply {
	return c.askPeersFor(ctx, s, &choirv1.PresenceRequest{})
}

func (c *Coordinator) askPeersFor(ctx context.Context, s *state.State, req *choirv1.PresenceRequest) map[string]*choirv1.PresenceReply {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]*choirv1.PresenceReply{}
	for _, v := range s.Coordinators {
		if v.Name == c.cfg.Name {
			continue
		}
		wg.Go(func() {
			if reply, err := c.askPeer(ctx, v, req); err == nil {
				mu.Lock()
				answers[v.Name] = reply
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return answers
}
