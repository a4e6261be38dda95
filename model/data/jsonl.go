package data

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

// ReadJSONL calls each for every line of a file of JSON objects, with its number. Keys are columns of the schema or
// names in its Ignore, each at most once; values are numbers, strings as in CSV, true and false, a list of numbers for a
// sequence, and null for a missing value, as which one that is absent counts, too. So many bad lines as skipBad says are
// counted and left out. Gzip, CRLF and a byte-order mark are understood. Errors begin with "name:line:" and name the
// key; the row that each receives is its own to keep. Memory grows as for CSV.
func ReadJSONL(r io.Reader, name string, s *Schema, skipBad int, each func(line int, row Row) error) (Skipped, error) {
	f, err := openLines(r, name, s, skipBad)
	if err != nil {
		return Skipped{}, err
	}
	return f.rows(func() (int, Row, error) { return f.next(f.object) }, each)
}

// ReadText calls each for every line of a file of labels and texts: a label, a tab, and the rest of the line, which is
// the text; there is no header and nothing is quoted. The schema has no other column but its label and one text. What
// ReadJSONL says of bad lines, errors and rows goes for this, too.
func ReadText(r io.Reader, name string, s *Schema, skipBad int, each func(line int, row Row) error) (Skipped, error) {
	text := slices.IndexFunc(s.Columns, func(c Column) bool { return c.Kind == Text })
	if text < 0 || len(s.Columns) != 2 {
		return Skipped{}, fmt.Errorf("read %s: lines of a label, a tab and a text need a schema of two columns, the label and a text; %s has %d",
			name, s.Name, len(s.Columns))
	}
	f, err := openLines(r, name, s, skipBad)
	if err != nil {
		return Skipped{}, err
	}
	return f.rows(func() (int, Row, error) {
		return f.next(func(line []byte, row Row) error { return f.labelled(line, row, text) })
	}, each)
}

// lineFile is a file of lines.
type lineFile struct {
	reading
	r    *bufio.Reader
	line int
	long []byte // a line that did not fit the reader's buffer
}

func openLines(r io.Reader, name string, s *Schema, skipBad int) (*lineFile, error) {
	plain, err := Decompress(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	f := &lineFile{reading: newReading(name, s, skipBad), r: bufio.NewReaderSize(plain, readAhead)}
	if err := skipMark(f.r); err != nil {
		return nil, fmt.Errorf("%s:1: %w", name, err)
	}
	if _, err := f.r.Peek(1); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:1: the file is empty", name)
	}
	return f, nil
}

// next parses the next line. A BadRow can be left out, any other error ends the file.
func (f *lineFile) next(parse func(line []byte, row Row) error) (int, Row, error) {
	text, err := f.read()
	if err != nil {
		return 0, nil, err
	}
	row := f.empty()
	if !utf8.Valid(text) {
		err = errors.New("the line is not UTF-8")
	} else {
		err = parse(text, row)
	}
	if err != nil {
		return f.line, nil, &BadRow{fmt.Errorf("%s:%d: %w", f.name, f.line, err)}
	}
	return f.line, row, nil
}

// read is the next line without its end, valid until the next call.
func (f *lineFile) read() ([]byte, error) {
	f.line++
	f.long = f.long[:0]
	for {
		part, err := f.r.ReadSlice('\n')
		if len(f.long)+len(part) > maxRow {
			return nil, fmt.Errorf("%s:%d: a line of more than %d bytes", f.name, f.line, maxRow)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			f.long = append(f.long, part...)
			continue
		case errors.Is(err, io.EOF) && len(f.long)+len(part) == 0:
			return nil, io.EOF
		case err != nil && !errors.Is(err, io.EOF):
			return nil, fmt.Errorf("read %s: %w", f.name, err)
		}
		if len(f.long) > 0 {
			f.long = append(f.long, part...)
			part = f.long
		}
		return bytes.TrimSuffix(bytes.TrimSuffix(part, []byte{'\n'}), []byte{'\r'}), nil
	}
}

// object reads a line of JSON.
func (f *lineFile) object(line []byte, row Row) error {
	d := json.NewDecoder(bytes.NewReader(line))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return jsonError(d, err, "the line is not a JSON object")
	}
	given := make([]bool, len(f.schema.Columns))
	for d.More() {
		if err := f.member(d, row, given); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return jsonError(d, err, "the object is not closed")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("text after the object, at byte %d", d.InputOffset()+1)
	}
	for k := range given {
		if given[k] || f.schema.Columns[k].Of != "" {
			continue
		}
		if err := f.set(row, k, func(c *Column, into []float64) error { return c.fromInput(nil, into) }); err != nil {
			return err
		}
	}
	return nil
}

// member reads one key and its value.
func (f *lineFile) member(d *json.Decoder, row Row, given []bool) error {
	t, err := d.Token()
	name, ok := t.(string)
	if err != nil || !ok {
		return jsonError(d, err, "a key is not a string")
	}
	var v any
	if err := d.Decode(&v); err != nil {
		return fmt.Errorf("key %s: %w", quoted(name), jsonError(d, err, ""))
	}
	k := f.schema.column(name)
	switch {
	case k < 0 && slices.Contains(f.schema.Ignore, name):
		return nil
	case k < 0:
		return fmt.Errorf("key %s is not in schema %s, nor in its ignore", quoted(name), f.schema.Name)
	case given[k]:
		return fmt.Errorf("key %s is given twice", quoted(name))
	case f.schema.Columns[k].Of != "":
		return fmt.Errorf("key %s is gathered from column %q; the file must not have it", quoted(name), f.schema.Columns[k].Of)
	}
	given[k] = true
	return f.set(row, k, func(c *Column, into []float64) error { return c.fromInput(v, into) })
}

// jsonError says in plain words where a line stops being JSON.
func jsonError(d *json.Decoder, err error, otherwise string) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the JSON is cut, or the line is empty")
	case errors.As(err, new(*json.UnmarshalTypeError)): // JSON has larger numbers than a float64
		return errors.New("the number is too large")
	case err != nil:
		return fmt.Errorf("not JSON at byte %d: %w", d.InputOffset()+1, err)
	}
	return errors.New(otherwise)
}

// labelled reads a label, a tab and a text, which is the column with this index.
func (f *lineFile) labelled(line []byte, row Row, text int) error {
	label, rest, found := bytes.Cut(line, []byte{'\t'})
	if !found {
		return errors.New("there is no tab after the label")
	}
	read := func(value []byte) func(*Column, []float64) error {
		return func(c *Column, into []float64) error { return c.read(string(bytes.TrimSpace(value)), into) }
	}
	if err := f.set(row, f.label, read(label)); err != nil {
		return err
	}
	return f.set(row, text, read(rest))
}
