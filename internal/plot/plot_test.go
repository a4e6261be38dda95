package plot

import (
	"encoding/xml"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// line is a chart of one line.
func line(name string, x, y []float64, marks ...Mark) Chart {
	return Chart{Title: name, Lines: []Line{{Name: "a", X: x, Y: y}}, Marks: marks}
}

// Whatever the values, a chart ends, is XML and has finite numbers only.
func TestSVG(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []Chart{
		{Title: "empty"},
		line("no points", nil, nil),
		line("one point", []float64{1}, []float64{0.5}),
		line("constant", []float64{1, 2}, []float64{0, 0}),
		line("constant and negative", []float64{-1, 2}, []float64{-7, -7}),
		line("constant and huge", []float64{1e17, 1e17}, []float64{1e200, 1e200}),
		line("huge beside its neighbour", []float64{1e17, 1e17 + 16}, []float64{1e17, 1e17 + 16}),
		line("as far apart as floats are", []float64{-math.MaxFloat64, math.MaxFloat64}, []float64{-math.MaxFloat64, math.MaxFloat64}),
		line("very far apart", []float64{-1e299, 1e299}, []float64{-1e299, 1e299}),
		line("tiny", []float64{0, 5e-324}, []float64{0, 5e-324}),
		line("not finite", []float64{1, 2, nan, inf, 3}, []float64{nan, -inf, 1, 2, 0.5}),
		line("only not finite", []float64{nan, 1}, []float64{1, inf}),
		line("more X than Y", []float64{1, 2, 3}, []float64{1}),
		line("more Y than X", []float64{1}, []float64{1, 2, 3}),
		line("marks elsewhere", []float64{1, 2}, []float64{1, 2}, Mark{nan, "a"}, Mark{inf, "b"}, Mark{-1e300, "c"}, Mark{3, "d"}),
		{Title: "levels alone", Levels: []Level{{"a", 1}}},
		{Title: "levels", Lines: []Line{{Name: "l", X: []float64{1, 2}, Y: []float64{.5, .6}, End: true}}, Levels: []Level{
			{"", .7}, {"b & <c>", -.7}, {"nan", nan}, {"inf", inf}, {"huge", 1e299}}},
		{Title: `a <b> & "c"`, XLabel: "round", Lines: []Line{
			{Name: "auc", X: []float64{1, 2, 3}, Y: []float64{0.4, 0.9, 0.93}}, {Name: "loss", X: []float64{1, 2, 3}, Y: []float64{0.7, 0.3, 0.25}},
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
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") || len(svg) > 8000 {
			t.Errorf("%s: %d bytes, not a number or far too much\n%.8000s", c.Title, len(svg), svg)
		}
	}
}

// A band is drawn below the lines, goes around its points, and makes room for itself.
func TestBand(t *testing.T) {
	l := Line{Name: "a", X: []float64{0, 1, 2}, Y: []float64{.5, .5, .5}, Low: []float64{.4, math.NaN(), .3}, High: []float64{.6, .7, 1}}
	svg := Chart{Lines: []Line{l}}.SVG()
	band, lineAt := strings.Index(svg, `<polygon class="band k0" points="52.0,`), strings.Index(svg, `<polyline class="line s0"`)
	if band < 0 || lineAt < band {
		t.Fatalf("band at %d, line at %d: %s", band, lineAt, svg)
	}
	points := strings.Fields(strings.SplitN(svg[band+len(`<polygon class="band k0" points="`):], `"`, 2)[0])
	if strings.Join(points, " ") != "52.0,112.0 388.0,34.0 388.0,170.5 52.0,151.0" {
		t.Errorf("band %v, want (0, .6), (2, 1), (2, .3), (0, .4) between 0.2 and 1", points)
	}
	if !strings.Contains(svg, ">1.0<") || !strings.Contains(svg, ">0.2<") {
		t.Errorf("the axis does not go from 0.2 to 1: %s", svg)
	}
}

// What cannot be drawn leaves the rest of its line and chart in place.
func TestSVGLeavesOut(t *testing.T) {
	whole := line("t", []float64{1, 2, 3}, []float64{.1, .2, .4}, Mark{2, "here"}).SVG()
	for name, c := range map[string]Chart{
		"points": line("t", []float64{1, 1.5, 2, 3}, []float64{.1, math.NaN(), .2, .4}, Mark{2, "here"}),
		"marks":  line("t", []float64{1, 2, 3}, []float64{.1, .2, .4}, Mark{9, "beside"}, Mark{2, "here"}),
	} {
		if got := c.SVG(); got != whole {
			t.Errorf("%s: drawn as\n%s\nwant\n%s", name, got, whole)
		}
	}
	if !strings.Contains(line("t", []float64{1}, []float64{math.NaN()}).SVG(), "no data") {
		t.Error("a chart without points does not say so")
	}
}

// Everything drawn lies inside the chart, words of marks at both ends as well.
func TestInside(t *testing.T) {
	xs, ys := []float64{1, 10, 20}, []float64{1e-4, 5, -3e6}
	svg := Chart{Title: "t", Lines: []Line{{Name: "a", X: xs, Y: ys, End: true}}, Levels: []Level{{"above", 7e6}, {"below", -7e6}}, Marks: []Mark{{1, "leader killed"}, {20, "leader killed"}}}.SVG()
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

// Levels widen the axis, and are explained below the chart, which grows by a line each.
func TestLegend(t *testing.T) {
	c := line("auc", []float64{1, 2}, []float64{.91, .93})
	c.Levels = []Level{{"central", .95}, {"alone", .90}, {"nothing", math.NaN()}}
	svg := c.SVG()
	for _, want := range []string{`viewBox="0 0 400 288"`, ">a</text>", ">central</text>", ">alone</text>", ">0.95</text>", ">0.90</text>", `class="level s1"`} {
		if !strings.Contains(svg, want) {
			t.Errorf("the chart lacks %s:\n%s", want, svg)
		}
	}
	if strings.Contains(svg, "nothing") {
		t.Error("a level that is not drawn is in the legend")
	}
	bare := Chart{Title: "auc", Lines: []Line{{X: []float64{1, 2}, Y: []float64{.91, .93}}}}.SVG()
	if !strings.Contains(bare, `viewBox="0 0 400 230"`) || strings.Contains(bare, "circle") {
		t.Errorf("a chart without names has a legend, or a dot:\n%s", bare)
	}
	ended := Chart{Lines: []Line{{X: []float64{1, 2}, Y: []float64{.91, .93}, End: true}}}.SVG()
	if strings.Count(ended, "<circle") != 1 || !strings.Contains(ended, `cx="388.0"`) {
		t.Errorf("the last point has no dot:\n%s", ended)
	}
}

func TestTicks(t *testing.T) {
	for _, tt := range []struct {
		low, high, step float64
		want            []float64
	}{{0, 1, .5, []float64{0, .5, 1}}, {1, 3.9, 1, []float64{1, 2, 3}}, {1, .7, 1, nil}, {.1, .1 + .3, .1, []float64{.1, .2, .1 + .2, .4}}} {
		if got := ticks(tt.low, tt.high, tt.step); !slices.EqualFunc(got, tt.want, func(a, b float64) bool { return math.Abs(a-b) < 1e-12 }) {
			t.Errorf("ticks(%v, %v, %v) = %v, want %v", tt.low, tt.high, tt.step, got, tt.want)
		}
	}
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
