// Package data is what a model learns from: a schema that says what each column means, importers that refuse what does
// not fit it, the federated statistics that standardise features, and a built-in data set.
//
//	schema, err := data.ParseSchema(json)
//	err = data.ReadCSV(file, "sessions.csv", schema, func(line int, row data.Row) error { … })
//	sums := data.Collect(schema, rows)              // integers; summed over all nodes
//	stats, err := data.NewStatistics(schema, sums)  // means, deviations, frequencies
//	stats.Features(row, x)                          // what a model sees
//
// Rows stay on the node that holds them; only the sums travel. The package knows no layer of a model.
package data

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxFeatures bounds the width of a feature vector, so that a schema from elsewhere cannot make a node allocate rows
// without end.
const MaxFeatures = 1 << 16

// Kind is what values of a column are.
type Kind string

// Kinds of columns.
const (
	Numeric  Kind = "numeric"  // a number in [Min, Max]
	Category Kind = "category" // one of Categories
	Boolean  Kind = "boolean"  // true or false
)

// Column describes one column.
type Column struct {
	Name       string   `json:"name"`                 // not empty or padded, once in a schema
	Kind       Kind     `json:"kind"`                 // says which of the fields below are set
	Min        float64  `json:"min,omitempty"`        // numeric: inclusive range, both finite, Min < Max
	Max        float64  `json:"max,omitempty"`        //
	Categories []string `json:"categories,omitempty"` // category: 1 to 1024 distinct values
	LongTail   bool     `json:"longTail,omitempty"`   // numeric: log(1+x) before standardising; needs Min ≥ 0
	Required   bool     `json:"required,omitempty"`   // a missing value is refused; without it the value may be empty
}

// Schema describes the rows of one data set.
type Schema struct {
	Name    string   `json:"name"`             // not empty
	Columns []Column `json:"columns"`          // 2 to 4096, in the order of a row's values
	Label   string   `json:"label"`            // name of a boolean column: what is predicted
	Unit    string   `json:"unit"`             // unit of privacy: what one row is about, e.g. "session"
	Ignore  []string `json:"ignore,omitempty"` // columns of a file that are not read
}

// ParseSchema reads a schema from JSON. An unknown key, a key in other case or given twice and text after the end are
// errors; so is anything Validate refuses.
func ParseSchema(b []byte) (*Schema, error) {
	if err := checkKeys(b); err != nil {
		return nil, fmt.Errorf("parse schema: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	s := &Schema{}
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("parse schema: %w", err)
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return s, nil
}

// Validate names the first field that is missing or wrong.
func (s *Schema) Validate() error {
	if s.Name == "" || s.Unit == "" {
		return fmt.Errorf("schema %q: name and unit are required", s.Name)
	}
	if len(s.Columns) < 2 || len(s.Columns) > 4096 {
		return fmt.Errorf("schema %s: %d columns, want 2 to 4096", s.Name, len(s.Columns))
	}
	seen := map[string]bool{}
	for _, name := range s.Ignore {
		seen[name] = true
	}
	for i := range s.Columns {
		c := &s.Columns[i]
		if !readable(c.Name) || seen[c.Name] {
			return fmt.Errorf("schema %s: column %d: name %q is empty, padded or not unique", s.Name, i+1, c.Name)
		}
		seen[c.Name] = true
		if err := c.validate(); err != nil {
			return fmt.Errorf("schema %s: column %s: %w", s.Name, c.Name, err)
		}
	}
	if i := s.column(s.Label); i < 0 || s.Columns[i].Kind != Boolean {
		return fmt.Errorf("schema %s: label %q is not a boolean column", s.Name, s.Label)
	}
	if n := s.Features(); n > MaxFeatures {
		return fmt.Errorf("schema %s: columns: %d features, want at most %d", s.Name, n, MaxFeatures)
	}
	return nil
}

// readable tells whether a file's field can equal the text: importers trim fields and take an empty one as missing.
func readable(text string) bool {
	return text != "" && strings.TrimSpace(text) == text && utf8.ValidString(text)
}

func (c *Column) validate() error {
	switch c.Kind {
	case Numeric:
		finite := !math.IsNaN(c.Min) && !math.IsInf(c.Min, 0) && !math.IsNaN(c.Max) && !math.IsInf(c.Max, 0)
		if !finite || c.Min >= c.Max {
			return fmt.Errorf("range [%v, %v] is empty or not finite", c.Min, c.Max)
		}
		if c.LongTail && c.Min < 0 {
			return fmt.Errorf("longTail needs min ≥ 0, not %v", c.Min)
		}
		if width := c.transform(c.Max) - c.transform(c.Min); width <= 0 || math.IsInf(width, 0) {
			return fmt.Errorf("range [%v, %v] cannot be scaled to [0, 1]", c.Min, c.Max)
		}
		if len(c.Categories) > 0 {
			return fmt.Errorf("a numeric column has no categories")
		}
	case Category:
		if len(c.Categories) < 1 || len(c.Categories) > 1024 {
			return fmt.Errorf("%d categories, want 1 to 1024", len(c.Categories))
		}
		if sorted := slices.Sorted(slices.Values(c.Categories)); len(slices.Compact(sorted)) != len(c.Categories) {
			return fmt.Errorf("categories are not distinct")
		}
		if i := slices.IndexFunc(c.Categories, func(v string) bool { return !readable(v) }); i >= 0 {
			return fmt.Errorf("category %d: %q is empty or padded", i+1, c.Categories[i])
		}
	case Boolean:
		if len(c.Categories) > 0 {
			return fmt.Errorf("a boolean column has no categories")
		}
	default:
		return fmt.Errorf("kind %q, want numeric, category or boolean", c.Kind)
	}
	if c.Kind != Numeric && (c.Min != 0 || c.Max != 0 || c.LongTail) {
		return fmt.Errorf("min, max and longTail belong to numeric columns")
	}
	return nil
}

// Encode is the schema as JSON in one canonical form.
func (s *Schema) Encode() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings, bools and finite floats always encode
	}
	return b
}

