package plot

import (
	"encoding/xml"
	"io"
	"math"
	"strings"
	"testing"
)

func TestHeat(t *testing.T) {
	h := Heat{
		Title: "labels & nodes", XLabel: "label", YLabel: "node", Columns: []string{"a", "b<"}, Rows: []string{"1", ""},
		Cells: [][]float64{{0, 50}, {math.NaN(), 100}},
	}
	svg := h.SVG()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("not well formed: %v\n%s", err, svg)
		}
	}
	for _, want := range []string{
		`labels &amp; nodes`, `b&lt;`, `fill-opacity="0.000"`, `fill-opacity="0.500"`, `fill-opacity="1.000"`, `node 1, label b&lt;: 50`, `node 2, label b&lt;: 100`,
	} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %s in\n%s", want, svg)
		}
	}
	if n := strings.Count(svg, "<rect"); n != 3 {
		t.Errorf("%d cells, want 3: what is not a number is blank", n)
	}
}

func TestHeatWithoutCells(t *testing.T) {
	for _, h := range []Heat{{}, {Rows: []string{"1"}, Columns: []string{"a"}, Cells: [][]float64{{math.Inf(1)}}}} {
		if svg := h.SVG(); !strings.Contains(svg, "no data") {
			t.Errorf("%s", svg)
		}
	}
	if svg := (Heat{Rows: []string{"1"}, Columns: []string{"a"}, Cells: [][]float64{{7}}}).SVG(); !strings.Contains(svg, `fill-opacity="1.000"`) {
		t.Errorf("one cell: %s", svg)
	}
}
