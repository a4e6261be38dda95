package partition

import (
	"fmt"
	"slices"

	"choir.example/internal/plot"
)

// Picture is what a partition gave to whom. Its JSON form goes with results.
type Picture struct {
	Examples []int   `json:"examples"`         // that each node holds
	Labels   [][]int `json:"labels,omitempty"` // of those, by class; nil where examples have no label
}

// NewPicture counts.
func NewPicture(parts [][]int32, x Examples) Picture {
	var p Picture
	for _, part := range parts {
		p.Examples = append(p.Examples, len(part))
		if x.Classes < 2 {
			continue
		}
		of := make([]int, x.Classes)
		for _, e := range part {
			of[x.Labels[e]]++
		}
		p.Labels = append(p.Labels, of)
	}
	return p
}

// Spread is how nodes differ in what they hold.
type Spread struct {
	Least, Median, Most int     // examples of a node
	Labels              float64 // labels that a node has at least one example of, in the mean; 0 without labels
}

// Spread sums the picture up.
func (p Picture) Spread() Spread {
	if len(p.Examples) == 0 {
		return Spread{}
	}
	sizes := slices.Sorted(slices.Values(p.Examples))
	s := Spread{Least: sizes[0], Median: sizes[len(sizes)/2], Most: sizes[len(sizes)-1]}
	present := 0
	for _, of := range p.Labels {
		for _, n := range of {
			if n > 0 {
				present++
			}
		}
	}
	s.Labels = float64(present) / float64(max(len(p.Labels), 1))
	return s
}

// rows and columns that a picture has room for.
const mostNodes, mostLabels = 60, 40

// SVG is the picture: a row a node, a column a label, the darker the more examples; without labels one column. Of more
// than 60 nodes it shows 60, evenly spaced, and more than 40 labels stand several to a column.
func (p Picture) SVG() string {
	h := plot.Heat{Title: "who holds what", XLabel: "label", YLabel: "node", Format: "%.0f examples"}
	per := 1
	if len(p.Labels) > 0 {
		per = (len(p.Labels[0]) + mostLabels - 1) / mostLabels
		h.Columns = columnNames(len(p.Labels[0]), per)
	} else {
		h.XLabel, h.Columns = "examples", []string{""}
	}
	nodes := len(p.Examples)
	if nodes > mostNodes {
		h.Title = fmt.Sprintf("who holds what: %d of %d nodes", mostNodes, nodes)
	}
	shown := min(nodes, mostNodes)
	for i := range shown {
		node := i * nodes / shown
		h.Rows = append(h.Rows, fmt.Sprint(node+1))
		cells := []float64{float64(p.Examples[node])}
		if len(p.Labels) > 0 {
			cells = make([]float64, len(h.Columns))
			for label, n := range p.Labels[node] {
				cells[label/per] += float64(n)
			}
		}
		h.Cells = append(h.Cells, cells)
	}
	return h.SVG()
}

// columnNames are labels from 0, or the ranges of so many labels.
func columnNames(labels, per int) (names []string) {
	for from := 0; from < labels; from += per {
		if per == 1 {
			names = append(names, fmt.Sprint(from))
		} else {
			names = append(names, fmt.Sprintf("%d–%d", from, min(from+per, labels)-1))
		}
	}
	return names
}
