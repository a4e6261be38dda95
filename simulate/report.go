package simulate

import (
	"fmt"
	"html/template"
	"io"

	"choir.example/internal/plot"
)

// page is the demo's report: one file, no script, nothing fetched from anywhere.
var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"pct": func(x float64) string { return fmt.Sprintf("%.2f %%", 100*x) },
	"auc": func(x float64) string { return fmt.Sprintf("%.4f", x) },
	"us":  func(x float64) string { return fmt.Sprintf("%.1f µs", x) },
}).Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>choir demo</title><style>
:root{color-scheme:light dark;--ink:#1c2126;--paper:#fbfaf7;--rule:#c9c6bd;--c0:#0b6e99;--c1:#b4530a;--c2:#4d7c0f;--bad:#b91c1c;--card:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e7e5df;--paper:#16191c;--rule:#444a50;--c0:#5cc1ee;--c1:#f0a35e;--c2:#a3d65c;--bad:#f87171;--card:#1e2226}}
body{margin:0 auto;padding:1rem;max-width:60rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}.charts{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr))}
.charts>div,pre{background:var(--card);border:1px solid var(--rule);border-radius:.5rem;padding:.5rem;overflow-x:auto}
table{border-collapse:collapse;width:100%}th,td{text-align:right;padding:.3rem .5rem;border-bottom:1px solid var(--rule)}th:first-child,td:first-child{text-align:left}
.bad{color:var(--bad)}.wide{overflow-x:auto}code{overflow-wrap:anywhere}pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.85rem}
{{.Style}}</style></head><body>
<h1>A federation of {{.R.Nodes}} nodes and {{.R.Coordinators}} coordinators</h1>
<p>{{.R.Rounds}} training rounds, seed {{.R.Seed}}, {{printf "%.1f" .R.Seconds}} s in all. Data: Online Shoppers Purchasing Intention
(12,330 web-shop sessions, CC BY 4.0, Sakar et al. 2019); each node holds {{if eq .R.Nodes .Regions}}the sessions of one region{{else}}a part of them{{end}}, and none leaves it.</p>
{{range .R.Problems}}<p class="bad">{{.}}</p>{{end}}
{{with .R.Failover}}<p>In round {{.Round}} the leading coordinator {{.Victim}} was cut off and its memory dropped. After {{printf "%.2f" .Seconds}} s
a successor committed the next batch of the same round. Over all rounds: receipts {{.Receipts}}, counted {{.Counted}}, lost {{.Lost}}, counted twice {{.Twice}}.</p>{{end}}
<div class="charts"><div>{{.AUC}}</div><div>{{.Loss}}</div><div>{{.Bytes}}</div></div>
<h2>Federated, alone, together</h2>
<div class="wide"><table><tr><th>trained on</th><th>AUC</th><th>accuracy</th></tr>
<tr><td>the federation, no row leaves a node</td><td>{{auc .Fed.AUC}}</td><td>{{pct .Fed.Accuracy}}</td></tr>
<tr><td>{{.R.Alone}}</td><td>{{auc .Local.AUC}}</td><td>{{pct .Local.Accuracy}}</td></tr>
<tr><td>all data in one place</td><td>{{auc .Central.AUC}}</td><td>{{pct .Central.Accuracy}}</td></tr></table></div>
<p>Measured on the held-out parts of all regions, which no round saw. The AUC that rounds report comes from summed score histograms;
for the final model it differs by {{printf "%.6f" .R.HistogramGap}} from the exact one.</p>
<h2>Released variants</h2>
<div class="wide"><table><tr><th>variant</th><th>bytes</th><th>AUC</th><th>p50</th><th>p99</th></tr>
{{range .R.Released}}<tr><td>{{.Name}}</td><td>{{.Bytes}}</td><td>{{auc .AUC}}</td><td>{{us .P50}}</td><td>{{us .P99}}</td></tr>{{end}}</table></div>
<p>Latency of one prediction in process, on one core, features included. Over HTTP on loopback, variant {{.R.HTTPVariant}}: p50 {{us .R.HTTP.P50}}, p99 {{us .R.HTTP.P99}}.</p>
<h2>A prediction</h2><pre>{{.R.Request}}</pre><pre>{{.R.Answer}}</pre>
<h2>Proof</h2><p>{{.R.Audit.Records}} records in the audit log; verified offline up to the root: {{.R.Audit.Verified}}.
Model <code>{{.R.Model.Name}}</code> version {{.R.Model.Version}}, digest <code>{{.R.Model.Digest}}</code>.</p>
</body></html>
`))

// WriteReport writes the demo's HTML page.
func WriteReport(w io.Writer, r *DemoResult) error {
	var x, auc, loss, bytes []float64
	for _, p := range r.Curve {
		x = append(x, float64(p.Round))
		auc, loss = append(auc, p.AUC), append(loss, p.Loss)
		bytes = append(bytes, float64(p.Uplink)/1024/float64(max(p.Accepted, 1)))
	}
	var marks []plot.Mark
	if r.Failover != nil {
		marks = []plot.Mark{{X: float64(r.Failover.Round), Text: "leader killed"}}
	}
	chart := func(title string, y []float64) template.HTML {
		c := plot.Chart{Title: title, XLabel: "round", Lines: []plot.Line{{X: x, Y: y}}, Marks: marks}
		return template.HTML(c.SVG()) // our own markup, with its texts escaped
	}
	err := page.Execute(w, map[string]any{
		"R": r, "Regions": regions, "Style": template.CSS(plot.Style), "Fed": r.Metrics["federated"], "Local": r.Metrics["local_mean"], "Central": r.Metrics["central"],
		"AUC":   chart("AUC on the nodes' validation parts", auc),
		"Loss":  chart("Cross entropy on the nodes' validation parts", loss),
		"Bytes": chart("KiB that a node sent, TLS and all", bytes),
	})
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
