package simulate

import (
	"testing"
	"time"

	"choir.example/coordinator"
)

// Another leads before the moment has come, and may never get an update of the round: nobody stays cut off, and the next
// round is struck. The same of a new attempt, to which the last node must come.
func TestLeaderKillWaitsForAnotherRound(t *testing.T) {
	n := NewMemoryNetwork()
	f := &Federation{names: []string{"node-01", "node-02"}}
	var at []string
	for _, name := range []string{"c1", "c2", "c3"} {
		at = append(at, echo(t, n, name))
		f.voters = append(f.voters, coordinator.Voter{Name: name})
	}
	reaches := func(node string) (names string) {
		for i, address := range at {
			if c, err := n.Dialer(node)(t.Context(), address); err == nil {
				_ = c.Close()
				names += f.voters[i].Name
			}
		}
		return names
	}
	check := func(when, first, last string) {
		t.Helper()
		if a, b := reaches("node-01"), reaches("node-02"); a != first || b != last {
			t.Errorf("%s: node-01 reaches %q and node-02 %q, want %q and %q", when, a, b, first, last)
		}
	}
	k := NewLeaderKill("job", 1, n, time.Now)
	k.Attach(f)
	o := k.Observer()
	o.Leading("c2", 2)
	k.Sending("node-02", "job", 1, 1)
	k.Sending("node-01", "job", 1, 1)
	check("before the first batch", "c2", "")
	o.Leading("c3", 3)
	check("another leads", "c1c2c3", "c1c2c3")
	k.Sending("node-02", "job", 1, 2)
	check("an attempt of the round that is let go", "c1c2c3", "c1c2c3")
	k.Sending("node-01", "job", 2, 1)
	k.Sending("node-02", "job", 2, 1)
	check("the next round", "c3", "")
	k.Sending("node-01", "job", 2, 2)
	check("another attempt", "c3", "c1c2c3")
	k.Sending("node-02", "job", 2, 2)
	o.BatchApplied("c1", coordinator.RoundEvent{Job: "job", Round: 2, Attempt: 2}, coordinator.BatchEvent{Coordinator: "c3", Term: 3})
	check("a batch, as another coordinator sees it", "c3", "")
	o.BatchApplied("c3", coordinator.RoundEvent{Job: "job", Round: 2, Attempt: 2}, coordinator.BatchEvent{Coordinator: "c3", Term: 3})
	check("the leader has a batch", "c3", "c3")
}
