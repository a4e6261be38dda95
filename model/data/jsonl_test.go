package data

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func readLines(format Format, s *Schema, text string, skip int) (rows []Row, lines []int, skipped Skipped, err error) {
	skipped, err = format.Read(strings.NewReader(text), "v.jsonl", s, CSV{SkipBad: skip}, func(line int, row Row) error {
		rows, lines = append(rows, row), append(lines, line)
		return nil
	})
	return rows, lines, skipped, err
}

func TestReadJSONL(t *testing.T) {
	s, nan := visits(t), math.NaN()
	want := []Row{{31, 12.5, 1, 1, 0, 0}, {nan, nan, nan, nan, 1, 1}}
	const plain = `{"age":31,"spent":12.5,"day":"Tue","member":true,"shop":"a","bought":false}
{"bought": "yes", "shop": "b", "age": null}
`
	for name, text := range map[string]string{
		"plain":               plain,
		"CRLF, mark, no end":  "\ufeff" + strings.TrimSuffix(strings.ReplaceAll(plain, "\n", "\r\n"), "\r\n"),
		"gzip":                string(zipped(t, plain)),
		"strings and ignored": strings.Replace(plain, `"age":31,"spent":12.5`, `"id":[{"x":1}],"id":2,"age":"31","spent":"1.25e1"`, 1),
		"escapes":             strings.Replace(plain, `"age":31`, `"\u0061ge":31`, 1),
	} {
		rows, lines, _, err := readLines(FormatJSONL, s, text, 0)
		if err != nil || !slices.EqualFunc(rows, want, equal) || !slices.Equal(lines, []int{1, 2}) {
			t.Errorf("%s: %v at %v, %v", name, rows, lines, err)
		}
	}
	rows, _, _, err := readLines(FormatJSONL, schemaOf(t, noteJSON), `{"past":[1,2,3,4,5],"next":6}`, 0)
	if err != nil || len(rows) != 1 || !equal(rows[0], Row{2, 3, 4, 5, 0, 0, 0, 6}) {
		t.Errorf("%v, %v", rows, err)
	}
	rows, _, _, err = readLines(FormatJSONL, schemaOf(t, eventsJSON), `{"user":1,"item":5,"at":9,"bought":true}`+"\n"+`{"user":1,"item":6,"at":"2026-03-04T05:06:07.5Z","bought":true}`, 0)
	if err != nil || len(rows) != 2 || !equal(rows[1], Row{1, 6, 0, 0, 5, 1772600767.5, nan, 0, 0, 1}) {
		t.Errorf("%v, %v", rows, err)
	}
}

