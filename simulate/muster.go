package simulate

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"choir.example/fedavg"
	"choir.example/internal/seeds"
)

// fate is what becomes of a node that was drawn for a round.
type fate int

const (
	heard fate = iota // its update is in the next model
	lost              // it is never heard of again
	late              // its update, if it sends one, comes after the round is over
)

// invitee is a node that was drawn for a round.
type invitee struct {
	participant
	fate
	sends   bool    // an update, be it too late
	arrives float64 // seconds from the round's beginning
}

// muster is who is drawn for a round, and what becomes of them. It follows from the experiment and its seed alone, so that
// both fidelities have the same.
type muster struct {
	number     int
	drawn      []invitee // by name
	skipped    string    // why the round makes no model; empty: it does
	begin, end float64   // on the virtual clock
}

// counted are those whose updates make the next model, by name; none if the round is skipped.
func (m *muster) counted() (ps []participant) {
	if m.skipped != "" {
		return nil
	}
	for i := range m.drawn {
		if m.drawn[i].fate == heard {
			ps = append(ps, m.drawn[i].participant)
		}
	}
	return ps
}

// count is how many have a fate.
func (m *muster) count(f fate) (n int) {
	for i := range m.drawn {
		if m.drawn[i].fate == f {
			n++
		}
	}
	return n
}

// caller musters cohorts, one round after the other, since a round begins when the last one is over.
type caller struct {
	trial     *trial
	selection selection
	devices   []device // by node; nil: nothing takes time and all are always there
	load      payload
	last      muster
}

// newCaller draws the devices, and refuses a fleet that cannot do what it is asked to.
func newCaller(t *trial) (*caller, error) {
	c := &caller{trial: t, load: payload{t.algorithm.ModelBytes(), t.algorithm.UpdateBytes()}}
	var err error
	if c.selection, err = t.x.Cohort.selection(); err != nil {
		return nil, err
	}
	s := &t.x.Fleet
	if s.timed() || !s.Availability.always() {
		for i := range t.parts {
			c.devices = append(c.devices, s.deviceOf(t.cfg.Seed, NodeName(i)))
		}
	}
	return c, c.check()
}

// check holds the fleet's settings against the others.
func (c *caller) check() error {
	t, s := c.trial, &c.trial.x.Fleet
	if err := s.check(); err != nil {
		return err
	}
	if err := c.checkAsynchronous(); err != nil {
		return err
	}
	wanted := c.wanted()
	switch epochs := t.algorithm.Local.Epochs; {
	case s.Partial && s.Stragglers > 0 && epochs < 2:
		return fmt.Errorf("fleet: stragglers are to do fewer than local: epochs, which is %d; want at least 2 epochs, or not partial", epochs)
	case s.Least > t.cohort:
		return fmt.Errorf("fleet: least is %d, want at most %d, the cohort", s.Least, t.cohort)
	case wanted > len(t.parts):
		return fmt.Errorf("fleet: over_selection is %v and draws %d nodes of %d, want at most %.4g", s.OverSelection, wanted, len(t.parts), float64(len(t.parts))/float64(t.cohort)-1)
	}
	if _, ok := t.algorithm.Strategy.(fedavg.Asynchronous); ok {
		return nil // what follows is of rounds
	}
	if err := t.algorithm.CheckCohort(t.cohort); err != nil {
		return err
	}
	if fastest := c.fastest(); s.Deadline > 0 && fastest > s.Deadline {
		return fmt.Errorf("fleet: deadline is %v seconds, and the fastest node takes %.4g; want at least so many", s.Deadline, fastest)
	}
	most := c.most(wanted)
	switch {
	case most == 0:
		return fmt.Errorf("fleet: dropout of %v and stragglers of %v leave nobody of %d who is heard; want each below 1", s.Dropout, s.Stragglers, wanted)
	case s.Least > most:
		return fmt.Errorf("fleet: least is %d, and dropout of %v and stragglers of %v leave at most %d updates; want at most so many", s.Least, s.Dropout, s.Stragglers, most)
	}
	return t.algorithm.CheckCohort(most)
}

