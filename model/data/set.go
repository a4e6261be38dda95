package data

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Set is examples as a trainer takes them, in one place: public data sets for baselines, never a node's rows.
type Set struct {
	X       []float32 // inputs, one example after the other
	Y       []float32 // targets, one example after the other: class, 0 or 1, or next id
	Input   []int     // shape of one example in X: [features], [ids], or [height, width, channels]
	Targets int       // in Y of one example: 1, or one a time step; 0 where losses rank values of X
	Classes int       // targets are 0 to Classes-1; 1 for a target that is 0 or 1
}

// Len is the number of examples.
func (s *Set) Len() int {
	if s.Targets == 0 {
		return len(s.X) / s.Values()
	}
	return len(s.Y) / s.Targets
}

// Values is how many values of X are one example's.
func (s *Set) Values() int {
	n := 1
	for _, side := range s.Input {
		n *= side
	}
	return n
}

// room is an empty set of the same kind with room for n examples.
func (s *Set) room(n int) Set {
	c := *s
	c.X, c.Y = make([]float32, 0, n*s.Values()), make([]float32, 0, n*s.Targets)
	return c
}

// take appends the i-th example of another set.
func (s *Set) take(from *Set, i int) {
	n, m := from.Values(), from.Targets
	s.X, s.Y = append(s.X, from.X[i*n:(i+1)*n]...), append(s.Y, from.Y[i*m:(i+1)*m]...)
}

// Divide copies a share of the examples, from 0 to 1, drawn by the seed, into part and all others into rest, both in their old order.
func (s *Set) Divide(share float64, seed uint64) (rest, part Set) {
	all := s.Len()
	n := int(min(max(share, 0), 1) * float64(all))
	chosen := make([]bool, all)
	rng := rand.New(rand.NewPCG(seed, 0x646976696465))
	for _, i := range rng.Perm(all)[:n] {
		chosen[i] = true
	}
	rest, part = s.room(all-n), s.room(n)
	for i, c := range chosen {
		if c {
			part.take(s, i)
		} else {
			rest.take(s, i)
		}
	}
	return rest, part
}

// Tabular divides rows of a schema as Split does, and standardises them by the statistics of the part that is learnt
// from.
func Tabular(s *Schema, rows []Row, seed uint64) (train, validation, test Set, stats *Statistics, err error) {
	parts := Split(s, rows, seed)
	if stats, err = NewStatistics(s, Collect(s, parts.Train)); err != nil {
		return Set{}, Set{}, Set{}, nil, fmt.Errorf("%d rows to learn from: %w", len(parts.Train), err)
	}
	set := func(rows []Row) Set {
		x, y := stats.Matrix(rows)
		return Set{X: x, Y: y, Input: []int{s.Features()}, Targets: 1, Classes: s.Classes()}
	}
	return set(parts.Train), set(parts.Validation), set(parts.Held), stats, nil
}

// Classes is how many the label has; 1 for a boolean one.
func (s *Schema) Classes() int {
	switch c := &s.Columns[s.label()]; c.Kind {
	case Category:
		return len(c.Categories)
	case ID:
		return int(c.Max) + 1
	}
	return 1
}

// readEither reads a file of a directory, or the one of that name with .gz, which it unpacks if it is gzip.
func readEither(dir, name string, read func(path string, r io.Reader) error) error {
	path := filepath.Join(dir, name)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if zipped, other := os.Open(path + ".gz"); other == nil {
			f, path, err = zipped, path+".gz", nil
		}
	}
	if err != nil {
		return fmt.Errorf("open data: %w", err)
	}
	defer f.Close()
	plain, err := Decompress(f)
	if err == nil {
		err = read(path, plain)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