func TestReadJSONLRefuses(t *testing.T) {
	s := visits(t)
	const good = `{"age":31,"shop":"a","bought":false}`
	for name, c := range map[string]struct{ line, want string }{
		"empty line":      {"", "v.jsonl:2: the JSON is cut, or the line is empty"},
		"a list":          {"[1]", "v.jsonl:2: the line is not a JSON object"},
		"a number":        {"1", "v.jsonl:2: the line is not a JSON object"},
		"not JSON":        {"age=31", "v.jsonl:2: not JSON at byte"},
		"cut":             {good[:20], "v.jsonl:2: "},
		"cut in a value":  {`{"age":`, "v.jsonl:2: key \"age\": the JSON is cut"},
		"not closed":      {good[:len(good)-1], "v.jsonl:2: the JSON is cut"},
		"goes on":         {good + good, "v.jsonl:2: text after the object, at byte"},
		"unknown key":     {`{"ago":31,"shop":"a","bought":false}`, `v.jsonl:2: key "ago" is not in schema visits`},
		"key's case":      {`{"Age":31,"shop":"a","bought":false}`, `key "Age" is not in schema visits`},
		"key twice":       {`{"age":31,"age":31,"shop":"a","bought":false}`, `key "age" is given twice`},
		"range":           {`{"age":91,"shop":"a","bought":false}`, "v.jsonl:2: column age: 91 is outside [-10, 90]"},
		"too large":       {`{"age":1e999,"shop":"a","bought":false}`, `key "age": the number is too large`},
		"a boolean":       {`{"age":true,"shop":"a","bought":false}`, "column age: a boolean for a numeric column"},
		"an object":       {`{"age":{"x":1},"shop":"a","bought":false}`, "column age: neither number, string nor boolean"},
		"category":        {`{"shop":"c","bought":false}`, `column shop: "c" is not one of its 2 categories`},
		"required":        {`{"age":31,"bought":false}`, "column shop: the value is missing"},
		"required null":   {`{"shop":null,"bought":false}`, "column shop: the value is missing"},
		"label missing":   {`{"shop":"a"}`, "v.jsonl:2: column bought: the label is missing"},
		"label null":      {`{"shop":"a","bought":null}`, "column bought: the label is missing"},
		"not UTF-8":       {"{\"shop\":\"a\xff\",\"bought\":false}", "v.jsonl:2: the line is not UTF-8"},
		"key of no text":  {`{1:2}`, "v.jsonl:2: not JSON at byte"},
		"a long secret":   {`{"` + strings.Repeat("s", 90) + `":1}`, "sss…\" is not in"},
		"nested too deep": {`{"age":` + strings.Repeat("[", 20000) + "}", "v.jsonl:2: key \"age\": "},
	} {
		_, _, _, err := readLines(FormatJSONL, s, good+"\n"+c.line+"\n"+good, 0)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		rows, lines, skipped, err := readLines(FormatJSONL, s, good+"\n"+c.line+"\n"+good, 1)
		if err != nil || len(rows) != 2 || skipped.Rows != 1 || !slices.Equal(lines, []int{1, 3}) {
			t.Errorf("%s, left out: %d rows at %v, %+v, %v", name, len(rows), lines, skipped, err)
		}
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":     {"", "v.jsonl:1: the file is empty"},
		"UTF-16":    {"\xff\xfe{", "v.jsonl:1: the file is UTF-16"},
		"long line": {good + "\n{\"shop\":\"" + strings.Repeat("a", maxRow) + "\"}", "v.jsonl:2: a line of more than 1048576 bytes"},
		"gzip cut":  {string(zipped(t, strings.Repeat(good+"\n", 100))[:40]), "read v.jsonl: unexpected EOF"},
		"gathered":  {`{"history":[1]}`, `key "history" is gathered from column "item"`},
	} {
		schema := s
		if name == "gathered" {
			schema = schemaOf(t, eventsJSON)
		}
		if _, _, _, err := readLines(FormatJSONL, schema, c.text, 0); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	broken := errors.New("disk gone")
	_, err := ReadJSONL(io.MultiReader(strings.NewReader(good+"\n"), iotest.ErrReader(broken)), "v.jsonl", s, 0, func(int, Row) error { return nil })
	if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "read v.jsonl: ") {
		t.Error(err)
	}
	_, err = ReadJSONL(strings.NewReader(good), "v.jsonl", s, 0, func(int, Row) error { return broken })
	if !errors.Is(err, broken) || err.Error() != "v.jsonl:1: disk gone" {
		t.Error(err)
	}
	if _, _, _, err := readLines("xml", s, good, 0); err == nil || !strings.Contains(err.Error(), `format "xml", want csv, jsonl or text`) {
		t.Error(err)
	}
}

// TestReadLongLine: a line that is longer than the reader's buffer is read whole.
func TestReadLongLine(t *testing.T) {
	s := schemaOf(t, noteJSON)
	long := `{"past":[` + strings.Repeat("1,", 100_000) + `2],"next":1}`
	rows, lines, _, err := readLines(FormatJSONL, s, `{"past":[3],"next":1}`+"\n"+long+"\n"+`{"past":[4],"next":1}`, 0)
	if err != nil || len(rows) != 3 || !slices.Equal(rows[1][:4], []float64{1, 1, 1, 2}) || rows[2][3] != 4 || !slices.Equal(lines, []int{1, 2, 3}) {
		t.Errorf("%v at %v, %v", rows, lines, err)
	}
}

