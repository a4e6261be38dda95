package simulate

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// The names that others rely on are there, each once, each with a source and with what to expect.
func TestBuiltinNames(t *testing.T) {
	want := []string{"quick", "fmnist-2nn-iid", "fmnist-2nn-shards", "mnist-2nn-iid", "mnist-2nn-shards", "shoppers-by-region"}
	for _, p := range []string{"iid", "dir", "c1", "c2", "c3"} {
		for _, s := range []string{"fedavg", "fedprox", "scaffold", "fednova"} {
			want = append(want, "niid-fmnist-"+p+"-"+s)
		}
	}
	for _, d := range []string{"iid", "0-0", "1-1"} {
		for _, share := range []int{0, 50, 90} {
			want = append(want, fmt.Sprintf("fedprox-synthetic-%s-%d-fedavg", d, share), fmt.Sprintf("fedprox-synthetic-%s-%d-fedprox", d, share))
		}
	}
	for _, rule := range []string{"mean", "median", "trimmed-mean", "krum", "multi-krum", "bulyan", "geometric-median", "centred-clipping", "norm-bound", "bucketing", "fltrust"} {
		for _, lie := range []string{"label-flip", "sign-flip", "alie", "inner-product", "min-max", "gaussian", "mimic", "backdoor"} {
			want = append(want, "robust-"+rule+"-"+lie)
		}
	}
	seen := map[string]int{}
	for _, b := range Builtins() {
		seen[b.Name]++
		if b.Source == "" || len(b.Expected) == 0 {
			t.Errorf("%s: source %q, %d expected", b.Name, b.Source, len(b.Expected))
		}
		for _, e := range b.Expected {
			if e.Text == "" || e.Metric != claimMetric && (e.Value <= 0 || e.From == "") || e.Metric == accuracyMetric && e.Value > 1 {
				t.Errorf("%s expects %+v", b.Name, e)
			}
			for _, r := range e.Rounds {
				if r > b.Rounds {
					t.Errorf("%s has %d rounds, and expects something after round %d", b.Name, b.Rounds, r)
				}
			}
			if same, ok := BuiltinNamed(b.Name); !ok || same.Name != b.Name {
				t.Errorf("%s is not found by its name", b.Name)
			}
		}
	}
	for _, name := range want {
		if seen[name] != 1 {
			t.Errorf("%s is there %d times", name, seen[name])
		}
	}
	for name, n := range seen {
		if n > 1 {
			t.Errorf("%s is there %d times", name, n)
		}
	}
	if _, ok := BuiltinNamed("quik"); ok {
		t.Error("quik is an experiment")
	}
}

// builtinData are directories of made-up data sets, in the files, shapes and classes of those that built-in experiments read.
func builtinData(t *testing.T) map[string]string {
	questions := "text,category\n"
	for i := range 77 * 20 {
		questions += fmt.Sprintf("is %d what you ask,about %d\n", i%1000, i%77)
	}
	images := written(t, idx(2000, 100, 28))
	return map[string]string{"mnist": images, "fashion-mnist": images, "banking77": written(t, map[string]string{"train.csv": questions, "test.csv": questions})}
}

// Every built-in experiment can be run: a round of it, cut to two epochs and two nodes, all of them for a robust rule.
func TestEveryBuiltinRuns(t *testing.T) {
	t.Parallel()
	dirs, loader := builtinData(t), &Loader{}
	for _, b := range Builtins() {
		x := b.Experiment
		x.Rounds, x.Local.Epochs, x.Evaluation.Every = 1, min(x.Local.Epochs, 2), 1
		if x.Robust.Rule == "" {
			x.Cohort = CohortSettings{Nodes: 2}
		} else { // all 20 nodes send an update
			x.Architecture.Hidden = []int{20}
		}
		x.Data.Path = dirs[x.Data.Name]
		r, err := Run(t.Context(), x, RunConfig{Loader: loader})
		if err != nil {
			t.Errorf("%s: %v", b.Name, err)
		} else if r.Rounds != 1 || len(r.Series) != 1 || r.Name != b.Name {
			t.Errorf("%s: %+v", b.Name, r)
		}
	}
}

// quick comes near what all data in one place give, in every seed that is likely to be tried first.
func TestQuickLearns(t *testing.T) {
	b, _ := BuiltinNamed("quick")
	for seed := range uint64(3) {
		r, err := Run(t.Context(), b.Experiment, RunConfig{Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		if found, ok := b.Expected[0].Found(r); !ok || found < b.Expected[0].Value-.04 {
			t.Errorf("seed %d: accuracy %v, expected %v", seed, found, b.Expected[0].Value)
		}
	}
}

func TestFound(t *testing.T) {
	r := &Result{Final: Measured{Accuracy: .9}}
	for i, a := range []float64{.2, .5, .7, .6, .9} {
		r.Series = append(r.Series, Measurement{Round: 2 * (i + 1), Measured: Measured{Accuracy: a}})
	}
	for _, c := range []struct {
		e    Expected
		want float64
		ok   bool
	}{
		{final(.1, .2, "x"), .9, true},
		{after(6, .1, "x"), .7, true},
		{after(5, .1, "x"), 0, false}, // not measured
		{onAverage(.1, []int{4, 6, 8}, "x"), .6, true},
		{onAverage(.1, []int{8, 10, 12}, "x"), 0, false},
		{reached(.6, 1, "x"), 6, true},
		{reached(.91, 1, "x"), 0, false},
		{claim("x"), 0, false},
	} {
		got, ok := c.e.Found(r)
		if ok != c.ok || ok && (got < c.want-1e-12 || got > c.want+1e-12) {
			t.Errorf("%+v: %v, %t, want %v, %t", c.e, got, ok, c.want, c.ok)
		}
	}
	if got := final(.881, .006, "Li").Text; !strings.HasPrefix(got, "88.1 % ± 0.6 in the end (Li") {
		t.Errorf("text %q", got)
	}
}

// Numbers of sources are told with their own digits: .881, not .8809999999999999.
func TestExpectedHasTheSourcesDigits(t *testing.T) {
	for _, b := range Builtins() {
		for _, e := range b.Expected {
			for _, v := range []float64{e.Value, e.Spread} {
				if text := strconv.FormatFloat(v, 'g', -1, 64); len(text) > len("0.1234") {
					t.Errorf("%s: %s %s", b.Name, e.Metric, text)
				}
			}
		}
	}
}
