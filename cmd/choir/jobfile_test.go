package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever is wrong in a job's file is said with the file, the line, the key of the file and the range in its units.
func TestJobFileErrors(t *testing.T) {
	const schema = "name: toy\nunit: row\nlabel: y\ncolumns:\n  - {name: x, kind: numeric, min: 0, max: 1}\n  - {name: y, kind: boolean}\n"
	const job = "name: j\nschema: toy.yaml\n"
	secret := "choir-token-1." + strings.Repeat("c2VjcmV0", 40)
	for _, c := range []struct{ name, job, schema, want string }{
		{"name", "# a comment\nname: Toy\nschema: toy.yaml\n", schema, `job.yaml:2: name "Toy": want 1 to 63 of`},
		{"no name", "schema: toy.yaml\n", schema, "job.yaml: name is missing"},
		{"model", job + "model: A b\n", schema, `job.yaml:3: model "A b": want 1 to 63 of`},
		{"duration", job + "duration: 5ms\n", schema, "job.yaml:3: duration is 5ms, want 100ms to 168h0m0s"},
		{"wait", job + "wait: 25h\n", schema, "job.yaml:3: wait is 25h0m0s, want 0s to 24h0m0s"},
		{"weight cap", job + "weight_cap: 0\n", schema, "job.yaml:3: weight_cap is 0, want 1 to 1048576"},
		{"rounds", job + "\nrounds: 2000000\n", schema, "job.yaml:4: rounds is 2000000, want 1 to 1000000"},
		{"a key that moved", job + "local_epochs: 3\n", schema, `job.yaml:3: unknown key "local_epochs"`},
		{"rate", job + "local:\n  epochs: 1\n  learning_rate: -1\n", schema, "job.yaml:5: local: learning_rate is -1, want above 0"},
		{"a wide layer", job + "architecture: {name: mlp, hidden: [4000000]}\n", schema, "job.yaml:3: architecture: "},
		{"two architectures", job + "architecture: {name: mlp, layers: [{kind: dense, units: 1}]}\n", schema, "job.yaml:3: architecture: both a name and layers"},
		{"a strategy's field", job + "strategy:\n  name: fedavg\n  mu: 1\n", schema, "job.yaml:5: strategy: mu is for"},
		{"publish", job + "publish: never\n", schema, "job.yaml:3: publish is \"never\", want none"},
		{"validation for nothing", job + "publish: none\nvalidation: rows.csv\n", schema, "job.yaml:3: publish is none, and validation is for a release"},
		{"gate", job + "gate_int8: 2\n", schema, "job.yaml:3: gate_int8 is 2, want the AUC that may be lost, 0 to 1"},
		{"where", job + "where: region is 1\n", schema, `job.yaml:3: where: "region is 1", want LABEL in`},
		{"where twice", job + "where: a = 1 and a = 2\n", schema, "job.yaml:3: where: label a is named twice"},
		{"goal", job + "goal: 1\n", schema, "job.yaml:3: goal 1 is below minimum_cohort 2"},
		{"over-selection", job + "over_selection_percent: 10\n", schema, "job.yaml:3: over_selection_percent is 10, but goal 0"},
		{"clip", job + "privacy:\n  clip: 1e-9\n", schema, "job.yaml:4: privacy: clip is 1e-09, want at least"},
		{"students", job + "student_rows: 0\n", schema, "job.yaml:3: student_rows is 0, want 1 to 4194304"},
		{"a default out of range", job + "max_attempts: 0\n", schema, "job.yaml:3: max_attempts is 0, want 1 to 1000"},
		{"no schema file", "name: j\nschema: nowhere.yaml\n", schema, "job.yaml:2: schema: read schema: open "},
		{"no unit", job, strings.Replace(schema, "unit: row\n", "", 1), `toy.yaml:1: schema "toy": name and unit are required`},
		{"label", job, strings.Replace(schema, "label: y", "label: x", 1), `toy.yaml:3: schema toy: label "x" is not a boolean, category or id column`},
		{"one column", job, schema[:strings.Index(schema, "  - {name: y")], "toy.yaml:4: schema toy: 1 columns, want 2 to 4096"},
		{"column", job, strings.Replace(schema, "max: 1", "max: 0", 1), "toy.yaml:5: schema toy: column x: range [0, 0] is empty"},
		{"kind", job, strings.Replace(schema, "boolean", "bool", 1), `toy.yaml:6: schema toy: column y: kind "bool", want numeric, category, boolean`},
		{"a column twice", job, strings.Replace(schema, "name: y", "name: x", 1), `toy.yaml:6: schema toy: column 2: name "x" is empty, padded or not unique`},
		{"validation", job + "validation: rows.csv\n", schema, `job.yaml:3: validation: DIR/rows.csv:3: column x: "many" is not a number`},
		{"public", job + "public: rows.csv\n", schema, `job.yaml:3: public: DIR/rows.csv:3: column x: "many" is not a number`},
		{"validation without rows", job + "validation: none.csv\n", schema, "job.yaml:3: validation: DIR/none.csv has no rows"},
		{"no validation", job + "validation: nowhere.csv\n", schema, "job.yaml:3: validation: open "},
		{"a secret for a validation set", job + "validation: n1.token\n", schema,
			`job.yaml:3: validation: DIR/n1.token:1: column "choir-token-1.c2VjcmV0c2VjcmV0c2VjcmV0c2…" is not in schema toy`},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{
			"job.yaml": c.job, "toy.yaml": c.schema, "rows.csv": "x,y\n0.5,true\nmany,true\n", "none.csv": "x,y\n", "n1.token": secret,
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want := strings.ReplaceAll(c.want, "DIR", dir)
		_, err := readJob(filepath.Join(dir, "job.yaml"), jobFiles{}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, want[:strings.Index(want, ":")])+want[strings.Index(want, ":"):]) {
			t.Errorf("%s: %v, want %s", c.name, err, want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the secret is shown: %v", c.name, err)
		}
	}
}
