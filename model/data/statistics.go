package data

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"choir.example/internal/canon"
)

// StatGrid is the grid of statistics: a value scaled to [0, 1] by its column's range counts in units of 2^-22, so that
// sums and sums of squares over 2^20 rows stay below 2^43 and add up exactly over any number of nodes.
const StatGrid = 1 << 22

// StatLen is the length of a node's statistics: for each column but the label, in order, four integers for a numeric
// one (count, count at the minimum, sum, sum of squares), one a category, two for a boolean (count, ones), none for ids
// and times, which are not standardised; last the label's count and, if it is boolean, ones.
func (s *Schema) StatLen() int {
	n := s.labelLen()
	for i := range s.Columns {
		if s.Columns[i].Name != s.Label {
			n += s.Columns[i].statLen()
		}
	}
	return n
}

func (c *Column) statLen() int {
	switch c.Kind {
	case Numeric:
		return 4
	case Category:
		return len(c.Categories)
	case Boolean:
		return 2
	}
	return 0
}

// labelLen is how many integers are the label's.
func (s *Schema) labelLen() int {
	if s.Columns[s.label()].Kind == Boolean {
		return 2
	}
	return 1
}

// Collect sums what standardisation needs over rows: the layout is StatLen's. Each entry is at most 2^22 a row. The
// sums of several nodes are the sums of their entries.
func Collect(s *Schema, rows []Row) []int64 {
	sums, places := make([]int64, s.StatLen()), s.places()
	label, boolean := s.labelPlace(), s.labelLen() == 2
	for _, row := range rows {
		at := 0
		for i := range s.Columns {
			c := &s.Columns[i]
			n := c.statLen()
			if c.Name == s.Label || n == 0 {
				continue
			}
			if x := row[places[i]]; !math.IsNaN(x) {
				c.collect(sums[at:at+n], x)
			}
			at += n
		}
		sums[at]++
		if boolean {
			sums[at+1] += int64(row[label])
		}
	}
	return sums
}

func (c *Column) collect(sums []int64, x float64) {
	switch c.Kind {
	case Numeric:
		v := c.scale(x)
		sums[0]++
		if x == c.Min {
			sums[1]++
		}
		sums[2] += int64(math.RoundToEven(v * StatGrid))
		sums[3] += int64(math.RoundToEven(v * v * StatGrid))
	case Category:
		sums[int(x)]++
	case Boolean:
		sums[0]++
		sums[1] += int64(x)
	}
}

// Statistics are federated sums with what follows from them: how each column is standardised, and how synthetic rows
// are drawn.
type Statistics struct {
	schema  *Schema
	sums    []int64
	columns []columnStats
	label   float64 // share of positive labels
}

type columnStats struct {
	mean, std float64   // of the scaled value; numeric
	zeros     float64   // share at the minimum; numeric
	midMean   float64   // mean and deviation of the values above the minimum; numeric
	midStd    float64   //
	shares    []float64 // category: of each; boolean: of true
}

// maxStatRows is the most rows behind statistics: with it every sum stays below 2^62.
const maxStatRows = 1 << 40

// NewStatistics reads sums with Collect's layout, of which it keeps a copy. It refuses sums that no rows can have.
func NewStatistics(s *Schema, sums []int64) (*Statistics, error) {
	if len(sums) != s.StatLen() {
		return nil, fmt.Errorf("statistics of schema %s: %d sums, want %d", s.Name, len(sums), s.StatLen())
	}
	t := &Statistics{schema: s, sums: slices.Clone(sums)}
	label := sums[len(sums)-s.labelLen():]
	rows, ones := label[0], label[len(label)-1]
	if rows <= 0 || rows > maxStatRows {
		return nil, fmt.Errorf("statistics of schema %s: %d rows, want 1 to %d", s.Name, rows, int64(maxStatRows))
	}
	if ones < 0 || ones > rows {
		return nil, fmt.Errorf("statistics of schema %s: %d of %d labels are positive", s.Name, ones, rows)
	}
	t.label = float64(ones) / float64(rows)
	at := 0
	for i := range s.Columns {
		c := &s.Columns[i]
		if c.Name == s.Label {
			t.columns = append(t.columns, columnStats{})
			continue
		}
		cs, err := c.statistics(sums[at:at+c.statLen()], rows)
		if err != nil {
			return nil, fmt.Errorf("statistics of column %s: %w", c.Name, err)
		}
		t.columns = append(t.columns, cs)
		at += c.statLen()
	}
	return t, nil
}

