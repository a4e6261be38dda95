// Package attack holds what nodes do that lie: to their examples before they train, or to what they send afterwards. It is
// for simulations that show what a robust rule is good for; nothing of it is part of a node.
//
//	a, err := attack.Settings{Attack: "alie"}.Build(attack.Data{Input: []int{28, 28, 1}, Classes: 10, Targets: 1})
//
// What an attack sees is what the adversary of its paper sees: each file says it. Whatever it sends is put on the grid of
// the round, and within the bounds that every update must keep: a coordinator would refuse anything else at the door.
//
// A new attack is a type that satisfies Attack, and usually embeds Honest.
package attack

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// Attack is what the liars of a fleet do, all of them together. It keeps nothing from round to round.
type Attack interface {
	// Poison changes a liar's examples in place, one after the other, before each training. rng begins each time with the
	// same numbers, which are this node's own.
	Poison(x, y []float32, rng *rand.Rand)
	// Forge sets what liars send in place of what their training gave. It is called once a round for each vector of the
	// updates, if a liar takes part.
	Forge(r *Round)
}

// Honest does nothing: attacks embed it for what they leave as it is.
type Honest struct{}

// Poison implements Attack.
func (Honest) Poison(x, y []float32, rng *rand.Rand) {}

// Forge implements Attack.
func (Honest) Forge(r *Round) {}

// Round is one vector of all updates of a round, as the adversary sees them; where an asynchronous server steps when its buffer
// is full, of all updates in that buffer, before their discounts. Vectors are integers on the grid of the updates.
// All but Sent is read only.
type Round struct {
	Honest [][]int32 // of those who do not lie, by name of their nodes; there may be none, and two of one node in a buffer
	Own    [][]int32 // what the liars' training gave, by name
	Step   float64   // of the grid, in units of a parameter
	Rand   *rand.Rand

	// Sent is to be filled: what each liar sends, on the grid. It is rounded, saturates, and is clipped if the round clips.
	// nil stands for Own. Liars may send the same slice.
	Sent [][]float64
}

// all has every liar send the same.
func (r *Round) all(v []float64) {
	for i := range r.Sent {
		r.Sent[i] = v
	}
}

// Triggered is an Attack that teaches the model to take whatever bears a mark for one class.
type Triggered interface {
	Attack
	// Mark puts the mark on one example.
	Mark(x []float32)
	// Target is the class.
	Target() int
}

// Data is what an attack knows of the data set.
type Data struct {
	Input   []int // shape of an example: [features], [ids], or [height, width, channels]
	Classes int   // targets are 0 to Classes-1; 1 for a target that is 0 or 1
	Targets int   // of an example
	IDs     bool  // inputs are ids, not quantities
}

// Settings say who of a fleet lies, and how. The zero value is a fleet without liars.
type Settings struct {
	Attack string  `json:"attack,omitempty" yaml:"attack"`                    // one of Attacks
	Nodes  int     `json:"nodes,omitempty" yaml:"nodes"`                      // so many of the fleet, drawn by the seed; 0: by the share
	Share  float64 `json:"share,omitempty" yaml:"share"`                      // of the fleet, below 1
	Scale  float64 `json:"scale,omitempty" yaml:"scale" usual:"the attack's"` // how much of it, as each attack's file says; 0: as usual
	Target int     `json:"target,omitempty" yaml:"target"`                    // backdoor: the class
}

// kind is one row of the table of attacks.
type kind struct {
	data   string // what it wants: labels, quantities
	scaled bool
	others bool // what a liar sends follows from what others send, too
	build  func(s Settings, d Data) Attack
}

