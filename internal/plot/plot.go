// Package plot draws line charts as SVG for the pages and reports: no script, no font and no file from elsewhere, and
// colours that follow the reader's light or dark setting through the page's style sheet.
//
//	c := plot.Chart{Title: "AUC", XLabel: "round", Lines: []plot.Line{{X: rounds, Y: auc}}}
//	page += c.SVG() // in a page with plot.Style, which sets --ink, --card, --rule, --bad and --c0 to --c2, up to --c7 for more lines
//
// File makes a file of its own of a drawing, for papers.
//
// It does not choose what to draw, and has no logarithmic axes.
package plot

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Chart is one chart: lines over a common x axis. Named lines and levels are explained in a legend below it.
type Chart struct {
	Title  string
	XLabel string
	Lines  []Line
	Levels []Level
	Marks  []Mark
}

// Line is a series of points in order of X. A point that is not finite is left out, as is an X without its Y.
type Line struct {
	Name string // for the legend; empty: not in it
	X, Y []float64
	End  bool // the last point is what matters: it gets a dot

	Low, High []float64 // a band around Y, as the spread over seeds; nil: none
}

// Level is a dashed horizontal line at Y, to hold the lines against.
type Level struct {
	Name string
	Y    float64
}

// points are those that can be drawn.
func (l Line) points() (ps [][2]float64) {
	for i := range min(len(l.X), len(l.Y)) {
		if drawable(l.X[i]) && drawable(l.Y[i]) {
			ps = append(ps, [2]float64{l.X[i], l.Y[i]})
		}
	}
	return ps
}

// band is the outline of the band around the points that can be drawn: there along the high end, and back along the low.
func (l Line) band() (ps [][2]float64) {
	n := min(len(l.X), len(l.Y), len(l.Low), len(l.High))
	for i := range n {
		if drawable(l.X[i]) && drawable(l.High[i]) && drawable(l.Low[i]) {
			ps = append(ps, [2]float64{l.X[i], l.High[i]})
		}
	}
	for i := n - 1; i >= 0; i-- {
		if drawable(l.X[i]) && drawable(l.High[i]) && drawable(l.Low[i]) {
			ps = append(ps, [2]float64{l.X[i], l.Low[i]})
		}
	}
	return ps
}

// drawable refuses what is not a number, and what is so large that the extent of two values would be infinite.
func drawable(v float64) bool { return math.Abs(v) < 1e300 }

// Mark is a vertical line with a word, at X. One beside the lines is left out.
type Mark struct {
	X    float64
	Text string
}

// colours are the classes of the lines' colours: a page that draws no more than three need not set more.
const colours = `.chart .s0{stroke:var(--c0)}.chart .s1{stroke:var(--c1)}.chart .s2{stroke:var(--c2)}
.chart .s3{stroke:var(--c3)}.chart .s4{stroke:var(--c4)}.chart .s5{stroke:var(--c5)}.chart .s6{stroke:var(--c6)}.chart .s7{stroke:var(--c7)}
.chart .k0{fill:var(--c0)}.chart .k1{fill:var(--c1)}.chart .k2{fill:var(--c2)}
.chart .k3{fill:var(--c3)}.chart .k4{fill:var(--c4)}.chart .k5{fill:var(--c5)}.chart .k6{fill:var(--c6)}.chart .k7{fill:var(--c7)}
`

// Colours is how many lines a chart can have that differ in colour.
const Colours = 8

// Style is the style sheet that charts expect in their page.
const Style = `.chart{width:100%;max-width:36rem;height:auto;font:12px system-ui,sans-serif}
.chart .axis{stroke:var(--rule);fill:none}.chart .grid{stroke:var(--rule);opacity:.5}
.chart text{fill:var(--ink)}.chart .line{fill:none;stroke-width:2}
` + colours + `.chart .band{stroke:none;fill-opacity:.16}
.chart .level{stroke-width:1.5;stroke-dasharray:6 4}
.chart .mark{stroke:var(--bad);stroke-dasharray:4 3}.chart .marktext{fill:var(--bad);paint-order:stroke;stroke:var(--card);stroke-width:3px}`

