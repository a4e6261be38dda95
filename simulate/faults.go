package simulate

import (
	"slices"
	"sync"
	"time"

	"choir.example/coordinator"
)

// LeaderKill kills the leading coordinator in the middle of a training round, as a power cut would: at a moment when it
// holds a batch of the round that is committed and an update that is spooled and not committed. To bring about that
// moment it cuts links: before the round one node can reach the leader alone, another nobody; once the leader has
// committed a batch of its own, the second may reach the leader; when its update is spooled there, the leader dies and
// all links heal.
//
// Its observer methods are to be called by the federation's observer; Attach tells it the federation.
type LeaderKill struct {
	job     string
	round   uint64 // that is struck
	network *Network
	now     func() time.Time

	mu     sync.Mutex // guards the fields below
	f      *Federation
	term   uint64
	leader string
	victim string // the coordinator that died, once it has
	died   time.Time
	armed  bool
	second string // the node whose update is spooled when the leader dies
	healed bool   // second may reach the leader
	took   time.Duration
}

// NewLeaderKill prepares to strike in a round of a job.
func NewLeaderKill(job string, round uint64, network *Network, now func() time.Time) *LeaderKill {
	return &LeaderKill{job: job, round: round, network: network, now: now}
}

// Attach tells which federation to strike. It is called before the job is submitted.
func (k *LeaderKill) Attach(f *Federation) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.f = f
}

// Observer is what the federation's coordinators tell.
func (k *LeaderKill) Observer() coordinator.Observer {
	return coordinator.Observer{Leading: k.leading, RoundClosed: k.closed, BatchApplied: k.batch, Spooled: k.spooled}
}

// Failover is the round in which the leader died and the time from the cut to the first batch that was committed under
// a newer term. ok is false when that has not happened.
func (k *LeaderKill) Failover() (round uint64, took time.Duration, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.round, k.took, k.took > 0
}

// Victim is the coordinator that died, empty before.
func (k *LeaderKill) Victim() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.victim
}

func (k *LeaderKill) leading(name string, term uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.victim == "" && term >= k.term {
		k.leader, k.term = name, term // k.term stays the victim's once it has died
	}
}

// closed arms the trap when the leader closes the round before.
func (k *LeaderKill) closed(name string, e coordinator.RoundEvent) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.armed || k.f == nil || name != k.leader || e.Job != k.job || e.Round+1 != k.round {
		return
	}
	k.armed = true
	nodes := k.f.Nodes()
	first := nodes[0]
	k.second = nodes[len(nodes)-1]
	k.network.Cut(first, k.others()...)
	k.network.Cut(k.second, k.f.Coordinators()...)
}

// others are the coordinators that do not lead.
func (k *LeaderKill) others() []string {
	return slices.DeleteFunc(k.f.Coordinators(), func(name string) bool { return name == k.leader })
}

// batch lets the second node reach the leader once that has a committed batch of its own, and stops the clock when a
// successor commits one.
func (k *LeaderKill) batch(name string, e coordinator.RoundEvent, b coordinator.BatchEvent) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.armed || e.Job != k.job || e.Round != k.round {
		return
	}
	if k.victim == "" && !k.healed && name == k.leader && b.Coordinator == k.leader {
		k.healed = true
		k.network.Heal(k.second, k.leader)
	}
	if k.victim != "" && k.took == 0 && name != k.victim && b.Term > k.term {
		k.took = k.now().Sub(k.died)
	}
}

// spooled strikes.
func (k *LeaderKill) spooled(name string, e coordinator.RoundEvent, node string) {
	k.mu.Lock()
	if k.victim != "" || !k.healed || name != k.leader || node != k.second || e.Job != k.job || e.Round != k.round {
		k.mu.Unlock()
		return
	}
	k.victim, k.died = name, k.now()
	f := k.f
	k.mu.Unlock()
	f.Kill(name)
	for _, n := range f.Nodes() {
		k.network.Heal(n, f.Coordinators()...)
	}
}