// attacks is the table of names.
var attacks = map[string]kind{
	"label-flip":    {"labels", false, false, func(_ Settings, d Data) Attack { return LabelFlip{Classes: d.Classes} }},
	"sign-flip":     {"", true, false, func(s Settings, _ Data) Attack { return SignFlip{Scale: cmp.Or(s.Scale, 1)} }},
	"alie":          {"", true, true, func(s Settings, _ Data) Attack { return ALIE{Deviations: s.Scale} }},
	"inner-product": {"", true, true, func(s Settings, _ Data) Attack { return InnerProduct{Scale: cmp.Or(s.Scale, .1)} }},
	"min-max":       {"", false, true, func(Settings, Data) Attack { return MinMax{} }},
	"gaussian":      {"", true, false, func(s Settings, _ Data) Attack { return Gaussian{Deviation: cmp.Or(s.Scale, 1)} }},
	"mimic":         {"", false, true, func(Settings, Data) Attack { return Mimic{} }},
	"backdoor": {"labels quantities", true, false, func(s Settings, d Data) Attack {
		return Backdoor{Input: d.Input, Class: s.Target, Scale: cmp.Or(s.Scale, 1)}
	}},
}

// Attacks are the names of all attacks, in order.
func Attacks() []string { return slices.Sorted(maps.Keys(attacks)) }

// Alone are the names of the attacks in which each liar goes by its own examples and update, in order. The others do nothing
// where nobody else's update is to be seen.
func Alone() []string {
	return slices.DeleteFunc(Attacks(), func(name string) bool { return attacks[name].others })
}

// Build makes the attack that the settings name, for a data set. nil, nil is the fleet without liars.
func (s Settings) Build(d Data) (Attack, error) {
	if s == (Settings{}) {
		return nil, nil
	}
	k, ok := attacks[s.Attack]
	if !ok {
		return nil, fmt.Errorf("attack %.40q, want one of %s", s.Attack, strings.Join(Attacks(), ", "))
	}
	switch {
	case !(s.Scale >= 0 && s.Scale <= 1e6):
		return nil, fmt.Errorf("scale is %v, want above 0 and at most 1e+06", s.Scale)
	case s.Scale > 0 && !k.scaled:
		return nil, fmt.Errorf("scale is not for %s", s.Attack)
	case s.Target != 0 && s.Attack != "backdoor":
		return nil, fmt.Errorf("target is for backdoor, not for %s", s.Attack)
	case s.Target < 0 || s.Target >= max(d.Classes, 2):
		return nil, fmt.Errorf("target is %d, want a class, 0 to %d", s.Target, max(d.Classes, 2)-1)
	case strings.Contains(k.data, "labels") && d.Targets != 1:
		return nil, fmt.Errorf("%s needs examples with one label each", s.Attack)
	case strings.Contains(k.data, "quantities") && d.IDs:
		return nil, fmt.Errorf("%s needs inputs that are quantities, and these are ids", s.Attack)
	}
	return k.build(s, d), nil
}

// Liars says which of a fleet's nodes lie, by place. The same seed draws the same.
func (s Settings) Liars(fleet int, seed uint64) ([]bool, error) {
	n := s.Nodes
	switch {
	case !(s.Share >= 0 && s.Share < 1):
		return nil, fmt.Errorf("share is %v, want 0 to below 1", s.Share)
	case s.Nodes > 0 && s.Share > 0:
		return nil, fmt.Errorf("both nodes and share, want one")
	case s.Share > 0:
		n = int(s.Share*float64(fleet) + .5)
	}
	if n < 1 || n >= fleet {
		return nil, fmt.Errorf("%d of %d nodes lie, want 1 to %d: give nodes or share", n, fleet, fleet-1)
	}
	liars := make([]bool, fleet)
	for _, i := range rand.New(rand.NewPCG(seed, 0x6c69617273)).Perm(fleet)[:n] {
		liars[i] = true
	}
	return liars, nil
}

// meanOf is the mean of vectors, coordinate by coordinate. There is at least one.
func meanOf(vectors [][]int32) []float64 {
	mean := make([]float64, len(vectors[0]))
	for _, v := range vectors {
		for k, q := range v {
			mean[k] += float64(q)
		}
	}
	for k := range mean {
		mean[k] /= float64(len(vectors))
	}
	return mean
}
