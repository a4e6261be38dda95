package simulate

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"choir.example/internal/plot"
)

//go:embed report.html
var pageText string

// page is the demo's report: one file, no script, nothing fetched from anywhere.
var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"pct":   func(x float64) string { return fmt.Sprintf("%.2f\u00a0%%", 100*x) },
	"auc":   func(x float64) string { return fmt.Sprintf("%.4f", x) },
	"us":    latencyText,
	"num":   func(n any) string { return grouped(fmt.Sprint(n)) },
	"count": func(n any, noun string) string { return counted(fmt.Sprint(n), noun) },
	"short": func(digest string) string { return digest[:min(12, len(digest))] + "…" },
}).Parse(pageText))

// WriteReport writes the demo's HTML page.
func WriteReport(w io.Writer, r *DemoResult) error {
	curve, untrained := drawn(r.Curve)
	var finished Validated
	if n := len(curve); n > 0 && curve[n-1].Round == r.Rounds {
		finished = curve[n-1].Validated
	}
	var killed float64 // in rounds; 0: nobody
	if r.Failover.Victim != "" {
		killed = float64(r.Failover.Round)
	}
	learning := func(title string, of func(Validated) float64) template.HTML {
		var x, y []float64
		for _, p := range curve {
			x, y = append(x, float64(p.Round)), append(y, of(p.Validated))
		}
		value := func(name string, v Validated) string { return fmt.Sprintf("%s: %.4f", name, of(v)) }
		return draw(plot.Chart{
			Title: title, XLabel: "training rounds done",
			Lines: []plot.Line{{Name: value("the federation, in the end", finished), X: x, Y: y, End: true}},
			Levels: []plot.Level{
				{Name: value(r.Alone(), r.Local), Y: of(r.Local)}, {Name: value("all data in one place", r.Central), Y: of(r.Central)},
			},
		}, killed-0.5) // in the middle of the round
	}
	var x, sent []float64
	for _, p := range r.Sent {
		x, sent = append(x, float64(p.Round)), append(sent, float64(p.Bytes)/1024/float64(max(p.Updates, 1)))
	}
	err := page.Execute(w, map[string]any{
		"R": r, "F": r.Failover, "Regions": regions, "Style": template.CSS(plot.Style), "Untrained": untrained, "Smallest": smallest(r.Released),
		"Request": laidOut(r.Request), "Answer": laidOut(r.Answer),
		"AUC":   learning("AUC", func(v Validated) float64 { return v.AUC }),
		"Loss":  learning("Cross entropy, nat", func(v Validated) float64 { return v.Loss }),
		"Bytes": draw(plot.Chart{Title: "KiB that a node sent, TLS and all", XLabel: "round", Lines: []plot.Line{{X: x, Y: sent}}}, killed),
	})
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// draw is the chart with the kill marked at x; one below 0 is none.
func draw(c plot.Chart, x float64) template.HTML {
	if x > 0 {
		c.Marks = []plot.Mark{{X: x, Text: "leader killed"}}
	}
	return template.HTML(c.SVG()) // our own markup, with its texts escaped
}

// drawn leaves the untrained model out of a curve that has enough points without it: beside a model that guesses, all
// that is learnt after the first round would be a flat line.
func drawn(curve []CurvePoint) (points []CurvePoint, untrained *CurvePoint) {
	if len(curve) > 4 && curve[0].Round == 0 {
		return curve[1:], &curve[0]
	}
	return curve, nil
}

// smallest is the variant of the fewest bytes, nil if there is none.
func smallest(vs []DemoVariant) *DemoVariant {
	if len(vs) == 0 {
		return nil
	}
	v := slices.MinFunc(vs, func(a, b DemoVariant) int { return a.Bytes - b.Bytes })
	return &v
}

// latencyText is a time of microseconds.
func latencyText(us float64) string {
	if us >= 1000 {
		return fmt.Sprintf("%.1f\u00a0ms", us/1000)
	}
	return fmt.Sprintf("%.1f\u00a0µs", us)
}

// grouped writes a decimal number with commas between thousands.
func grouped(digits string) string {
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// counted is a number with its noun.
func counted(n, noun string) string {
	if n == "1" {
		return "1 " + noun
	}
	return grouped(n) + " " + noun + "s"
}

// laidOut breaks JSON into lines at its two outer levels: a line for each input of a prediction.
func laidOut(text string) string {
	var b strings.Builder
	depth, quoted, escaped := 0, false, false
	line := func() { b.WriteString("\n" + strings.Repeat("  ", depth)) }
	for _, c := range text {
		switch {
		case quoted:
			b.WriteRune(c)
			quoted, escaped = c != '"' || escaped, c == '\\' && !escaped
			continue
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth < 2 {
				line()
			}
		}
		b.WriteRune(c)
		switch opened := c == '{' || c == '[' || c == ','; {
		case opened && depth <= 2 && depth > 0:
			line()
		case c == ',' || c == ':':
			b.WriteByte(' ')
		}
		quoted = c == '"'
	}
	return b.String()
}
