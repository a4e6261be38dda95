package model

import (
	"errors"
	"fmt"
	"slices"

	"choir.example/model/data"
)

// ErrID is the error class of an example that names a row no table has.
var ErrID = errors.New("id out of range")

// lookup is a layer whose parameters are rows of equal length, of which an example reads few. All rows lie one after
// the other from the layer's first parameter on, those of a second table behind those of the first. It reads ids from
// the network's input. Its gradient, what an optimiser knows of it, and copies touch only rows that were read.
type lookup interface {
	layer
	rows() (rows, length int)
	// badID is the index of the first value of in that should be an id and is none, and what was wanted; -1: all are.
	badID(in []float32) (at, rows int)
	// read adds the rows that the examples of in read.
	read(in []float32, rows *rowSet)
	// reads calls each for the columns of the input's last axis that are read, with the rows of the column's table.
	reads(each func(column, rows int))
}

// id is the whole number below rows that v holds, or -1.
func id(v float32, rows int) int {
	if i := int(v); v >= 0 && v < float32(rows) {
		return i
	}
	return -1
}

// rowSet is a set of rows in the order in which they were added. Emptying it is free.
type rowSet struct {
	mark  []uint32 // of each row: the round in which it was last added
	round uint32
	list  []int32
}

func (s *rowSet) clear() {
	s.list = s.list[:0]
	if s.round++; s.round == 0 {
		clear(s.mark)
		s.round = 1
	}
}

// add reports whether the row is new.
func (s *rowSet) add(row int) bool {
	if s.mark[row] == s.round {
		return false
	}
	s.mark[row] = s.round
	s.list = append(s.list, int32(row))
	return true
}

// Range is a part of the flat parameters.
type Range struct{ From, To int }

// tables are the sets that a Trainer keeps of a lookup layer.
type tables struct {
	training rowSet // rows that any example of this training reads
	batch    rowSet // rows that this batch reads
}

// newTables is nil unless the node is a lookup.
func newTables(n *node) *tables {
	if n.table == nil {
		return nil
	}
	rows, _ := n.table.rows()
	return &tables{training: rowSet{mark: make([]uint32, rows)}, batch: rowSet{mark: make([]uint32, rows)}}
}

// BadID is the place in x, examples one after the other, of the first value that should be the id of a row of an
// embedding's table and is none, and how many rows the table has; -1 where all are, as of a network without embeddings.
// In a prediction such an id reads as zeros.
func (n *Network) BadID(x []float32) (at, rows int) {
	for i := range n.nodes {
		if l := n.nodes[i].table; l != nil {
			if at, rows := l.badID(x); at >= 0 {
				return at, rows
			}
		}
	}
	return -1, 0
}

// checkIDs refuses examples with an id that no table has.
func (t *Trainer) checkIDs(x []float32) error {
	if at, rows := t.network.BadID(x); at >= 0 {
		w := t.network.Inputs()
		return fmt.Errorf("example %d: value %d is %v, want a whole number of 0 to %d: %w", at/w, at%w, x[at], rows-1, ErrID)
	}
	return nil
}

// checkTables refuses a network over the schema's features whose embeddings lack a row for an id that the schema takes,
// or read what is no id.
func (n *Network) checkTables(s *data.Schema) (err error) {
	columns := s.FeatureColumns()
	for i := range n.nodes {
		l := n.nodes[i].table
		if l == nil {
			continue
		}
		l.reads(func(column, rows int) {
			c := columns[column]
			switch greatest, ids := greatestID(&c); {
			case err != nil:
			case !ids:
				err = fmt.Errorf("layer %s reads column %s, which is %s and holds no ids", n.nodes[i].name, c.Name, c.Kind)
			case greatest >= rows:
				err = fmt.Errorf("layer %s has %d rows for column %s, want %d", n.nodes[i].name, rows, c.Name, greatest+1)
			}
		})
	}
	return err
}

// greatestID is that of a column's features; not ok where these are no whole numbers.
func greatestID(c *data.Column) (greatest int, ok bool) {
	switch c.Kind {
	case data.ID, data.Sequence:
		return int(c.Max), true
	case data.Text:
		return c.Buckets, true
	case data.Category, data.Boolean:
		return 1, true
	}
	return 0, false
}

// touch finds the parts of the parameters that training on x may change: all but the rows that x does not read, or every
// part.
func (t *Trainer) touch(x []float32, every bool) {
	for i := range t.network.nodes {
		if l := t.network.nodes[i].table; l != nil {
			set := &t.tables[i].training
			set.clear()
			if every {
				for row := range set.mark {
					set.add(row)
				}
				continue
			}
			l.read(x, set)
			slices.Sort(set.list)
		}
	}
	t.touched = t.ranges(t.touched[:0], trainingRows)
}

func trainingRows(of *tables) []int32 { return of.training.list }
func batchRows(of *tables) []int32    { return of.batch.list }

// ranges appends the parts that lookups have rows for, and all parameters of the other layers. Neighbours are joined.
func (t *Trainer) ranges(to []Range, rows func(*tables) []int32) []Range {
	for i := range t.network.nodes {
		n := &t.network.nodes[i]
		if n.table == nil {
			to = appendRange(to, Range{n.at, n.at + n.size()})
			continue
		}
		_, length := n.table.rows()
		for _, row := range rows(t.tables[i]) {
			from := n.at + int(row)*length
			to = appendRange(to, Range{from, from + length})
		}
	}
	return to
}

func appendRange(to []Range, r Range) []Range {
	if last := len(to) - 1; last >= 0 && to[last].To == r.From {
		to[last].To = r.To
		return to
	}
	if r.From == r.To {
		return to
	}
	return append(to, r)
}

// Touched are the parts of the parameters that the last Train may have changed, in order: everything but the rows of
// embeddings that no example read. It is valid until the next.
func (t *Trainer) Touched() []Range { return t.touched }

// Reset makes params, which were equal to global before the last Train, equal to it again.
func (t *Trainer) Reset(params, global []float32) {
	for _, r := range t.touched {
		copy(params[r.From:r.To], global[r.From:r.To])
	}
}
