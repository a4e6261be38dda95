package data

import (
	"errors"
	"fmt"
	"io"
	"math"
)

// Format is how a file of rows is written. Images and their labels are two files, which ReadIDX reads.
type Format string

// Formats of one file.
const (
	FormatCSV   Format = "csv"   // a line a row, under a header: CSV; also the empty Format
	FormatJSONL Format = "jsonl" // a JSON object a line: ReadJSONL
	FormatText  Format = "text"  // a label, a tab and a text a line: ReadText
)

// Read calls each for every row of a file in this format. how says how a CSV file is written, and for every format how
// many bad rows are left out.
func (f Format) Read(r io.Reader, name string, s *Schema, how CSV, each func(line int, row Row) error) (Skipped, error) {
	switch f {
	case "", FormatCSV:
		return how.Read(r, name, s, each)
	case FormatJSONL:
		return ReadJSONL(r, name, s, how.SkipBad, each)
	case FormatText:
		return ReadText(r, name, s, how.SkipBad, each)
	}
	return Skipped{}, fmt.Errorf("read %s: format %q, want csv, jsonl or text", name, f)
}

// Skipped tells of the bad rows that were left out.
type Skipped struct {
	Rows  int      `json:"rows"`            // how many
	First []string `json:"first,omitempty"` // the first five: file, line, column and what is wrong
}

// firstBad is how many bad rows are named.
const firstBad = 5

// reading is what files of every format have in common: rows of a schema, of which some may be bad.
type reading struct {
	name    string
	schema  *Schema
	places  []int
	label   int // column
	most    int // bad rows that are left out
	skipped Skipped
}

func newReading(name string, s *Schema, most int) reading {
	return reading{name: name, schema: s, places: s.places(), label: s.label(), most: most}
}

// rows calls each for every row that next gives until io.EOF; if the schema gathers sequences, after the last one. An
// error that is a BadRow is left out, if it may be.
func (f *reading) rows(next func() (line int, row Row, err error), each func(line int, row Row) error) (Skipped, error) {
	emit := func(line int, row Row) error {
		if err := each(line, row); err != nil {
			return fmt.Errorf("%s:%d: %w", f.name, line, err)
		}
		return nil
	}
	take, g := emit, newGathering(f.schema)
	if g != nil {
		take = g.add
	}
	for {
		line, row, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = take(line, row)
		}
		if bad := (*BadRow)(nil); errors.As(err, &bad) {
			err = f.skip(err)
		}
		if err != nil {
			return f.skipped, err
		}
	}
	if g == nil {
		return f.skipped, nil
	}
	return f.skipped, g.each(emit)
}

// empty is a row of which nothing is known yet.
func (f *reading) empty() Row { return make(Row, f.places[len(f.schema.Columns)]) }

// set reads one column of a row. Its errors name the column.
func (f *reading) set(row Row, k int, read func(c *Column, into []float64) error) error {
	c, into := &f.schema.Columns[k], row[f.places[k]:f.places[k+1]]
	err := read(c, into)
	if err == nil && k == f.label && math.IsNaN(into[0]) {
		err = errors.New("the label is missing")
	}
	if err != nil {
		return fmt.Errorf("column %s: %w", c.Name, err)
	}
	return nil
}

// BadRow is the class of errors of a row that can be left out.
type BadRow struct {
	Err error // says where and why; not nil
}

// Error is the text of Err.
func (b *BadRow) Error() string { return b.Err.Error() }

// Unwrap is Err.
func (b *BadRow) Unwrap() error { return b.Err }

// skip counts a bad row. It returns an error when there are too many.
func (f *reading) skip(err error) error {
	switch {
	case f.most <= 0:
		return err
	case f.skipped.Rows >= f.most:
		return fmt.Errorf("%w; more than %d rows are bad", err, f.most)
	}
	if f.skipped.Rows++; len(f.skipped.First) < firstBad {
		f.skipped.First = append(f.skipped.First, err.Error())
	}
	return nil
}
