package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/simulate"
	"choir.example/simulate/partition"
)

// every configuration file that the program reads, by its struct.
var configFiles = map[string]any{
	"coordinator": coordinatorFile{}, "node": nodeFile{}, "job": jobFile{}, "schema": schemaFile{}, "column": schemaColumn{},
	"context": contextFile{}, "node.yaml": nodeContext{},
	"experiment": simulate.Experiment{}, "data": simulate.DataSettings{}, "partition": partition.Settings{}, "fleet": simulate.FleetSettings{},
	"architecture": model.Architecture{}, "layer": model.LayerSpec{}, "local": fedavg.LocalSettings{}, "strategy": fedavg.StrategySettings{},
	"robust": fedavg.RobustSettings{}, "compression": fedavg.Compression{}, "privacy": fedavg.Privacy{}, "cohort": simulate.CohortSettings{},
	"evaluation": simulate.EvaluationSettings{},
}

// Each key of each file: under a name with a letter too many it is refused with the line and the right name, and with a
// value of another type with the line and the key.
func TestEveryKeyIsChecked(t *testing.T) {
	for name, file := range configFiles {
		typ := reflect.TypeOf(file)
		for i := range typ.NumField() {
			key := typ.Field(i).Tag.Get("yaml")
			if key == "-" {
				continue // for programs alone
			}
			if key == "" {
				t.Fatalf("%s: field %s has no key", name, typ.Field(i).Name)
			}
			into := reflect.New(typ).Interface()
			err := decodeYAML("f.yaml", []byte("# a comment\n"+key+"x: 1\n"), into)
			hint, _ := err.(*hinted)
			if hint == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("f.yaml:2: unknown key %q", key+"x")) || !strings.Contains(hint.hint, `"`+key+`"`) {
				t.Errorf("%s: key %sx: %v, want the line, and %s as the nearest key", name, key, err, key)
			}
			for _, wrong := range wrongValues(typ.Field(i).Type) {
				err := decodeYAML("f.yaml", []byte("\n\n"+key+": "+wrong+"\n"), into)
				if err == nil || !strings.HasPrefix(err.Error(), "f.yaml:3: "+key) || !strings.Contains(err.Error(), "want ") {
					t.Errorf("%s: %s: %s: %v, want the line, the key and what is wanted", name, key, wrong, err)
				}
			}
			if err := decodeYAML("f.yaml", []byte(key+": "), into); err == nil {
				t.Errorf("%s: %s without a value passes", name, key)
			}
		}
	}
}

// wrongValues are of other types than t.
func wrongValues(t reflect.Type) []string {
	switch {
	case t == durationType:
		return []string{"fast", "30", "-1s", "[1s]", "{a: 1}"}
	case t.Kind() == reflect.String:
		return []string{"[a]", "{a: 1}", "true", "-5", "1.5", "2026-01-01", "0x1f", "!!binary eA=="}
	case t.Kind() == reflect.Struct:
		return []string{"mlp", "1", "[a]"}
	case t.Kind() == reflect.Bool:
		return []string{"yes", `"true"`, "1", "[true]"}
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Float64:
		return []string{"1", "{a: 1}", "[[[]]]", "[many]"}
	case t.Kind() == reflect.Slice:
		return []string{"1", "{a: 1}", "[[[]]]", "[1.5]"}
	case t.Kind() == reflect.Struct:
		return []string{"1", "many", "[1]"}
	case t.Kind() == reflect.Float64:
		return []string{"much", `"1"`, ".nan", ".inf", "[1]"}
	case t.Kind() == reflect.Uint32, t.Kind() == reflect.Uint64:
		return []string{"-1", "1.5", "many", `"1"`, "99999999999999999999", "[1]"}
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		return []string{"1.5", "many", `"1"`, "99999999999999999999", "[1]"}
	}
	panic("no wrong value for " + t.String())
}

func TestYAML(t *testing.T) {
	type inner struct {
		Name string `yaml:"name"`
	}
	type file struct {
		Text  string        `yaml:"text"`
		Wait  time.Duration `yaml:"wait"`
		Count uint32        `yaml:"count"`
		Rate  float64       `yaml:"rate"`
		On    bool          `yaml:"on"`
		List  []inner       `yaml:"list"`
	}
	for _, c := range []struct{ name, text, err string }{
		{"all", "text: \"12\"\nwait: 1m30s\ncount: 7\nrate: 1e-3\n'on': true\nlist: [{name: a}, {name: b}]\n", ""},
		{"a number for a text", "text: 12\n", `f.yaml:1: text: want a text, not "12"`},
		{"a text in quotes", "text: 'true'\n", ""},
		{"nothing", "# only a comment\n", ""},
		{"empty", "", ""},
		{"a list", "- a\n", "f.yaml:1: want keys with values, not a list"},
		{"no YAML", "text: [\n", "f.yaml:"},
		{"a tab", "text: a\n\tcount: 1\n", "f.yaml:2: found"},
		{"twice", "count: 1\ncount: 2\n", "f.yaml:2: count: given twice, first in line 1"},
		{"an anchor", "text: &a b\n", "f.yaml:1: text: anchors and aliases are not read here"},
		{"two documents", "text: a\n---\ntext: b\n", "f.yaml:2: a second document begins"},
		{"deep", "list:\n  - name: a\n  - nmae: b\n", `f.yaml:3: unknown key "nmae" in list[1]`},
		{"deep type", "list:\n  - name: [a]\n", "f.yaml:2: list[0].name: want a text, not a list"},
		{"too large", "count: 4294967296\n", "f.yaml:1: count: want a whole number from 0 to 4294967295"},
	} {
		var got file
		err := decodeYAML("f.yaml", []byte(c.text), &got)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.err)
		}
		if c.name == "all" && !reflect.DeepEqual(got, file{"12", 90 * time.Second, 7, 1e-3, true, []inner{{"a"}, {"b"}}}) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// A gigabyte is refused before it is held in memory.
func TestLargeConfigurationIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<30); err != nil {
		t.Skipf("no sparse files here: %v", err)
	}
	if err := readYAML(path, &nodeFile{}); err == nil || !strings.Contains(err.Error(), "this is no configuration file") {
		t.Errorf("a gigabyte: %v", err)
	}
}

// No text brings the decoder down, and whatever it accepts has no key that the struct lacks.
func FuzzDecodeYAML(f *testing.F) {
	for _, seed := range []string{"name: a\n", "hidden: [1, 2]\nduration: 30s\n", "? [a]\n: b\n", "a: &x [*x]\n", "!!binary x: y", "<<: {name: a}\n", "1: 2\n", "---\n---\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		j := defaultJob()
		_ = decodeYAML("f.yaml", b, &j) // it must come back
		var s schemaFile
		_ = decodeYAML("f.yaml", b, &s)
	})
}

// The commented files in deploy/local are what the program reads: also with every commented key switched on.
func TestDeployedFilesAreRead(t *testing.T) {
	for _, pattern := range []struct {
		glob string
		read func(path string) error
	}{
		{"c*.yaml", func(p string) error { _, err := readCoordinator(p); return err }},
		{"n*.yaml", func(p string) error { _, err := readNode(p); return err }},
		{"job.yaml", func(p string) error { _, err := readJob(p, jobFiles{}, io.Discard); return err }},
		{"shop.yaml", func(p string) error { _, err := readSchema(p); return err }},
	} {
		paths, err := filepath.Glob(filepath.Join("..", "..", "deploy", "local", pattern.glob))
		if err != nil || len(paths) == 0 {
			t.Fatalf("no files %s: %v", pattern.glob, err)
		}
		for _, path := range paths {
			if err := pattern.read(path); err != nil {
				t.Errorf("%v", err)
			}
		}
	}
}

// What deploy/local/job.yaml shows in comments is what holds without it, and every key of a job stands there.
func TestJobFileShowsItsDefaults(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "local", "job.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]bool{}
	var switched []string
	for line := range strings.Lines(string(text)) {
		key, _, ok := strings.Cut(strings.TrimPrefix(line, "# "), ":")
		if !ok || strings.ContainsAny(key, " ") {
			continue
		}
		explained[key] = true
		if strings.HasPrefix(line, "# ") && key != "where" && key != "validation" && key != "public" {
			switched = append(switched, strings.TrimPrefix(line, "# "))
		}
	}
	typ := reflect.TypeFor[jobFile]()
	for i := range typ.NumField() {
		if key := typ.Field(i).Tag.Get("yaml"); !explained[key] {
			t.Errorf("job.yaml does not explain %s", key)
		}
	}
	j := defaultJob()
	want := j
	if err := decodeYAML("job.yaml", []byte(strings.Join(switched, "")), &j); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(j, want) {
		t.Errorf("job.yaml shows %+v\nthe defaults are %+v", j, want)
	}
}

func TestParseWhere(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "",
		"region in [1, 2]":                   "region:1|2",
		"region in[north]":                   "region:north",
		"tier = gold":                        "tier:gold",
		"region in [1,2] and tier=gold":      "region:1|2 tier:gold",
		"region is 1":                        "error",
		"region in []":                       "error",
		"region in [1,]":                     "error",
		"region in [1] or tier = gold":       "error",
		"region in [1] and":                  "error",
		"region in [[1]]":                    "error",
		"in [1]":                             "error",
		"region = a b":                       "error",
		"region in [1] and region in [2, 3]": "region:1 region:2|3",
	} {
		got, err := parseWhere(text)
		var parts []string
		for _, m := range got {
			parts = append(parts, m.Label+":"+strings.Join(m.Values, "|"))
		}
		if said := strings.Join(parts, " "); (want == "error") != (err != nil) || err == nil && said != want {
			t.Errorf("%q: %q, %v, want %q", text, said, err, want)
		}
	}
}
