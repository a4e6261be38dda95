package data

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
)

// Row is one example: the values of each column of the schema in its order. A number or an id, the index of a category,
// 0 or 1 for a boolean, seconds for a time: one value, and NaN if it is missing. A text or sequence has as many values as
// its length: ids, and 0 for places that are not used, after the ids of a text and before those of a sequence. The label
// is never missing in a stored row.
type Row []float64

func parseNumber(text string, x *float64) (err error) {
	*x, err = strconv.ParseFloat(text, 64)
	return err
}

// Label is the row's label: 0 or 1, the index of a category, or an id.
func (r Row) Label(s *Schema) float32 { return float32(r[s.labelPlace()]) }

// labelPlace is where in a row the label is.
func (s *Schema) labelPlace() int {
	at := 0
	for i := range s.Columns {
		if s.Columns[i].Name == s.Label {
			break
		}
		at += s.Columns[i].values()
	}
	return at
}

// check refuses a row that does not fit the schema.
func (s *Schema) check(r Row) error {
	if want := s.Values(); len(r) != want {
		return fmt.Errorf("%d values, want %d", len(r), want)
	}
	at := 0
	for i := range s.Columns {
		c := &s.Columns[i]
		n := c.values()
		if err := c.check(r[at:at+n], c.Name == s.Label); err != nil {
			return fmt.Errorf("column %s: %w", c.Name, err)
		}
		at += n
	}
	return nil
}

func (c *Column) check(values []float64, label bool) error {
	switch c.Kind {
	case Text:
		return c.checkIDs(values, c.Buckets, true)
	case Sequence:
		return c.checkIDs(values, int(c.Max), false)
	}
	return c.checkValue(values[0], label)
}

// checkIDs refuses what is no id, and a place that is not used among those that are: a text's ids come first, a
// sequence's last.
func (c *Column) checkIDs(values []float64, top int, front bool) error {
	used := 0
	for _, x := range values {
		if !isID(x, 0) || int(x) > top || math.Signbit(x) {
			return fmt.Errorf("%v is not an id from 1 to %d", x, top)
		}
		if x != 0 {
			used++
		}
	}
	ids := values[:used]
	if !front {
		ids = values[len(values)-used:]
	}
	if slices.Contains(ids, 0) {
		return fmt.Errorf("a place among its ids is empty")
	}
	if used == 0 && c.Required {
		return fmt.Errorf("the value is missing")
	}
	return nil
}

func (c *Column) checkValue(x float64, label bool) error {
	if math.IsNaN(x) {
		if c.Required || label {
			return fmt.Errorf("the value is missing")
		}
		return nil
	}
	switch c.Kind {
	case Numeric, ID:
		_, err := c.number(x)
		return err
	case Time:
		if math.IsInf(x, 0) {
			return fmt.Errorf("%v is not a time", x)
		}
	case Category:
		if x != math.Trunc(x) || x < 0 || x >= float64(len(c.Categories)) {
			return fmt.Errorf("%v is not the index of a category", x)
		}
	case Boolean:
		if x != 0 && x != 1 {
			return fmt.Errorf("%v is neither 0 nor 1", x)
		}
	}
	return nil
}

// missingBits is the one bit pattern of a missing value.
var missingBits = math.Float64bits(math.NaN())

// EncodeRow is the row in eight bytes a value. The row must fit the schema.
func (s *Schema) EncodeRow(r Row) ([]byte, error) {
	if err := s.check(r); err != nil {
		return nil, fmt.Errorf("encode row: %w", err)
	}
	b := make([]byte, 0, 8*len(r))
	for _, x := range r {
		bits := math.Float64bits(x)
		if math.IsNaN(x) {
			bits = missingBits
		}
		b = binary.LittleEndian.AppendUint64(b, bits)
	}
	return b, nil
}

