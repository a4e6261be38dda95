package web

import (
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"

	"choir.example/coordinator/state"
	"choir.example/internal/jobspec"
	"choir.example/internal/plot"
	"choir.example/model"
	choirv1 "choir.example/proto/choir/v1"
)

// jobRow is one line of the list of jobs.
type jobRow struct {
	Name, State, Reason string
	Model               string
	Trained, Of         uint64
	Doing               string // the round that is under way
	Release             uint64
	AUC                 int64 // in millionths, as last measured; 0 if it was not
}

func jobs(_ *http.Request, s *state.State) (view, error) {
	var rows []jobRow
	for _, name := range slices.Sorted(maps.Keys(s.Jobs)) {
		row, _, err := rowOf(s.Jobs[name])
		if err != nil {
			return view{}, err
		}
		rows = append(rows, row)
	}
	return view{"jobs", "jobs", "Jobs", rows}, nil
}

func rowOf(j *state.Job) (jobRow, *choirv1.JobSpec, error) {
	spec, err := j.JobSpec()
	if err != nil {
		return jobRow{}, nil, err
	}
	row := jobRow{
		Name: j.Name, State: j.State, Reason: j.Reason, Model: spec.Model, Trained: j.Trained, Of: spec.Rounds, Release: j.Release,
	}
	if r := j.Active(); r != nil {
		row.Doing = fmt.Sprintf("%s round %d, %d of %d counted", kind(r.Kind), r.Number, r.Count, r.Goal)
		if r.Attempt > 1 {
			row.Doing += fmt.Sprintf(", attempt %d", r.Attempt)
		}
	}
	if j.Stopping {
		row.Doing = orNone(row.Doing, "a round") + "; stops after it"
	}
	for _, r := range slices.Backward(j.Rounds) {
		if e, ok := measured(r); ok {
			row.AUC = e.AUC
			break
		}
	}
	return row, spec, nil
}

// measured is the evaluation of the model that a closed training round started from.
func measured(r *state.Round) (state.Evaluation, bool) {
	if r.Kind != choirv1.RoundKind_ROUND_KIND_TRAIN || r.Phase != state.PhaseClosed || len(r.Evaluation) == 0 || r.Evaluation[0].Examples == 0 {
		return state.Evaluation{}, false
	}
	return r.Evaluation[0], true
}

// jobBody is one job.
type jobBody struct {
	jobRow
	Charts    []template.HTML
	Facts     []fact
	Pager     pager
	Attempts  []attemptRow
	Incidents []incidentRow
	Forgotten uint32 // incidents of rounds so old that the state keeps their number only
}

// fact is a name and a value.
type fact struct{ Name, Value string }

type attemptRow struct {
	*state.Round
	Loss     string // empty if it was not measured
	AUC      string // empty of several classes, too
	Accuracy string
	Reason   string
}

type incidentRow struct {
	Round        uint64
	Attempt      uint32
	Node, Reason string
}

func job(r *http.Request, s *state.State) (view, error) {
	j, ok := s.Jobs[r.PathValue("job")]
	if !ok {
		return view{}, errNotFound
	}
	body, err := jobOf(j, pageOf(r, uint64(len(j.Rounds))))
	return view{"job", "jobs", "Job " + j.Name, body}, err
}

func jobOf(j *state.Job, p pager) (jobBody, error) {
	row, spec, err := rowOf(j)
	if err != nil {
		return jobBody{}, err
	}
	b := jobBody{jobRow: row, Charts: curves(j.Rounds), Facts: factsOf(spec), Pager: p}
	newest := slices.Clone(j.Rounds)
	slices.Reverse(newest)
	for _, r := range cut(p, newest) {
		a := attemptRow{Round: r, Reason: r.Reason}
		if e, ok := measured(r); ok {
			a.Accuracy, a.Loss = fmt.Sprintf("%.4f", accuracy(e)), fmt.Sprintf("%.4f", loss(e))
			if e.AUC > 0 {
				a.AUC = fmt.Sprintf("%.4f", float64(e.AUC)/1e6)
			}
		}
		b.Attempts = append(b.Attempts, a)
	}
	for _, r := range newest {
		for _, node := range slices.Sorted(maps.Keys(r.Incidents)) {
			b.Incidents = append(b.Incidents, incidentRow{r.Number, r.Attempt, node, r.Incidents[node]})
		}
		if r.Incidents == nil {
			b.Forgotten += r.Refused
		}
	}
	return b, nil
}

