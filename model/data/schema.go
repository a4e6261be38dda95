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
	ID       Kind = "id"       // a whole number in [Min, Max] that names something, such as a user or an item
	Text     Kind = "text"     // words, of which at most Length hashed n-grams are kept: ids 1 to Buckets
	Sequence Kind = "sequence" // the newest Length ids, 1 to Max, of what happened before, the newest last
	Time     Kind = "time"     // when the row happened, a number or RFC 3339; orders sequences and is no feature
)

// maxID is the largest id: a float32 holds every whole number up to it.
const maxID = 1<<24 - 1

// maxLength is the most ids of one value.
const maxLength = 4096

// Column describes one column.
type Column struct {
	Name       string   `json:"name"`                 // not empty or padded, once in a schema
	Kind       Kind     `json:"kind"`                 // says which of the fields below are set
	Min        float64  `json:"min,omitempty"`        // numeric, id: inclusive range, both finite, Min < Max; an id's in [0, 2^24)
	Max        float64  `json:"max,omitempty"`        // the same; sequence: the largest id, in [1, 2^24)
	Categories []string `json:"categories,omitempty"` // category: 1 to 1024 distinct values
	LongTail   bool     `json:"longTail,omitempty"`   // numeric: log(1+x) before standardising; needs Min ≥ 0
	Required   bool     `json:"required,omitempty"`   // a missing value is refused; without it the value may be empty
	Length     int      `json:"length,omitempty"`     // text, sequence: ids that are kept, 1 to 4096
	Buckets    int      `json:"buckets,omitempty"`    // text: n-grams are hashed to ids 1 to Buckets, 2 to 2^24-1
	Words      int      `json:"words,omitempty"`      // text: longest n-gram of words, 0 to 3; 0: none
	Characters int      `json:"characters,omitempty"` // text: longest n-gram of characters, 3 to 6; 0: none
	Seed       uint64   `json:"seed,omitempty"`       // text: of the hash
	Of         string   `json:"of,omitempty"`         // sequence: id column that it is gathered from; empty: it stands in the file
	By         string   `json:"by,omitempty"`         // sequence with Of: id column of whose rows belong together
}

// Schema describes the rows of one data set.
type Schema struct {
	Name    string   `json:"name"`             // not empty
	Columns []Column `json:"columns"`          // 2 to 4096, in the order of a row's values
	Label   string   `json:"label"`            // name of a boolean, category or id column: what is predicted
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
	if i := s.column(s.Label); i < 0 || !slices.Contains([]Kind{Boolean, Category, ID}, s.Columns[i].Kind) {
		return fmt.Errorf("schema %s: label %q is not a boolean, category or id column", s.Name, s.Label)
	}
	if err := s.checkSequences(); err != nil {
		return fmt.Errorf("schema %s: %w", s.Name, err)
	}
	if n := s.Features(); n < 1 || n > MaxFeatures {
		return fmt.Errorf("schema %s: columns: %d features, want at least 1 and at most %d", s.Name, n, MaxFeatures)
	}
	return nil
}

// readable tells whether a file's field can equal the text: importers trim fields and take an empty one as missing.
func readable(text string) bool {
	return text != "" && strings.TrimSpace(text) == text && utf8.ValidString(text)
}

func (c *Column) validate() error {
	if err := c.checkFields(); err != nil {
		return err
	}
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
	case ID:
		if !isID(c.Min, 0) || !isID(c.Max, 0) || c.Min >= c.Max {
			return fmt.Errorf("range [%v, %v] of ids, want whole numbers from 0 to %d", c.Min, c.Max, maxID)
		}
		if c.Min == 0 && !c.Required {
			return fmt.Errorf("it needs min ≥ 1 or required: a missing id is 0")
		}
	case Text:
		return c.validateText()
	case Sequence:
		if !isID(c.Max, 1) {
			return fmt.Errorf("max %v, want a whole number from 1 to %d", c.Max, maxID)
		}
		if c.Length < 1 || c.Length > maxLength {
			return fmt.Errorf("length %d, want 1 to %d", c.Length, maxLength)
		}
	}
	return nil
}

// isID tells whether x is a whole number in [low, 2^24).
func isID(x float64, low float64) bool { return x >= low && x <= maxID && x == math.Trunc(x) }

