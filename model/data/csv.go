package data

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// CSV says how a CSV file is written, and what to do about rows that do not fit. The zero value finds the separator out
// and takes no bad row.
type CSV struct {
	Separator    rune // ',', ';', '|' or '\t'; 0: the one that makes most columns of the schema out of the header
	DecimalComma bool // numbers are written 1,5; a point is refused then
	SkipBad      int  // so many bad rows are counted and left out; with one more the file is refused
}

// separators that a header may show, the likeliest first.
var separators = []rune{',', ';', '\t', '|'}

// ReadCSV reads a file in the way that the zero CSV says.
func ReadCSV(r io.Reader, name string, s *Schema, each func(line int, row Row) error) error {
	_, err := CSV{}.Read(r, name, s, each)
	return err
}

// Read calls each for every row of a CSV file, with the line on which it starts. The first line names the columns, in
// any order; each column of the schema must be there, and a column that is in neither the schema nor its Ignore is an
// error. Gzip, CRLF, a byte-order mark and quotes are understood; an empty field is a missing value. Errors begin with
// "name:line:"; the row that each receives is its own to keep. Memory does not grow with the file, but for a schema that
// gathers sequences: then all rows are held until the last is read, and come in the order of their time.
func (c CSV) Read(r io.Reader, name string, s *Schema, each func(line int, row Row) error) (Skipped, error) {
	f, err := c.open(r, name, s)
	if err != nil {
		return Skipped{}, err
	}
	return f.rows(f.next, each)
}

// csvFile is a CSV file whose header was read.
type csvFile struct {
	reading
	CSV
	header  []string
	columns []int // of the schema, by field; -1 for those ignored
	limit   *limitedReader
	csv     *csv.Reader
	last    int // line of the last row
}

func (c CSV) open(r io.Reader, name string, s *Schema) (*csvFile, error) {
	if c.Separator != 0 && !slices.Contains(separators, c.Separator) {
		return nil, fmt.Errorf("read %s: separator %q, want one of %q", name, c.Separator, separators)
	}
	plain, err := Decompress(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	f := &csvFile{reading: newReading(name, s, c.SkipBad), CSV: c, limit: newLimit(plain)}
	text := bufio.NewReaderSize(f.limit, readAhead)
	if err := skipMark(text); err != nil {
		return nil, fmt.Errorf("%s:1: %w", name, err)
	}
	if f.Separator == 0 {
		f.Separator = findSeparator(text, s)
	}
	f.csv = csv.NewReader(text)
	f.csv.Comma, f.csv.ReuseRecord = f.Separator, true
	header, err := f.csv.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:1: the file is empty", name)
	}
	if err != nil {
		return nil, f.csvError(nil, err)
	}
	if f.columns, err = s.match(header); err != nil {
		return nil, fmt.Errorf("%s:1: %w", name, err)
	}
	for _, field := range header {
		f.header = append(f.header, strings.TrimSpace(field))
	}
	return f, nil
}

// next reads one row. A BadRow can be left out, any other error ends the file.
func (f *csvFile) next() (line int, row Row, err error) {
	f.limit.reset()
	fields, err := f.csv.Read()
	if errors.Is(err, io.EOF) {
		return 0, nil, io.EOF
	}
	if err != nil {
		return 0, nil, f.csvError(fields, err)
	}
	line, _ = f.csv.FieldPos(0)
	f.last = line
	row = f.empty()
	for i, text := range fields {
		if k := f.columns[i]; k >= 0 {
			err = f.set(row, k, func(c *Column, into []float64) error { return f.parse(c, strings.TrimSpace(text), into) })
		}
		if err != nil {
			return line, nil, &BadRow{fmt.Errorf("%s:%d: %w", f.name, line, err)}
		}
	}
	return line, row, nil
}

// parse reads one field; what has a comma or a point in it may be a number of another country.
func (f *csvFile) parse(c *Column, text string, into []float64) error {
	if c.Kind != Numeric || !strings.ContainsAny(text, ".,") {
		return c.read(text, into)
	}
	if f.DecimalComma {
		if strings.Contains(text, ".") {
			return fmt.Errorf("%s has a point, but numbers are said to have a decimal comma", quoted(text))
		}
		return c.read(strings.Replace(text, ",", ".", 1), into)
	}
	err := c.read(text, into)
	if strings.Count(text, ",") == 1 && err != nil {
		return fmt.Errorf("%w; a decimal comma is read only when asked for", err)
	}
	return err
}

// match maps the fields of a header to columns; -1 for those ignored.
func (s *Schema) match(header []string) ([]int, error) {
	columns := make([]int, len(header))
	var found []int
	for i, h := range header {
		name := strings.TrimSpace(h)
		k := s.column(name)
		if k < 0 && !slices.Contains(s.Ignore, name) {
			return nil, fmt.Errorf("column %s is not in schema %s, nor in its ignore", quoted(name), s.Name)
		}
		if k >= 0 && slices.Contains(found, k) {
			return nil, fmt.Errorf("column %s appears twice", quoted(name))
		}
		if k >= 0 && s.Columns[k].Of != "" {
			return nil, fmt.Errorf("column %q is gathered from column %q; the file must not have it", name, s.Columns[k].Of)
		}
		columns[i] = k
		if k >= 0 {
			found = append(found, k)
		}
	}
	for k := range s.Columns {
		if s.Columns[k].Of == "" && !slices.Contains(found, k) {
			return nil, fmt.Errorf("column %q of schema %s is missing", s.Columns[k].Name, s.Name)
		}
	}
	return columns, nil
}

