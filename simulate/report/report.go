// Package report shows what runs of experiments found: one page with curves, tables and the numbers that others published,
// SVG files for papers, and a table for spreadsheets. Runs that differ in nothing but the seed are one line, with a band
// from the least to the most of its seeds.
//
//	err := report.New(runs).WritePage(w)
//
// It runs nothing and reads no file.
package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"choir.example/simulate"
	"choir.example/simulate/partition"
)

// Run is one run with what it found.
type Run struct {
	Experiment simulate.Experiment
	Result     *simulate.Result
	Points     []simulate.Point   // of every round; nil: not known, then there are no bytes
	Picture    *partition.Picture // who holds what; nil: not known
}

// Report is runs, put in order.
type Report struct {
	Setups []*Setup
	doubts []string
}

// Doubts are runs of one setup and one seed that came to different models: the one counts, the other is left out.
func (r *Report) Doubts() []string { return r.doubts }

// Setup is what was run, with every seed that it was run with.
type Setup struct {
	Label  string // tells it from the others
	Runs   []Run  // in order of their seeds
	values map[string]string
}

// New puts runs in order: by experiment, then by what was changed in it, then by seed.
func New(runs []Run) *Report {
	bySetup := map[string]*Setup{}
	for _, r := range runs {
		values := flat(&r.Experiment)
		values["fidelity"] = string(r.Result.Fidelity)
		key := keyOf(values)
		if bySetup[key] == nil {
			bySetup[key] = &Setup{values: values}
		}
		bySetup[key].Runs = append(bySetup[key].Runs, r)
	}
	r := &Report{}
	for _, s := range bySetup {
		slices.SortStableFunc(s.Runs, func(a, b Run) int { return cmp.Compare(a.Result.Seed, b.Result.Seed) })
		r.Setups = append(r.Setups, s)
	}
	r.name()
	for _, s := range r.Setups {
		s.Runs = slices.CompactFunc(s.Runs, func(a, b Run) bool { return r.twice(s.Label, a.Result, b.Result) })
	}
	slices.SortFunc(r.Setups, func(a, b *Setup) int { return natural(a.Label, b.Label) })
	return r
}

// twice reports whether two runs are one that was run twice.
func (r *Report) twice(label string, a, b *simulate.Result) bool {
	if a.Seed == b.Seed && a.ModelDigest != b.ModelDigest {
		r.doubts = append(r.doubts, fmt.Sprintf("%s, seed %d: two runs gave different models, %.12s… and %.12s…: another processor, or another version of choir; the first counts",
			label, a.Seed, a.ModelDigest, b.ModelDigest))
	}
	return a.Seed == b.Seed
}

// Name is the experiment's.
func (s *Setup) Name() string { return s.Runs[0].Experiment.Name }

// unlike is what may differ between runs of one setup: seeds, and where each machine has its data.
var unlike = []string{"seeds", "data.path", "data.schema", "source"}

// flat is an experiment as dotted keys and values.
func flat(x *simulate.Experiment) map[string]string {
	b, err := json.Marshal(x)
	if err != nil {
		panic(err) // numbers and texts
	}
	var tree any
	if err := json.Unmarshal(b, &tree); err != nil {
		panic(err)
	}
	out := map[string]string{}
	flatten("", tree, out)
	for _, key := range unlike {
		delete(out, key)
	}
	return out
}

func flatten(key string, v any, into map[string]string) {
	if m, ok := v.(map[string]any); ok {
		for k, v := range m {
			flatten(strings.TrimPrefix(key+"."+k, "."), v, into)
		}
		return
	}
	if text, ok := v.(string); ok {
		into[key] = text
		return
	}
	b, _ := json.Marshal(v) // it came from JSON
	into[key] = string(b)
}

func keyOf(values map[string]string) string {
	var parts []string
	for k, v := range values {
		parts = append(parts, fmt.Sprintf("%q=%q", k, v))
	}
	slices.Sort(parts)
	return strings.Join(parts, "\n")
}

// name tells setups apart: by the experiment's name, and by the keys that differ among those of one name.
func (r *Report) name() {
	for _, group := range r.groups() {
		varying := varyingKeys(group)
		for _, s := range group {
			label := s.Name()
			for i, short := range shortened(varying) {
				label += " " + short + "=" + cmp.Or(s.values[varying[i]], "usual")
			}
			s.Label = label
		}
	}
}

// shortened leaves out the sections of keys, where what is left tells them apart.
func shortened(keys []string) []string {
	out := slices.Clone(keys)
	for i, key := range keys {
		last := key[strings.LastIndexByte(key, '.')+1:]
		if !slices.ContainsFunc(keys, func(other string) bool { return other != key && strings.HasSuffix("."+other, "."+last) }) {
			out[i] = last
		}
	}
	return out
}

