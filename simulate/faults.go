package simulate

import (
	"slices"
	"sync"
	"time"

	"choir.example/coordinator"
)

// LeaderKill kills the leading coordinator in the middle of a training round, as a power cut would: at a moment when it
// holds a batch of the round that is committed and an update that is spooled and not committed. To bring about that
// moment it cuts links at the instant at which a node is about to send its update: the first node can then reach the
// leader alone, the last nobody, until the leader has a committed batch of its own; from then on the last reaches the
// leader alone. When its update is spooled there, the leader dies and all links heal. If another leads before, as on a
// machine that is overworked, the round goes on unharmed and the next one is struck.
//
// The federation's observers are to call Observer's functions and Sending; Attach tells which federation it is.
type LeaderKill struct {
	job     string
	network *Network
	now     func() time.Time

	mu      sync.Mutex // guards the fields below
	round   uint64     // that is struck
	f       *Federation
	term    uint64 // of leader; the victim's once it has died
	leader  string
	attempt uint32
	batched bool // the leader has a committed batch of its own in this attempt
	waiting bool // the last node is about to send
	victim  string
	died    time.Time
	took    time.Duration
}

// NewLeaderKill prepares to strike in a round of a job.
func NewLeaderKill(job string, round uint64, network *Network, now func() time.Time) *LeaderKill {
	return &LeaderKill{job: job, round: round, network: network, now: now}
}

// Attach tells which federation to strike: one of at least three coordinators and two nodes. It is called before the
// job is submitted.
func (k *LeaderKill) Attach(f *Federation) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.f = f
}

// Observer is what the federation's coordinators tell.
func (k *LeaderKill) Observer() coordinator.Observer {
	return coordinator.Observer{Leading: k.leading, BatchApplied: k.batch, Spooled: k.spooled}
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
	if k.victim != "" || term <= k.term {
		return
	}
	k.leader, k.term, k.batched = name, term, false
	if k.attempt > 0 { // the round's updates may have gone through another, and none may come to the leader any more
		k.round, k.attempt, k.waiting = k.round+1, 0, false
		k.heal()
	}
}

// heal lets all nodes reach all coordinators. k.mu is held.
func (k *LeaderKill) heal() {
	for _, n := range k.f.Nodes() {
		k.network.Heal(n, k.f.Coordinators()...)
	}
}

// Sending is to be called by a node's observer before the first byte of an update leaves.
func (k *LeaderKill) Sending(node, job string, round uint64, attempt uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.f == nil || k.victim != "" || job != k.job || round != k.round {
		return
	}
	k.begin(attempt)
	switch nodes := k.f.Nodes(); node {
	case nodes[len(nodes)-1]:
		k.waiting = true
		k.network.Cut(node, k.f.Coordinators()...)
		k.release()
	case nodes[0]:
		k.network.Cut(node, k.others()...)
	}
}

// begin forgets an attempt that was abandoned before the moment came. k.mu is held.
func (k *LeaderKill) begin(attempt uint32) {
	if attempt > k.attempt {
		if k.attempt > 0 {
			k.heal() // the last node still tries to send the update of the attempt that is over
		}
		k.attempt, k.batched, k.waiting = attempt, false, false
	}
}

// release lets the last node reach the leader, once it waits and the leader has a batch of its own. k.mu is held.
func (k *LeaderKill) release() {
	if k.waiting && k.batched {
		nodes := k.f.Nodes()
		k.network.Heal(nodes[len(nodes)-1], k.leader)
	}
}

// others are the coordinators that do not lead. k.mu is held.
func (k *LeaderKill) others() []string {
	return slices.DeleteFunc(k.f.Coordinators(), func(name string) bool { return name == k.leader })
}

// batch notes the leader's first batch, and stops the clock when a successor commits one.
func (k *LeaderKill) batch(name string, e coordinator.RoundEvent, b coordinator.BatchEvent) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.f == nil || e.Job != k.job || e.Round != k.round {
		return
	}
	if k.victim == "" && name == k.leader && b.Coordinator == k.leader && e.Attempt >= k.attempt {
		k.begin(e.Attempt)
		k.batched = true
		k.release()
	}
	if k.victim != "" && k.took == 0 && name != k.victim && b.Term > k.term {
		k.took = k.now().Sub(k.died)
	}
}

// spooled strikes.
func (k *LeaderKill) spooled(name string, e coordinator.RoundEvent, node string) {
	k.mu.Lock()
	if k.victim != "" || !k.waiting || !k.batched || name != k.leader || e.Job != k.job || e.Round != k.round ||
		e.Attempt != k.attempt || node != k.f.Nodes()[len(k.f.Nodes())-1] {
		k.mu.Unlock()
		return
	}
	k.victim, k.died = name, k.now()
	f := k.f
	k.mu.Unlock()
	f.Kill(name)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.heal()
}
