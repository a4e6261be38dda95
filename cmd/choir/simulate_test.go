package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"choir.example/simulate"
)

// What show prints of an experiment is, read again, that experiment.
func TestBuiltinsAsFiles(t *testing.T) {
	for _, b := range simulate.Builtins() {
		text, err := writeYAML(b.Experiment)
		if err != nil {
			t.Fatal(err)
		}
		var got simulate.Experiment
		if err := decodeYAML(b.Name, text, &got); err != nil || !reflect.DeepEqual(got, b.Experiment) {
			t.Errorf("%s: %v\n%s\n%+v\n%+v", b.Name, err, text, got, b.Experiment)
		}
	}
}

// fullExperiment has something in every key, texts that look like something else among them.
func fullExperiment() (x simulate.Experiment) {
	fillValue(reflect.ValueOf(&x).Elem())
	x.Own = simulate.Own{}
	x.Name, x.Source = "1e3", "a: b # c\n\"d\""
	return x
}

func fillValue(v reflect.Value) {
	switch {
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if tag := v.Type().Field(i).Tag.Get("yaml"); tag != "" && tag != "-" {
				fillValue(v.Field(i))
			}
		}
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fillValue(v.Index(1)) // the first one stays zero
	case v.Kind() == reflect.String:
		v.SetString("true")
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(-7)
	case v.CanUint():
		v.SetUint(1<<64 - 1)
	case v.CanFloat():
		v.SetFloat(1.0000000000000002e-7)
	}
}

func TestEveryKeyIsWrittenAndRead(t *testing.T) {
	x := fullExperiment()
	text, err := writeYAML(x)
	if err != nil {
		t.Fatal(err)
	}
	var got simulate.Experiment
	if err := decodeYAML("x.yaml", text, &got); err != nil || !reflect.DeepEqual(got, x) {
		t.Errorf("%v\n%s\n%+v\n%+v", err, text, got, x)
	}
}

// Every key can be set by its path, alone, as a file sets it.
func TestSetYAML(t *testing.T) {
	var x simulate.Experiment
	for _, s := range []string{
		"local.learning_rate=0.05", "architecture.layers=[{kind: dense, units: 3}, {kind: dense, units: 4}]", "architecture.layers.1.units=5",
		"seeds=[1, 2]", "name=12", "source=a=b, c", "strategy.uniform=true", "data.path=",
	} {
		if err := setYAML("--set", s, &x); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	if x.Local.LearningRate != .05 || x.Architecture.Layers[1].Units != 5 || x.Architecture.Layers[0].Units != 3 || !slices.Equal(x.Seeds, []uint64{1, 2}) ||
		x.Name != "12" || x.Source != "a=b, c" || !x.Strategy.Uniform {
		t.Errorf("%+v", x)
	}
	for s, want := range map[string]string{
		"local.learning_rate":        `--set "local.learning_rate", want path=value`,
		"=3":                         `--set "=3", want path=value`,
		"local.learning_rat=1":       `--set local.learning_rat: unknown key "learning_rat" in local`,
		"lokal.learning_rate=1":      `--set lokal.learning_rate: unknown key "lokal"`,
		"rounds.every=1":             `--set rounds.every: rounds is a value and has no key "every"`,
		"architecture.layers.2.x=1":  `--set architecture.layers.2.x: architecture.layers has 2 items`,
		"architecture.layers.-1.x=1": `--set architecture.layers.-1.x: architecture.layers has 2 items`,
		"rounds=ten":                 `--set rounds: want a whole number, not "ten"`,
		"rounds=":                    `--set rounds: no value`,
		"rounds=[":                   `--set rounds: `,
		"rounds=1\n---\n2":           `--set rounds: `,
		"local=3":                    `--set local: want keys with values, not "3"`,
		"own.strategy=1":             `--set own.strategy: unknown key "own"`,
	} {
		if err := setYAML("--set", s, &x); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", s, err, want)
		}
	}
}

// The file that docs/simulate.md shows is one, and has every key that there is.
func TestExperimentsAreExplained(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "simulate.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(doc), "```yaml\n")
	text, _, ok := strings.Cut(after, "```")
	if !ok {
		t.Fatal("no file in docs/simulate.md")
	}
	var x simulate.Experiment
	w := yamlWalk{"docs/simulate.md", map[string]int{}}
	if err := w.decode([]byte(text), &x); err != nil {
		t.Fatal(err)
	}
	var missing func(key string, v reflect.Value)
	missing = func(key string, v reflect.Value) {
		if _, there := w.lines[key]; !there && key != "" {
			t.Errorf("docs/simulate.md does not show %s", key)
		}
		if v.Kind() == reflect.Struct {
			for i := range v.NumField() {
				if name := v.Type().Field(i).Tag.Get("yaml"); name != "" && name != "-" {
					missing(dotted(key, name), v.Field(i))
				}
			}
		}
	}
	missing("", reflect.ValueOf(x))
}

