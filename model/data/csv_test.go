package data

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const visitsHeader = "age,spent,day,member,shop,bought\n"

func readAll(s *Schema, text string) (rows []Row, lines []int, err error) {
	err = ReadCSV(strings.NewReader(text), "v.csv", s, func(line int, row Row) error {
		rows, lines = append(rows, row), append(lines, line)
		return nil
	})
	return rows, lines, err
}

// equal compares rows with NaN equal to NaN.
func equal(a, b Row) bool {
	return slices.EqualFunc(a, b, func(x, y float64) bool { return x == y || x != x && y != y })
}

func TestReadCSV(t *testing.T) {
	s, nan := visits(t), math.NaN()
	plain := []Row{{31, 12.5, 1, 1, 0, 0}, {nan, nan, nan, nan, 1, 1}}
	for _, c := range []struct {
		name, text string
		rows       []Row
		lines      []int
	}{
		{"plain", visitsHeader + "31,12.5,Tue,TRUE,a,FALSE\n,,,,b,true\n", plain, []int{2, 3}},
		{"CRLF, mark, no last newline", "\ufeff" + strings.ReplaceAll(visitsHeader, "\n", "\r\n") + "31,12.5,Tue,yes,a,no\r\n,,,,b,1", plain, []int{2, 3}},
		{"quotes and spaces", visitsHeader + "\" 31\",\"12.5\",Tue , True,a,0\n\"\n\",,,,b,True\n", plain, []int{2, 3}},
		{"other order, ignored column, blank line", "bought,id,shop,member,day,spent,age\nfalse,x,a,1,Tue,1.25e1,31\n\nTRUE,y,b,,,,\n", plain, []int{2, 4}},
		{"header only", visitsHeader, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			rows, lines, err := readAll(s, c.text)
			if err != nil || !slices.EqualFunc(rows, c.rows, equal) || !slices.Equal(lines, c.lines) {
				t.Errorf("%v at %v, error %v; want %v at %v", rows, lines, err, c.rows, c.lines)
			}
		})
	}
}

