package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"choir.example/simulate"
)

// Published is a number of an experiment's source, beside what was found here.
type Published struct {
	Label  string
	What   string // accuracy after round 10
	Theirs string
	Ours   string
	Source string
}

// free are the keys that may be changed in a built-in experiment whose published numbers still are about it.
var free = []string{"rounds", "evaluation.every", "evaluation.average", "evaluation.rounds_to", "target.accuracy", "fidelity"}

// Expected are the numbers that are known of the setup: of a built-in experiment in which nothing was changed that they
// depend on.
func (s *Setup) Expected() []simulate.Expected {
	b, ok := simulate.BuiltinNamed(s.Name())
	if !ok {
		return nil
	}
	if data := &s.Runs[0].Experiment.Data; data.Path != "" {
		b.Data = b.Data.At(data.Path)
	}
	values := flat(&b.Experiment)
	for _, key := range varyingKeys([]*Setup{{values: values}, s}) {
		if !slices.Contains(free, key) {
			return nil
		}
	}
	var out []simulate.Expected
	for _, e := range b.Expected {
		if whole := e.Metric != "accuracy" || len(e.Rounds) > 0 || values["rounds"] == s.values["rounds"]; whole {
			out = append(out, e) // what is expected in the end is not expected of fewer rounds
		}
	}
	return out
}

// Published are the numbers of all setups.
func (r *Report) Published() (all []Published) {
	for _, s := range r.Setups {
		for _, e := range s.Expected() {
			if e.Metric == "claim" {
				continue
			}
			n := 0
			found := s.over(func(r *Run) (float64, bool) {
				v, ok := e.Found(r.Result)
				if ok {
					n++
				}
				return v, ok
			})
			p := Published{Label: s.Label, What: what(e), Theirs: e.Unit(e.Value), Ours: spreadText(found, e.Unit), Source: e.From}
			if n > 0 && n < len(s.Runs) { // those that never came there have no part in the mean
				p.Ours += fmt.Sprintf(" in %d of %d runs", n, len(s.Runs))
			}
			if e.Spread > 0 {
				p.Theirs += fmt.Sprintf(" ± %.1f", 100*e.Spread)
			}
			all = append(all, p)
		}
	}
	return all
}

// what names the metric.
func what(e simulate.Expected) string {
	switch {
	case e.Metric == "rounds_to":
		return fmt.Sprintf("first round at %.4g %%", 100*e.Level)
	case len(e.Rounds) == 1:
		return fmt.Sprintf("accuracy after round %d", e.Rounds[0])
	case len(e.Rounds) > 1:
		return fmt.Sprintf("mean accuracy of %d rounds, %d to %d", len(e.Rounds), e.Rounds[0], e.Rounds[len(e.Rounds)-1])
	}
	return "accuracy in the end"
}

// spreadText is a mean, and its range where seeds differ.
func spreadText(s Spread, unit func(float64) string) string {
	switch {
	case math.IsNaN(s.Mean):
		return "–"
	case unit(s.Least) == unit(s.Most):
		return unit(s.Mean)
	}
	return fmt.Sprintf("%s (%s–%s)", unit(s.Mean), strings.TrimSuffix(unit(s.Least), "\u00a0%"), strings.TrimSuffix(unit(s.Most), "\u00a0%"))
}