// Digest identifies the schema.
func (s *Schema) Digest() [32]byte { return sha256.Sum256(s.Encode()) }

// column is the index of a column by name, -1 if there is none.
func (s *Schema) column(name string) int {
	for i := range s.Columns { // a Column is large: slices.IndexFunc would copy each
		if s.Columns[i].Name == name {
			return i
		}
	}
	return -1
}

// label is the index of the label's column.
func (s *Schema) label() int { return s.column(s.Label) }

// Features is the width of the feature vector: one for a numeric or boolean column, one a category otherwise; the
// label has none.
func (s *Schema) Features() int {
	n := 0
	for i := range s.Columns {
		if s.Columns[i].Name != s.Label {
			n += s.Columns[i].width()
		}
	}
	return n
}

func (c *Column) width() int {
	if c.Kind == Category {
		return len(c.Categories)
	}
	return 1
}

// transform is the value before scaling: log(1+x) where the column has a long tail.
func (c *Column) transform(x float64) float64 {
	if c.LongTail {
		return math.Log1p(x)
	}
	return x
}

// scale maps a value in the column's range to [0, 1].
func (c *Column) scale(x float64) float64 {
	low, high := c.transform(c.Min), c.transform(c.Max)
	return (c.transform(x) - low) / (high - low)
}

// parse reads one value from text. An empty text is a missing value.
func (c *Column) parse(text string) (float64, error) {
	if text == "" {
		return c.missing()
	}
	switch c.Kind {
	case Numeric:
		var x float64
		if err := parseNumber(text, &x); err != nil {
			return 0, fmt.Errorf("%s is not a number", quoted(text))
		}
		return c.number(x)
	case Category:
		return c.category(text)
	}
	switch strings.ToLower(text) {
	case "true", "1", "yes":
		return 1, nil
	case "false", "0", "no":
		return 0, nil
	}
	return 0, fmt.Errorf("%s is not true or false", quoted(text))
}

func (c *Column) missing() (float64, error) {
	if c.Required {
		return 0, fmt.Errorf("the value is missing")
	}
	return math.NaN(), nil
}

func (c *Column) number(x float64) (float64, error) {
	if math.IsNaN(x) || x < c.Min || x > c.Max {
		return 0, fmt.Errorf("%v is outside [%v, %v]", x, c.Min, c.Max)
	}
	return x, nil
}

func (c *Column) category(text string) (float64, error) {
	i := slices.Index(c.Categories, text)
	if i < 0 {
		return 0, fmt.Errorf("%s is not one of its %d categories", quoted(text), len(c.Categories))
	}
	return float64(i), nil
}