// groups are the setups by the name of their experiment, in order of names.
func (r *Report) groups() (all [][]*Setup) {
	byName := map[string][]*Setup{}
	var names []string
	for _, s := range r.Setups {
		if byName[s.Name()] == nil {
			names = append(names, s.Name())
		}
		byName[s.Name()] = append(byName[s.Name()], s)
	}
	sort.Slice(names, func(i, j int) bool { return natural(names[i], names[j]) < 0 })
	for _, n := range names {
		all = append(all, byName[n])
	}
	return all
}

// varyingKeys are the keys whose values differ among setups, in order.
func varyingKeys(setups []*Setup) (keys []string) {
	seen := map[string]bool{}
	for _, s := range setups {
		for k := range s.values {
			seen[k] = true
		}
	}
	for k := range seen {
		if slices.ContainsFunc(setups, func(s *Setup) bool { return s.values[k] != setups[0].values[k] }) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// natural compares texts, and numbers in them by value.
func natural(a, b string) int {
	for a != "" && b != "" {
		na, nb := numberAt(a), numberAt(b)
		if na > 0 && nb > 0 {
			var x, y float64
			fmt.Sscan(a[:na], &x)
			fmt.Sscan(b[:nb], &y)
			if x != y {
				return cmp.Compare(x, y)
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

// numberAt is how many bytes at the beginning are a decimal number.
func numberAt(s string) int {
	n := 0
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '.' && n > 0) {
		n++
	}
	return n
}

// Spread is a number over seeds. Of no seed it is all NaN.
type Spread struct{ Mean, Least, Most float64 }

// over is the spread of what each run has; ok says which have it.
func (s *Setup) over(of func(r *Run) (v float64, ok bool)) Spread {
	out := Spread{0, math.Inf(1), math.Inf(-1)}
	n := 0
	for i := range s.Runs {
		if v, ok := of(&s.Runs[i]); ok {
			out.Mean += v
			out.Least, out.Most = min(out.Least, v), max(out.Most, v)
			n++
		}
	}
	if n == 0 {
		return Spread{math.NaN(), math.NaN(), math.NaN()}
	}
	out.Mean /= float64(n)
	return out
}

// Diverged says how many of the setup's runs diverged; empty if none did. They are in none of its spreads of what models can.
func (s *Setup) Diverged() string {
	n := 0
	for _, r := range s.Runs {
		if r.Result.Diverged != "" {
			n++
		}
	}
	switch n {
	case 0:
		return ""
	case len(s.Runs):
		return "diverged"
	}
	return fmt.Sprintf("%d of %d diverged", n, len(s.Runs))
}

// Accuracy is that of the last round, or the mean of so many as the experiment averages.
func (s *Setup) Accuracy() Spread {
	return s.over(func(r *Run) (float64, bool) { return r.last(func(m simulate.Measured) float64 { return m.Accuracy }) })
}

// Loss is that of the same rounds, in nat.
func (s *Setup) Loss() Spread {
	return s.over(func(r *Run) (float64, bool) { return r.last(func(m simulate.Measured) float64 { return m.Loss }) })
}

// last is the mean of what was measured in the last rounds of a run, in evaluation.average of them. ok is false if nothing was.
// A run that diverged has no end: what it had come to before stands in its curve alone.
func (r *Run) last(of func(simulate.Measured) float64) (mean float64, ok bool) {
	series := r.Result.Series
	if len(series) == 0 || r.Result.Diverged != "" {
		return 0, false
	}
	from := series[len(series)-1].Round - max(r.Experiment.Evaluation.Average, 1)
	n := 0
	for _, m := range series {
		if m.Round > from {
			mean += of(m.Measured)
			n++
		}
	}
	return mean / float64(n), true
}

// Averages are how many of the last rounds the setups average, for people; empty if all show their last round alone.
func (r *Report) Averages() string {
	var counts []string
	for _, s := range r.Setups {
		if n := s.Runs[0].Experiment.Evaluation.Average; n > 1 && !slices.Contains(counts, strconv.Itoa(n)) {
			counts = append(counts, strconv.Itoa(n))
		}
	}
	return strings.Join(counts, " or ")
}

// Backdoor is the share of marked examples that the last model takes for the liars' class; NaN where nobody marks any.
func (s *Setup) Backdoor() Spread {
	return s.over(func(r *Run) (float64, bool) {
		if r.Result.Final.Backdoor == nil || r.Result.Diverged != "" {
			return 0, false
		}
		return *r.Result.Final.Backdoor, true
	})
}

// Backdoors reports whether a setup has a backdoor.
func (r *Report) Backdoors() bool {
	return slices.ContainsFunc(r.Setups, func(s *Setup) bool { return !math.IsNaN(s.Backdoor().Mean) })
}

// SentARound is how many bytes a round's updates took, on average.
func (s *Setup) SentARound() Spread {
	return s.over(func(r *Run) (float64, bool) {
		sum := 0.0
		for _, p := range r.Points {
			sum += float64(p.Sent)
		}
		return sum / float64(max(len(r.Points), 1)), len(r.Points) > 0
	})
}
