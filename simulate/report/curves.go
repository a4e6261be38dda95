package report

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"choir.example/internal/plot"
	"choir.example/simulate"
)

// Figure is one drawing: SVG to stand in a page, the name of a file for it without its ending, and what it is of if it does
// not say so itself.
type Figure struct{ File, SVG, Of string }

// panel are setups whose curves belong into one drawing.
type panel struct {
	title  string
	setups []*Setup
	names  []string // of the setups in it
}

// panels are the setups by row of their table, or by experiment; no more in one than there are colours.
func (r *Report) panels() (all []panel) {
	add := func(title string, s *Setup, name string) {
		i := slices.IndexFunc(all, func(p panel) bool { return p.title == title && len(p.setups) < plot.Colours })
		if i < 0 {
			i, all = len(all), append(all, panel{title: title})
		}
		all[i].setups, all[i].names = append(all[i].setups, s), append(all[i].names, name)
	}
	for _, group := range r.groups() {
		for _, s := range group {
			switch b, _ := simulate.BuiltinNamed(s.Name()); {
			case len(group) > 1:
				add(s.Name(), s, s.Label[min(len(s.Label), len(s.Name())+1):])
			case b.Table != "":
				add(b.Table+", "+b.Row, s, b.Column)
			default:
				add(s.Label, s, "")
			}
		}
	}
	return all
}

// Figures are the curves of all setups.
func (r *Report) Figures() (all []Figure) {
	seen := map[string]int{}
	for _, p := range r.panels() {
		file := fileName(p.title)
		if seen[file]++; seen[file] > 1 {
			file += fmt.Sprintf("-%d", seen[file])
		}
		accuracy, loss := p.chart("accuracy", "round", accuracyOf), p.chart("loss, nat", "round", lossOf)
		all = append(all, Figure{file + "-accuracy", accuracy.SVG(), ""}, Figure{file + "-loss", loss.SVG(), ""})
		if unit, word, ok := p.traffic(); ok {
			c := p.chart("accuracy by bytes", word+" that all nodes sent", accuracyOf)
			for i, s := range p.setups {
				c.Lines[i].X = s.sentUntil(c.Lines[i].X, unit)
			}
			all = append(all, Figure{file + "-bytes", c.SVG(), ""})
		}
	}
	return all
}

// Partitions are who holds what, of the first seed of each setup; one for all that have the same.
func (r *Report) Partitions() (all []Figure) {
	for _, s := range r.Setups {
		p := s.Runs[0].Picture
		if p == nil {
			continue
		}
		svg := p.SVG()
		if i := slices.IndexFunc(all, func(f Figure) bool { return f.SVG == svg }); i < 0 {
			all = append(all, Figure{fileName(s.Label) + "-partition", svg, s.Label})
		} else {
			all[i].Of += "; " + s.Label
		}
	}
	return all
}

func accuracyOf(m simulate.Measured) float64 { return m.Accuracy }
func lossOf(m simulate.Measured) float64     { return m.Loss }

// chart is a line for each setup, with the band of its seeds.
func (p panel) chart(what, x string, of func(simulate.Measured) float64) plot.Chart {
	c := plot.Chart{Title: shorten(p.title, widest-len(what)) + ": " + what, XLabel: x}
	for i, s := range p.setups {
		l := s.curve(of)
		l.Name = p.names[i]
		if n := len(l.Y); n > 0 && l.Name == "" {
			l.Name, l.End = fmt.Sprintf("%.4f in the end", l.Y[n-1]), true
		}
		if n := len(s.Runs); n > 1 {
			l.Name += fmt.Sprintf(", %d seeds", n)
		}
		c.Lines = append(c.Lines, l)
	}
	return c
}

// widest is how many letters a drawing has room for in its title.
const widest = 54

// shorten cuts a text that is longer than so many letters.
func shorten(text string, most int) string {
	if letters := []rune(text); len(letters) > most {
		return string(letters[:most-1]) + "…"
	}
	return text
}

// curve is the mean over the seeds that were measured in a round, and their range.
func (s *Setup) curve(of func(simulate.Measured) float64) (l plot.Line) {
	type sum struct {
		total, low, high float64
		n                int
	}
	byRound := map[int]sum{}
	for _, r := range s.Runs {
		for _, m := range r.Result.Series {
			v := of(m.Measured)
			at, there := byRound[m.Round]
			if !there {
				at.low, at.high = v, v
			}
			byRound[m.Round] = sum{at.total + v, min(at.low, v), max(at.high, v), at.n + 1}
		}
	}
	for _, round := range slices.Sorted(maps.Keys(byRound)) {
		at := byRound[round]
		l.X, l.Y = append(l.X, float64(round)), append(l.Y, at.total/float64(at.n))
		if len(s.Runs) > 1 {
			l.Low, l.High = append(l.Low, at.low), append(l.High, at.high)
		}
	}
	return l
}

// traffic is the unit for the bytes of setups that differ in them.
func (p panel) traffic() (unit float64, word string, differ bool) {
	least, most, total := math.Inf(1), 0.0, 0.0
	for _, s := range p.setups {
		sent := s.SentARound().Mean
		if math.IsNaN(sent) {
			return 0, "", false
		}
		least, most = min(least, sent), max(most, sent)
		total = max(total, sent*float64(s.Runs[0].Result.Rounds))
	}
	unit, word = unitOf(total)
	return unit, word, most > 1.01*least
}

// unitOf is the largest unit of bytes that a total has more than ten of.
func unitOf(total float64) (unit float64, word string) {
	for _, u := range []struct {
		unit float64
		word string
	}{{1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}} {
		if total > 10*u.unit {
			return u.unit, u.word
		}
	}
	return 1, "bytes"
}

// sentUntil is what all nodes had sent after rounds, over the seeds on average.
func (s *Setup) sentUntil(rounds []float64, unit float64) []float64 {
	out := make([]float64, len(rounds))
	for i, round := range rounds {
		n := 0.0
		for _, r := range s.Runs {
			if len(r.Points) < int(round) {
				continue
			}
			for _, p := range r.Points[:int(round)] {
				out[i] += float64(p.Sent)
			}
			n++
		}
		out[i] /= cmp.Or(n, 1) * unit
	}
	return out
}

// fileName makes a name for a file of a title.
func fileName(title string) string {
	var b []rune
	for _, r := range title {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '.', r == '_':
		case r >= 'A' && r <= 'Z':
			r += 'a' - 'A'
		default:
			r = '-'
		}
		if n := len(b); r == '-' && (n == 0 || b[n-1] == '-') {
			continue
		}
		b = append(b, r)
	}
	if len(b) > 100 {
		b = b[:100]
	}
	return string(b)
}
