package report

import (
	"fmt"
	"math"
	"slices"

	"choir.example/internal/plot"
	"choir.example/simulate"
)

// Cross is setups in rows and columns: two keys of a sweep against each other, or the table of a paper.
type Cross struct {
	Title, RowKey, ColumnKey string
	Rows, Columns            []string
	Cells                    [][]Cell // by row
	Published                bool     // some cell has a published number
	Diverged                 bool     // some cell has runs that diverged
}

// Cell is an accuracy.
type Cell struct {
	Mean      float64 // NaN: there is no run
	Text      string
	Published string // the source's, if there is one
	Diverged  string // how many runs did, if some did
	Share     int    // of the range of the table, 0 to 100: the shade
}

// Crosses are the tables that the setups make up.
func (r *Report) Crosses() (all []*Cross) {
	tables := map[string]*Cross{}
	for _, group := range r.groups() {
		if keys := varyingKeys(group); len(keys) == 2 {
			c := &Cross{Title: group[0].Name(), RowKey: keys[0], ColumnKey: keys[1]}
			for _, s := range group {
				c.put(s.values[keys[0]], s.values[keys[1]], s)
			}
			all = append(all, c)
		}
		b, _ := simulate.BuiltinNamed(group[0].Name())
		if b.Table == "" || len(group) > 1 {
			continue
		}
		if tables[b.Table] == nil {
			tables[b.Table] = &Cross{Title: b.Table}
			all = append(all, tables[b.Table])
		}
		tables[b.Table].put(b.Row, b.Column, group[0])
	}
	all = slices.DeleteFunc(all, func(c *Cross) bool { return len(c.Rows) < 2 && len(c.Columns) < 2 })
	for _, c := range all {
		c.finish()
	}
	return all
}

// Grids are the tables as drawings.
func (r *Report) Grids() (all []Figure) {
	for _, c := range r.Crosses() {
		g := plot.Grid{Title: c.Title + ": accuracy, %", XLabel: c.ColumnKey, YLabel: c.RowKey, Columns: c.Columns, Rows: c.Rows, Format: "%.1f"}
		for _, row := range c.Cells {
			var values []float64
			for _, cell := range row {
				values = append(values, 100*cell.Mean)
			}
			g.Cells = append(g.Cells, values)
		}
		all = append(all, Figure{fileName(c.Title) + "-table", g.SVG(), ""})
	}
	return all
}

// put enters a setup.
func (c *Cross) put(row, column string, s *Setup) {
	i, k := place(&c.Rows, row), place(&c.Columns, column)
	for len(c.Cells) <= i {
		c.Cells = append(c.Cells, nil)
	}
	for len(c.Cells[i]) <= k {
		c.Cells[i] = append(c.Cells[i], Cell{Mean: math.NaN(), Text: percent(math.NaN())})
	}
	found, published := s.headline()
	c.Cells[i][k] = Cell{Mean: found.Mean, Text: percent(found.Mean), Published: published, Diverged: s.Diverged()}
	c.Published, c.Diverged = c.Published || published != "", c.Diverged || s.Diverged() != ""
}

// place is where a name stands in a list, to whose end it is added if it is not there.
func place(list *[]string, name string) int {
	if i := slices.Index(*list, name); i >= 0 {
		return i
	}
	*list = append(*list, name)
	return len(*list) - 1
}

// headline is the accuracy that stands for a setup: what its source reports, or that of the last round.
func (s *Setup) headline() (found Spread, published string) {
	for _, e := range s.Expected() {
		if e.Metric == "accuracy" {
			return s.over(func(r *Run) (float64, bool) { return e.Found(r.Result) }), percent(e.Value)
		}
	}
	return s.Accuracy(), ""
}

// finish sorts rows and columns, fills gaps and shades.
func (c *Cross) finish() {
	rows, columns := sortedPlaces(c.Rows), sortedPlaces(c.Columns)
	cells := make([][]Cell, len(rows))
	low, high := math.Inf(1), math.Inf(-1)
	for i, from := range rows {
		for _, k := range columns {
			cell := Cell{Mean: math.NaN(), Text: percent(math.NaN())}
			if k < len(c.Cells[from]) {
				if cell = c.Cells[from][k]; !math.IsNaN(cell.Mean) {
					low, high = min(low, cell.Mean), max(high, cell.Mean)
				}
			}
			cells[i] = append(cells[i], cell)
		}
	}
	for _, row := range cells {
		for k := range row {
			if high > low && !math.IsNaN(row[k].Mean) {
				row[k].Share = int(100 * (row[k].Mean - low) / (high - low))
			}
		}
	}
	c.Rows, c.Columns, c.Cells = ordered(c.Rows, rows), ordered(c.Columns, columns), cells
}

func sortedPlaces(names []string) []int {
	places := make([]int, len(names))
	for i := range places {
		places[i] = i
	}
	slices.SortStableFunc(places, func(a, b int) int { return natural(names[a], names[b]) })
	return places
}

func ordered(names []string, places []int) (out []string) {
	for _, p := range places {
		out = append(out, names[p])
	}
	return out
}

func percent(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.1f", 100*v)
}
