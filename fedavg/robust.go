package fedavg

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// RobustSettings name a rule that takes the place of the mean.
type RobustSettings struct {
	Rule       string  `json:"rule,omitempty" yaml:"rule"`                                          // one of Rules; usually mean
	F          int     `json:"f,omitempty" yaml:"f"`                                                // of a round's updates, or of a buffer's, how many may lie
	Select     int     `json:"select,omitempty" yaml:"select" usual:"all but f"`                    // multi-krum: the mean of so many; usually all but f
	Iterations int     `json:"iterations,omitempty" yaml:"iterations" usual:"the rule's"`           // geometric-median: at most, usually 100; centred-clipping: usually 1
	Smoothing  float64 `json:"smoothing,omitempty" yaml:"smoothing" usual:"1e-6"`                   // geometric-median: least distance, in units of a parameter; usually 1e-6
	Radius     float64 `json:"radius,omitempty" yaml:"radius" usual:"the median of the round"`      // centred-clipping: L2 norm; usually the median of the round
	Norm       float64 `json:"norm,omitempty" yaml:"norm" usual:"the median of the round"`          // norm-bound: L2 norm; usually the median of the round
	Bucket     int     `json:"bucket,omitempty" yaml:"bucket"`                                      // so many updates are averaged before the rule sees them; usually 1
	Root       int     `json:"root,omitempty" yaml:"root" usual:"100, or all public rows of a job"` // fltrust: how many examples the server has of its own; usually 100
}

// kind is one row of the table of rules. Settings of a rule that are not among its fields are refused.
type kind struct {
	fields string
	build  func(s RobustSettings, step float64) Rule
}

// rules is the table of names, but for mean, which is no rule. step is the grid's.
var rules = map[string]kind{
	"median":       {"f bucket", func(s RobustSettings, _ float64) Rule { return CoordinateMedian{s.F} }},
	"trimmed-mean": {"f! bucket", func(s RobustSettings, _ float64) Rule { return TrimmedMean{s.F} }},
	"krum":         {"f! bucket", func(s RobustSettings, _ float64) Rule { return Krum{s.F} }},
	"multi-krum":   {"f! select bucket", func(s RobustSettings, _ float64) Rule { return MultiKrum{s.F, s.Select} }},
	"bulyan":       {"f! bucket", func(s RobustSettings, _ float64) Rule { return Bulyan{s.F} }},
	"geometric-median": {"f smoothing iterations bucket", func(s RobustSettings, step float64) Rule {
		return GeometricMedian{s.F, cmp.Or(s.Smoothing, 1e-6) / step, s.Iterations}
	}},
	"centred-clipping": {"f radius iterations bucket", func(s RobustSettings, step float64) Rule {
		return CentredClipping{s.F, s.Radius / step, s.Iterations}
	}},
	"norm-bound": {"f norm", func(s RobustSettings, step float64) Rule { return NormBound{s.F, s.Norm / step} }},
	"fltrust":    {"root", func(RobustSettings, float64) Rule { return FLTrust{} }},
}

// Rules are the names of all rules, in order.
func Rules() []string {
	names := append(sorted(rules), "mean")
	slices.Sort(names)
	return names
}

// rule is the rule that the settings name, on a grid of that step; nil is the mean.
func (s RobustSettings) rule(step float64) (Rule, error) {
	name := cmp.Or(s.Rule, "mean")
	k, ok := rules[name]
	if !ok && name != "mean" {
		return nil, fmt.Errorf("robust: rule %.40q, want one of %s", s.Rule, strings.Join(Rules(), ", "))
	}
	if err := s.check(name, strings.Fields(k.fields)); err != nil {
		return nil, fmt.Errorf("robust: %w", err)
	}
	if !ok {
		return nil, nil
	}
	r := k.build(s, step)
	if s.Bucket > 1 {
		r = Bucketing{r, s.F, s.Bucket}
	}
	return r, nil
}

// check holds each parameter to its range, and refuses one that the rule does not have. A ! marks one that must be given.
func (s RobustSettings) check(name string, fields []string) error {
	for _, p := range []struct {
		field    string
		value    float64
		low, top float64
	}{
		{"f", float64(s.F), 1, MaxUpdates / 2},
		{"select", float64(s.Select), 1, MaxUpdates},
		{"iterations", float64(s.Iterations), 1, 10000},
		{"smoothing", s.Smoothing, 1e-12, 1e6},
		{"radius", s.Radius, 1e-12, 1e12},
		{"norm", s.Norm, 1e-12, 1e12},
		{"bucket", float64(s.Bucket), 1, MaxUpdates},
		{"root", float64(s.Root), 1, MaxExamples},
	} {
		must := slices.Contains(fields, p.field+"!")
		switch {
		case p.value == 0 && must:
			return fmt.Errorf("%s needs %s: how many may lie, at least 1", name, p.field)
		case p.value == 0:
		case !must && !slices.Contains(fields, p.field):
			return fmt.Errorf("%s is for %s, not for %s", p.field, strings.Join(having(p.field), ", "), name)
		case math.IsNaN(p.value) || p.value < p.low || p.value > p.top:
			return fmt.Errorf("%s is %v, want %v to %v", p.field, p.value, p.low, p.top)
		}
	}
	return nil
}

// having are the rules with a field.
func having(field string) (names []string) {
	for _, name := range sorted(rules) {
		if f := strings.Fields(rules[name].fields); slices.Contains(f, field) || slices.Contains(f, field+"!") {
			names = append(names, name)
		}
	}
	return names
}

// UsualRoot is how many examples of its own a server usually has (Cao et al. 2021, §V-A).
const UsualRoot = 100

// RootExamples is how many examples the server wants of its own, none unless the rule trusts an update of the server's.
func (s RobustSettings) RootExamples() int {
	if s.Rule != "fltrust" {
		return 0
	}
	return cmp.Or(s.Root, UsualRoot)
}

// A bound says how many updates a rule needs if f of them may lie.
type bound func(f int) int

func majority(f int) int          { return 2*f + 1 }
func twiceAndThree(f int) int     { return 2*f + 3 }
func fourTimesAndThree(f int) int { return 4*f + 3 }

// atLeast refuses fewer updates than the rule needs, and names what would do.
func atLeast(rule string, f, updates int, needs bound) error {
	want := needs(f)
	if updates >= want {
		return nil
	}
	near := f
	for near > 0 && needs(near) > updates {
		near--
	}
	if near == 0 {
		return fmt.Errorf("%s with f %d needs %d updates and there are %d, too few for any f", rule, f, want, updates)
	}
	return fmt.Errorf("%s with f %d needs %d updates and there are %d: want f at most %d, or %d updates", rule, f, want, updates, near, want)
}

// atMost refuses a parameter that is too large for so many updates.
func atMost(what string, value, most, updates int) error {
	if value > most {
		return fmt.Errorf("%s is %d, want at most %d of %d updates", what, value, most, updates)
	}
	return nil
}
