package report

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"choir.example/internal/plot"
)

//go:embed page.html
var pageText string

// page is one file: no script, nothing fetched from anywhere.
var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"pct":     func(s Spread) string { return spreadText(s, func(v float64) string { return percent(v) + "\u00a0%" }) },
	"nat":     func(s Spread) string { return spreadText(s, func(v float64) string { return fmt.Sprintf("%.3f", v) }) },
	"bytes":   func(s Spread) string { return bytesText(s.Mean) },
	"seconds": func(s *Setup) string { return fmt.Sprintf("%.1f", s.seconds()) },
}).Parse(pageText))

// bytesText is a number of bytes for people.
func bytesText(n float64) string {
	if math.IsNaN(n) {
		return "–"
	}
	unit, word := unitOf(n * 10.001)
	if unit == 1 {
		return fmt.Sprintf("%.0f\u00a0%s", n, word)
	}
	return fmt.Sprintf("%.3g\u00a0%s", n/unit, word)
}

func (s *Setup) seconds() (sum float64) {
	for _, r := range s.Runs {
		sum += r.Result.Seconds
	}
	return sum
}

// Rounds are those that the runs of the setup did.
func (s *Setup) Rounds() string {
	return spreadText(s.over(func(r *Run) (float64, bool) { return float64(r.Result.Rounds), true }), func(v float64) string { return fmt.Sprintf("%.0f", v) })
}

// Seeds are those of the setup's runs.
func (s *Setup) Seeds() string {
	var seeds []string
	for _, r := range s.Runs {
		seeds = append(seeds, strconv.FormatUint(r.Result.Seed, 10))
	}
	return strings.Join(seeds, ", ")
}

// Epsilon is what the nodes' privacy cost.
func (s *Setup) Epsilon() string { return "no mechanism" }

// Settings are all that is not usual, key by key.
func (s *Setup) Settings() (out [][2]string) {
	for _, k := range slices.Sorted(maps.Keys(s.values)) {
		out = append(out, [2]string{k, s.values[k]})
	}
	return out
}

// Ended are the runs that ended early, and why.
func (r *Report) Ended() (out []string) {
	for _, s := range r.Setups {
		for _, run := range s.Runs {
			if run.Result.Diverged != "" {
				out = append(out, fmt.Sprintf("%s, seed %d: %s", s.Label, run.Result.Seed, run.Result.Diverged))
			}
		}
	}
	return out
}

// Sources are where the experiments' settings come from.
func (r *Report) Sources() (out []string) {
	for _, group := range r.groups() {
		if from := group[0].Runs[0].Experiment.Source; from != "" {
			out = append(out, group[0].Name()+": "+from)
		}
		for _, e := range group[0].Expected() {
			if e.Metric == "claim" {
				out = append(out, group[0].Name()+" is to show: "+e.Text)
			}
		}
	}
	return out
}

// WritePage writes the report as one HTML file.
func (r *Report) WritePage(w io.Writer) error {
	var figures []template.HTML
	for _, f := range r.Figures() {
		figures = append(figures, template.HTML(f.SVG)) // our own markup, with its texts escaped
	}
	type picture struct {
		SVG template.HTML
		Of  string
	}
	var partitions []picture
	for _, f := range r.Partitions() {
		partitions = append(partitions, picture{template.HTML(f.SVG), f.Of})
	}
	runs := 0
	for _, s := range r.Setups {
		runs += len(s.Runs)
	}
	err := page.Execute(w, map[string]any{"R": r, "Style": template.CSS(plot.Style), "Figures": figures, "Partitions": partitions, "Runs": runs})
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// WriteCSV writes a line for each run.
func (r *Report) WriteCSV(w io.Writer) error {
	keys := varyingKeys(r.Setups)
	rows := [][]string{append([]string{"setup", "seed", "fidelity", "rounds", "seconds", "accuracy", "loss", "sent_bytes", "received_bytes", "model_digest", "diverged"}, keys...)}
	for _, s := range r.Setups {
		for _, run := range s.Runs {
			rows = append(rows, run.row(s, keys))
		}
	}
	if err := csv.NewWriter(w).WriteAll(rows); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

func (r *Run) row(s *Setup, keys []string) []string {
	var sent, received int64
	for _, p := range r.Points {
		sent, received = sent+p.Sent, received+p.Received
	}
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	f := r.Result
	accuracy, loss := "", "" // of a run that has no end
	if f.Ended() {
		accuracy, loss = number(f.Final.Accuracy), number(f.Final.Loss)
	}
	row := []string{
		s.Label, strconv.FormatUint(f.Seed, 10), string(f.Fidelity), strconv.Itoa(f.Rounds), number(f.Seconds), accuracy, loss,
		strconv.FormatInt(sent, 10), strconv.FormatInt(received, 10), f.ModelDigest, f.Diverged,
	}
	for _, k := range keys {
		row = append(row, s.values[k])
	}
	return row
}