// checkFields refuses fields that belong to other kinds.
func (c *Column) checkFields() error {
	if !slices.Contains([]Kind{Numeric, Category, Boolean, ID, Text, Sequence, Time}, c.Kind) {
		return fmt.Errorf("kind %q, want numeric, category, boolean, id, text, sequence or time", c.Kind)
	}
	for _, f := range []struct {
		set    bool
		names  string
		belong []Kind
	}{
		{len(c.Categories) > 0, "categories", []Kind{Category}},
		{c.LongTail, "longTail", []Kind{Numeric}},
		{c.Min != 0, "min", []Kind{Numeric, ID}},
		{c.Max != 0, "max", []Kind{Numeric, ID, Sequence}},
		{c.Length != 0, "length", []Kind{Text, Sequence}},
		{c.Buckets != 0 || c.Words != 0 || c.Characters != 0 || c.Seed != 0, "buckets, words, characters and seed", []Kind{Text}},
		{c.Of != "" || c.By != "", "of and by", []Kind{Sequence}},
	} {
		if f.set && !slices.Contains(f.belong, c.Kind) {
			return fmt.Errorf("kind %s has no %s", c.Kind, f.names)
		}
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

// Values is the length of a row.
func (s *Schema) Values() int { return s.places()[len(s.Columns)] }

// places says where in a row each column begins; the last one more is where the row ends.
func (s *Schema) places() []int {
	places := make([]int, len(s.Columns)+1)
	for i := range s.Columns {
		places[i+1] = places[i] + s.Columns[i].values()
	}
	return places
}

// values is how many values of a row are the column's.
func (c *Column) values() int {
	if c.Kind == Text || c.Kind == Sequence {
		return c.Length
	}
	return 1
}

// Tables is how many ids there are of each column that holds ids, in order: the rows of the tables that a model looks them
// up in.
func (s *Schema) Tables() (tables []int) {
	for i := range s.Columns {
		switch c := &s.Columns[i]; {
		case c.Name == s.Label:
		case c.Kind == ID || c.Kind == Sequence:
			tables = append(tables, int(c.Max)+1)
		case c.Kind == Text:
			tables = append(tables, c.Buckets+1)
		}
	}
	return tables
}

// CheckPlain names the first thing that a classifier over plain features cannot learn from: a label that is not one of
// two or more classes, or a column of ids, which are names and no quantities.
func (s *Schema) CheckPlain() error {
	for i := range s.Columns {
		switch c := &s.Columns[i]; {
		case c.Name == s.Label && c.Kind == Category && len(c.Categories) < 2:
			return fmt.Errorf("label %s has one category, want at least two", c.Name)
		case c.Name == s.Label && c.Kind != Boolean && c.Kind != Category:
			return fmt.Errorf("label %s is a %s column, want a boolean or a category", c.Name, c.Kind)
		case c.Kind == ID || c.Kind == Text || c.Kind == Sequence:
			return fmt.Errorf("column %s holds ids, for which the model has no embedding", c.Name)
		}
	}
	return nil
}

// CheckBinary names the first thing that a binary classifier over plain features cannot learn from: a label of several
// classes, or a column of ids, which are names and no quantities.
func (s *Schema) CheckBinary() error {
	for i := range s.Columns {
		switch c := &s.Columns[i]; {
		case c.Name == s.Label && c.Kind != Boolean:
			return fmt.Errorf("label %s is a %s column, want a boolean one", c.Name, c.Kind)
		case c.Kind == ID || c.Kind == Text || c.Kind == Sequence:
			return fmt.Errorf("column %s holds ids, for which the model has no embedding", c.Name)
		}
	}
	return nil
}

// Features is the width of the feature vector: one for a numeric, boolean or id column, one a category, one an id of a
// text or sequence. The label and a time have none.
func (s *Schema) Features() int {
	n := 0
	for i := range s.Columns {
		if s.Columns[i].Name != s.Label {
			n += s.Columns[i].width()
		}
	}
	return n
}

// FeatureColumns are the columns that the features come from, one a feature.
func (s *Schema) FeatureColumns() []Column {
	var of []Column
	for i := range s.Columns {
		if s.Columns[i].Name != s.Label {
			of = append(of, slices.Repeat(s.Columns[i:i+1], s.Columns[i].width())...)
		}
	}
	return of
}

func (c *Column) width() int {
	switch c.Kind {
	case Category:
		return len(c.Categories)
	case Time:
		return 0
	}
	return c.values()
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

// read reads a field of a file into the column's values of a row. An empty text is a missing value.
func (c *Column) read(text string, into []float64) (err error) {
	switch {
	case c.Kind != Text && c.Kind != Sequence:
		into[0], err = c.parse(text)
		return err
	case text == "":
		return c.none(into)
	case c.Kind == Text:
		return c.hash(text, into)
	}
	return c.parseSequence(text, into)
}

// none is a missing value of several ids.
func (c *Column) none(into []float64) error {
	clear(into)
	_, err := c.missing()
	return err
}

// parse reads one value from text. An empty text is a missing value.
func (c *Column) parse(text string) (float64, error) {
	if text == "" {
		return c.missing()
	}
	switch c.Kind {
	case Numeric, ID:
		var x float64
		if err := parseNumber(text, &x); err != nil {
			return 0, fmt.Errorf("%s is not a number", quoted(text))
		}
		return c.number(x)
	case Category:
		return c.category(text)
	case Time:
		return parseTime(text)
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
	if c.Kind == ID && x != math.Trunc(x) {
		return 0, fmt.Errorf("%v is not a whole number", x)
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
