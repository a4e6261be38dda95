package data

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Column calls each for every row of a file that Read takes with the zero CSV, with the line on which it starts and the
// text of one column, which the schema may have or ignore: it says whose a row is, for instance, and is no feature. An
// empty or missing value is empty text. The rows themselves are not looked at.
func (f Format) Column(r io.Reader, name string, s *Schema, column string, each func(line int, text string) error) error {
	switch f {
	case "", FormatCSV:
		return csvColumn(r, name, s, column, each)
	case FormatJSONL:
		return jsonColumn(r, name, s, column, each)
	}
	return fmt.Errorf("read column %q of %s: a file of format %q has none, want csv or jsonl", column, name, f)
}

// Groups are the rows' groups by each column that has few values, by its name: 0 where the value is missing, otherwise a
// number for each category, each id, and false and true.
func (s *Schema) Groups(rows []Row) map[string][]int32 {
	all, places := map[string][]int32{}, s.places()
	for i := range s.Columns {
		c := &s.Columns[i]
		if c.Kind != Category && c.Kind != Boolean && c.Kind != ID {
			continue
		}
		groups := make([]int32, len(rows))
		for k, r := range rows {
			if v := r[places[i]]; v == v {
				groups[k] = int32(v) + 1
			}
		}
		all[c.Name] = groups
	}
	return all
}

func csvColumn(r io.Reader, name string, s *Schema, column string, each func(line int, text string) error) error {
	f, err := CSV{}.open(r, name, s)
	if err != nil {
		return err
	}
	at := slices.Index(f.header, column)
	if at < 0 {
		return fmt.Errorf("%s:1: there is no column %s among %s", name, quoted(column), strings.Join(f.header, ", "))
	}
	for {
		f.limit.reset()
		fields, err := f.csv.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return f.csvError(fields, err)
		}
		f.last, _ = f.csv.FieldPos(0)
		if err := each(f.last, strings.TrimSpace(fields[at])); err != nil {
			return fmt.Errorf("%s:%d: %w", name, f.last, err)
		}
	}
}

func jsonColumn(r io.Reader, name string, s *Schema, column string, each func(line int, text string) error) error {
	f, err := openLines(r, name, s, 0)
	if err != nil {
		return err
	}
	for {
		line, err := f.read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var object map[string]any
		err = json.Unmarshal(line, &object)
		if err == nil {
			text := ""
			if v := object[column]; v != nil {
				text = fmt.Sprint(v)
			}
			err = each(f.line, text)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", name, f.line, err)
		}
	}
}