// Size of a chart in its own units, without its legend, and the room for its axes. A page scales a chart to the width it
// has: this one keeps its words readable on a telephone 360 pixels wide.
const (
	width, height            = 400.0, 230.0
	left, right, top, bottom = 52.0, 12.0, 34.0, 40.0
	legendLine               = 17.0 // height of a line of the legend
	legendGap                = 7.0  // between axis and legend
)

// scale maps values to positions.
type scale struct{ low, high, from, to float64 }

func (s scale) at(v float64) float64 { return s.from + (v-s.low)/(s.high-s.low)*(s.to-s.from) }

// SVG is the chart as an svg element. A chart without points says so.
func (c Chart) SVG() string {
	var b strings.Builder
	legend := c.legend()
	fmt.Fprintf(&b, `<svg class="chart" viewBox="0 0 %g %g" role="img" aria-label="%s">`,
		width, height+legendLine*float64(len(legend))+legendGap*float64(min(1, len(legend))), html.EscapeString(c.Title))
	fmt.Fprintf(&b, `<text x="%g" y="18" font-weight="600">%s</text>`, left, html.EscapeString(c.Title))
	xLow, xHigh, yLow, yHigh, ok := c.extent()
	if !ok {
		fmt.Fprintf(&b, `<text x="%g" y="%g" text-anchor="middle">no data</text></svg>`, width/2, height/2)
		return b.String()
	}
	step := niceStep(yHigh - yLow)
	yLow, yHigh = math.Floor(yLow/step)*step, math.Ceil(yHigh/step)*step
	x := scale{xLow, xHigh, left, width - right}
	y := scale{yLow, yHigh, height - bottom, top}
	for _, v := range ticks(yLow, yHigh, step) {
		fmt.Fprintf(&b, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/>`, left, width-right, y.at(v), y.at(v))
		fmt.Fprintf(&b, `<text x="%g" y="%.1f" text-anchor="end">%s</text>`, left-6, y.at(v)+4, label(v, step))
	}
	xStep := max(niceStep(xHigh-xLow), 1)
	for _, v := range ticks(math.Ceil(xLow/xStep)*xStep, xHigh, xStep) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%g" text-anchor="middle">%s</text>`, x.at(v), height-bottom+18, label(v, xStep))
	}
	fmt.Fprintf(&b, `<polyline class="axis" points="%g,%g %g,%g %g,%g"/>`, left, top, left, height-bottom, width-right, height-bottom)
	fmt.Fprintf(&b, `<text x="%g" y="%g" text-anchor="middle">%s</text>`, (left+width-right)/2, height-8, html.EscapeString(c.XLabel))
	c.draw(&b, x, y)
	for i, e := range legend {
		at := height + legendGap + legendLine*float64(i) + 2
		fmt.Fprintf(&b, `<line class="%s" x1="%g" x2="%g" y1="%g" y2="%g"/>`, e.class, left, left+24, at, at)
		fmt.Fprintf(&b, `<text x="%g" y="%g">%s</text>`, left+32, at+4, html.EscapeString(e.name))
	}
	b.WriteString(`</svg>`)
	return b.String()
}

// entry is a line of the legend.
type entry struct{ class, name string }

func (c Chart) legend() (es []entry) {
	for i, l := range c.Lines {
		if l.Name != "" {
			es = append(es, entry{c.lineClass(i), l.Name})
		}
	}
	for i, l := range c.Levels {
		if l.Name != "" && drawable(l.Y) {
			es = append(es, entry{c.levelClass(i), l.Name})
		}
	}
	return es
}

// Lines and levels take the colours in turn: the first three, unless there are more.
func (c Chart) colour(i int) int {
	if len(c.Lines)+len(c.Levels) <= 3 {
		return i % 3
	}
	return i % Colours
}
func (c Chart) lineClass(i int) string  { return fmt.Sprintf("line s%d", c.colour(i)) }
func (c Chart) levelClass(i int) string { return fmt.Sprintf("level s%d", c.colour(len(c.Lines)+i)) }

