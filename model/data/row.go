package data

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
)

// Row is one example: a value for each column of the schema in its order. A number, the index of a category, 0 or 1 for
// a boolean; NaN is a missing value. The label is never missing in a stored row.
type Row []float64

func parseNumber(text string, x *float64) (err error) {
	*x, err = strconv.ParseFloat(text, 64)
	return err
}

// Label is the row's label, 0 or 1.
func (r Row) Label(s *Schema) float32 { return float32(r[s.label()]) }

// check refuses a row that does not fit the schema.
func (s *Schema) check(r Row) error {
	if len(r) != len(s.Columns) {
		return fmt.Errorf("%d values, want %d", len(r), len(s.Columns))
	}
	for i := range s.Columns {
		c := &s.Columns[i]
		if err := c.check(r[i], c.Name == s.Label); err != nil {
			return fmt.Errorf("column %s: %w", c.Name, err)
		}
	}
	return nil
}

func (c *Column) check(x float64, label bool) error {
	if math.IsNaN(x) {
		if c.Required || label {
			return fmt.Errorf("the value is missing")
		}
		return nil
	}
	switch c.Kind {
	case Numeric:
		_, err := c.number(x)
		return err
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
	if len(b) != 8*len(s.Columns) {
		return nil, fmt.Errorf("decode row: %d bytes, want %d", len(b), 8*len(s.Columns))
	}
	r := make(Row, len(s.Columns))
	for i := range r {
		bits := binary.LittleEndian.Uint64(b[8*i:])
		r[i] = math.Float64frombits(bits)
		if math.IsNaN(r[i]) && bits != missingBits {
			return nil, fmt.Errorf("decode row: column %s: not a value", s.Columns[i].Name)
		}
	}
	if err := s.check(r); err != nil {
		return nil, fmt.Errorf("decode row: %w", err)
	}
	return r, nil
}

// RowsFromInputs makes n rows from columns of n values, as a prediction's caller gives them: numbers, strings, booleans,
// or nil for a missing value. The label may be absent and is ignored; every value of another column that is absent is
// missing. Errors name the input, and the row where it is one row's fault. The rows share one array.
func (s *Schema) RowsFromInputs(n int, inputs iter.Seq2[string, []any]) ([]Row, error) {
	width := len(s.Columns)
	values, rows, given := make([]float64, n*width), make([]Row, n), make([]bool, width)
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
			var err error
			if rows[k][i], err = s.Columns[i].fromInput(v); err != nil {
				return nil, fmt.Errorf("row %d: input %s: %w", k+1, name, err)
			}
		}
	}
	for i := range s.Columns {
		c := &s.Columns[i]
		if given[i] || c.Name == s.Label {
			continue
		}
		missing, err := c.missing()
		if err != nil {
			return nil, fmt.Errorf("input %s: %w", c.Name, err)
		}
		for _, row := range rows {
			row[i] = missing
		}
	}
	return rows, nil
}

// WithLabel is a copy of the row with a label, as somebody gives it who knows the outcome: a number, string or boolean.
func (s *Schema) WithLabel(r Row, v any) (Row, error) {
	label := s.label()
	if v == nil {
		return nil, fmt.Errorf("label %s: the value is missing", s.Label)
	}
	x, err := s.Columns[label].fromInput(v)
	if err != nil {
		return nil, fmt.Errorf("label %s: %w", s.Label, err)
	}
	r = slices.Clone(r)
	r[label] = x
	if err := s.check(r); err != nil {
		return nil, err
	}
	return r, nil
}

func (c *Column) fromInput(v any) (float64, error) {
	switch x := v.(type) {
	case nil:
		return c.missing()
	case string:
		return c.parse(x)
	case bool:
		if c.Kind != Boolean {
			return 0, fmt.Errorf("a boolean for a %s column", c.Kind)
		}
		if x {
			return 1, nil
		}
		return 0, nil
	case float64:
		switch c.Kind {
		case Numeric:
			return c.number(x)
		case Category:
			return c.category(strconv.FormatFloat(x, 'f', -1, 64))
		}
		return x, c.check(x, true)
	}
	return 0, fmt.Errorf("neither number, string nor boolean")
}