func TestReadCSVRefuses(t *testing.T) {
	s, good := visits(t), "31,12.5,Tue,TRUE,a,FALSE\n"
	row := func(r string) string { return visitsHeader + good + r + "\n" }
	for _, c := range []struct{ name, text, want string }{
		{"empty file", "", "v.csv:1: the file is empty"},
		{"missing column", "age,spent,day,member,bought\n", `v.csv:1: column "shop" of schema visits is missing`},
		{"extra column", "x," + visitsHeader, `v.csv:1: column "x" is not in schema visits`},
		{"column twice", "age," + visitsHeader, `v.csv:1: column "age" appears twice`},
		{"short row", row("31,12.5,Tue"), "v.csv:3: wrong number of fields"},
		{"long row", row("31,12.5,Tue,TRUE,a,FALSE,9"), "v.csv:3: wrong number of fields"},
		{"bare quote", row(`31,12.5,T"ue,TRUE,a,FALSE`), `v.csv:3: bare " in non-quoted`},
		{"open quote", row(`"31,12.5,Tue,TRUE,a,FALSE`), `v.csv:`},
		{"not a number", row("old,12.5,Tue,TRUE,a,FALSE"), `v.csv:3: column age: "old" is not a number`},
		{"NaN", row("NaN,12.5,Tue,TRUE,a,FALSE"), "v.csv:3: column age: NaN is outside [-10, 90]"},
		{"infinite", row("31,+Inf,Tue,TRUE,a,FALSE"), "v.csv:3: column spent: +Inf is outside [0, 1000]"},
		{"1e30", row("31,1e30,Tue,TRUE,a,FALSE"), "v.csv:3: column spent: 1e+30 is outside [0, 1000]"},
		{"1e999", row("31,1e999,Tue,TRUE,a,FALSE"), "v.csv:3: column spent: \"1e999\" is not a number"},
		{"below the range", row("-11,12.5,Tue,TRUE,a,FALSE"), "v.csv:3: column age: -11 is outside"},
		{"unknown category", row("31,12.5,Sun,TRUE,a,FALSE"), `v.csv:3: column day: "Sun" is not one of its 3 categories`},
		{"category in other case", row("31,12.5,tue,TRUE,a,FALSE"), `v.csv:3: column day: "tue"`},
		{"not a boolean", row("31,12.5,Tue,2,a,FALSE"), `v.csv:3: column member: "2" is not true or false`},
		{"required value missing", row("31,12.5,Tue,TRUE,,FALSE"), "v.csv:3: column shop: the value is missing"},
		{"label missing", row("31,12.5,Tue,TRUE,a,"), "v.csv:3: column bought: the label is missing"},
		{"line after a quoted newline", visitsHeader + "\"31\n\",12.5,Tue,TRUE,a,FALSE\n" + "x,,,,a,1\n", "v.csv:4: column age"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, err := readAll(s, c.text); err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestReadCSVPassesErrors(t *testing.T) {
	s, broken := visits(t), errors.New("store is full")
	text := visitsHeader + "31,12.5,Tue,TRUE,a,FALSE\n"
	err := ReadCSV(strings.NewReader(text), "v.csv", s, func(int, Row) error { return broken })
	if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "v.csv:2: ") {
		t.Errorf("error of the callback: %v", err)
	}
	err = ReadCSV(iotest.ErrReader(broken), "v.csv", s, func(int, Row) error { return nil })
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "v.csv") {
		t.Errorf("error of the reader: %v", err)
	}
}

// TestReadCSVSpeed reads 100,000 rows of the built-in data. A core takes a fraction of a second; the bound leaves room
// for a busy machine and the race detector.
func TestReadCSVSpeed(t *testing.T) {
	s, text := manyShoppers(t, 100_000)
	start, n := time.Now(), 0
	if err := ReadCSV(bytes.NewReader(text), "many.csv", s, func(int, Row) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); n != 100_000 || took > 10*time.Second {
		t.Errorf("%d rows in %v", n, took)
	}
}

func manyShoppers(t testing.TB, n int) (*Schema, []byte) {
	t.Helper()
	s, err := ShoppersSchema()
	if err != nil {
		t.Fatal(err)
	}
	text, err := ShoppersCSV()
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\r\n"))
	out := append(slices.Clone(lines[0]), '\n')
	for i := range n {
		out = append(append(out, lines[1+i%(len(lines)-1)]...), '\n')
	}
	return s, out
}

func BenchmarkReadCSV(b *testing.B) {
	s, text := manyShoppers(b, 100_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if err := ReadCSV(bytes.NewReader(text), "many.csv", s, func(int, Row) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzReadCSV(f *testing.F) {
	f.Add(visitsHeader + "31,12.5,Tue,TRUE,a,FALSE\n,,,,b,true\n")
	f.Add("\ufeffbought,id,shop,member,day,spent,age\r\nfalse,x,a,1,Tue,1.25e1,\"31\"\r\n")
	f.Add(visitsHeader + "NaN,1e30,Sun,2,,\n")
	f.Add(visitsHeader + "\"31\n,")
	f.Add(visitsHeader + "-0,0x1p-1074,Mon,no,a,0\n")
	s := visits(f)
	f.Fuzz(func(t *testing.T, text string) {
		err := ReadCSV(strings.NewReader(text), "f", s, func(line int, row Row) error {
			if line < 2 {
				return fmt.Errorf("line %d", line)
			}
			b, err := s.EncodeRow(row)
			if err != nil {
				t.Fatalf("a row that was read cannot be encoded: %v", err)
			}
			if again, err := s.DecodeRow(b); err != nil || !equal(again, row) {
				t.Fatalf("%v became %v, error %v", row, again, err)
			}
			return nil
		})
		if err != nil && !strings.HasPrefix(err.Error(), "f:") && !strings.HasPrefix(err.Error(), "read f:") {
			t.Fatalf("error without file: %v", err)
		}
	})
}

// TestWriteCSV: what is written reads back as the same rows, to the last bit.
func TestWriteCSV(t *testing.T) {
	s, nan := visits(t), math.NaN()
	s.Columns[2].Categories[1] = "Tue, \"late\"\nshift"
	rows := []Row{{31, 12.5, 1, 1, 0, 0}, {nan, nan, nan, nan, 1, 1}, {-10, 1.0 / 3, 2, 0, 0, 1}, {5e-324, 1e-7, 0, 0, 0, 0}}
	var text bytes.Buffer
	if err := WriteCSV(&text, s, rows); err != nil {
		t.Fatal(err)
	}
	again, _, err := readAll(s, text.String())
	if err != nil || !slices.EqualFunc(again, rows, equal) {
		t.Errorf("%v, error %v; want %v\n%s", again, err, rows, text.String())
	}
}

// TestWriteCSVRefuses: a row that ReadCSV would not read back is an error that names the row, and nothing is written.
func TestWriteCSVRefuses(t *testing.T) {
	s, nan := visits(t), math.NaN()
	good := Row{31, 12.5, 1, 1, 0, 0}
	for _, c := range []struct {
		name string
		row  Row
		want string
	}{
		{"no values", nil, "write CSV: row 2: 0 values, want 6"},
		{"short row", Row{31, 12.5, 1, 1, 0}, "write CSV: row 2: 5 values, want 6"},
		{"long row", append(slices.Clone(good), 1), "write CSV: row 2: 7 values, want 6"},
		{"infinite", Row{math.Inf(1), 12.5, 1, 1, 0, 0}, "write CSV: row 2: column age: +Inf is outside"},
		{"category out of range", Row{31, 12.5, 3, 1, 0, 0}, "write CSV: row 2: column day: 3 is not the index"},
		{"negative category", Row{31, 12.5, -1, 1, 0, 0}, "write CSV: row 2: column day: -1 is not the index"},
		{"boolean of two", Row{31, 12.5, 1, 2, 0, 0}, "write CSV: row 2: column member: 2 is neither"},
		{"required value missing", Row{31, 12.5, 1, 1, nan, 0}, "write CSV: row 2: column shop: the value is missing"},
		{"label missing", Row{31, 12.5, 1, 1, 0, nan}, "write CSV: row 2: column bought: the value is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var text bytes.Buffer
			err := WriteCSV(&text, s, []Row{good, c.row})
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || text.Len() != 0 {
				t.Errorf("error %v after %q, want %q", err, text.String(), c.want)
			}
		})
	}
}

// TestWriteCSVPassesErrors: a full disk is not taken for success, neither on the way nor at the last flush.
func TestWriteCSVPassesErrors(t *testing.T) {
	s, broken := visits(t), errors.New("disk is full")
	for _, n := range []int{1, 10_000} {
		rows := slices.Repeat([]Row{{31, 12.5, 1, 1, 0, 0}}, n)
		if err := WriteCSV(fullDisk{broken}, s, rows); !errors.Is(err, broken) {
			t.Errorf("%d rows: error %v", n, err)
		}
	}
}

type fullDisk struct{ err error }

func (d fullDisk) Write([]byte) (int, error) { return 0, d.err }
