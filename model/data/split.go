package data

import (
	"math/rand/v2"
	"slices"
)

// Parts are the disjoint parts of a data set.
type Parts struct {
	Train      []Row // is learnt from
	Validation []Row // measures models in rounds and for gates
	Held       []Row // measures for final tables only
}

// Split divides rows 70/10/20 by the seed, every class of a boolean or category label alike. It does not change rows;
// the parts share their elements.
func Split(s *Schema, rows []Row, seed uint64) Parts {
	rng := rand.New(rand.NewPCG(seed, 0x73706c6974))
	var p Parts
	for _, class := range classes(s, rows) {
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

// classes are the rows of each class, in order; all rows together where the label is an id, of which there may be too few
// of each.
func classes(s *Schema, rows []Row) [][]Row {
	label := &s.Columns[s.label()]
	if label.Kind == ID {
		return [][]Row{slices.Clone(rows)}
	}
	out := make([][]Row, max(2, len(label.Categories)))
	at := s.labelPlace()
	for _, r := range rows {
		out[int(r[at])] = append(out[int(r[at])], r)
	}
	return out
}
