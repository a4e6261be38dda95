package simulate

import (
	"fmt"
	"math"
	"math/rand/v2"

	"choir.example/fedavg"
	"choir.example/internal/seeds"
	"choir.example/model/codec"
	"choir.example/simulate/attack"
)

// suborn settles who lies and how.
func (t *trial) suborn() (err error) {
	s, set := t.x.Fleet.Liars, &t.data.Train
	if t.attack = t.x.Own.Attack; t.attack == nil {
		if t.attack, err = s.Build(attack.Data{Input: set.Input, Classes: set.Classes, Targets: set.Targets, IDs: t.data.Tables != nil}); err != nil {
			return fmt.Errorf("fleet: liars: %w", err)
		}
	} else if s.Attack != "" {
		return fmt.Errorf("fleet: liars: attack %.40q, and one of one's own, want one", s.Attack)
	}
	if t.attack == nil {
		return nil
	}
	if _, marks := t.attack.(attack.Triggered); marks && set.Targets != 1 {
		return fmt.Errorf("fleet: liars: the attack marks examples for a class, and these have %d labels each, want 1", set.Targets)
	}
	if t.liars, err = s.Liars(len(t.parts), seeds.Derive("choir/liars/v1", t.cfg.Seed, "", 0)); err != nil {
		return fmt.Errorf("fleet: liars: %w", err)
	}
	return nil
}

// lies reports whether a node is a liar.
func (t *trial) lies(node int) bool { return t.liars != nil && t.liars[node] }

// poison changes a liar's examples.
func (t *trial) poison(node int, x, y []float32) {
	seed := seeds.Derive("choir/poison/v1", t.cfg.Seed, NodeName(node), 0)
	t.attack.Poison(x, y, rand.New(rand.NewPCG(seed, 0)))
}

// forge has liars send what their attack makes of the round's updates, each of which is the round's own and stands in order
// of the nodes' names.
func (t *trial) forge(number int, each []fedavg.Named) error {
	var honest, liars []fedavg.Named
	for _, u := range each {
		if t.lies(t.places[u.Node]) {
			liars = append(liars, u)
		} else {
			honest = append(honest, u)
		}
	}
	if len(liars) == 0 {
		return nil
	}
	shape := t.algorithm.Shape()
	for i := range shape.Vectors {
		seed := seeds.Derive("choir/forge/v1", t.seed(number), "", uint64(i))
		r := &attack.Round{Step: t.algorithm.Grid.Step(), Rand: rand.New(rand.NewPCG(seed, 0)), Sent: make([][]float64, len(liars))}
		for _, u := range honest {
			r.Honest = append(r.Honest, u.Vectors[i])
		}
		for _, u := range liars {
			r.Own = append(r.Own, u.Vectors[i])
		}
		t.attack.Forge(r)
		for k, v := range r.Sent {
			if v == nil {
				continue
			}
			if len(v) != len(liars[k].Vectors[i]) {
				return fmt.Errorf("%s: the attack sends %d coordinates, want %d", liars[k].Node, len(v), len(liars[k].Vectors[i]))
			}
			toGrid(v, liars[k].Vectors[i], t.algorithm.Grid, shape.ClipSquared)
		}
	}
	return nil
}

// toGrid rounds a vector to the grid and within its bounds; what is no number is zero.
func toGrid(v []float64, q []int32, grid codec.Grid, clipSquared int64) {
	limit := float64(grid.Limit())
	for k, x := range v {
		if x != x {
			x = 0
		}
		q[k] = int32(math.RoundToEven(min(max(x, -limit), limit)))
	}
	codec.Clip(q, clipSquared)
}
