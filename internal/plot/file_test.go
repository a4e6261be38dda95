package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
)

// A file is XML of SVG's name space, and sets every colour that it uses.
func TestFile(t *testing.T) {
	c := Chart{Title: `a > b & "c"`, Marks: []Mark{{2, "x"}}, Levels: []Level{{"l", 1}}}
	for range 10 {
		c.Lines = append(c.Lines, Line{Name: "n", X: []float64{1, 2, 3}, Y: []float64{1, 2, 3}})
	}
	file := File(c.SVG())
	d := xml.NewDecoder(strings.NewReader(file))
	for first := true; ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, file)
		}
		if start, ok := token.(xml.StartElement); ok && first {
			if first = false; start.Name != (xml.Name{Space: "http://www.w3.org/2000/svg", Local: "svg"}) {
				t.Errorf("it begins with %v", start.Name)
			}
		}
	}
	for _, m := range regexp.MustCompile(`var\((--\w+)\)`).FindAllStringSubmatch(file, -1) {
		if !strings.Contains(file, m[1]+":#") {
			t.Errorf("%s is not set", m[1])
		}
	}
}