// draw draws levels, marks and lines.
func (c Chart) draw(b *strings.Builder, x, y scale) {
	for i, l := range c.Levels {
		if drawable(l.Y) {
			fmt.Fprintf(b, `<line class="%s" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/>`, c.levelClass(i), left, width-right, y.at(l.Y), y.at(l.Y))
		}
	}
	for _, m := range c.Marks {
		if !(m.X >= x.low && m.X <= x.high) {
			continue
		}
		at, beside, anchor := x.at(m.X), 4.0, "start"
		if at > (left+width-right)/2 { // the word would leave the chart on the right
			beside, anchor = -4, "end"
		}
		fmt.Fprintf(b, `<line class="mark" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/>`, at, at, top, height-bottom)
		fmt.Fprintf(b, `<text class="marktext" x="%.1f" y="%g" text-anchor="%s">%s</text>`, at+beside, c.clear(m.X, y), anchor, html.EscapeString(m.Text))
	}
	for i, l := range c.Lines {
		if ps := l.band(); len(ps) > 0 {
			fmt.Fprintf(b, `<polygon class="band k%d" points="%s"/>`, c.colour(i), positions(ps, x, y))
		}
	}
	for i := len(c.Lines) - 1; i >= 0; i-- {
		l := c.Lines[i]
		points := l.points()
		fmt.Fprintf(b, `<polyline class="%s" points="%s"/>`, c.lineClass(i), positions(points, x, y))
		if n := len(points); n == 1 || n > 0 && l.End { // a line of one point would not show
			p := points[n-1]
			fmt.Fprintf(b, `<circle class="k%d" cx="%.1f" cy="%.1f" r="3.5"/>`, c.colour(i), x.at(p[0]), y.at(p[1]))
		}
	}
}

// positions writes points as SVG does.
func positions(ps [][2]float64, x, y scale) string {
	var b strings.Builder
	for i, p := range ps {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%.1f,%.1f", x.at(p[0]), y.at(p[1]))
	}
	return b.String()
}

// clear is a height for a word beside a mark where the lines after it mostly are not: at the top or at the bottom.
func (c Chart) clear(x float64, y scale) float64 {
	var sum, n float64
	for _, l := range c.Lines {
		for i := range l.X {
			if l.X[i] >= x {
				sum, n = sum+y.at(l.Y[i]), n+1
			}
		}
	}
	if n > 0 && sum/n > (top+height-bottom)/2 {
		return top + 12
	}
	return height - bottom - 8
}

// extent is the range of all points, widened where they are too close for ticks between them.
func (c Chart) extent() (xLow, xHigh, yLow, yHigh float64, ok bool) {
	xLow, yLow, xHigh, yHigh = math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, l := range c.Lines {
		for _, p := range l.points() {
			xLow, xHigh = min(xLow, p[0]), max(xHigh, p[0])
			yLow, yHigh = min(yLow, p[1]), max(yHigh, p[1])
		}
		for _, p := range l.band() {
			xLow, xHigh = min(xLow, p[0]), max(xHigh, p[0])
			yLow, yHigh = min(yLow, p[1]), max(yHigh, p[1])
		}
	}
	if !math.IsInf(xLow, 0) {
		for _, l := range c.Levels {
			if drawable(l.Y) {
				yLow, yHigh = min(yLow, l.Y), max(yHigh, l.Y)
			}
		}
	}
	if math.IsInf(xLow, 0) {
		return 0, 0, 0, 0, false
	}
	return xLow, widen(xLow, xHigh, 1), yLow, widen(yLow, yHigh, 1e-3), true
}

// widen is high, or more where it is within a billionth of low: less than that a float does not divide into ticks.
func widen(low, high, least float64) float64 {
	if size := max(math.Abs(low), math.Abs(high)); high-low <= max(size*1e-9, 1e-290) {
		return high + max(size*.1, least)
	}
	return high
}

// ticks are low, low+step and so on up to high.
func ticks(low, high, step float64) (vs []float64) {
	for i := range int(math.Floor((high-low)/step+1e-6)) + 1 {
		vs = append(vs, low+float64(i)*step)
	}
	return vs
}

// niceStep is a round distance of about five ticks.
func niceStep(span float64) float64 {
	raw := span / 5
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5} {
		if raw <= m*power {
			return m * power
		}
	}
	return 10 * power
}

// label writes a tick with as many digits as its step needs.
func label(v, step float64) string {
	digits := max(0, int(math.Ceil(-math.Log10(step)-1e-9)))
	if math.Abs(v) < step/1e6 {
		v = 0
	}
	return fmt.Sprintf("%.*f", digits, v)
}
