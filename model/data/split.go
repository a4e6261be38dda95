package data

import (
	"math/rand/v2"
)

// Parts are the disjoint parts of a data set.
type Parts struct {
	Train      []Row // is learnt from
	Validation []Row // measures models in rounds and for gates
	Held       []Row // measures for final tables only
}

// Split divides rows 70/10/20 by the seed, positives and negatives alike. It does not change rows; the parts share
// their elements.
func Split(s *Schema, rows []Row, seed uint64) Parts {
	rng := rand.New(rand.NewPCG(seed, 0x73706c6974))
	var p Parts
	for _, label := range []float32{0, 1} {
		var class []Row
		for _, r := range rows {
			if r.Label(s) == label {
				class = append(class, r)
			}
		}
		rng.Shuffle(len(class), func(i, j int) { class[i], class[j] = class[j], class[i] })
		train, validation := len(class)*7/10, len(class)*8/10
		p.Train = append(p.Train, class[:train]...)
		p.Validation = append(p.Validation, class[train:validation]...)
		p.Held = append(p.Held, class[validation:]...)
	}
	for _, part := range [][]Row{p.Train, p.Validation, p.Held} {
		rng.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
	}
	return p
}
