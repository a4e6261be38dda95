package plot

import (
	"encoding/xml"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"
)

func TestSVG(t *testing.T) {
	for _, c := range []Chart{
		{Title: "empty"},
		{Title: "one point", Lines: []Line{{"a", []float64{1}, []float64{0.5}}}},
		{Title: "constant", Lines: []Line{{"a", []float64{1, 2}, []float64{0, 0}}}},
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

// Everything drawn lies inside the chart, words of marks at both ends as well.
func TestInside(t *testing.T) {
	xs, ys := []float64{1, 10, 20}, []float64{1e-4, 5, -3e6}
	svg := Chart{Title: "t", Lines: []Line{{"a", xs, ys}}, Marks: []Mark{{1, "leader killed"}, {20, "leader killed"}}}.SVG()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		at := map[string]string{}
		for _, a := range e.Attr {
			at[a.Name.Local] = a.Value
		}
		for _, name := range []string{"x", "x1", "x2"} {
			if v, err := strconv.ParseFloat(at[name], 64); err == nil && (v < 0 || v > width) {
				t.Errorf("%s has %s=%v outside the chart", e.Name.Local, name, v)
			}
		}
		if at["class"] == "marktext" {
			x, _ := strconv.ParseFloat(at["x"], 64)
			if (at["text-anchor"] == "end") != (x > width/2) {
				t.Errorf("the word of a mark at %v is anchored at its %s", x, at["text-anchor"])
			}
		}
	}
}

func TestTicks(t *testing.T) {
	for _, tt := range []struct{ span, want float64 }{{20, 5}, {1, 0.2}, {0.042, 0.01}, {3, 1}, {19, 5}} {
		if got := niceStep(tt.span); math.Abs(got-tt.want) > 1e-12 {
			t.Errorf("niceStep(%v) = %v, want %v", tt.span, got, tt.want)
		}
	}
	for _, tt := range []struct {
		v, step float64
		want    string
	}{{0.9, 0.05, "0.90"}, {math.Copysign(0, -1), 1, "0"}, {15, 5, "15"}, {0.125, 0.005, "0.125"}} {
		if got := label(tt.v, tt.step); got != tt.want {
			t.Errorf("label(%v, %v) = %s, want %s", tt.v, tt.step, got, tt.want)
		}
	}
}