func FuzzSetYAML(f *testing.F) {
	for _, s := range []string{"rounds=3", "architecture.layers=[{}]", "a.b=c", "seeds=[1,", "data.name=&x *x", "seeds.0=1", "=", "local={epochs: 1}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		x := fullExperiment()
		if err := setYAML("--set", s, &x); err != nil && !strings.HasPrefix(err.Error(), "--set ") {
			t.Errorf("%q: %v", s, err)
		}
	})
}

func TestSeedLists(t *testing.T) {
	for text, want := range map[string][]uint64{
		"": nil, "3": {3}, "0-2": {0, 1, 2}, "0, 7-8,5": {0, 7, 8, 5}, "18446744073709551615": {1<<64 - 1}, "18446744073709551614-18446744073709551615": {1<<64 - 2, 1<<64 - 1},
	} {
		if got, err := parseSeeds(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"a", "-1", "2-1", "0-", "1,,2", "0-10000", "0-18446744073709551615", "18446744073709551616"} {
		if got, err := parseSeeds(text); err == nil || !strings.Contains(err.Error(), "want numbers and ranges") {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// Every cell belongs to exactly one share, whether shares are counted from 0 or from 1.
func TestShares(t *testing.T) {
	for n := 1; n < 6; n++ {
		for first := range 2 {
			counted := make([]int, 17)
			for i := range n {
				s, err := parseShard(fmt.Sprintf("%d/%d", i+first, n), "--shard")
				if err != nil {
					t.Fatal(err)
				}
				for c := range counted {
					if s.mine(c) {
						counted[c]++
					}
				}
			}
			if slices.Min(counted) != 1 || slices.Max(counted) != 1 {
				t.Errorf("%d shares from %d: %v", n, first, counted)
			}
		}
	}
	for _, text := range []string{"", "1", "1/", "/2", "a/2", "-1/2", "3/2", "0/0", "1/-1", "1/2/3", "0/99999999"} {
		if s, err := parseShard(text, "--shard"); err == nil {
			t.Errorf("%q is share %v", text, s)
		}
	}
}

func TestSharesOfSchedulers(t *testing.T) {
	for _, c := range []struct {
		env  string
		want string // share, or the beginning of the error
	}{
		{"", "0/1"},
		{"JOB_COMPLETION_INDEX=0 JOB_COMPLETIONS=4", "0/4"},
		{"JOB_COMPLETION_INDEX=3 JOB_COMPLETIONS=4", "3/4"},
		{"JOB_COMPLETION_INDEX=3", "JOB_COMPLETION_INDEX is set, and JOB_COMPLETIONS is not"},
		{"JOB_COMPLETION_INDEX=5 JOB_COMPLETIONS=4", `JOB_COMPLETION_INDEX/JOB_COMPLETIONS "5/4"`},
		{"SLURM_ARRAY_TASK_ID=0 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=0", "0/4"},
		{"SLURM_ARRAY_TASK_ID=4 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=1", "3/4"},
		{"SLURM_ARRAY_TASK_ID=14 SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_MIN=10 SLURM_ARRAY_TASK_STEP=2", "2/3"},
		{"SLURM_ARRAY_TASK_ID=1", "SLURM_ARRAY_TASK_ID is set, and SLURM_ARRAY_TASK_COUNT is not"},
		{"SLURM_ARRAY_TASK_ID=x SLURM_ARRAY_TASK_COUNT=3", `SLURM_ARRAY_TASK_ID is "x", want a number`},
		{"JOB_COMPLETION_INDEX=4 JOB_COMPLETIONS=4", "JOB_COMPLETION_INDEX is 4, and JOB_COMPLETIONS 4: the last share is 4-1"},

		// --array=0-14:7 and 0-15:7; 0,1,3, and the same of a Slurm that says no _MAX; 0,2,5,6 with the step of the first two
		{"SLURM_ARRAY_TASK_ID=14 SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_MAX=14 SLURM_ARRAY_TASK_STEP=7", "2/3"},
		{"SLURM_ARRAY_TASK_ID=7 SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_MAX=15 SLURM_ARRAY_TASK_STEP=7", "1/3"},
		{"SLURM_ARRAY_TASK_ID=0 SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_MAX=3 SLURM_ARRAY_TASK_STEP=1",
			"the array has gaps: SLURM_ARRAY_TASK_MIN is 0, _MAX 3 and _STEP 1, which would be 4 tasks, and _COUNT is 3"},
		{"SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_STEP=1",
			"SLURM_ARRAY_TASK_ID is 3, which is no place in an array whose _MIN is 0, _STEP 1 and _COUNT 3"},
		{"SLURM_ARRAY_TASK_ID=5 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_MAX=6 SLURM_ARRAY_TASK_STEP=2", "SLURM_ARRAY_TASK_ID is 5, which is no place"},
		{"SLURM_ARRAY_TASK_ID=1 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=2", "SLURM_ARRAY_TASK_ID is 1, which is no place"},
	} {
		env := map[string]string{}
		for _, pair := range strings.Fields(c.env) {
			k, v, _ := strings.Cut(pair, "=")
			env[k] = v
		}
		s, err := scheduledShard(func(k string) string { return env[k] })
		if got := s.String(); err == nil && got != c.want || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %s, %v, want %s", c.env, got, err, c.want)
		}
	}
}

func TestCombinations(t *testing.T) {
	f := sweepFlags{Grid: []string{"rounds=1,2", "architecture.hidden=[3,4],[5]"}, List: []string{"strategy.name=fedprox,strategy.mu=1", "strategy.name=fedavg"}}
	all, err := f.combinations()
	if err != nil || len(all) != 8 {
		t.Fatalf("%d: %v", len(all), err)
	}
	if got := fmt.Sprint(all[0].changes); got != "[--list strategy.name=fedprox --list strategy.mu=1 --grid rounds=1 --grid architecture.hidden=[3,4]]" || all[7].text != "name=fedavg rounds=2 hidden=[5]" {
		t.Errorf("%s; %s", got, all[7].text)
	}
	f.Experiments, f.Seeds = []string{"quick", "fedprox-synthetic-*-0-fedavg"}, "0-1"
	f.Grid, f.List = []string{"local.epochs=1,2"}, nil
	cells, err := f.cells(simulate.Math)
	if err != nil || len(cells) != 4*2*2 {
		t.Fatalf("%d: %v", len(cells), err)
	}
	names := map[string]bool{}
	for _, c := range cells {
		names[c.dir] = true
	}
	if len(names) != len(cells) {
		t.Errorf("%d names of %d cells", len(names), len(cells))
	}
	for _, c := range []struct {
		f    sweepFlags
		want string
	}{
		{sweepFlags{Experiments: []string{"quick"}, Grid: []string{"rounds"}}, `--grid "rounds", want PATH=VALUE,VALUE`},
		{sweepFlags{Experiments: []string{"quick"}, Grid: []string{"roundz=1"}}, `--grid roundz: unknown key "roundz"`},
		{sweepFlags{Experiments: []string{"quick"}, Grid: []string{"cohort.share=0.1,0"}}, `--grid cohort.share: 0 would stand for the usual value, the whole fleet`},
		{sweepFlags{Experiments: []string{"quick"}, Grid: []string{"rounds=1,1"}}, `the sweep has quick rounds=1 with seed 0 twice`},
		{sweepFlags{Experiments: []string{"quick"}, Seeds: "1,1"}, `the sweep has quick  with seed 1 twice`},
		{sweepFlags{Experiments: []string{"quick"}, List: []string{"rounds=1,2"}}, `--list "rounds=1,2", want PATH=VALUE`},
		{sweepFlags{Experiments: []string{"qu*k*k"}}, `no experiment is called "qu*k*k"`},
		{sweepFlags{Experiments: []string{"quick"}, Seeds: "0-999", Grid: []string{"rounds=" + strings.Repeat("1,", 200) + "2"}}, `the sweep has`},
	} {
		if _, err := c.f.cells(simulate.Math); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

// Who follows the advice and removes coordinators and nodes that a run cannot go on with has it begin anew, whatever snapshot there is.
func TestSystemRunWithoutItsFederationBeginsAnew(t *testing.T) {
	dir, x := filepath.Join(t.TempDir(), "run"), simulate.Experiment{Name: "x", Seeds: []uint64{1}}
	d, _, _, err := openRunDir(dir, &x, simulate.System, false)
	if err != nil {
		t.Fatal(err)
	}
	d.unlock()
	if err := os.WriteFile(d.file(snapshotName), []byte("a snapshot of coordinators and nodes that are gone"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, start, done, err := openRunDir(dir, &x, simulate.System, true)
	if err != nil || start != nil || done != nil || len(d.points) != 0 {
		t.Fatalf("it goes on from %+v: %v", start, err)
	}
	defer d.unlock()
	if said := d.standing(start, 3); !strings.Contains(said, "begins anew") {
		t.Error(said)
	}
}