// most is how many updates of so many nodes that are drawn can come in a round, at most.
func (c *caller) most(drawn int) int {
	s := &c.trial.x.Fleet
	away := int(s.Dropout * float64(drawn))
	if !s.Partial {
		away = max(away, c.selection.fewest(s.Stragglers, drawn))
	}
	return min(c.trial.cohort, drawn-away)
}

// wanted is how many are drawn for a round, if so many are there.
func (c *caller) wanted() int {
	return int(math.Ceil(float64(c.trial.cohort)*(1+c.trial.x.Fleet.OverSelection) - 1e-9))
}

// fastest is how many seconds the node takes that is there first.
func (c *caller) fastest() float64 {
	least, epochs := math.Inf(1), c.trial.algorithm.Local.Epochs
	if c.trial.x.Fleet.Partial {
		epochs = min(epochs, 1)
	}
	for node, d := range c.devices {
		least = min(least, d.transfer(c.load)+d.train*float64(epochs*len(c.trial.parts[node])))
	}
	return least
}

// round is the muster of a round. Rounds that were not asked for before are mustered on the way.
func (c *caller) round(number int) *muster {
	if number < c.last.number {
		c.last = muster{}
	}
	for c.last.number < number {
		c.next()
	}
	return &c.last
}

// next musters the next round.
func (c *caller) next() {
	t := c.trial
	m := muster{number: c.last.number + 1, begin: c.last.end}
	names := c.there(m.begin)
	goal := min(t.cohort, len(names))
	seed := t.seed(m.number)
	drawn := c.selection.cohort(m.number, seed, names, selected(goal, t.x.Fleet.OverSelection, len(names)))
	for _, name := range slices.Sorted(slices.Values(drawn)) {
		m.drawn = append(m.drawn, invitee{participant: participant{name: name, node: t.places[name]}, sends: true})
	}
	c.disturb(&m, seed, drawn)
	c.settle(&m, goal, seed)
	c.last = m
}

// there are the nodes that can take part, by place.
func (c *caller) there(clock float64) []string {
	t := c.trial
	a := t.x.Fleet.Availability
	if a.always() {
		return t.names
	}
	var names []string
	for _, name := range t.names {
		if a.there(t.cfg.Seed, name, c.devices[t.places[name]], clock) {
			names = append(names, name)
		}
	}
	return names
}

// candidates are the nodes that a federation draws the cohort of: those that are there, and if the experiment draws in its
// own way those whom it drew.
func (c *caller) candidates(m *muster) (names []string) {
	if _, same := c.selection.(seedSelection); same {
		return c.there(m.begin)
	}
	for i := range m.drawn {
		names = append(names, m.drawn[i].name)
	}
	return names
}

// selected is how many are drawn for a goal.
func selected(goal int, over float64, fleet int) int {
	return min(int(math.Ceil(float64(goal)*(1+over)-1e-9)), fleet)
}

// settle decides who comes in time, and when the round is over.
func (c *caller) settle(m *muster, goal int, seed uint64) {
	s := &c.trial.x.Fleet
	for i := range m.drawn {
		c.time(&m.drawn[i])
	}
	arrivals := m.arrivals(seed)
	for _, d := range arrivals[min(goal, len(arrivals)):] {
		d.fate = late // after as many as were wanted
	}
	arrivals = arrivals[:min(goal, len(arrivals))]
	took := 0.0
	if n := len(arrivals); n > 0 {
		took = arrivals[n-1].arrives
	}
	if s.Deadline > 0 && len(arrivals) < min(goal, len(m.drawn)) {
		took = s.Deadline // which it waits for those who do not come
	}
	if m.skipped = c.tooFew(len(m.drawn), len(arrivals)); len(m.drawn) < max(s.Least, 1) && !s.Availability.always() {
		took = max(took, 3600-math.Mod(m.begin, 3600)) // until others are there
	}
	m.end = m.begin + max(took, s.Interval)
}

