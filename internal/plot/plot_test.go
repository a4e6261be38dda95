package plot

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
)

func TestSVG(t *testing.T) {
	for _, c := range []Chart{
		{Title: "empty"},
		{Title: "one point", Lines: []Line{{"a", []float64{1}, []float64{0.5}}}},
		{Title: `a <b> & "c"`, XLabel: "round", Lines: []Line{
			{"auc", []float64{1, 2, 3}, []float64{0.4, 0.9, 0.93}}, {"loss", []float64{1, 2, 3}, []float64{0.7, 0.3, 0.25}},
		}, Marks: []Mark{{2, "killed"}}},
	} {
		svg := c.SVG()
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v\n%s", c.Title, err, svg)
			}
		}
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("%s: not a number in\n%s", c.Title, svg)
		}
	}
}