func (c *Column) statistics(sums []int64, rows int64) (columnStats, error) {
	for i, v := range sums {
		if v < 0 || v > rows*StatGrid || (c.Kind != Numeric || i < 2) && v > rows {
			return columnStats{}, fmt.Errorf("sum %d is %d over %d rows", i, v, rows)
		}
	}
	switch c.Kind {
	case ID, Text, Sequence, Time:
		return columnStats{}, nil
	case Numeric:
		if err := checkNumeric(sums); err != nil {
			return columnStats{}, err
		}
		return numericStatistics(sums), nil
	case Category:
		var total int64
		for _, v := range sums {
			total += v
		}
		if total > rows {
			return columnStats{}, fmt.Errorf("%d categories over %d rows", total, rows)
		}
		cs := columnStats{shares: make([]float64, len(sums))}
		for i, v := range sums {
			cs.shares[i] = float64(v) / float64(max(total, 1))
		}
		return cs, nil
	}
	if sums[1] > sums[0] {
		return columnStats{}, fmt.Errorf("%d of %d values are true", sums[1], sums[0])
	}
	return columnStats{shares: []float64{float64(sums[1]) / float64(max(sums[0], 1))}}, nil
}

// checkNumeric holds the sums against each other: values at the minimum add nothing, any other at most StatGrid, and
// v² ≤ v in [0, 1], also after rounding.
func checkNumeric(sums []int64) error {
	count, least, sum, squares := sums[0], sums[1], sums[2], sums[3]
	switch {
	case least > count:
		return fmt.Errorf("%d of %d values are at the minimum", least, count)
	case sum > (count-least)*StatGrid:
		return fmt.Errorf("sum %d is too large for %d values above the minimum", sum, count-least)
	case squares > sum:
		return fmt.Errorf("sum of squares %d is above the sum %d", squares, sum)
	}
	return nil
}

// resolution is the least variance that the grid resolves. A value and its square are each off by at most half a unit,
// so the variance is off by at most 1.5 units: 0.5 from the square, 2·mean·0.5 ≤ 1 from the mean.
const resolution = 1.5 / StatGrid

// numericStatistics is the mean and deviation that standardise a column. Where the variance is below the resolution, a
// column whose values are all the same keeps deviation 1, so that it standardises to zero, and one with a far too wide
// range gets the least deviation that is not rounding noise.
func numericStatistics(sums []int64) columnStats {
	n := float64(max(sums[0], 1))
	above := float64(max(sums[0]-sums[1], 1))
	sum, squares := float64(sums[2])/StatGrid, float64(sums[3])/StatGrid
	cs := columnStats{mean: sum / n, zeros: float64(sums[1]) / n, midMean: sum / above}
	cs.std = math.Sqrt(max(squares/n-float64(cs.mean*cs.mean), resolution))
	cs.midStd = math.Sqrt(max(squares/above-float64(cs.midMean*cs.midMean), 0))
	if constant := sums[0] == 0 || sums[2]%sums[0] == 0 && sums[3]%sums[0] == 0; constant && cs.std*cs.std <= 2*resolution {
		cs.std = 1
	}
	return cs
}

// Schema is the schema the statistics belong to.
func (t *Statistics) Schema() *Schema { return t.schema }

// Encode is the canonical encoding: the sums.
func (t *Statistics) Encode() []byte {
	var w canon.Writer
	w.Uint(1)
	w.Uint(uint64(len(t.sums)))
	for _, v := range t.sums {
		w.Int(v)
	}
	return w.Buf
}

// DecodeStatistics reads what Encode wrote for statistics of the schema.
func DecodeStatistics(s *Schema, b []byte) (*Statistics, error) {
	r := canon.NewReader(b)
	if v := r.Uint(); r.Err() == nil && v != 1 {
		return nil, fmt.Errorf("decode statistics: version %d is not known", v)
	}
	var sums []int64
	for n := r.Len(1); len(sums) < n && r.Err() == nil; {
		sums = append(sums, r.Int())
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("decode statistics: %w", err)
	}
	return NewStatistics(s, sums)
}

