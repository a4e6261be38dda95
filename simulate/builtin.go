package simulate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// Builtin is an experiment that choir knows by name, and what others found with it. One that is a cell of a table in a paper
// says which.
type Builtin struct {
	Experiment
	Expected           []Expected
	Table, Row, Column string
}

// Expected is a number that the source of an experiment reports, or that a program which is not ours found.
type Expected struct {
	Metric string  `json:"metric"`           // accuracy, rounds_to, or claim: words alone
	Rounds []int   `json:"rounds,omitempty"` // of accuracy: the mean after these; empty: after the last one
	Level  float64 `json:"level,omitempty"`  // of rounds_to: the accuracy that is to be reached
	Value  float64 `json:"value"`
	Spread float64 `json:"spread,omitempty"` // standard deviation over seeds, as reported
	From   string  `json:"from"`             // who found it; a claim says it in its text
	Text   string  `json:"text"`             // all of it for people
}

// MarshalJSON writes it as an object. A claim has no number, and nobody who found one: a 0 would be read as a result.
func (e Expected) MarshalJSON() ([]byte, error) {
	type plain Expected
	if e.Metric != claimMetric {
		return json.Marshal(plain(e))
	}
	return json.Marshal(struct {
		Metric string `json:"metric"`
		Text   string `json:"text"`
	}{e.Metric, e.Text})
}

// The metrics of Expected.
const (
	accuracyMetric = "accuracy"
	roundsToMetric = "rounds_to"
	claimMetric    = "claim"
)

// Builtins are the experiments that choir knows, in order of their names.
func Builtins() []Builtin {
	all := slices.Concat(quickBuiltins(), regionBuiltins(), mcmahanBuiltins(), niidBuiltins(), fedproxBuiltins(), reddiBuiltins(), bytesBuiltins(), robustBuiltins())
	slices.SortFunc(all, func(a, b Builtin) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// BuiltinNamed is the built-in experiment of that name.
func BuiltinNamed(name string) (Builtin, bool) {
	all := Builtins()
	i := slices.IndexFunc(all, func(b Builtin) bool { return b.Name == name })
	if i < 0 {
		return Builtin{}, false
	}
	return all[i], true
}

// Found is what a result has of it. ok is false if the run was too short for it: of rounds_to, if it never got there.
func (e Expected) Found(r *Result) (value float64, ok bool) {
	if e.Metric == roundsToMetric {
		for _, m := range r.Series {
			if m.Accuracy >= e.Level {
				return float64(m.Round), true
			}
		}
		return 0, false
	}
	if e.Metric == claimMetric {
		return 0, false
	}
	if len(e.Rounds) == 0 {
		return r.Final.Accuracy, r.Ended()
	}
	sum, n := 0.0, 0
	for _, m := range r.Series {
		if slices.Contains(e.Rounds, m.Round) {
			sum, n = sum+m.Accuracy, n+1
		}
	}
	return sum / float64(max(n, 1)), n == len(e.Rounds)
}

// Unit writes a value of the metric.
func (e Expected) Unit(value float64) string {
	if e.Metric == roundsToMetric {
		return fmt.Sprintf("%.0f", value)
	}
	return fmt.Sprintf("%.1f\u00a0%%", 100*value)
}

// plain is a share as its source prints it, without the digits of a division of percents by 100.
func plain(share float64) float64 { return math.Round(share*1e4) / 1e4 }

// after is an accuracy after a round.
func after(round int, value float64, from string) Expected {
	return Expected{Metric: accuracyMetric, Rounds: []int{round}, Value: plain(value), From: from, Text: fmt.Sprintf("%.1f %% after round %d (%s)", 100*value, round, from)}
}

// reached is the first round with an accuracy.
func reached(level float64, round int, from string) Expected {
	return Expected{
		Metric: roundsToMetric, Level: level, Value: float64(round), From: from, Text: fmt.Sprintf("%.0f %% in round %d (%s)", 100*level, round, from),
	}
}

// onAverage is the mean accuracy after some of the last rounds, where single ones jump.
func onAverage(value float64, rounds []int, from string) Expected {
	return Expected{
		Metric: accuracyMetric, Rounds: rounds, Value: plain(value), From: from,
		Text: fmt.Sprintf("%.1f %%, mean of rounds %d to %d (%s)", 100*value, rounds[0], rounds[len(rounds)-1], from),
	}
}

// claim is what a source says without a number for this task.
func claim(text string) Expected { return Expected{Metric: claimMetric, Text: text} }

// final is the accuracy after the last round, with its standard deviation; 0 for none.
func final(value, spread float64, from string) Expected {
	e := Expected{Metric: accuracyMetric, Value: plain(value), Spread: plain(spread), From: from, Text: fmt.Sprintf("%.1f %%", 100*value)}
	if spread > 0 {
		e.Text += fmt.Sprintf(" ± %.1f", 100*spread)
	}
	e.Text += " in the end (" + from + ")"
	return e
}
