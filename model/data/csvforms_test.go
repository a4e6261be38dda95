package data

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

func zipped(t testing.TB, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Whatever it is written with, the same rows come out.
func TestCSVForms(t *testing.T) {
	s := visits(t)
	plain := visitsHeader + "31,12.5,Tue,TRUE,a,FALSE\n,,,,b,true\n"
	want, _, err := readAll(s, plain)
	if err != nil || len(want) != 2 {
		t.Fatal(want, err)
	}
	with := func(separator string) string { return strings.ReplaceAll(plain, ",", separator) }
	for _, c := range []struct {
		name, text string
		csv        CSV
	}{
		{"semicolons", with(";"), CSV{}},
		{"tabs", with("\t"), CSV{}},
		{"bars", with("|"), CSV{}},
		{"semicolons, said so", with(";"), CSV{Separator: ';'}},
		{"semicolons, mark, CRLF", "\ufeff" + strings.ReplaceAll(with(";"), "\n", "\r\n"), CSV{}},
		{"decimal commas", strings.ReplaceAll(with(";"), "12.5", "12,5"), CSV{DecimalComma: true}},
		{"decimal commas in quotes", strings.ReplaceAll(plain, "12.5", `"12,5"`), CSV{DecimalComma: true}},
		{"gzip", string(zipped(t, plain)), CSV{}},
		{"gzip of two members", string(zipped(t, plain[:50])) + string(zipped(t, plain[50:])), CSV{}},
		{"quoted header", `"age";"spent";"day";"member";"shop";"bought"` + with(";")[len(visitsHeader)-1:], CSV{}},
		{"commas, said so", plain, CSV{Separator: ','}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var rows []Row
			skipped, err := c.csv.Read(strings.NewReader(c.text), "v.csv", s, func(_ int, row Row) error {
				rows = append(rows, row)
				return nil
			})
			if err != nil || skipped.Rows != 0 || !slices.EqualFunc(rows, want, equal) {
				t.Errorf("%v, %+v, %v; want %v", rows, skipped, err, want)
			}
		})
	}
}