// Features writes the row as a model sees it to x, of length Features: numeric columns standardised over the
// federation, categories one-hot, booleans 0 or 1, ids as the whole numbers that they are, for an embedding. A missing
// number is the mean, a missing category or boolean zero, a missing id 0. A time is left out.
func (t *Statistics) Features(row Row, x []float32) {
	clear(x)
	at, from := 0, 0
	for i := range t.schema.Columns {
		c := &t.schema.Columns[i]
		values := row[from : from+c.values()]
		from += len(values)
		if c.Name == t.schema.Label {
			continue
		}
		t.columns[i].features(c, values, x[at:at+c.width()])
		at += c.width()
	}
}

// Standardisation says what Features makes of numeric column i: (t(x) - shift)·scale, with t(x) = log(1+x) where it has a
// long tail.
func (t *Statistics) Standardisation(i int) (shift, scale float64) {
	c, cs := &t.schema.Columns[i], t.columns[i]
	low, width := c.transform(c.Min), c.transform(c.Max)-c.transform(c.Min)
	return low + cs.mean*width, 1 / (width * cs.std)
}

func (cs *columnStats) features(c *Column, values []float64, x []float32) {
	v := values[0]
	switch {
	case c.Kind == Text || c.Kind == Sequence:
		for k, id := range values {
			x[k] = float32(id)
		}
	case c.Kind == Time || math.IsNaN(v):
	case c.Kind == Numeric:
		x[0] = float32((c.scale(v) - cs.mean) / cs.std)
	case c.Kind == Category:
		x[int(v)] = 1
	default:
		x[0] = float32(v)
	}
}

// Matrix is the features of all rows, one after the other, and their labels.
func (t *Statistics) Matrix(rows []Row) (x, y []float32) {
	n := t.schema.Features()
	x, y = make([]float32, len(rows)*n), make([]float32, len(rows))
	for i, row := range rows {
		t.Features(row, x[i*n:(i+1)*n])
		y[i] = row.Label(t.schema)
	}
	return x, y
}

// Synthetic draws n feature rows from the columns' marginals alone, each independent of the others: a number is at its
// minimum with the share that was, and normal with the mean and deviation of the rest otherwise, within its range; a
// category or boolean by its share. Ids, of which nothing is summed, are drawn evenly, each place of a text or sequence
// by itself. No private row enters, only the federated sums.
//
// Cutting the normal at the range's ends moves the moments of a skewed column a little: in the built-in data by a tenth
// of a deviation for the two rates, by less for all others. A Beta with the exact moments made students no better.
func (t *Statistics) Synthetic(n int, seed uint64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 0x73796e7468))
	width := t.schema.Features()
	x := make([]float32, n*width)
	for r := range n {
		row := x[r*width : (r+1)*width]
		at := 0
		for i := range t.schema.Columns {
			c := &t.schema.Columns[i]
			if c.Name != t.schema.Label {
				t.columns[i].draw(c, rng, row[at:at+c.width()])
				at += c.width()
			}
		}
	}
	return x
}

func (cs *columnStats) draw(c *Column, rng *rand.Rand, x []float32) {
	switch c.Kind {
	case Numeric:
		v := 0.0
		if rng.Float64() >= cs.zeros {
			v = min(max(cs.midMean+rng.NormFloat64()*cs.midStd, 0), 1)
		}
		x[0] = float32((v - cs.mean) / cs.std)
	case Category:
		u := rng.Float64()
		for i, share := range cs.shares {
			if u -= share; u < 0 {
				x[i] = 1
				return
			}
		}
	case Boolean:
		if rng.Float64() < cs.shares[0] {
			x[0] = 1
		}
	case ID:
		x[0] = float32(int(c.Min) + rng.IntN(int(c.Max-c.Min)+1))
	case Text, Sequence:
		for k := range x {
			x[k] = float32(1 + rng.IntN(max(c.Buckets, int(c.Max))))
		}
	}
}
