package simulate

import (
	"fmt"
	"slices"
	"strings"

	"choir.example/fedavg"
	"choir.example/simulate/attack"
)

// For the liars of an asynchronous run a round is the updates that enter one buffer: those of one step of the server. Liars see
// every honest one of them, also those that arrive after theirs, as liars of a round see all of the round. That is no look into a
// future that they make themselves: whoever is heard in a buffer began before its step, so no update of a buffer follows from
// what others in it say, and an adversary that knows what the nodes have, which the papers' adversary does, can tell them all
// beforehand. The program of Kang and Li 2024, "AsyncFilter", forges at the same moment, when the buffer is full, from the liars'
// own updates in it. What is seen and sent is the bare delta. The discount is the server's: a lie counts by the age of the model that its
// sender was given, which no liar can deny.

// land takes in the update of a node that was heard, and makes a step of the server when the buffer is full.
func (a *airspace) land(f *flight) error {
	t := a.trial
	t.saturated.Add(int64(f.outside))
	a.waiting = append(a.waiting, f)
	if together := t.attack != nil || t.algorithm.Each(); together && len(a.waiting) < a.strategy.Buffer() {
		return nil
	}
	each, err := a.enter()
	if err != nil || int(a.buffer.Count) < a.strategy.Buffer() {
		return err
	}
	next, err := t.algorithm.Arrived(a.global, a.state, fedavg.Buffered{
		Sum: a.buffer, Each: each, Begun: f.model, Fleet: len(t.parts), Seed: t.seed(a.version + 1),
	})
	if err == nil {
		a.global, a.version = next, a.version+1
	}
	return err
}

// enter has those who wait enter the buffer, each at its discount, once the liars among them have lied. It returns them in
// order of the nodes' names; one that is in it twice has its first arrival first.
func (a *airspace) enter() (each []fedavg.Named, err error) {
	t := a.trial
	slices.SortStableFunc(a.waiting, func(f, g *flight) int { return strings.Compare(f.name, g.name) })
	for _, f := range a.waiting {
		each = append(each, fedavg.Named{Node: f.name, Update: f.update})
	}
	if t.attack != nil {
		if err := t.forge(a.version+1, each); err != nil {
			return nil, err
		}
	}
	shape := t.algorithm.Shape()
	for i, f := range a.waiting {
		t.sent.Add(int64(f.update.Bytes()))
		err := f.update.Check(shape)
		if err == nil {
			each[i].Update, err = f.update.Discounted(a.strategy.Discount(a.version - f.version))
		}
		if err == nil {
			err = a.buffer.Add(each[i].Update)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	a.waiting = nil
	return each, nil
}

// checkBuffer refuses liars who go by what others send where a buffer holds one update: they would send their own.
func (t *trial) checkBuffer(buffer int) error {
	name, alone := t.x.Fleet.Liars.Attack, attack.Alone()
	if name == "" || buffer > 1 || slices.Contains(alone, name) {
		return nil
	}
	return fmt.Errorf("fleet: liars: %s goes by what others send into the same buffer, and a buffer of 1 has room for nobody else; want one of %s, or fedbuff with a buffer of at least 2",
		name, strings.Join(alone, ", "))
}
