package plot

import (
	"fmt"
	"html"
	"math"
	"strings"
	"unicode/utf8"
)

// Heat is a table of numbers drawn as shades: Rows by Columns cells, the darker the larger. Its page needs Style, as
// charts do.
type Heat struct {
	Title          string
	XLabel, YLabel string
	Columns, Rows  []string    // what the cells' columns and rows are called; an empty name is not written
	Cells          [][]float64 // by row; one that is not finite is left blank
	Format         string      // of a cell's value, for the words that a pointer over it shows; empty: %g
}

// room for the names of rows and columns.
const (
	heatLeft, heatTop = 74.0, 34.0
	heatCell          = 22.0 // largest side of a cell
)

// SVG is the table as an svg element. The shade of a cell is its value as a share of the range of all, which begins at 0
// where none is negative.
func (h Heat) SVG() string {
	var b strings.Builder
	rows, columns := len(h.Rows), len(h.Columns)
	side := min((width-heatLeft-right)/float64(max(columns, 1)), heatCell)
	tall := min(side, heatCell, 420/float64(max(rows, 1)))
	high := heatTop + tall*float64(rows) + bottom
	fmt.Fprintf(&b, `<svg class="chart" viewBox="0 0 %g %.1f" role="img" aria-label="%s">`, width, high, html.EscapeString(h.Title))
	fmt.Fprintf(&b, `<text x="%g" y="18" font-weight="600">%s</text>`, heatLeft, html.EscapeString(h.Title))
	low, top, any := h.extent()
	if !any {
		fmt.Fprintf(&b, `<text x="%g" y="%.1f" text-anchor="middle">no data</text></svg>`, width/2, high-bottom/2)
		return b.String()
	}
	for r, cells := range h.Cells {
		for c, v := range cells {
			if drawable(v) {
				h.cell(&b, r, c, side, tall, (v-low)/(top-low))
			}
		}
	}
	for r, name := range h.Rows {
		if r%every(7, tall) != 0 {
			continue
		}
		fmt.Fprintf(&b, `<text x="%g" y="%.1f" text-anchor="end" font-size="%.1f">%s</text>`,
			heatLeft-6, heatTop+tall*(float64(r)+.5)+min(4, tall*.4), min(12, max(tall, 5)), html.EscapeString(name))
	}
	bed := heatTop + tall*float64(rows)
	for c, name := range h.Columns {
		if c%every(longest(h.Columns)*min(12, max(side*.6, 5))*.6, side) != 0 {
			continue
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle" font-size="%.1f">%s</text>`,
			heatLeft+side*(float64(c)+.5), bed+14, min(12, max(side*.6, 5)), html.EscapeString(name))
	}
	fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, heatLeft+side*float64(columns)/2, bed+32, html.EscapeString(h.XLabel))
	fmt.Fprintf(&b, `<text transform="translate(12 %.1f) rotate(-90)" text-anchor="middle">%s</text></svg>`, heatTop+tall*float64(rows)/2, html.EscapeString(h.YLabel))
	return b.String()
}

// cell draws one cell, with words for who points at it.
func (h Heat) cell(b *strings.Builder, r, c int, side, tall, share float64) {
	format := h.Format
	if format == "" {
		format = "%g"
	}
	words := fmt.Sprintf("%s %s, %s %s: "+format, h.YLabel, nameOf(h.Rows, r), h.XLabel, nameOf(h.Columns, c), h.Cells[r][c])
	fmt.Fprintf(b, `<rect class="k0" x="%.2f" y="%.2f" width="%.2f" height="%.2f" fill-opacity="%.3f"><title>%s</title></rect>`,
		heatLeft+side*float64(c), heatTop+tall*float64(r), side, tall, share, html.EscapeString(words))
}

// every says of how many cells one can be named, for a name that takes so much room beside a cell of that side.
func every(room, side float64) int { return max(1, int(math.Ceil(room/side))) }

// longest is the length of the longest name, in letters.
func longest(names []string) float64 {
	n := 0
	for _, name := range names {
		n = max(n, utf8.RuneCountInString(name)+1)
	}
	return float64(n)
}

func nameOf(names []string, i int) string {
	if i < len(names) && names[i] != "" {
		return names[i]
	}
	return fmt.Sprint(i + 1)
}

// extent is the range of shades.
func (h Heat) extent() (low, high float64, any bool) {
	high = math.Inf(-1)
	for _, cells := range h.Cells {
		for _, v := range cells {
			if drawable(v) {
				low, high, any = min(low, v), max(high, v), true
			}
		}
	}
	return low, widen(low, high, 1e-3), any
}