// DecodeRow reads what EncodeRow wrote, and nothing else.
func (s *Schema) DecodeRow(b []byte) (Row, error) {
	n := s.Values()
	if len(b) != 8*n {
		return nil, fmt.Errorf("decode row: %d bytes, want %d", len(b), 8*n)
	}
	r := make(Row, n)
	for i := range r {
		bits := binary.LittleEndian.Uint64(b[8*i:])
		r[i] = math.Float64frombits(bits)
		if math.IsNaN(r[i]) && bits != missingBits {
			return nil, fmt.Errorf("decode row: column %s: not a value", s.columnAt(i))
		}
	}
	if err := s.check(r); err != nil {
		return nil, fmt.Errorf("decode row: %w", err)
	}
	return r, nil
}

// columnAt is the name of the column whose value is at a place of a row.
func (s *Schema) columnAt(place int) string {
	i, found := slices.BinarySearch(s.places(), place)
	if !found {
		i--
	}
	return s.Columns[i].Name
}

// RowsFromInputs makes n rows from columns of n values, as a prediction's caller gives them: numbers, strings, booleans,
// or nil for a missing value. The label may be absent and is ignored; every value of another column that is absent is
// missing. Errors name the input, and the row where it is one row's fault. The rows share one array.
func (s *Schema) RowsFromInputs(n int, inputs iter.Seq2[string, []any]) ([]Row, error) {
	places := s.places()
	width := places[len(s.Columns)]
	values, rows, given := make([]float64, n*width), make([]Row, n), make([]bool, len(s.Columns))
	for k := range rows {
		rows[k] = values[k*width : (k+1)*width : (k+1)*width]
	}
	for name, column := range inputs {
		i := s.column(name)
		if i < 0 {
			return nil, fmt.Errorf("input %s: the schema has no such column", name)
		}
		if given[i] {
			return nil, fmt.Errorf("input %s: given twice", name)
		}
		if given[i] = true; name == s.Label {
			continue
		}
		for k, v := range column {
			if err := s.Columns[i].fromInput(v, rows[k][places[i]:places[i+1]]); err != nil {
				return nil, fmt.Errorf("row %d: input %s: %w", k+1, name, err)
			}
		}
	}
	for i := range s.Columns {
		c := &s.Columns[i]
		if given[i] || c.Name == s.Label {
			continue
		}
		for _, row := range rows {
			if err := c.fromInput(nil, row[places[i]:places[i+1]]); err != nil {
				return nil, fmt.Errorf("input %s: %w", c.Name, err)
			}
		}
	}
	return rows, nil
}

// WithLabel is a copy of the row with a label, as somebody gives it who knows the outcome: a number, string or boolean.
func (s *Schema) WithLabel(r Row, v any) (Row, error) {
	if v == nil {
		return nil, fmt.Errorf("label %s: the value is missing", s.Label)
	}
	r = slices.Clone(r)
	at := s.labelPlace()
	if err := s.Columns[s.label()].fromInput(v, r[at:at+1]); err != nil {
		return nil, fmt.Errorf("label %s: %w", s.Label, err)
	}
	if err := s.check(r); err != nil {
		return nil, err
	}
	return r, nil
}

// fromInput reads what a caller or a line of JSON gives into the column's values of a row.
func (c *Column) fromInput(v any, into []float64) (err error) {
	switch x := v.(type) {
	case nil:
		return c.read("", into)
	case string:
		return c.read(x, into)
	case []any:
		return c.ids(x, into)
	case bool:
		if c.Kind != Boolean {
			return fmt.Errorf("a boolean for a %s column", c.Kind)
		}
		into[0] = 0
		if x {
			into[0] = 1
		}
		return nil
	case float64:
		into[0], err = c.fromNumber(x)
		return err
	}
	return fmt.Errorf("neither number, string nor boolean")
}

func (c *Column) fromNumber(x float64) (float64, error) {
	switch c.Kind {
	case Numeric, ID:
		return c.number(x)
	case Category:
		return c.category(strconv.FormatFloat(x, 'f', -1, 64))
	case Text, Sequence:
		return 0, fmt.Errorf("a number for a %s column", c.Kind)
	}
	return x, c.checkValue(x, true)
}