func intents(t testing.TB) *Schema {
	return schemaOf(t, `{"name":"intents","unit":"question","label":"intent","columns":[
		{"name":"question","kind":"text","length":4,"buckets":5000,"words":2,"required":true},
		{"name":"intent","kind":"category","categories":["card","fee"]}]}`)
}

// TestReadText reads lines of label and text, and the same questions as CSV: the rows are the same.
func TestReadText(t *testing.T) {
	s := intents(t)
	tok := s.Columns[0].tokeniser()
	want := make([]Row, 2)
	for i, text := range []string{"Where is my card?", "Why\t\"two\""} {
		ids := make([]float32, 4)
		tok.IDs(text, ids)
		want[i] = Row{float64(ids[0]), float64(ids[1]), float64(ids[2]), float64(ids[3]), float64(i)}
	}
	rows, lines, _, err := readLines(FormatText, s, "card\tWhere is my card?\nfee\tWhy\t\"two\"\r\n", 0)
	if err != nil || !slices.EqualFunc(rows, want, equal) || !slices.Equal(lines, []int{1, 2}) {
		t.Errorf("%v at %v, %v; want %v", rows, lines, err, want)
	}
	rows, _, err = readAll(s, "question,intent\nWhere is my card?,card\n\"Why\t\"\"two\"\"\",fee\n")
	if err != nil || !slices.EqualFunc(rows, want, equal) {
		t.Errorf("as CSV: %v, %v; want %v", rows, err, want)
	}
	for line, wanted := range map[string]string{
		"card Where":       "v.jsonl:1: there is no tab after the label",
		"loan\tWhere":      `v.jsonl:1: column intent: "loan" is not one of its 2 categories`,
		"\tWhere":          "column intent: the label is missing",
		"card\t":           "column question: the value is missing",
		"card\t?!":         "column question: the value is missing",
		"card\tWhere \xff": "v.jsonl:1: the line is not UTF-8",
	} {
		if _, _, _, err := readLines(FormatText, s, line, 0); err == nil || !strings.Contains(err.Error(), wanted) {
			t.Errorf("%q: %v, want %q", line, err, wanted)
		}
		if rows, _, skipped, err := readLines(FormatText, s, line+"\ncard\tWhere\n", 1); err != nil || len(rows) != 1 || skipped.Rows != 1 {
			t.Errorf("%q, left out: %v, %+v, %v", line, rows, skipped, err)
		}
	}
	for _, other := range []*Schema{visits(t), schemaOf(t, noteJSON)} {
		if _, _, _, err := readLines(FormatText, other, "card\tWhere", 0); err == nil || !strings.Contains(err.Error(), "need a schema of two columns") {
			t.Errorf("schema %s: %v", other.Name, err)
		}
	}
}

func FuzzReadLines(f *testing.F) {
	f.Add(`{"past":[1,2],"text":"Hello","next":3}`+"\n"+`{"past":"4","next":"5"}`, false)
	f.Add("3\tHello there\n\n\t", true)
	f.Add(`{"past":null}`+"\r\n{}\n{\"past\":[[]]}", false)
	notes, text := schemaOf(f, noteJSON), intents(f)
	f.Fuzz(func(t *testing.T, body string, labelled bool) {
		s, format := notes, FormatJSONL
		if labelled {
			s, format = text, FormatText
		}
		last := 0
		skipped, err := format.Read(strings.NewReader(body), "f", s, CSV{SkipBad: 3}, func(line int, row Row) error {
			if line <= last {
				return fmt.Errorf("line %d after %d", line, last)
			}
			last = line
			if _, err := s.EncodeRow(row); err != nil {
				t.Fatalf("line %d: %v: %v", line, row, err)
			}
			return nil
		})
		if skipped.Rows > 3 || err == nil && last == 0 && skipped.Rows == 0 && body != "" && !strings.HasPrefix(body, "\ufeff") && !strings.HasPrefix(body, "\x1f\x8b") {
			t.Fatalf("%d left out, last line %d, %v", skipped.Rows, last, err)
		}
	})
}
