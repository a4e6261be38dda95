package plot

import (
	"fmt"
	"html"
	"math"
	"strings"
	"unicode/utf8"
)

// Grid is a table of numbers, each written in a cell that is the stronger in colour the larger it is: two settings against
// each other, with as many rows and columns as one reads. Heat is for more.
type Grid struct {
	Title          string
	XLabel, YLabel string      // of columns and rows; may be empty
	Columns, Rows  []string    // their names
	Cells          [][]float64 // by row; one that is not finite is left blank
	Format         string      // of a value, such as %.1f
}

// Sizes of a grid, in the chart's units: letters are about 6.5 wide.
const (
	gridLetter = 6.5
	gridRow    = 24.0
	gridCell   = 56.0 // largest width of a cell
	gridTop    = 34.0
	gridShade  = .55 // opacity of the largest value: its number stays readable
)

// SVG is the grid as an svg element.
func (g Grid) SVG() string {
	var b strings.Builder
	edge := 36 + gridLetter*min(longestName(g.Rows), 24)
	cell := min(gridCell, (width-edge-right)/float64(max(len(g.Columns), 1)))
	bed := gridTop + gridRow*float64(len(g.Rows))
	slant := gridLetter * longestName(g.Columns) * .7 // names of columns lean
	high := bed + slant + 40
	fmt.Fprintf(&b, `<svg class="chart" viewBox="0 0 %g %.1f" role="img" aria-label="%s">`, width, high, html.EscapeString(g.Title))
	fmt.Fprintf(&b, `<text x="%.1f" y="18" font-weight="600">%s</text>`, edge, html.EscapeString(g.Title))
	low, top := g.extent()
	for r, row := range g.Rows {
		y := gridTop + gridRow*float64(r)
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="end">%s</text>`, edge-6, y+16, html.EscapeString(row))
		for c := range g.Columns {
			if r >= len(g.Cells) || c >= len(g.Cells[r]) || !drawable(g.Cells[r][c]) {
				continue
			}
			v, x := g.Cells[r][c], edge+cell*float64(c)
			fmt.Fprintf(&b, `<rect class="k0" x="%.1f" y="%.1f" width="%.1f" height="%g" fill-opacity="%.3f"/>`, x, y, cell, gridRow, gridShade*(v-low)/(top-low))
			fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle" font-size="%.1f">%s</text>`,
				x+cell/2, y+16, min(12, cell/3), html.EscapeString(fmt.Sprintf(g.Format, v)))
		}
	}
	for c, column := range g.Columns {
		fmt.Fprintf(&b, `<text transform="translate(%.1f %.1f) rotate(-40)" text-anchor="end">%s</text>`, edge+cell*(float64(c)+.5)+4, bed+14, html.EscapeString(column))
	}
	fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, edge+cell*float64(len(g.Columns))/2, high-8, html.EscapeString(g.XLabel))
	fmt.Fprintf(&b, `<text transform="translate(14 %.1f) rotate(-90)" text-anchor="middle">%s</text></svg>`, (gridTop+bed)/2, html.EscapeString(g.YLabel))
	return b.String()
}

func longestName(names []string) (letters float64) {
	for _, n := range names {
		letters = max(letters, float64(utf8.RuneCountInString(n)))
	}
	return letters
}

// extent is the range of the values.
func (g Grid) extent() (low, top float64) {
	low, top = math.Inf(1), math.Inf(-1)
	for _, row := range g.Cells {
		for _, v := range row {
			if drawable(v) {
				low, top = min(low, v), max(top, v)
			}
		}
	}
	if math.IsInf(low, 0) {
		return 0, 1
	}
	return low, widen(low, top, 1e-9)
}
