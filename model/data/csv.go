package data

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// ReadCSV calls each for every row of a CSV file, with the line on which it starts. The first line names the columns,
// in any order; each column of the schema must be there, and a column that is in neither the schema nor its Ignore is
// an error. CRLF, a byte-order mark and quotes are understood; an empty field is a missing value. Errors begin with
// "name:line:"; the row that each receives is its own to keep.
func ReadCSV(r io.Reader, name string, s *Schema, each func(line int, row Row) error) error {
	br := bufio.NewReaderSize(r, 1<<16)
	if bom, err := br.Peek(3); err == nil && bytes.Equal(bom, []byte{0xEF, 0xBB, 0xBF}) {
		_, _ = br.Discard(3)
	}
	cr := csv.NewReader(br)
	cr.ReuseRecord = true
	header, err := cr.Read()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s:1: the file is empty", name)
	}
	if err != nil {
		return csvError(name, err)
	}
	columns, err := s.match(header)
	if err != nil {
		return fmt.Errorf("%s:1: %w", name, err)
	}
	label := s.label()
	for {
		fields, err := cr.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return csvError(name, err)
		}
		line, _ := cr.FieldPos(0)
		row := make(Row, len(s.Columns))
		for i, text := range fields {
			k := columns[i]
			if k < 0 {
				continue
			}
			c := &s.Columns[k]
			row[k], err = c.parse(strings.TrimSpace(text))
			if err == nil && k == label && row[k] != row[k] {
				err = errors.New("the label is missing")
			}
			if err != nil {
				return fmt.Errorf("%s:%d: column %s: %w", name, line, c.Name, err)
			}
		}
		if err := each(line, row); err != nil {
			return fmt.Errorf("%s:%d: %w", name, line, err)
		}
	}
}

// match maps the fields of a header to columns; -1 for those ignored.
func (s *Schema) match(header []string) ([]int, error) {
	columns := make([]int, len(header))
	var found []int
	for i, h := range header {
		name := strings.TrimSpace(h)
		k := s.column(name)
		if k < 0 && !slices.Contains(s.Ignore, name) {
			return nil, fmt.Errorf("column %q is not in schema %s", name, s.Name)
		}
		if k >= 0 && slices.Contains(found, k) {
			return nil, fmt.Errorf("column %q appears twice", name)
		}
		columns[i] = k
		if k >= 0 {
			found = append(found, k)
		}
	}
	for k := range s.Columns {
		if !slices.Contains(found, k) {
			return nil, fmt.Errorf("column %q of schema %s is missing", s.Columns[k].Name, s.Name)
		}
	}
	return columns, nil
}

// csvError puts file and line in front.
func csvError(name string, err error) error {
	var p *csv.ParseError
	if errors.As(err, &p) {
		return fmt.Errorf("%s:%d: %w", name, p.Line, p.Err)
	}
	return fmt.Errorf("read %s: %w", name, err)
}

// WriteCSV writes rows as ReadCSV reads them: a header and a line a row; a missing value is an empty field. A row that
// does not fit the schema is an error that names it, counted from 1, and nothing is written.
func WriteCSV(w io.Writer, s *Schema, rows []Row) error {
	for i, row := range rows {
		if err := s.check(row); err != nil {
			return fmt.Errorf("write CSV: row %d: %w", i+1, err)
		}
	}
	cw := csv.NewWriter(w)
	fields := make([]string, len(s.Columns))
	for i := range s.Columns {
		fields[i] = s.Columns[i].Name
	}
	if err := cw.Write(fields); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}
	for _, row := range rows {
		for i := range s.Columns {
			fields[i] = s.Columns[i].text(row[i])
		}
		if err := cw.Write(fields); err != nil {
			return fmt.Errorf("write CSV: %w", err)
		}
	}
	cw.Flush()
	if err := cw.Error(); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}
	return nil
}

// text is a value as parse reads it.
func (c *Column) text(x float64) string {
	switch {
	case x != x:
		return ""
	case c.Kind == Category:
		return c.Categories[int(x)]
	case c.Kind == Boolean && x == 1:
		return "TRUE"
	case c.Kind == Boolean:
		return "FALSE"
	}
	return strconv.FormatFloat(x, 'g', -1, 64)
}
