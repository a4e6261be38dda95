package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func TestGrid(t *testing.T) {
	g := Grid{
		Title: "a & b", XLabel: "x", YLabel: "y", Columns: []string{"one", "<two>"}, Rows: []string{"first", "second", "third"},
		Cells: [][]float64{{.5, math.NaN()}, {.75, 1}}, Format: "%.2f",
	}
	svg := g.SVG()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v\n%s", err, svg)
		}
	}
	for _, want := range []string{">0.50<", ">0.75<", ">1.00<", "&lt;two&gt;", ">third<", `fill-opacity="0.000"`, `fill-opacity="0.275"`, `fill-opacity="0.550"`} {
		if strings.Count(svg, want) != 1 {
			t.Errorf("%s is there %d times", want, strings.Count(svg, want))
		}
	}
	if strings.Contains(svg, "NaN") || strings.Count(svg, "<rect") != 3 {
		t.Errorf("%s", svg)
	}
	if svg := (Grid{}).SVG(); strings.Contains(svg, "Inf") || strings.Contains(svg, "NaN") {
		t.Errorf("empty: %s", svg)
	}
}
