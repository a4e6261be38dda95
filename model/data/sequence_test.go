package data

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// eventsJSON gathers two histories of bought items: by user of length 3, by shop of length 2.
const eventsJSON = `{"name":"events","unit":"purchase","label":"bought","columns":[
	{"name":"user","kind":"id","max":50,"required":true},
	{"name":"item","kind":"id","min":1,"max":99},
	{"name":"history","kind":"sequence","length":3,"max":99,"of":"item","by":"user"},
	{"name":"at","kind":"time"},
	{"name":"shop","kind":"id","min":1,"max":5},
	{"name":"latest","kind":"sequence","length":2,"max":200,"of":"item","by":"shop"},
	{"name":"bought","kind":"boolean"}]}`

// noteJSON has a sequence that a file gives, a text and a label of ids.
const noteJSON = `{"name":"notes","unit":"note","label":"next","columns":[
	{"name":"past","kind":"sequence","length":4,"max":9,"required":true},
	{"name":"text","kind":"text","length":3,"buckets":1000,"words":1,"seed":3},
	{"name":"next","kind":"id","min":1,"max":9}]}`

func schemaOf(t testing.TB, text string) *Schema {
	t.Helper()
	s, err := ParseSchema([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestGatherByHand: user 7's purchases in the order of time, not of the file; what was not bought is in no history, and
// equal times keep the file's order.
func TestGatherByHand(t *testing.T) {
	s := schemaOf(t, eventsJSON)
	text := `user,item,at,shop,bought
7,13,300,1,yes
7,11,100,1,yes
7,12,200,,yes
8,80,200,1,no
7,,250,2,yes
7,14,400,1,no
8,81,400,1,yes
7,15,2026-03-04T05:06:07Z,1,yes
`
	nan := math.NaN()
	moment := float64(1772600767)
	want := []Row{ // user, item, three items by user, time, shop, two by shop, bought
		{7, 11, 0, 0, 0, 100, 1, 0, 0, 1},
		{7, 12, 0, 0, 11, 200, nan, 0, 0, 1},
		{8, 80, 0, 0, 0, 200, 1, 0, 11, 0},
		{7, nan, 0, 11, 12, 250, 2, 0, 0, 1},
		{7, 13, 0, 11, 12, 300, 1, 0, 11, 1},
		{7, 14, 11, 12, 13, 400, 1, 11, 13, 0},
		{8, 81, 0, 0, 0, 400, 1, 11, 13, 1},
		{7, 15, 11, 12, 13, moment, 1, 13, 81, 1},
	}
	rows, lines, err := readAll(s, text)
	if err != nil || !slices.EqualFunc(rows, want, equal) {
		t.Fatalf("%v, %v;\nwant %v", rows, err, want)
	}
	if wantLines := []int{3, 4, 5, 6, 2, 7, 8, 9}; !slices.Equal(lines, wantLines) {
		t.Errorf("lines %v, want %v", lines, wantLines)
	}
	for _, row := range rows {
		b, err := s.EncodeRow(row)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.DecodeRow(b); err != nil || !equal(again, row) {
			t.Errorf("%v became %v, %v", row, again, err)
		}
	}
}

// TestGatherAgainstNaive looks, for every row, through all rows before it.
func TestGatherAgainstNaive(t *testing.T) {
	s := schemaOf(t, strings.Replace(eventsJSON, `{"name":"at","kind":"time"},`, "", 1))
	rng := rand.New(rand.NewPCG(8, 1))
	text := "user,item,shop,bought\n"
	for range 400 {
		text += fmt.Sprintf("%d,%d,%d,%t\n", rng.IntN(6), 1+rng.IntN(99), 1+rng.IntN(2), rng.IntN(3) > 0)
	}
	rows, _, err := readAll(s, text)
	if err != nil || len(rows) != 400 {
		t.Fatal(len(rows), err)
	}
	for n, row := range rows {
		for _, c := range []struct{ by, at, length int }{{0, 2, 3}, {5, 6, 2}} {
			want := make([]float64, c.length)
			for at, i := c.length-1, n-1; i >= 0 && at >= 0; i-- {
				if rows[i][c.by] == row[c.by] && rows[i][8] == 1 {
					want[at] = rows[i][1]
					at--
				}
			}
			if got := row[c.at : c.at+c.length]; !slices.Equal(got, want) {
				t.Fatalf("row %d: history %v, want %v", n, got, want)
			}
		}
	}
}

func TestSequenceSchemaRefuses(t *testing.T) {
	with := func(old, text string) string {
		t.Helper()
		if !strings.Contains(eventsJSON, old) {
			t.Fatalf("%s is not in the schema", old)
		}
		return strings.Replace(eventsJSON, old, text, 1)
	}
	column := func(c string) string {
		return `{"name":"n","unit":"u","label":"y","columns":[` + c + `,{"name":"y","kind":"boolean"}]}`
	}
	for name, c := range map[string]struct{ json, want string }{
		"of nothing":          {with(`"of":"item"`, `"of":"z"`), `column history: of "z" is not an id column`},
		"of a boolean":        {with(`"of":"item"`, `"of":"bought"`), `of "bought" is not an id column`},
		"by nothing":          {with(`,"by":"user"`, ``), `by "" is not another id column`},
		"by itself":           {with(`"by":"user"`, `"by":"item"`), `by "item" is not another id column`},
		"of ids from 0":       {with(`"of":"item"`, `"of":"user"`), `by "user" is not another`},
		"of 0, by another":    {with(`"of":"item","by":"user"`, `"of":"user","by":"item"`), `of "user" has ids from 0 to 50`},
		"of too many ids":     {with(`"length":3,"max":99`, `"length":3,"max":98`), `of "item" has ids from 1 to 99`},
		"gathered, required":  {with(`"of":"item","by":"user"`, `"of":"item","by":"user","required":true`), "cannot be required"},
		"two times":           {with(`{"name":"at","kind":"time"}`, `{"name":"at","kind":"time"},{"name":"then","kind":"time"}`), "2 time columns"},
		"id without end":      {with(`"name":"user","kind":"id","max":50`, `"name":"user","kind":"id","max":16777216`), "whole numbers from 0 to 16777215"},
		"id of halves":        {with(`"max":50`, `"max":50.5`), "whole numbers from 0"},
		"missing id":          {with(`"max":50,"required":true`, `"max":50`), "needs min ≥ 1 or required"},
		"sequence of nothing": {column(`{"name":"x","kind":"sequence","length":3}`), "max 0, want a whole number from 1"},
		"no length":           {column(`{"name":"x","kind":"sequence","max":3}`), "length 0, want 1 to 4096"},
		"text of no length":   {column(`{"name":"x","kind":"text","buckets":3,"words":1}`), "length 0, want 1 to 4096"},
		"text too long":       {column(`{"name":"x","kind":"text","buckets":3,"words":1,"length":4097}`), "length 4097"},
		"text of no buckets":  {column(`{"name":"x","kind":"text","words":1,"length":4}`), "0 buckets, want 2 to"},
		"text of nothing":     {column(`{"name":"x","kind":"text","buckets":3,"length":4}`), "neither words nor characters"},
		"buckets of an id":    {column(`{"name":"x","kind":"id","min":1,"max":3,"buckets":3}`), "kind id has no buckets"},
		"length of a number":  {column(`{"name":"x","kind":"numeric","max":3,"length":3}`), "kind numeric has no length"},
		"only a time":         {column(`{"name":"x","kind":"time"}`), "0 features, want at least 1"},
		"too many":            {column(strings.Repeat(`{"name":"w","kind":"sequence","length":4096,"max":3},`, 17) + `{"name":"v","kind":"boolean"}`), "name \"w\" is empty, padded or not unique"},
		"label a text":        {strings.Replace(noteJSON, `"label":"next"`, `"label":"text"`, 1), `label "text" is not a boolean, category or id`},
	} {
		if _, err := ParseSchema([]byte(c.json)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if s := schemaOf(t, eventsJSON); s.Features() != 1+1+3+1+2 || s.Values() != 10 || s.CheckBinary() == nil {
		t.Errorf("%d features, %d values, %v", s.Features(), s.Values(), s.CheckBinary())
	}
	if s := schemaOf(t, noteJSON); !strings.Contains(s.CheckBinary().Error(), "column past holds ids") {
		t.Error(s.CheckBinary())
	}
	if err := visits(t).CheckBinary(); err != nil {
		t.Error(err)
	}
}

func TestReadSequences(t *testing.T) {
	s := schemaOf(t, noteJSON)
	rows, _, err := readAll(s, "past,text,next\n1 2,,3\n\"9  8 7 6 5\",\" \",1\n")
	if want := []Row{{0, 0, 1, 2, 0, 0, 0, 3}, {8, 7, 6, 5, 0, 0, 0, 1}}; err != nil || !slices.EqualFunc(rows, want, equal) {
		t.Errorf("%v, %v; want %v", rows, err, want)
	}
	for line, want := range map[string]string{
		"1 x,,3":    `n.csv:2: column past: id 2: "x" is not a number`,
		"1 2 10,,3": "n.csv:2: column past: id 3: 10 is not a whole number from 1 to 9",
		"0,,3":      "id 1: 0 is not a whole number from 1 to 9",
		"1.5,,3":    "id 1: 1.5 is not",
		"NaN,,3":    "id 1: NaN is not",
		",,3":       "n.csv:2: column past: the value is missing",
		"1,,":       "column next: the label is missing",
		"1,,10":     "column next: 10 is outside [1, 9]",
		"1,,2.5":    "column next: 2.5 is not a whole number",
		"1,a\xff,2": "column text: the text is not UTF-8",
	} {
		err := ReadCSV(strings.NewReader("past,text,next\n"+line+"\n"), "n.csv", s, func(int, Row) error { return nil })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	events := schemaOf(t, eventsJSON)
	if _, _, err := readAll(events, "user,item,at,shop,bought,history\n"); err == nil || !strings.Contains(err.Error(), `"history" is gathered from column "item"`) {
		t.Error(err)
	}
	if _, _, err := readAll(events, "user,item,at,shop,bought\n1,2,today,1,yes\n"); err == nil || !strings.Contains(err.Error(), `column at: "today" is neither a number nor a time`) {
		t.Error(err)
	}
}

// TestGatherSkipsBadRows: a row that is left out is in no history, and an error names the line of its row.
func TestGatherSkipsBadRows(t *testing.T) {
	s := schemaOf(t, eventsJSON)
	var rows []Row
	skipped, err := CSV{SkipBad: 1}.Read(strings.NewReader("user,item,at,shop,bought\n1,5,1,,yes\n1,100,2,,yes\n1,6,3,,yes\n"), "v.csv", s, func(_ int, row Row) error {
		rows = append(rows, row)
		return nil
	})
	if err != nil || skipped.Rows != 1 || len(rows) != 2 || rows[1][4] != 5 || rows[1][3] != 0 {
		t.Errorf("%v, %+v, %v", rows, skipped, err)
	}
	err = ReadCSV(strings.NewReader("user,item,at,shop,bought\n1,5,2,,yes\n1,7,1,,yes\n"), "v.csv", s, func(line int, _ Row) error {
		if line == 2 {
			return fmt.Errorf("full")
		}
		return nil
	})
	if err == nil || err.Error() != "v.csv:2: full" {
		t.Error(err)
	}
}

// TestGatherIsBounded: a file that would take too much memory is refused.
func TestGatherIsBounded(t *testing.T) {
	g := newGathering(schemaOf(t, eventsJSON))
	g.values = maxGathered - 10
	if err := g.add(4, make(Row, 10)); err != nil {
		t.Error(err)
	}
	if err := g.add(5, make(Row, 10)); err == nil || !strings.Contains(err.Error(), "line 5: ") || !strings.Contains(err.Error(), "divide the file") {
		t.Error(err)
	}
}

// TestStatisticsOfIDs: nothing is summed of ids, texts and sequences; a model sees them as they are.
func TestStatisticsOfIDs(t *testing.T) {
	s := schemaOf(t, strings.Replace(noteJSON, `{"name":"next"`, `{"name":"age","kind":"numeric","max":4},{"name":"when","kind":"time"},{"name":"next"`, 1))
	rows := []Row{{0, 0, 1, 2, 900, 0, 0, 4, 12345, 3}, {9, 8, 7, 6, 1, 2, 3, 0, math.NaN(), 1}}
	sums := Collect(s, rows)
	if want := []int64{2, 1, StatGrid, StatGrid, 2}; !slices.Equal(sums, want) || s.StatLen() != len(want) {
		t.Fatalf("sums %v, want %v", sums, want)
	}
	st, err := NewStatistics(s, sums)
	if err != nil {
		t.Fatal(err)
	}
	x, y := st.Matrix(rows)
	if want := []float32{0, 0, 1, 2, 900, 0, 0, 1, 9, 8, 7, 6, 1, 2, 3, -1}; !slices.Equal(x, want) || !slices.Equal(y, []float32{3, 1}) {
		t.Errorf("%v, %v; want %v", x, y, want)
	}
	again, err := DecodeStatistics(s, st.Encode())
	if err != nil || !bytes.Equal(again.Encode(), st.Encode()) {
		t.Error(err)
	}
	drawn := st.Synthetic(200, 1)
	for i, v := range drawn {
		top := []float32{9, 9, 9, 9, 1000, 1000, 1000, 9}[i%8]
		if whole := v == float32(int(v)); i%8 < 7 && (!whole || v < 1 || v > top) {
			t.Fatalf("value %d is %v", i, v)
		}
	}
	if _, err := NewStatistics(s, []int64{2, 1, StatGrid, StatGrid, 0}); err == nil {
		t.Error("statistics of no rows are taken")
	}
}

func TestRowOfIDsRefused(t *testing.T) {
	s := schemaOf(t, noteJSON)
	for name, c := range map[string]struct {
		row  Row
		want string
	}{
		"fine":              {Row{0, 0, 1, 2, 5, 5, 0, 3}, ""},
		"full":              {Row{1, 2, 3, 4, 5, 6, 7, 3}, ""},
		"no text":           {Row{0, 0, 0, 2, 0, 0, 0, 3}, ""},
		"short":             {Row{0, 0, 1, 2, 5, 5, 0}, ", want "},
		"gap":               {Row{0, 1, 0, 2, 5, 5, 0, 3}, "column past: a place among its ids is empty"},
		"behind":            {Row{0, 0, 2, 0, 5, 5, 0, 3}, "column past: a place among its ids is empty"},
		"text later":        {Row{0, 0, 0, 2, 0, 5, 0, 3}, "column text: a place among its ids is empty"},
		"no sequence":       {Row{0, 0, 0, 0, 5, 5, 0, 3}, "column past: the value is missing"},
		"id beyond":         {Row{0, 0, 0, 10, 5, 5, 0, 3}, "column past: 10 is not an id from 1 to 9"},
		"bucket beyond":     {Row{0, 0, 0, 1, 1001, 5, 0, 3}, "column text: 1001 is not an id from 1 to 1000"},
		"half":              {Row{0, 0, 0, 1, .5, 5, 0, 3}, "column text: 0.5"},
		"negative":          {Row{0, 0, 0, -1, 5, 5, 0, 3}, "column past: -1"},
		"NaN":               {Row{0, 0, 0, math.NaN(), 5, 5, 0, 3}, "column past: NaN"},
		"a second zero":     {Row{math.Copysign(0, -1), 0, 0, 1, 5, 5, 0, 3}, "column past: -0"},
		"label half":        {Row{0, 0, 0, 1, 5, 5, 0, 2.5}, "column next: 2.5 is not a whole number"},
		"label out of room": {Row{0, 0, 0, 1, 5, 5, 0, 10}, "column next: 10 is outside [1, 9]"},
	} {
		_, err := s.EncodeRow(c.row)
		_, again := s.DecodeRow(rowBytes(c.row...))
		for _, err := range []error{err, again} {
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
		}
	}
	other := math.Float64frombits(missingBits ^ 1<<63)
	if _, err := schemaOf(t, eventsJSON).DecodeRow(rowBytes(1, 2, 0, 0, 0, 5, other, 0, 0, 1)); err == nil || !strings.Contains(err.Error(), "column shop: not a value") {
		t.Error(err)
	}
}

func TestInputsOfIDs(t *testing.T) {
	s := schemaOf(t, noteJSON)
	id := make([]float32, 1)
	Tokeniser{Buckets: 1000, Words: 1, Seed: 3}.IDs("hello", id)
	hello := float64(id[0])
	for name, c := range map[string]struct {
		past, text any
		row        Row
		want       string
	}{
		"list and text":     {[]any{3.0, 4.0}, "Hello?", Row{0, 0, 3, 4, hello, 0, 0, 0}, ""},
		"text and null":     {"5 6", nil, Row{0, 0, 5, 6, 0, 0, 0, 0}, ""},
		"null":              {nil, "x", nil, "input past: the value is missing"},
		"empty list":        {[]any{}, "x", nil, "input past: the value is missing"},
		"a number":          {4.0, "x", nil, "a number for a sequence column"},
		"a list of texts":   {[]any{"a"}, "x", nil, "id 1 is not a number"},
		"number for a text": {"4", 4.0, nil, "input text: a number for a text column"},
		"list for a text":   {"4", []any{1.0}, nil, "input text: a list for a text column"},
		"boolean":           {true, "x", nil, "a boolean for a sequence column"},
	} {
		rows, err := s.RowsFromInputs(1, func(yield func(string, []any) bool) {
			_ = yield("past", []any{c.past}) && yield("text", []any{c.text})
		})
		if c.want == "" && (err != nil || !equal(rows[0], append(c.row[:7:7], math.NaN())) && !equal(rows[0], c.row)) {
			t.Errorf("%s: %v, %v; want %v", name, rows, err, c.row)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	row, err := s.WithLabel(Row{0, 0, 5, 6, 0, 0, 0, 0}, 4.0)
	if err != nil || !equal(row, Row{0, 0, 5, 6, 0, 0, 0, 4}) || row.Label(s) != 4 {
		t.Errorf("%v, %v", row, err)
	}
	if _, err := s.WithLabel(Row{0, 0, 5, 6, 0, 0, 0, 0}, 40.0); err == nil {
		t.Error("a label that is no id is taken")
	}
}

func TestSplitByClass(t *testing.T) {
	s := schemaOf(t, `{"name":"n","unit":"u","label":"y","columns":[{"name":"x","kind":"boolean"},{"name":"y","kind":"category","categories":["a","b","c"]}]}`)
	var rows []Row
	for i := range 300 {
		rows = append(rows, Row{0, float64(i % 3)})
	}
	p := Split(s, rows, 1)
	for _, part := range [][]Row{p.Train, p.Validation, p.Held} {
		var counts [3]int
		for _, r := range part {
			counts[int(r[1])]++
		}
		if counts[0] != counts[1] || counts[0] != counts[2] {
			t.Errorf("classes %v", counts)
		}
	}
	notes := schemaOf(t, noteJSON)
	p = Split(notes, []Row{{0, 0, 0, 1, 0, 0, 0, 1}, {0, 0, 0, 1, 0, 0, 0, 2}, {0, 0, 0, 1, 0, 0, 0, 3}}, 1)
	if len(p.Train) != 2 || len(p.Held) != 1 {
		t.Errorf("parts of %d, %d, %d", len(p.Train), len(p.Validation), len(p.Held))
	}
}

// FuzzGather: whatever the file, each event comes once, in the order of time, with the newest ids that were true before it.
func FuzzGather(f *testing.F) {
	f.Add("user,at,item,bought\n1,3,2,true\n1,1,4,true\n1,2,3,false\n", false)
	f.Add("bought,item,user,at\ntrue,,1,2026-03-04T05:06:07Z\ntrue,5,,\ntrue,5,1,1e300\n", false)
	f.Add(`{"user":1,"at":2,"item":4,"bought":true}`+"\n"+`{"user":1,"at":null,"item":4,"bought":true}`, true)
	s := schemaOf(f, `{"name":"events","unit":"event","label":"bought","columns":[
		{"name":"user","kind":"id","min":1,"max":3},{"name":"at","kind":"time"},{"name":"item","kind":"id","min":1,"max":9},
		{"name":"seen","kind":"sequence","length":2,"max":9,"of":"item","by":"user"},{"name":"bought","kind":"boolean"}]}`)
	f.Fuzz(func(t *testing.T, body string, lines bool) {
		format := FormatCSV
		if lines {
			format = FormatJSONL
		}
		at, past, seen := math.Inf(-1), map[float64][]float64{}, map[int]bool{}
		_, _ = format.Read(strings.NewReader(body), "f", s, CSV{SkipBad: 2}, func(line int, row Row) error {
			if err := s.check(row); err != nil || seen[line] {
				t.Fatalf("line %d: %v: %v", line, row, err)
			}
			if seen[line] = true; row[1] < at {
				t.Fatalf("line %d: time %v comes after %v", line, row[1], at)
			}
			if !math.IsNaN(row[1]) {
				at = row[1]
			}
			want := past[row[0]]
			if row[3] != newest(want, 2) || row[4] != newest(want, 1) {
				t.Fatalf("line %d: history %v, want the end of %v", line, row[3:5], want)
			}
			if !math.IsNaN(row[0]) && !math.IsNaN(row[2]) && row[5] == 1 {
				past[row[0]] = append(want, row[2])
			}
			return nil
		})
	})
}

// newest is the n-th newest id, 0 if there are not so many.
func newest(ids []float64, n int) float64 {
	if len(ids) < n {
		return 0
	}
	return ids[len(ids)-n]
}

func FuzzDecodeRowOfIDs(f *testing.F) {
	s := schemaOf(f, noteJSON)
	f.Add(rowBytes(0, 0, 1, 2, 5, 5, 0, 3))
	f.Add(rowBytes(0, 1, 0, 2, 1001, 0, 5, math.NaN()))
	t0, err := NewStatistics(s, []int64{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := s.DecodeRow(b)
		if err != nil {
			return
		}
		if again, err := s.EncodeRow(r); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x became %x, error %v", b, again, err)
		}
		for i, x := range first(t0.Matrix([]Row{r})) {
			if x < 0 || x > 1000 || x != float32(int(x)) {
				t.Fatalf("feature %d of %v is %v", i, r, x)
			}
		}
	})
}
