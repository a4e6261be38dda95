package data

import (
	"bytes"
	"strings"
	"testing"
)

// visitsJSON is a small schema with a column of each kind, used by the tests of this package.
const visitsJSON = `{"name":"visits","unit":"visit","label":"bought","ignore":["id"],"columns":[
	{"name":"age","kind":"numeric","min":-10,"max":90},
	{"name":"spent","kind":"numeric","max":1000,"longTail":true},
	{"name":"day","kind":"category","categories":["Mon","Tue","Wed"]},
	{"name":"member","kind":"boolean"},
	{"name":"shop","kind":"category","categories":["a","b"],"required":true},
	{"name":"bought","kind":"boolean"}]}`

func visits(t testing.TB) *Schema {
	t.Helper()
	s, err := ParseSchema([]byte(visitsJSON))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSchemaRoundTrip(t *testing.T) {
	s := visits(t)
	again, err := ParseSchema(s.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Encode(), s.Encode()) || again.Digest() != s.Digest() {
		t.Errorf("another encoding after a round trip:\n%s\n%s", s.Encode(), again.Encode())
	}
	if got, want := s.Features(), 1+1+3+1+2; got != want {
		t.Errorf("%d features, want %d", got, want)
	}
	s.Columns[0].Max++
	if again.Digest() == s.Digest() {
		t.Error("a changed range keeps the digest")
	}
}

func TestParseSchemaRefuses(t *testing.T) {
	column := func(c string) string {
		return `{"name":"n","unit":"u","label":"y","columns":[` + c + `,{"name":"y","kind":"boolean"}]}`
	}
	for _, c := range []struct{ name, json, want string }{
		{"empty", ``, "unexpected EOF"},
		{"null", `null`, "null is not a value"},
		{"not an object", `[]`, "cannot unmarshal"},
		{"truncated", visitsJSON[:60], "unexpected EOF"},
		{"text after the end", visitsJSON + `}`, "text after the end"},
		{"second value", visitsJSON + ` {}`, "text after the end"},
		{"unknown key", column(`{"name":"x","kind":"boolean","unknown":1}`), `unknown field "unknown"`},
		{"key of another object", column(`{"name":"x","kind":"boolean","unit":"u"}`), `unknown field "unit"`},
		{"key in other case", column(`{"name":"x","Kind":"boolean"}`), `unknown field "Kind"`},
		{"key twice", column(`{"name":"x","kind":"boolean","kind":"boolean"}`), `field "kind" is given twice`},
		{"null inside", column(`{"name":"x","kind":"boolean","min":null}`), "null is not a value"},
		{"too deep", `{"columns":[{"categories":[[["x"]]]}]}`, "nested too deep"},
		{"no name", `{"unit":"u","label":"y","columns":[]}`, "name and unit are required"},
		{"no unit", `{"name":"n","label":"y","columns":[]}`, "name and unit are required"},
		{"no columns", `{"name":"n","unit":"u","label":"y"}`, "0 columns, want 2 to 4096"},
		{"padded name", column(`{"name":" x","kind":"boolean"}`), `name " x" is empty, padded or not unique`},
		{"name twice", column(`{"name":"y","kind":"boolean"}`), `name "y" is empty, padded or not unique`},
		{"no kind", column(`{"name":"x"}`), `column x: kind "", want numeric`},
		{"no range", column(`{"name":"x","kind":"numeric"}`), "column x: range [0, 0] is empty"},
		{"range reversed", column(`{"name":"x","kind":"numeric","min":2,"max":1}`), "range [2, 1] is empty"},
		{"range not finite", column(`{"name":"x","kind":"numeric","max":1e999}`), "cannot unmarshal number 1e999"},
		{"range overflows", column(`{"name":"x","kind":"numeric","min":-1e308,"max":1e308}`), "cannot be scaled"},
		{"range vanishes", column(`{"name":"x","kind":"numeric","min":1e15,"max":1000000000000000.125,"longTail":true}`), "cannot be scaled"},
		{"negative long tail", column(`{"name":"x","kind":"numeric","min":-1,"max":1,"longTail":true}`), "longTail needs min"},
		{"numeric categories", column(`{"name":"x","kind":"numeric","max":1,"categories":["a"]}`), "has no categories"},
		{"boolean categories", column(`{"name":"x","kind":"boolean","categories":["a"]}`), "has no categories"},
		{"no categories", column(`{"name":"x","kind":"category"}`), "0 categories, want 1 to 1024"},
		{"category twice", column(`{"name":"x","kind":"category","categories":["a","a"]}`), "not distinct"},
		{"empty category", column(`{"name":"x","kind":"category","categories":["a",""]}`), `category 2: "" is empty`},
		{"padded category", column(`{"name":"x","kind":"category","categories":["a "]}`), `category 1: "a " is empty or padded`},
		{"range of a category", column(`{"name":"x","kind":"category","categories":["a"],"max":1}`), "kind category has no max"},
		{"label unknown", strings.Replace(visitsJSON, `"label":"bought"`, `"label":"z"`, 1), `label "z" is not a boolean`},
		{"label numeric", strings.Replace(visitsJSON, `"label":"bought"`, `"label":"age"`, 1), `label "age" is not a boolean`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := ParseSchema([]byte(c.json))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if s != nil {
				t.Error("a schema beside the error")
			}
		})
	}
}

func TestSchemaTooWide(t *testing.T) {
	s := visits(t)
	wide := make([]string, 1024)
	for i := range wide {
		wide[i] = strings.Repeat("x", i+1)
	}
	for i := range 65 {
		s.Columns = append(s.Columns, Column{Name: strings.Repeat("w", i+1), Kind: Category, Categories: wide})
	}
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "at most 65536") {
		t.Errorf("error %v", err)
	}
}

func FuzzParseSchema(f *testing.F) {
	f.Add([]byte(visitsJSON))
	f.Add(shoppersSchema)
	f.Add([]byte(eventsJSON))
	f.Add([]byte(noteJSON))
	f.Add([]byte(`{"name":"n","unit":"u","label":"y","columns":[{"name":"x","kind":"numeric","min":-0.0,"max":1e-320},{"name":"y","kind":"boolean"}]}`))
	f.Add([]byte(`{"name":"\ud800","columns":[{}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSchema(b)
		if err != nil {
			return
		}
		again, err := ParseSchema(s.Encode())
		if err != nil {
			t.Fatalf("own encoding refused: %v\n%s", err, s.Encode())
		}
		if !bytes.Equal(again.Encode(), s.Encode()) {
			t.Fatalf("another encoding after a round trip:\n%s\n%s", s.Encode(), again.Encode())
		}
		for i := range s.Columns {
			c := &s.Columns[i]
			if c.Kind == Numeric && (c.scale(c.Min) != 0 || c.scale(c.Max) != 1) {
				t.Fatalf("column %s: scaled range [%v, %v]", c.Name, c.scale(c.Min), c.scale(c.Max))
			}
		}
	})
}