func TestCSVFormsRefused(t *testing.T) {
	s, good := visits(t), "31,12.5,Tue,TRUE,a,FALSE\n"
	whole := zipped(t, visitsHeader+strings.Repeat(good, 1000))
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-6] ^= 1 // its checksum
	for _, c := range []struct {
		name, text string
		csv        CSV
		want       string
	}{
		{"decimal comma not asked for", visitsHeader + "31,\"12,5\",Tue,TRUE,a,FALSE\n", CSV{}, `v.csv:2: column spent: "12,5" is not a number; a decimal comma is read only when asked for`},
		{"point beside decimal commas", visitsHeader + good, CSV{DecimalComma: true}, `v.csv:2: column spent: "12.5" has a point`},
		{"two commas in a number", visitsHeader + "31,\"1,2,5\",Tue,TRUE,a,FALSE\n", CSV{DecimalComma: true}, "v.csv:2: column spent"},
		{"another separator than said", strings.ReplaceAll(visitsHeader+good, ",", ";"), CSV{Separator: ','}, `v.csv:1: column "age;spent;`},
		{"a separator that is none", visitsHeader, CSV{Separator: 'x'}, `read v.csv: separator 'x'`},
		{"UTF-16", "\xff\xfea\x00", CSV{}, "v.csv:1: the file is UTF-16"},
		{"gzip cut", string(whole[:len(whole)-20]), CSV{}, "read v.csv: unexpected EOF"},
		{"gzip damaged", string(flipped), CSV{}, "read v.csv: gzip: invalid checksum"},
		{"not gzip after all", "\x1f\x8bage", CSV{}, "read v.csv: "},
		{"field count", visitsHeader + "31,12.5\n", CSV{}, "v.csv:2: wrong number of fields: 2, want 6"},
		{"bare quote names the byte", visitsHeader + `31,1"2.5,Tue,TRUE,a,FALSE`, CSV{}, `v.csv:2: bare " in non-quoted`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.csv.Read(strings.NewReader(c.text), "v.csv", s, func(int, Row) error { return nil })
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// Bad rows are left out when asked for: counted, the first five named; one too many ends the file.
func TestSkipBad(t *testing.T) {
	s, good := visits(t), "31,12.5,Tue,TRUE,a,FALSE\n"
	bad := []string{"old,1,Tue,1,a,0\n", "1,1,Tue\n", "1,1,Sun,1,a,0\n", "1,1,T\"ue,1,a,0\n", "1,1,Tue,1,a,\n", "1,1,Tue,1,,0\n", "99,1,Tue,1,a,0\n"}
	text := visitsHeader
	for _, row := range bad {
		text += row + good
	}
	read := func(limit int) (int, Skipped, error) {
		n := 0
		skipped, err := CSV{SkipBad: limit}.Read(strings.NewReader(text), "v.csv", s, func(int, Row) error { n++; return nil })
		return n, skipped, err
	}
	n, skipped, err := read(7)
	if err != nil || n != 7 || skipped.Rows != 7 || len(skipped.First) != 5 {
		t.Fatalf("%d rows, %+v, %v", n, skipped, err)
	}
	for i, want := range []string{"v.csv:2: column age", "v.csv:4: wrong number of fields: 3, want 6", "v.csv:6: column day", `v.csv:8: bare "`, "v.csv:10: column bought: the label is missing"} {
		if !strings.HasPrefix(skipped.First[i], want) {
			t.Errorf("bad row %d: %s, want %s", i+1, skipped.First[i], want)
		}
	}
	if _, _, err := read(6); err == nil || !strings.HasPrefix(err.Error(), "v.csv:14: column age") || !strings.Contains(err.Error(), "more than 6 rows are bad") {
		t.Errorf("seven bad rows of six: %v", err)
	}
	if _, _, err := read(0); err == nil || strings.Contains(err.Error(), "more than") {
		t.Errorf("without leave: %v", err)
	}
	full := errors.New("store is full")
	_, err = CSV{SkipBad: 9}.Read(strings.NewReader(text), "v.csv", s, func(int, Row) error { return full })
	if !errors.Is(err, full) {
		t.Errorf("an error of the callback is taken for a bad row: %v", err)
	}
}

// A quote that nothing closes would hide all rows after it: it is never skipped, and never read into memory whole.
func TestOpenQuoteIsNotSkipped(t *testing.T) {
	s, good := visits(t), "31,12.5,Tue,TRUE,a,FALSE\n"
	skip := CSV{SkipBad: 1000}
	read := func(r io.Reader) error {
		_, err := skip.Read(r, "v.csv", s, func(int, Row) error { return nil })
		return err
	}
	small := visitsHeader + good + "1,1,\"Tue,1,a,0\n" + strings.Repeat(good, 5)
	if err := read(strings.NewReader(small)); err == nil || !strings.HasPrefix(err.Error(), "v.csv:3: extraneous or missing") || !strings.Contains(err.Error(), "goes on to line") {
		t.Errorf("error %v", err)
	}
	counted := &countingReader{r: io.MultiReader(strings.NewReader(visitsHeader+good+"1,1,\""), &endless{good})}
	if err := read(counted); err == nil || !strings.HasPrefix(err.Error(), "v.csv:3: a row of more than 1048576 bytes") {
		t.Errorf("error %v", err)
	}
	if counted.n > 2<<20 {
		t.Errorf("%d bytes were read before it was noticed", counted.n)
	}
	if err := read(io.MultiReader(strings.NewReader("age"), &endless{"x"})); err == nil || !strings.HasPrefix(err.Error(), "v.csv:1: a row of more than") {
		t.Errorf("a header without end: %v", err)
	}
}

type endless struct{ text string }

func (e *endless) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		n += copy(b[n:], e.text)
	}
	return n, nil
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += n
	return n, err
}

// FuzzCSV: whatever the form, what is read fits the schema, and rows that are left out are counted.
func FuzzCSV(f *testing.F) {
	f.Add([]byte(visitsHeader+"31,12.5,Tue,TRUE,a,FALSE\n,,,,b,true\n"), byte(0), true, 3)
	f.Add([]byte(strings.ReplaceAll(visitsHeader+"31,12.5,Tue,TRUE,a,FALSE\n", ",", ";")), byte(0), false, 0)
	f.Add(zipped(f, visitsHeader+"31,\"12,5\",Tue,TRUE,a,FALSE\nx\n"), byte(1), true, 1)
	s := visits(f)
	f.Fuzz(func(t *testing.T, text []byte, separator byte, comma bool, limit int) {
		c := CSV{DecimalComma: comma, SkipBad: limit}
		if k := int(separator) % (len(separators) + 1); k > 0 {
			c.Separator = separators[k-1]
		}
		skipped, err := c.Read(bytes.NewReader(text), "f", s, func(line int, row Row) error {
			if line < 2 {
				return fmt.Errorf("line %d", line)
			}
			return s.check(row)
		})
		if skipped.Rows > max(limit, 0) || len(skipped.First) > min(skipped.Rows, firstBad) {
			t.Fatalf("%+v with a limit of %d", skipped, limit)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "f:") && !strings.HasPrefix(err.Error(), "read f:") {
			t.Fatalf("error without file: %v", err)
		}
	})
}