// tooFew is why a round with so many updates makes no model; empty: it does.
func (c *caller) tooFew(drawn, updates int) string {
	least := max(c.trial.x.Fleet.Least, 1)
	switch {
	case drawn < least:
		return fmt.Sprintf("%d of %d nodes are there, at least %d are wanted", drawn, len(c.trial.parts), least)
	case updates < least:
		return fmt.Sprintf("%d of %d updates came, at least %d are wanted", updates, drawn, least)
	case c.trial.algorithm.Rule != nil:
		if err := c.trial.algorithm.Rule.Check(updates); err != nil {
			return err.Error()
		}
	}
	return ""
}

// disturb says who drops out and who does not manage all epochs, of the names in the order in which they were drawn.
func (c *caller) disturb(m *muster, seed uint64, drawn []string) {
	s := &c.trial.x.Fleet
	of := func(name string) *invitee {
		at, _ := slices.BinarySearchFunc(m.drawn, name, func(d invitee, name string) int { return cmp.Compare(d.name, name) })
		return &m.drawn[at]
	}
	for _, slow := range c.selection.stragglers(m.number, seed, drawn, s.Stragglers, c.trial.algorithm.Local.Epochs) {
		if d := of(slow.name); s.Partial {
			d.epochs = slow.epochs
		} else {
			d.fate, d.sends = late, false
		}
	}
	for _, name := range chosen("dropout", m.number, seed, drawn, s.Dropout) {
		d := of(name)
		d.fate, d.sends = lost, false
	}
}

// part is a share of n: exact where that is a whole number, otherwise one of the two beside it, so that the mean is exact.
func part(share float64, n int, seed uint64) int {
	exact := share * float64(n)
	if whole := math.Round(exact); math.Abs(exact-whole) < 1e-9 {
		return int(whole)
	}
	return int(exact + chance("choir/part/v1", seed, "", 0))
}

// time says when an update arrives, and what of it if that is too late.
func (c *caller) time(d *invitee) {
	if c.devices == nil {
		return
	}
	s, node := &c.trial.x.Fleet, c.devices[d.node]
	epoch := node.train * float64(len(c.trial.parts[d.node]))
	epochs := cmp.Or(d.epochs, c.trial.algorithm.Local.Epochs)
	d.arrives = node.transfer(c.load) + float64(epochs)*epoch
	if d.fate != heard || s.Deadline == 0 || d.arrives <= s.Deadline {
		return
	}
	if fit := (s.Deadline - node.transfer(c.load)) / epoch; s.Partial && fit >= 1 {
		d.epochs = int(fit)
		d.arrives = node.transfer(c.load) + float64(d.epochs)*epoch
		return
	}
	d.fate = late
}

// arrivals are those who come in time, the first first. Who arrives at one moment is ordered by chance, not by name.
func (m *muster) arrivals(seed uint64) []*invitee {
	var in []*invitee
	for i := range m.drawn {
		if m.drawn[i].fate == heard {
			in = append(in, &m.drawn[i])
		}
	}
	slices.SortFunc(in, func(a, b *invitee) int {
		return cmp.Or(cmp.Compare(a.arrives, b.arrives), cmp.Compare(seeds.Derive("choir/arrival/v1", seed, a.name, 0), seeds.Derive("choir/arrival/v1", seed, b.name, 0)))
	})
	return in
}

// account is what became of a round that is over, and what it cost.
type account struct {
	dropped, late     int
	skipped           string
	seconds           float64 // on the virtual clock, at its end
	received, tooLate int64   // bytes of models, and of updates that do not count
}

func (c *caller) account(round int) account {
	m := c.round(round)
	a := account{
		dropped: m.count(lost), late: m.count(late), skipped: m.skipped, seconds: m.end, received: int64(len(m.drawn)) * c.load.down,
	}
	for i := range m.drawn {
		if d := &m.drawn[i]; d.sends && (d.fate != heard || m.skipped != "") {
			a.tooLate += c.load.up
		}
	}
	return a
}