// csvError puts file, line and place in front.
func (f *csvFile) csvError(fields []string, err error) error {
	var p *csv.ParseError
	switch {
	case errors.Is(err, errLongRow):
		return fmt.Errorf("%s:%d: %w", f.name, f.last+1, err)
	case !errors.As(err, &p):
		return fmt.Errorf("read %s: %w", f.name, err)
	case errors.Is(err, csv.ErrFieldCount):
		return &BadRow{fmt.Errorf("%s:%d: %w: %d, want %d", f.name, p.Line, p.Err, len(fields), len(f.columns))}
	case p.StartLine != p.Line: // leaving it out would leave out rows that nobody counted
		return fmt.Errorf("%s:%d: %w, in a field that goes on to line %d", f.name, p.StartLine, p.Err, p.Line)
	}
	return &BadRow{fmt.Errorf("%s:%d: %w, at byte %d", f.name, p.Line, p.Err, p.Column)}
}

// skipMark passes over a byte-order mark, and refuses those of UTF-16.
func skipMark(r *bufio.Reader) error {
	mark, _ := r.Peek(3)
	switch {
	case bytes.Equal(mark, []byte{0xEF, 0xBB, 0xBF}):
		_, _ = r.Discard(3) // they were just seen
	case bytes.HasPrefix(mark, []byte{0xFF, 0xFE}), bytes.HasPrefix(mark, []byte{0xFE, 0xFF}):
		return errors.New("the file is UTF-16; save it as UTF-8")
	}
	return nil
}

// findSeparator tries each separator on the header and takes the one that finds most columns.
func findSeparator(r *bufio.Reader, s *Schema) rune {
	head, _ := r.Peek(readAhead) // an error comes again when the header is read
	best, most := separators[0], 0
	for _, comma := range separators {
		cr := csv.NewReader(bytes.NewReader(head))
		cr.Comma = comma
		header, _ := cr.Read()
		known := 0
		for _, name := range header {
			if s.column(strings.TrimSpace(name)) >= 0 {
				known++
			}
		}
		if known > most {
			best, most = comma, known
		}
	}
	return best
}

// Decompress returns what r holds, and if that is gzip what is in it. It tells by the first two bytes.
func Decompress(r io.Reader) (io.Reader, error) {
	br := bufio.NewReaderSize(r, readAhead)
	if magic, _ := br.Peek(2); !bytes.Equal(magic, []byte{0x1F, 0x8B}) {
		return br, nil
	}
	return gzip.NewReader(br)
}

const (
	readAhead = 1 << 16
	maxRow    = 1 << 20 // bytes of a row
)

var errLongRow = fmt.Errorf("a row of more than %d bytes; is there a quote that nothing closes?", maxRow)

// limitedReader fails when one row takes more than maxRow bytes, so that a quote which is never closed does not bring
// the whole file into memory.
type limitedReader struct {
	r    io.Reader
	left int
}

func newLimit(r io.Reader) *limitedReader { return &limitedReader{r, maxRow + readAhead} }

func (l *limitedReader) reset() { l.left = maxRow + readAhead }

func (l *limitedReader) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, errLongRow
	}
	n, err := l.r.Read(b[:min(len(b), l.left)])
	l.left -= n
	return n, err
}

// WriteCSV writes rows as ReadCSV reads them: a header and a line a row; a missing value is an empty field. A row that
// does not fit the schema is an error that names it, counted from 1, and nothing is written; so is a schema whose rows do
// not hold what its files do, with a text or a sequence that is gathered.
func WriteCSV(w io.Writer, s *Schema, rows []Row) error {
	for i := range s.Columns {
		if c := &s.Columns[i]; c.Kind == Text || c.Of != "" {
			return fmt.Errorf("write CSV: column %s: its rows hold ids and not what they come from", c.Name)
		}
	}
	for i, row := range rows {
		if err := s.check(row); err != nil {
			return fmt.Errorf("write CSV: row %d: %w", i+1, err)
		}
	}
	cw := csv.NewWriter(w)
	fields, places := make([]string, len(s.Columns)), s.places()
	for i := range s.Columns {
		fields[i] = s.Columns[i].Name
	}
	if err := cw.Write(fields); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}
	for _, row := range rows {
		for i := range s.Columns {
			fields[i] = s.Columns[i].text(row[places[i]:places[i+1]])
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

// text is a field as read reads it.
func (c *Column) text(values []float64) string {
	if c.Kind == Sequence {
		return sequenceText(values)
	}
	x := values[0]
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

// quoted is what a file holds as a message shows it: the beginning, since a wrong file may hold secrets.
func quoted(text string) string {
	const most = 40 // bytes
	if len(text) <= most {
		return strconv.Quote(text)
	}
	return strconv.Quote(strings.ToValidUTF8(text[:most], "") + "…")
}