// curves draws how good the model was from round to round.
func curves(rounds []*state.Round) []template.HTML {
	var x, auc, right, losses []float64
	best := 0.0
	for _, r := range rounds {
		if e, ok := measured(r); ok {
			x, auc, losses = append(x, float64(r.Number)), append(auc, float64(e.AUC)/1e6), append(losses, loss(e))
			right, best = append(right, accuracy(e)), max(best, float64(e.AUC))
		}
	}
	if len(x) == 0 {
		return nil
	}
	draw := func(title string, y []float64) template.HTML {
		c := plot.Chart{Title: title, XLabel: "round", Lines: []plot.Line{{X: x, Y: y}}}
		return template.HTML(c.SVG()) // our own markup, with its texts escaped
	}
	first := draw("AUC on the nodes' validation parts", auc)
	if best == 0 { // of several classes
		first = draw("Accuracy on the nodes' validation parts", right)
	}
	return []template.HTML{first, draw("Cross entropy on the nodes' validation parts", losses)}
}

func accuracy(e state.Evaluation) float64 {
	return model.Evaluation{Examples: e.Examples, Correct: e.Correct}.Accuracy()
}

func loss(e state.Evaluation) float64 {
	return model.Evaluation{Examples: e.Examples, Loss: e.Loss}.MeanLoss()
}

// factsOf is what a person wants to know of a specification.
func factsOf(spec *choirv1.JobSpec) []fact {
	fs := append([]fact{{"Model", spec.Model}}, trainingOf(spec)...)
	fs = append(fs, []fact{
		{"Updates wanted", wanted(spec.Goal)},
		{"Smallest cohort", plural(spec.MinimumCohort, "node", "nodes")},
		{"An attempt lasts", "at most " + span(spec.DurationMs)},
		{"Attempts a round", fmt.Sprintf("at most %d", spec.MaxAttempts)},
		{"Weight cap", num(spec.WeightCap)},
		{"Rounds a node may take part in", limit(spec.BudgetRounds)},
	}...)
	if spec.OverSelectionPercent > 0 {
		fs = append(fs, fact{"Invited beyond the goal", fmt.Sprintf("%d %%", spec.OverSelectionPercent)})
	}
	if spec.MinimumExamples > 0 {
		fs = append(fs, fact{"Examples a node needs", num(spec.MinimumExamples)})
	}
	for _, m := range spec.Where {
		fs = append(fs, fact{"Nodes whose " + m.Label + " is", strings.Join(m.Values, " or ")})
	}
	return fs
}

// trainingOf is what a specification says of training.
func trainingOf(spec *choirv1.JobSpec) []fact {
	s, err := jobspec.Settings(spec)
	if err != nil {
		return []fact{{"Training", err.Error()}}
	}
	architecture := fmt.Sprintf("%d layers", len(s.Architecture.Layers))
	if s.Architecture.Name != "" {
		architecture = strings.TrimSpace(s.Architecture.Name + " " + strings.Trim(fmt.Sprint(s.Architecture.Hidden), "[]"))
	}
	local, compression := s.Local, s.Compression
	if len(spec.Algorithm) > 0 {
		local, compression = local.Usual(), compression.Usual()
	}
	return []fact{
		{"Architecture", architecture},
		{"Local training", fmt.Sprintf("%s of batch %d, rate %g", plural(uint32(local.Epochs), "epoch", "epochs"), local.Batch, local.LearningRate)},
		{"Strategy", cmp.Or(s.Strategy.Name, "fedavg")},
		{"Robust rule", cmp.Or(s.Robust.Rule, "mean")},
		{"Range of a change", fmt.Sprintf("±%g", compression.Range)},
		{"Clip norm", orZero(s.Privacy.Clip, "none")},
	}
}

func orNone(s, none string) string {
	if s == "" {
		return none
	}
	return s
}

func orZero(v float64, zero string) string {
	if v == 0 {
		return zero
	}
	return fmt.Sprintf("%g", v)
}

func wanted(goal uint32) string {
	if goal == 0 {
		return "one of every enrolled node"
	}
	return num(goal) + " a round"
}

func limit(n uint32) string {
	if n == 0 {
		return "no limit"
	}
	return num(n)
}
