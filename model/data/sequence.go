package data

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A sequence is what happened before a row: ids, the newest last, with 0 in front where there are fewer than its length.
// A file gives it as whole numbers, older ones first; of more than fit the newest are kept. Or it is gathered: in a file
// of events, such as user, item and time, the sequence of an event is the ids of column Of in earlier events with the
// same id By. Events are in the order of the schema's time column, and in that of the file without one or at equal
// times. Where the label is boolean only events count that are true, so that a history holds what was bought and not
// what was merely shown. An event whose By is missing has no history, and one whose Of is missing is in none.

// checkSequences holds sequences against the columns that they are gathered from.
func (s *Schema) checkSequences() error {
	times := 0
	for i := range s.Columns {
		c := &s.Columns[i]
		if c.Kind == Time {
			times++
		}
		if err := s.checkSequence(c); err != nil {
			return fmt.Errorf("column %s: %w", c.Name, err)
		}
	}
	if times > 1 {
		return fmt.Errorf("columns: %d time columns, want at most one", times)
	}
	return nil
}

func (s *Schema) checkSequence(c *Column) error {
	if c.Of == "" && c.By == "" {
		return nil
	}
	of, by := s.column(c.Of), s.column(c.By)
	switch {
	case of < 0 || s.Columns[of].Kind != ID:
		return fmt.Errorf("of %q is not an id column", c.Of)
	case by < 0 || s.Columns[by].Kind != ID || by == of:
		return fmt.Errorf("by %q is not another id column", c.By)
	case s.Columns[of].Min < 1 || s.Columns[of].Max > c.Max:
		return fmt.Errorf("of %q has ids from %v to %v, want them from 1 to max, %v", c.Of, s.Columns[of].Min, s.Columns[of].Max, c.Max)
	case c.Required:
		return errors.New("it is gathered, so it cannot be required: the first one is empty")
	}
	return nil
}

// maxGathered is how many values of rows are held to gather sequences: 256 MiB.
const maxGathered = 1 << 25

// gathering holds the rows of a file until the last is read.
type gathering struct {
	schema *Schema
	places []int
	values int // held, in all rows
	events []event
}

type event struct {
	line int
	row  Row
}

// newGathering is nil for a schema that gathers nothing.
func newGathering(s *Schema) *gathering {
	if !slices.ContainsFunc(s.Columns, func(c Column) bool { return c.Of != "" }) {
		return nil
	}
	return &gathering{schema: s, places: s.places()}
}

// add holds a row.
func (g *gathering) add(line int, row Row) error {
	if g.values += len(row); g.values > maxGathered {
		return fmt.Errorf("line %d: to gather sequences, all rows of a file are held in memory, at most %d values; divide the file", line, maxGathered)
	}
	g.events = append(g.events, event{line, row})
	return nil
}

// each calls do for every row with its sequences, in the order of their time.
func (g *gathering) each(do func(line int, row Row) error) error {
	if at := g.time(); at >= 0 {
		slices.SortStableFunc(g.events, func(a, b event) int { return cmp.Compare(a.row[at], b.row[at]) })
	}
	histories := make([]map[float64][]float64, len(g.schema.Columns))
	for _, e := range g.events {
		for i := range g.schema.Columns {
			if g.schema.Columns[i].Of != "" {
				g.gather(i, &histories[i], e.row)
			}
		}
		if err := do(e.line, e.row); err != nil {
			return err
		}
	}
	return nil
}

// time is where in a row its time is, -1 without one. A time that is missing is NaN, which sorts first.
func (g *gathering) time() int {
	for i := range g.schema.Columns {
		if g.schema.Columns[i].Kind == Time {
			return g.places[i]
		}
	}
	return -1
}

// gather writes the history so far into the row's i-th column, and takes the row into it.
func (g *gathering) gather(i int, histories *map[float64][]float64, row Row) {
	c := &g.schema.Columns[i]
	by, of := row[g.places[g.schema.column(c.By)]], row[g.places[g.schema.column(c.Of)]]
	if math.IsNaN(by) {
		return
	}
	if *histories == nil {
		*histories = map[float64][]float64{}
	}
	old := (*histories)[by]
	into := row[g.places[i]:g.places[i+1]]
	copy(into[len(into)-len(old):], old)
	label := g.schema.label()
	happened := g.schema.Columns[label].Kind != Boolean || row[g.places[label]] == 1
	if happened && !math.IsNaN(of) {
		if len(old) == c.Length {
			old = append(old[:0], old[1:]...)
		}
		(*histories)[by] = append(old, of)
	}
}

// parseSequence reads ids with blanks between them.
func (c *Column) parseSequence(text string, into []float64) error {
	fields := strings.Fields(text)
	ids := make([]float64, len(fields))
	for i, f := range fields {
		if err := parseNumber(f, &ids[i]); err != nil {
			return fmt.Errorf("id %d: %s is not a number", i+1, quoted(f))
		}
	}
	return c.newest(ids, into)
}

// ids reads a list of numbers.
func (c *Column) ids(list []any, into []float64) error {
	if c.Kind != Sequence {
		return fmt.Errorf("a list for a %s column", c.Kind)
	}
	ids := make([]float64, len(list))
	for i, v := range list {
		x, ok := v.(float64)
		if !ok {
			return fmt.Errorf("id %d is not a number", i+1)
		}
		ids[i] = x
	}
	return c.newest(ids, into)
}

// newest writes the newest ids to the end of into.
func (c *Column) newest(ids, into []float64) error {
	if len(ids) == 0 {
		return c.none(into)
	}
	for i, x := range ids {
		if !isID(x, 1) || x > c.Max {
			return fmt.Errorf("id %d: %v is not a whole number from 1 to %v", i+1, x, c.Max)
		}
	}
	ids = ids[max(0, len(ids)-len(into)):]
	empty := len(into) - len(ids)
	clear(into[:empty])
	copy(into[empty:], ids)
	return nil
}

// sequenceText is a sequence as parseSequence reads it.
func sequenceText(values []float64) string {
	var b []byte
	for _, x := range values {
		if x == 0 {
			continue
		}
		if len(b) > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendInt(b, int64(x), 10)
	}
	return string(b)
}

// parseTime reads a number, or a date and time as seconds since 1970.
func parseTime(text string) (float64, error) {
	var x float64
	if err := parseNumber(text, &x); err == nil && !math.IsNaN(x) && !math.IsInf(x, 0) {
		return x, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0, fmt.Errorf("%s is neither a number nor a time such as 2026-03-04T05:06:07Z", quoted(text))
	}
	return float64(t.Unix()) + float64(t.Nanosecond())/1e9, nil
}
